"""`DueTimes`: what falls due of a cron, by a clock of the wall that may be set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..base.clock import Clock
from .cron import Cron

__all__ = ["DueTimes"]

LOOK = 30.0
"""Seconds after which the clock is looked at again, however far the next moment is.

It may be set, and runs on while the machine is suspended.
"""

_STEPS = 10_000  # after years there is no telling how much was missed, but when to run next
_ERAS = 8
_NEAR = 0.9  # of a pause: one of a day may have an hour more when the clocks change


@dataclass
class _Era:
    """A time in which the clock of the wall went as the monotonic one does."""

    lead: float
    """How far the one was ahead of the other, at most."""
    taken: float = -math.inf
    """The latest moment that was taken, in seconds since the epoch."""


class DueTimes:
    """The moments of a cron as the clock of the wall comes to them.

    Guarantees: none is taken early. One that was taken is not taken again when the clock is
    put back by less than `_NEAR` of the pause before it. If the clock is put back further,
    what was taken while it was that far ahead counts for nothing, and it is planned anew:
    nobody waits until the clock has caught up. What was taken before it went ahead still
    counts.

    Assumes: used by one thread at a time.
    """

    def __init__(self, cron: Cron, clock: Clock, delay: float = 0.0) -> None:
        """Plan from *delay* seconds after now; *cron* has the next moment from here on."""
        self._cron = cron
        self._clock = clock
        wall, monotonic = clock.time(), clock.monotonic()
        self._not_before = monotonic + delay
        self._looked = monotonic  # when the clock was looked at last
        self._was_due = True  # at that look: then what falls due at its very moment is the same
        self._eras = [_Era(wall - monotonic)]  # the one that goes on is the last
        cron.begin(wall + delay)

    def pause(self) -> float:
        """Return the seconds until the clock is to be looked at again."""
        due = self._cron.next
        left = math.inf if due is None else max(due.timestamp() - self._clock.time(), 0.0)
        return left if self._is_steady() else min(left, LOOK)

    def _is_steady(self) -> bool:
        return bool(getattr(self._clock, "steady", False))  # anybody may bring a clock

    def take(self, burst: bool) -> tuple[int, int]:
        """Take the moments that have come, and plan anew if the clock was put back.

        Parameters:
            burst: each of them is to be run; else one run stands for all.

        Returns:
            How many runs to begin, and how many were missed.
        """
        cron, now = self._cron, self._clock.time()
        if not self._is_steady():
            self._follow(now)
        era = self._eras[-1]
        taken = 0
        while cron.next is not None and (moment := cron.next.timestamp()) <= now:
            taken += 1
            era.taken = moment
            if taken == _STEPS:
                era.taken = now
                cron.begin(now)
            else:
                cron.step()
        self._was_due = taken > 0
        fires = taken if burst else min(taken, 1)
        return fires, taken - fires

    def _follow(self, now: float) -> None:
        """See whether the clock was set since the last look."""
        era, monotonic = self._eras[-1], self._clock.monotonic()
        looked, self._looked = self._looked, monotonic
        lead = now - monotonic
        if lead > era.lead + LOOK:  # it was put forward, or the machine was suspended
            self._enter(lead)
        elif lead >= era.lead - LOOK:
            era.lead = max(era.lead, lead)
        else:
            # From the last look on: what fell due since the clock was put back is late, not
            # lost.
            start = max(looked, self._not_before) + lead - (0.0 if self._was_due else 0.001)
            near = _NEAR * self._cron.pause_at(start)
            taken = [era.taken for era in self._eras if era.lead - lead < near]
            self._enter(lead)
            self._cron.begin(max([start, *taken]))

    def _enter(self, lead: float) -> None:
        """Begin an era, or go on with one in which the clock was as far ahead."""
        for era in self._eras:
            if abs(era.lead - lead) <= LOOK:
                self._eras.remove(era)
                break
        else:
            era = _Era(lead)
        self._eras.append(era)
        del self._eras[:-_ERAS]
