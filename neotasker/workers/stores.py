"""Where the items of a queue worker wait: in one line, or in one line per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import count
from typing import Any

from .._accel import Mailbox

__all__ = ["Fifo", "Inbox", "Keyed", "Store"]


class Inbox:
    """Items in the order in which they came, from many threads to one.

    Guarantees: `post` costs next to nothing; the first item after a `take` that found
    none calls *wake*. After `close` nothing is accepted.

    Assumes: `take_item`, `refill` and `rest` are called by one thread at a time.
    """

    __slots__ = ("_items", "_last", "_mailbox", "post", "take_item")

    def __init__(self, wake: Callable[[], object]) -> None:
        self._items: deque[Any] = deque()
        self._last: list[Any] = []  # what was on its way at the close
        self._mailbox: Mailbox = Mailbox(wake, self._items.append)
        self.post: Callable[[Any], bool] = self._mailbox.post
        """Add an item; return False if that is too late."""
        self.take_item: Callable[[], Any] = self._items.popleft
        """Take the next item; raises IndexError if `refill` is to be called."""

    def __len__(self) -> int:
        return len(self._items) + len(self._mailbox) + len(self._last)

    def ready(self) -> bool:
        """Return whether there is an item to take."""
        return bool(self._items or len(self._mailbox) or self._last)

    def refill(self) -> bool:
        """Fetch what has come; return whether there is an item to take."""
        if not self._items:
            self._mailbox.drain()
        if not self._items and self._last:
            self._items.extend(self._last)
            self._last = []
        return bool(self._items)

    def close(self) -> None:
        """Accept nothing from now on."""
        self._last += self._mailbox.close()

    def rest(self) -> list[Any]:
        """Take all items, in order."""
        items = [*self._items, *self._last]
        self._items.clear()
        self._last = []
        return items


class Fifo:
    """Items in the order in which they came.

    Assumes: every method is called under the lock of the owner.
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

    __slots__ = ("items", "key", "queued")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.items: deque[tuple[int, Any]] = deque()
        self.queued = False  # among those that are ready, or taken from


class Keyed:
    """One line per key: from each, one `take` at a time; the lines take turns.

    Assumes: every method is called under the lock of the owner, a reentrant one: hash
    and equality of keys are the user's code.
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
        line = self._lines.get(key)
        if line is None:
            line = self._lines.setdefault(key, _Line(key))
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
        items = [line.items.popleft()[1]]
        while line.items and len(items) < most:
            items.append(line.items.popleft()[1])
        self._count -= len(items)
        return line, items

    def done(self, line: _Line) -> None:
        """Note that the items of a `take` are processed: the next of the key may be taken."""
        if line.items:
            self._ready.append(line)
        else:
            line.queued = False
            del self._lines[line.key]

    def put_back(self, line: _Line, items: list[Any]) -> None:
        """Put items that were taken back to the front of their line."""
        line.items.extendleft((-1, item) for item in reversed(items))
        self._count += len(items)

    def rest(self) -> list[Any]:
        """Take all items, in the order in which they came."""
        entries = sorted(
            (entry for line in self._lines.values() for entry in line.items),
            key=lambda entry: entry[0],
        )
        self._lines.clear()
        self._ready.clear()
        self._count = 0
        return [item for _, item in entries]


Store = Fifo | Keyed
