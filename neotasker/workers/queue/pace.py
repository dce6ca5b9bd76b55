"""`Pace`: when a turn of a queue worker has had its time."""

from __future__ import annotations

from ...base.clock import monotonic

__all__ = ["Pace"]

_QUANTUM = 0.005  # seconds after which a turn lets others have the thread, or the loop
_SHORT = 0.0002  # seconds between two looks at the clock that make the next one come later


class Pace:
    """Says when a turn has had its quantum, looking at the clock as often as it must."""

    __slots__ = ("_last", "_until", "count", "every")

    def __init__(self) -> None:
        self._last = monotonic()
        self._until = self._last + _QUANTUM
        self.count = 0  # runs since the last look
        self.every = 1  # runs until the next

    def is_over(self) -> bool:
        """Look at the clock."""
        now = monotonic()
        self.count = 0
        self.every = min(2 * self.every, 16) if now - self._last < _SHORT else 1
        self._last = now
        return now >= self._until
