"""Restarts: how often, and after which pause, something that died is started again."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

__all__ = ["BACKOFF_CAP", "RestartMode", "Restarts"]

RestartMode = Literal["never", "on_error", "always"]

BACKOFF_CAP = 1.0
"""The longest pause before a restart, in seconds."""

_MODES = ("never", "on_error", "always")


class Restarts:
    """The restart policy of one worker or scheduler, and what it remembers.

    The pause doubles from *first* to `BACKOFF_CAP` seconds with each failure in a row.
    When there were *max_restarts* restarts within *period* seconds and another is
    needed, it is given up (the *restart intensity* of Erlang's supervisors).

    Assumes: used by one thread at a time.
    """

    __slots__ = ("_first", "_max_restarts", "_mode", "_pause", "_period", "_times")

    def __init__(
        self,
        mode: RestartMode = "on_error",
        max_restarts: int | None = None,
        period: float = 60.0,
        first: float = 0.01,
    ) -> None:
        """Make a policy.

        Parameters:
            mode: ``'never'``, ``'on_error'`` or ``'always'`` (also after a normal end).
            max_restarts: the most restarts within *period*; None: no limit.
            period: seconds.
            first: seconds of the first pause.

        Raises:
            TypeError: *max_restarts* is not a whole number, or *period* not a number.
            ValueError: the mode is unknown, or a number out of range.
        """
        if mode not in _MODES:
            raise ValueError(f"restart must be 'never', 'on_error' or 'always', not {mode!r}")
        if max_restarts is not None:
            if isinstance(max_restarts, bool) or not isinstance(max_restarts, int):
                raise TypeError(f"max_restarts must be a whole number, not {max_restarts!r}")
            if max_restarts < 0:
                raise ValueError(f"max_restarts must be at least 0, not {max_restarts!r}")
        if isinstance(period, bool) or not isinstance(period, (int, float)):
            raise TypeError(f"period must be seconds, not {period!r}")
        if not 0 < period < math.inf:
            raise ValueError(f"period must be positive and finite seconds, not {period!r}")
        self._mode = mode
        self._max_restarts = max_restarts
        self._period = period
        # A poll delay of zero must not make the pauses zero for ever.
        self._first = min(max(first, 0.001), BACKOFF_CAP)
        self._pause = self._first
        self._times: deque[float] = deque()

    def restarts_after(self, failed: bool) -> bool:
        """Return whether an end, by failure or not, is one to be followed by a restart."""
        return self._mode == "always" or (failed and self._mode == "on_error")

    def next_pause(self, now: float) -> float | None:
        """Count a restart; return the seconds to wait before it, or None to give up.

        Parameters:
            now: seconds of a monotonic clock.
        """
        if self._max_restarts is not None:
            while self._times and self._times[0] <= now - self._period:
                self._times.popleft()
            if len(self._times) >= self._max_restarts:
                return None
            self._times.append(now)
        pause = self._pause
        self._pause = min(pause * 2, BACKOFF_CAP)
        return pause

    def succeeded(self) -> None:
        """Begin with the first pause again at the next failure."""
        self._pause = self._first

    def lived(self, seconds: float) -> None:
        """Note how long it lived: past the longest pause that counts as a success."""
        if seconds > BACKOFF_CAP:
            self.succeeded()

    def describe_limit(self) -> str:
        """Return the limit in words, for the log."""
        if self._mode == "never":
            return "it is not to be restarted"
        return f"{self._max_restarts} restarts within {self._period:g} s were not enough"
