"""Cron: the moments of a calendar, computed by the package ``cronsim``."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any

__all__ = ["Cron"]


class Cron:
    """A cron expression in a time zone, and where its moments have got to.

    What it means, across daylight saving changes too, is as ``cronsim`` documents.

    Assumes: used by one thread at a time.
    """

    def __init__(self, expression: str, tz: str | datetime.tzinfo | None = None) -> None:
        """Make a schedule; `begin` sets it to a moment.

        Parameters:
            expression: five fields, or six with the seconds first.
            tz: a zone, or its name, ``'Europe/Prague'`` for one; the machine's when left
                out. Zones of ``pytz`` are replaced by the same of ``zoneinfo``.

        Raises:
            ImportError: ``cronsim`` is not installed.
            TypeError: the expression is no text.
            ValueError: the expression makes no sense, there is no such zone, or it is one
                that cannot be relied on.
        """
        try:
            cronsim: Any = import_module("cronsim")
        except ImportError:
            raise ImportError(
                "cron= needs the package cronsim: pip install 'neotasker[cron]'"
            ) from None
        if not isinstance(expression, str):
            raise TypeError(f"cron must be a text such as '*/5 * * * *', not {expression!r}")
        from .zones import zone_of  # only who has cron jobs needs zones

        self.expression = expression
        self.tz = zone_of(tz)
        self._simulate: Any = cronsim.CronSim
        try:
            self._simulate(expression, datetime.datetime.now(self.tz))
        except cronsim.CronSimError as exc:
            raise ValueError(f"cron={expression!r} makes no sense: {exc}") from None
        self._moments: Iterator[datetime.datetime] = iter(())
        self.next: datetime.datetime | None = None
        """The next moment; None: there is none."""

    def begin(self, seconds: float) -> None:
        """Make the first moment after *seconds* since the epoch the next one."""
        start = datetime.datetime.fromtimestamp(seconds, self.tz)
        self._moments = self._simulate(self.expression, start)
        self.step()
        # In the second pass of an hour that comes twice it begins with those of the first.
        while self.next is not None and self.next.timestamp() <= seconds:
            self.step()

    def step(self) -> None:
        """Go on to the moment after the next one."""
        self.next = next(self._moments, None)

    def pause_at(self, seconds: float) -> float:
        """Return the seconds between the moments before and after *seconds* since the epoch.

        The next one is as `begin` leaves it.

        Returns:
            Infinity if there is none before, or none after.
        """
        self.begin(seconds)
        start = datetime.datetime.fromtimestamp(seconds, self.tz)
        before = next(self._simulate(self.expression, start, reverse=True), None)
        if before is None or self.next is None:
            return math.inf
        pause: float = self.next.timestamp() - before.timestamp()
        return pause
