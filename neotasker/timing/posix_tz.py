"""`PosixZone`: a time zone of a POSIX rule such as ``CET-1CEST,M3.5.0,M10.5.0/3``."""

from __future__ import annotations

import datetime
import re
from functools import lru_cache
from typing import NamedTuple

__all__ = ["PosixZone"]

_DAY = 86_400
_WITHOUT_RULE = ",M3.2.0,M11.1.0"
"""When the clocks change where the text does not say it: as the C libraries have it."""

_TEXT = re.compile(
    r"(?P<std>[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)(?P<west>[+-]?\d{1,2}(:\d{2}){0,2})"
    r"((?P<dst>[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)(?P<dst_west>[+-]?\d{1,2}(:\d{2}){0,2})?"
    r"(?P<rule>,[^,]+,[^,]+)?)?",
    re.ASCII,
)
_RULE = re.compile(
    r"(J(?P<julian>\d{1,3})|(?P<day>\d{1,3})|M(?P<month>\d{1,2})\.(?P<week>\d)\.(?P<weekday>\d))"
    r"(/(?P<time>[+-]?\d{1,3}(:\d{2}){0,2}))?",
    re.ASCII,
)


class PosixZone(datetime.tzinfo):
    """A time zone whose clocks change each year by one rule, for ever.

    Guarantees: immutable. ``fold`` tells the two passes of an hour that comes twice; a time
    that is passed over has the offset before the change with ``fold=0``, after it with 1.
    """

    def __init__(self, text: str) -> None:
        """Make a zone of a rule.

        Parameters:
            text: ``std offset [dst [offset] [,start[/time],end[/time]]]``. Offsets are to
                the west, as POSIX has them: ``CET-1`` is an hour before UTC.

        Raises:
            ValueError: the text is no such rule.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"{text!r} is no POSIX time zone such as 'CET-1CEST,M3.5.0,M10.5.0/3'"
            )
        self._text = text
        std = -_seconds(found["west"], 24, text)
        self._std = datetime.timedelta(seconds=std)
        self._std_name = found["std"].strip("<>")
        self._dst, self._dst_name = self._std, self._std_name
        self._changes: tuple[_Change, _Change] | None = None
        if found["dst"]:
            dst = -_seconds(found["dst_west"], 24, text) if found["dst_west"] else std + 3600
            self._dst = datetime.timedelta(seconds=dst)
            self._dst_name = found["dst"].strip("<>")
            start, end = (found["rule"] or _WITHOUT_RULE)[1:].split(",")
            self._changes = (_change(start, std, text), _change(end, dst, text))

    def utcoffset(self, dt: datetime.datetime | None) -> datetime.timedelta | None:
        """Return how far local time is before UTC."""
        return self._std if dt is None or not self._is_dst(dt) else self._dst

    def dst(self, dt: datetime.datetime | None) -> datetime.timedelta | None:
        """Return by how much the clocks are put forward."""
        no = datetime.timedelta(0)
        return no if dt is None or not self._is_dst(dt) else self._dst - self._std

    def tzname(self, dt: datetime.datetime | None) -> str | None:
        """Return the short name, ``CEST`` for one."""
        return self._std_name if dt is None or not self._is_dst(dt) else self._dst_name

    def fromutc(self, dt: datetime.datetime) -> datetime.datetime:
        """Return the local time of a UTC one that has this zone set."""
        here, other = self._std, self._dst
        if self._is_dst_at(dt):
            here, other = other, here
        local = dt + here
        # The wall showed this before if it does so as well by the other, greater, offset.
        again = other > here and self._offset_at(local - other) == other
        return local.replace(fold=int(again))

    def _is_dst(self, wall: datetime.datetime) -> bool:
        """Return whether daylight saving time goes for what a clock on the wall shows."""
        if self._std == self._dst:
            return self._is_dst_at(wall - self._std)
        sooner, later = sorted((self._std, self._dst), reverse=True)
        first = self._offset_at(wall - sooner) == sooner
        second = self._offset_at(wall - later) == later
        if first != second:
            offset = sooner if first else later
        elif first:  # it is shown twice
            offset = later if wall.fold else sooner
        else:  # it is passed over
            offset = sooner if wall.fold else later
        return offset == self._dst

    def _offset_at(self, utc: datetime.datetime) -> datetime.timedelta:
        return self._dst if self._is_dst_at(utc) else self._std

    def _is_dst_at(self, utc: datetime.datetime) -> bool:
        if self._changes is None:
            return False
        seconds = utc.toordinal() * _DAY + utc.hour * 3600 + utc.minute * 60 + utc.second
        is_dst = False
        for moment, begins in _moments(*self._changes, utc.year):
            if moment > seconds:
                break
            is_dst = begins
        return is_dst

    def __reduce__(self) -> tuple[type[PosixZone], tuple[str]]:
        return type(self), (self._text,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._text!r})"

    def __str__(self) -> str:
        return self._text


class _Change(NamedTuple):
    """When in the year the clocks change."""

    form: str
    numbers: tuple[int, ...]
    after: int
    """Seconds from the day's midnight in UTC until the change."""

    def in_year(self, year: int) -> int:
        """Return the moment, in seconds since the day 0 of ordinals."""
        if self.form == "month":
            month, week, weekday = self.numbers
            first = _days_before(year, month) + 1
            day = first + (weekday - first) % 7 + 7 * (week - 1)  # ordinal 0 is a Sunday
            if day > _days_before(year, month + 1):
                day -= 7
        elif self.form == "julian":  # from 1, and 29 February is not counted
            (number,) = self.numbers
            day = _days_before(year, 1) + number + (number >= 60 and _is_leap(year))
        else:
            (number,) = self.numbers
            day = _days_before(year, 1) + 1 + number
        return day * _DAY + self.after


@lru_cache(maxsize=64)
def _moments(start: _Change, end: _Change, year: int) -> list[tuple[int, bool]]:
    """Return the moments that count in a year, in order, and whether each begins DST.

    Where one ends as the next one begins it goes on: so a rule says that it is for ever.
    """
    years = (year - 2, year - 1, year, year + 1)
    found = [(start.in_year(y), True) for y in years]
    found += [(end.in_year(y), False) for y in years]
    return sorted(found)


def _change(text: str, offset: int, whole: str) -> _Change:
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} in {whole!r} is no day of the year such as M3.5.0/2")
    after = (_seconds(found["time"], 167, whole) if found["time"] else 7200) - offset
    for form, least, most in (("julian", 1, 365), ("day", 0, 365)):
        if found[form]:
            return _Change(form, (_within(found[form], least, most, whole),), after)
    month = _within(found["month"], 1, 12, whole)
    week = _within(found["week"], 1, 5, whole)
    return _Change("month", (month, week, _within(found["weekday"], 0, 6, whole)), after)


def _seconds(text: str, most: int, whole: str) -> int:
    """Return the seconds of ``[+-]h[:mm[:ss]]``."""
    hours, minutes, seconds = [*text.lstrip("+-").split(":"), "0", "0"][:3]
    found = _within(hours, 0, most, whole) * 3600
    found += _within(minutes, 0, 59, whole) * 60 + _within(seconds, 0, 59, whole)
    return -found if text.startswith("-") else found


def _within(text: str, least: int, most: int, whole: str) -> int:
    if not least <= int(text) <= most:
        raise ValueError(f"{text} in {whole!r} is not from {least} to {most}")
    return int(text)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_before(year: int, month: int) -> int:
    """Return the ordinal of the day before a month begins; a year may have a thirteenth."""
    # Not by datetime: the years 0 and 10000 are asked for as well.
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    lengths = (31, 28 + _is_leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return days + sum(lengths[: month - 1])
