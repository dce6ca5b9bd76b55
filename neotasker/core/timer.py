"""Timers: what fires once, or again and again.

**Guarantees**: a timer that was cancelled, and said so, does not fire any more, save for a
call that is on its way already. **Assumes**: the ticker's lock protects the fields.

The compiled twin, ``timer.pxi``, keeps times as whole nanoseconds.
"""

from __future__ import annotations

from math import isfinite

from ..base.seconds import real_seconds

__all__ = ["BURST", "DELAY", "POLICIES", "SKIP", "TimerCore", "finite", "slack_of"]

SKIP, DELAY, BURST = range(3)
POLICIES = ("skip", "delay", "burst")

MOST_SLACK = 3600  # seconds
# Far enough for any schedule, near enough to be added to.
FAR = 0x3FFFFFFFFFFFFFFF / 1e9


class TimerCore:
    """One timer of a ticker: fires once, or every *interval* seconds until cancelled."""

    __slots__ = (
        "_args",
        "_callback",
        "_caught_up",  # of one that catches up: how often in the latest tick that it had to
        "_entry",
        "_interval",
        "_missed",
        "_policy",
        "_runs",
        "_slack",
        "_tick",
        "_ticker",
        "_when",
    )

    def __init__(self):
        raise TypeError("timers are made by Ticker.call_at, call_later and call_every")

    @property
    def when(self):
        """When the timer fires next: seconds of the ticker's clock."""
        return self._when

    @property
    def interval(self):
        """Seconds between two fires, or None."""
        return self._interval

    @property
    def slack(self):
        """How many seconds later than due the timer may fire, to share a wake-up."""
        return self._slack

    @property
    def runs(self):
        """How often the timer has fired."""
        return self._runs

    @property
    def missed(self):
        """How many fires were left out because the tick came late."""
        return self._missed

    @property
    def active(self):
        """Whether the timer will fire."""
        return self._ticker is not None

    def cancel(self):
        """Keep the timer from firing again; return False if it had nothing left to do."""
        ticker = self._ticker
        return ticker is not None and ticker._cancel(self)


def finite(name, seconds):
    """Return a time as seconds that can be added to, checked."""
    value = real_seconds(name, seconds)
    if not isfinite(value):
        raise ValueError(f"{name} must be finite seconds, not {seconds!r}")
    return min(max(value, -FAR), FAR)


def slack_of(seconds):
    """Return a slack as seconds, checked: whole microseconds."""
    value = real_seconds("slack", seconds)
    if not 0 <= value <= MOST_SLACK:
        raise ValueError(f"slack must be from 0 to {MOST_SLACK} seconds, not {seconds!r}")
    return int(value * 1e6 + 0.5) / 1e6
