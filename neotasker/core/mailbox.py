"""The mailbox: the way into an event loop of another thread.

**Guarantees**, **assumes**: see `Mailbox`.

The compiled twin is ``mailbox.pxi``; neither leaves anything out.
"""

from __future__ import annotations

import logging
import threading

__all__ = ["Mailbox"]

logger = logging.getLogger("neotasker")


class Mailbox:
    """A queue into another thread's loop that costs one wake-up per burst.

    Guarantees: every item that `post` accepted is handed to *handle* once, in order,
    by `drain`, or is returned by `close`.

    Assumes: ``wake()`` makes the loop call `drain` soon, in its own thread, and may
    be called from any thread.

    The lock protects the items and whether a wake-up is on its way.
    """

    __slots__ = ("_closed", "_handle", "_items", "_lock", "_posted", "_wake")

    def __init__(self, wake, handle):
        self._wake = wake
        self._handle = handle
        self._lock = threading.RLock()
        self._items = []
        self._posted = False
        self._closed = False

    def post(self, item):
        """Hand over an item; return False if the mailbox is closed.

        If the loop cannot be woken the item is taken back, and the exception raised.
        """
        with self._lock:
            if self._closed:
                return False
            self._items.append(item)
            first = not self._posted
            self._posted = True
        if first:
            try:
                self._wake()
            except BaseException:
                if self._take_back(item):
                    raise
                # Somebody else's wake-up has come so far.
        return True

    def _take_back(self, item):
        """Let the next item wake the loop, and take this one out; False if it is gone."""
        with self._lock:
            self._posted = False
            for at, other in enumerate(self._items):
                if other is item:
                    del self._items[at]
                    return True
        return False

    def drain(self):
        """Handle what was posted: called in the loop's thread."""
        with self._lock:
            items, self._items = self._items, []
            self._posted = False
        for item in items:
            try:
                self._handle(item)
            except BaseException:
                logger.exception("exception in the handler of a mailbox")

    def close(self):
        """Refuse further items and return those that were not handled."""
        with self._lock:
            self._closed = True
            items, self._items = self._items, []
        return items

    def abandon(self):
        """Do what `close` does, in a forked child."""
        self._lock = threading.RLock()
        return self.close()

    def __len__(self):
        return len(self._items)
