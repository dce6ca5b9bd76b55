"""`Tokens`: a number of places, each of which is in one hand at most."""

from __future__ import annotations

from functools import partial
from itertools import islice, repeat
from operator import length_hint

__all__ = ["Tokens"]

_CHUNK = 256  # how many are laid out at once


class Tokens:
    """A number of tokens, to be taken and put back.

    Guarantees: `take` and `put` are each one operation that nothing can come into the
    middle of, neither another thread nor a finalizer or signal handler of the same one. So
    who finds no token knows that somebody has it, who will look for word once it is back.

    They lie in a list, whose ``pop`` and ``append`` are such operations. A large number is
    not laid out at once: what leaves the source is in the list by one operation, too.
    """

    __slots__ = ("_source", "_stock", "count", "put")

    def __init__(self, count: int) -> None:
        self.count = count
        self._source = repeat(None, count)
        self._stock: list[None] = []
        self._stock.extend(islice(self._source, _CHUNK))
        self.put = partial(self._stock.append, None)
        """Put one back. It needs no frame of Python, of which there may be no more."""

    def take(self) -> bool:
        """Take one; return False if there is none."""
        try:
            self._stock.pop()
        except IndexError:
            return self.count > _CHUNK and self._take_fresh()
        return True

    def _take_fresh(self) -> bool:
        self._stock.extend(islice(self._source, _CHUNK))
        try:
            self._stock.pop()
        except IndexError:
            return False
        return True

    def move(self, into: list[None]) -> bool:
        """Take one and append it to a list, in one step; return False if there is none."""
        if not self._stock and self.count > _CHUNK:
            self._stock.extend(islice(self._source, _CHUNK))
        try:
            into.extend(map(list.pop, (self._stock,)))
        except IndexError:
            return False
        return True

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self.count - len(self._stock) - length_hint(self._source)

    def all_back(self) -> bool:
        """Return whether none is taken."""
        # In this order: what moves from one to the other between two looks counts as taken.
        return self.taken <= 0

    def __bool__(self) -> bool:
        """Return whether there is one to take."""
        return bool(self._stock or length_hint(self._source))
