"""The clock that all waiting goes through."""

from __future__ import annotations

import time as _time
from functools import partial
from typing import Protocol

__all__ = ["Clock", "SystemClock", "monotonic", "wall"]

# Tools that freeze time for tests, freezegun for one, replace the functions of `time` in all
# modules where they find them. What we wait by must go on, or a wait with a bound would have
# none: so the functions are taken at import, and kept where such tools do not look.
monotonic = partial(_time.monotonic)
"""Return seconds that never step back: ``time.monotonic`` as it was at import."""

wall = partial(_time.time)
"""Return seconds since the epoch: ``time.time`` as it was at import."""


class Clock(Protocol):
    """What a supervisor asks of a clock.

    One with a true attribute ``steady`` says that its `time` goes as `monotonic` does, and
    is never set: cron need not look at it on the way to a moment.
    """

    def monotonic(self) -> float:
        """Return seconds that never step back."""

    def time(self) -> float:
        """Return seconds since the epoch, for schedules of the calendar."""


class SystemClock:
    """The clock of the machine: ``time.monotonic`` and ``time.time``, which no tool freezes."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Return ``time.monotonic()``."""
        return monotonic()

    def time(self) -> float:
        """Return ``time.time()``."""
        return wall()
