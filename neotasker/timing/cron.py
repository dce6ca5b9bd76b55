"""Cron: the moments of a calendar, computed by the package ``cronsim``."""

from __future__ import annotations

import datetime
import os
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
                out.

        Raises:
            ImportError: ``cronsim`` is not installed.
            TypeError: the expression is no text.
            ValueError: the expression makes no sense, or there is no such zone.
        """
        try:
            cronsim: Any = import_module("cronsim")
        except ImportError:
            raise ImportError(
                "cron= needs the package cronsim: pip install 'neotasker[cron]'"
            ) from None
        if not isinstance(expression, str):
            raise TypeError(f"cron must be a text such as '*/5 * * * *', not {expression!r}")
        self.expression = expression
        self.tz = _zone(tz)
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

    def step(self) -> None:
        """Go on to the moment after the next one."""
        self.next = next(self._moments, None)


def _zone(tz: str | datetime.tzinfo | None) -> datetime.tzinfo:
    if isinstance(tz, datetime.tzinfo):
        return tz
    if tz is None:
        return _local_zone()
    import zoneinfo

    if not isinstance(tz, str):
        raise TypeError(f"tz must be a zone or the name of one, not {tz!r}")
    try:
        return zoneinfo.ZoneInfo(tz)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        raise ValueError(
            f"there is no time zone {tz!r}: use a name such as 'Europe/Prague' (where the "
            "system has no zones, the package tzdata brings them)"
        ) from None


def _local_zone() -> datetime.tzinfo:
    """Return the machine's zone with its daylight saving rules, where it says which it is."""
    import zoneinfo

    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return zoneinfo.ZoneInfo(name)
        with open("/etc/localtime", "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError):
        fixed: Any = datetime.datetime.now().astimezone().tzinfo
        return fixed if isinstance(fixed, datetime.tzinfo) else datetime.UTC
