"""Where the items of a queue worker wait: in one line, or in one line per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import count
from typing import Any

from ...base.report import Reporter
from ...core import Mailbox

__all__ = ["Fifo", "Inbox", "Keyed", "Store"]

logger = Reporter("neotasker")


class Inbox:
    """Items in the order in which they came, on their way from many threads to a store.

    Guarantees: `post` costs next to nothing, and may be called anywhere; the first item
    after a `sort` calls *wake*. After `close` nothing is accepted. An item that was
    accepted comes to the store once.

    Assumes: one call of `sort` at a time, and a call of it after `due` is set, even when
    nothing is waiting. Another thread may have sorted the item just before its *wake* was
    called; until the mailbox is drained again, it calls no further *wake*.
    """

    __slots__ = ("_mailbox", "_wake", "due", "post")

    def __init__(self, wake: Callable[[], object], append: Callable[[Any], object]) -> None:
        self._wake = wake
        self._mailbox: Mailbox = Mailbox(self._call_for_sort, append)
        self.due = False
        """Whether *wake* was called since the last `sort`."""
        self.post: Callable[[Any], bool] = self._mailbox.post
        """Add an item; return False if that is too late."""

    def _call_for_sort(self) -> None:
        self.due = True
        self._wake()

    def __len__(self) -> int:
        return len(self._mailbox)

    def sort(self) -> None:
        """Hand all that has come to the store, in order."""
        self.due = False  # first: what is posted from now on calls again
        self._mailbox.drain()

    def close(self) -> None:
        """Accept nothing from now on."""
        self._mailbox.shut()


class Fifo:
    """Items in the order in which they came.

    Assumes: one call at a time, by who has the sorter's token; `ready` and ``len`` apart.
    """

    __slots__ = ("_items", "append")

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self.append: Callable[[Any], None] = self._items.append

    def __len__(self) -> int:
        return len(self._items)

    def ready(self) -> bool:
        """Return whether there is an item to take."""
        return bool(self._items)

    def take(self, most: int) -> tuple[None, list[Any]]:
        """Take up to *most* items, with what `done` is to be given.

        Raises:
            IndexError: there is none.
        """
        items = [self._items.popleft()]
        while self._items and len(items) < most:
            items.append(self._items.popleft())
        return None, items

    def done(self, line: Any) -> None:
        """Note that the items of a `take` are processed."""

    def put_back(self, line: Any, items: list[Any]) -> None:
        """Put items that were taken back to the front."""
        self._items.extendleft(reversed(items))

    def rest(self) -> list[Any]:
        """Take all items, in order."""
        items = list(self._items)
        self._items.clear()
        return items


class _Line:
    """The items of one key."""

    __slots__ = ("items", "key", "queued", "taken")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.items: deque[tuple[int, Any]] = deque()
        self.queued = False  # among those that are ready, or taken from
        self.taken: list[int] = []  # serial numbers of what is being processed


class Keyed:
    """One line per key: from each, one `take` at a time; the lines take turns.

    Assumes: one call at a time, by who has the sorter's token; `ready` and ``len`` apart.
    Hash and equality of keys are the user's code, which may put or stop while it is called.
    """

    __slots__ = ("_count", "_lines", "_ready", "_serial")

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._ready: deque[_Line] = deque()
        self._serial = count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def ready(self) -> bool:
        """Return whether there is an item to take."""
        return bool(self._ready)

    def append(self, entry: tuple[Hashable, Any]) -> None:
        """Add an item, given with its key."""
        key, item = entry
        try:
            line = self._lines.get(key)
            if line is None:
                line = self._lines.setdefault(key, _Line(key))
        except BaseException:  # of the key's hash or equality
            logger.exception("error in a key of a queue worker; its item goes by itself")
            line = _Line(key)
        line.items.append((next(self._serial), item))
        self._count += 1
        if not line.queued:
            line.queued = True
            self._ready.append(line)

    def take(self, most: int) -> tuple[_Line, list[Any]]:
        """Take up to *most* items of one key, with what `done` is to be given.

        Raises:
            IndexError: there is none to take now.
        """
        line = self._ready.popleft()
        items: list[Any] = []
        line.taken.clear()
        while line.items and len(items) < most:
            serial, item = line.items.popleft()
            items.append(item)
            line.taken.append(serial)
        self._count -= len(items)
        return line, items

    def done(self, line: _Line) -> None:
        """Note that the items of a `take` are processed: the next of the key may be taken."""
        if line.items:
            self._ready.append(line)
            return
        line.queued = False
        try:
            if self._lines.get(line.key) is line:
                del self._lines[line.key]
        except BaseException:  # of the key's hash or equality
            logger.exception("error in a key of a queue worker")

    def put_back(self, line: _Line, items: list[Any]) -> None:
        """Put items that were taken back to the front of their line."""
        if items:
            serials = line.taken[-len(items) :]
            line.items.extendleft(reversed(list(zip(serials, items, strict=True))))
            self._count += len(items)

    def rest(self) -> list[Any]:
        """Take all items, in the order in which they came."""
        lines = {id(line): line for line in (*self._lines.values(), *self._ready)}
        entries = [entry for line in lines.values() for entry in line.items]
        entries.sort(key=lambda entry: entry[0])
        self._lines.clear()
        self._ready.clear()
        self._count = 0
        return [item for _, item in entries]


Store = Fifo | Keyed
