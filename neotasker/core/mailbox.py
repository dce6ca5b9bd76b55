"""The mailbox: the way into an event loop of another thread.

**Guarantees**, **assumes**: see `Mailbox`.

The compiled twin is ``mailbox.pxi``, which has a mutex of one byte in place of containers
that do one thing at a time.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import repeat

from ..base.report import Reporter

__all__ = ["Mailbox"]

logger = Reporter("neotasker")

_popleft = deque.popleft
_TRIES = 3  # to announce what others rely on


class Mailbox:
    """A queue into another thread's loop that costs one wake-up per burst.

    Guarantees: every item that `post` accepted is handed to *handle* once, in order,
    by `drain`, or is returned by `close`. Whatever `post` is interrupted by, what lies in the
    mailbox has a wake-up on its way; its own item is taken out if that is still possible.

    Assumes: ``wake()`` makes the loop call `drain` soon, in its own thread, and may
    be called from any thread. A wake-up too many does no harm.

    There is no lock that a signal handler or finalizer could find taken by its own thread.
    The items are in a deque, and ``quiet`` is there while no wake-up is on its way; one
    operation of either is atomic and ordered. Each item has an entry that is equal to nothing
    else: who takes that out has the item. Who posts puts the item in before the look at
    ``quiet``; `drain` puts ``quiet`` back before the look at the items. So one of the two
    sees the other, also if one runs in the middle of the other. In the same way `close` and
    `post` see each other.
    """

    __slots__ = ("_closed", "_handle", "_items", "_quiet", "_wake")

    def __init__(self, wake, handle):
        self._wake = wake
        self._handle = handle
        self._items = deque()
        self._quiet = {None}
        self._closed = False

    def post(self, item):
        """Hand over an item; return False if the mailbox is closed.

        If the loop cannot be woken the item is taken back, and the exception raised.
        """
        if self._closed:
            return False
        entry = repeat(item)
        items, quiet = self._items, self._quiet
        mine = False  # the wake-up
        try:
            items.append(entry)
            if self._closed:  # and `close` may have looked before
                return not _take(items, entry)
            if quiet:
                quiet.pop()
                mine = True
                self._wake()
        except BaseException as exc:
            if not mine and type(exc) is KeyError:
                return True  # somebody else has taken it
            # Inline: near the limit of recursion there is no other call of Python to be had.
            quiet.add(None)
            try:
                items.remove(entry)
                lost = True
            except ValueError:
                lost = False
            if items:
                self._pass_on()
            if lost or not isinstance(exc, Exception):
                raise
            # Somebody else's wake-up has come so far.
        return True

    def _pass_on(self):
        """Announce what others have posted and rely on a wake-up that may not come."""
        quiet = self._quiet
        for _ in range(_TRIES):
            quiet.add(None)
            if not self._items:
                return
            quiet.clear()
            try:
                self._wake()
            except BaseException:
                continue
            return
        quiet.add(None)
        logger.error("a mailbox could not wake its loop; the next post tries again")

    def drain(self):
        """Handle what was posted: called in the loop's thread."""
        self._quiet.add(None)
        items = self._items
        batch = []
        done = 0
        try:
            # In one call: no handler of a signal comes between taking and knowing it.
            with suppress(IndexError):  # somebody has taken out his own
                batch.extend(map(_popleft, repeat(items, len(items))))
            for entry in batch:
                item = next(entry)
                try:
                    # In one line: nothing comes between the count and the call.
                    (done := done + 1) and self._handle(item)
                except BaseException:
                    logger.exception("exception in the handler of a mailbox")
                item = None
        except BaseException:  # a signal's handler: the rest is for another time
            items.extendleft(reversed(batch[done:]))
            self._pass_on()
            raise
        finally:
            # What an item has raised may know this frame, which must not lead back to it.
            item = entry = batch = None

    def shut(self):
        """Refuse further items; those that came before can be drained."""
        self._closed = True

    def close(self):
        """Refuse further items and return those that were not handled."""
        self._closed = True
        rest = []
        while self._items:
            try:
                rest.append(next(self._items.popleft()))
            except IndexError:  # who posted it has taken it out
                break
        return rest

    def abandon(self, handle=None):
        """Do what `close` does, in a forked child.

        Parameters:
            handle: gets what `drain` has taken already, if it was that which forked.
        """
        if handle is not None:
            self._handle = handle
        return self.close()

    def __len__(self):
        return len(self._items)


def _take(items, entry):
    """Take an entry out; return False if somebody else has it."""
    try:
        items.remove(entry)
    except ValueError:
        return False
    return True
