"""The clock that all waiting goes through."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


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
    """The clock of the machine: ``time.monotonic`` and ``time.time``."""

    __slots__ = ()

    def monotonic(self) -> float:
        """Return ``time.monotonic()``."""
        return time.monotonic()

    def time(self) -> float:
        """Return ``time.time()``."""
        return time.time()
