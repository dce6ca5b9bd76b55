"""Timers: what fires once, or again and again.

**Guarantees**: a timer that was cancelled, and said so, does not fire any more, save for a
call that is on its way already. **Assumes**: the ticker's lock protects the fields.

The compiled twin, ``timer.pxi``, keeps times as whole nanoseconds.
"""

from __future__ import annotations

__all__ = ["BURST", "DELAY", "POLICIES", "SKIP", "TimerCore", "slack_of"]

SKIP, DELAY, BURST = range(3)
POLICIES = {"skip": SKIP, "delay": DELAY, "burst": BURST}

MOST_SLACK = 3600  # seconds


class TimerCore:
    """One timer of a ticker: fires once, or every *interval* seconds until cancelled."""

    __slots__ = (
        "_args",
        "_callback",
        "_entry",
        "_policy",
        "_ticker",
        "_when",
        "interval",
        "missed",
        "runs",
        "slack",
    )

    def __init__(self):
        raise TypeError("timers are made by Ticker.call_at, call_later and call_every")

    @property
    def when(self):
        """When the timer fires next: seconds of the ticker's clock."""
        return self._when

    @property
    def active(self):
        """Whether the timer will fire."""
        return self._ticker is not None

    def cancel(self):
        """Keep the timer from firing again; return False if it had nothing left to do."""
        ticker = self._ticker
        return ticker is not None and ticker._cancel(self)


def slack_of(seconds):
    """Return a slack as seconds, checked."""
    value = float(seconds)
    if not 0 <= value <= MOST_SLACK:
        raise ValueError(f"slack must be from 0 to {MOST_SLACK} seconds, not {seconds!r}")
    return value
