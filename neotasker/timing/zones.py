"""Time zones with their rules: the machine's, and what callers give as one."""

from __future__ import annotations

import datetime
import logging
import os
import time
import zoneinfo
from importlib import import_module
from typing import Any

from .posix_tz import PosixZone

__all__ = ["local_zone", "zone_of"]

logger = logging.getLogger("neotasker")

LOCALTIME = "/etc/localtime"
"""Where the C libraries look when the environment says nothing."""

_NOT_FOUND = (OSError, ValueError, zoneinfo.ZoneInfoNotFoundError)  # OSError: it is a folder
_LOOK_AHEAD = 750
"""Days of a zone of others that are looked through for what it makes of changes."""


def zone_of(tz: str | datetime.tzinfo | None) -> datetime.tzinfo:
    """Return the time zone that a caller means.

    Parameters:
        tz: a zone, or the name of one; the machine's when left out. Zones of ``pytz`` and
            those that ``dateutil`` reads from a file are replaced by the same of
            ``zoneinfo``: the former need calls that nobody makes here, the latter know no
            rule for the time after 2037.

    Raises:
        TypeError: it is neither a zone nor a text.
        ValueError: there is no such zone, or the zone does not keep to what ``datetime``
            asks of one.
    """
    if tz is None:
        return local_zone()
    if isinstance(tz, str):
        return _named(tz)
    if isinstance(tz, (zoneinfo.ZoneInfo, datetime.timezone, PosixZone)):
        return tz
    if isinstance(tz, datetime.tzinfo):
        return _unwrapped(tz)
    raise TypeError(f"tz must be a zone or the name of one, not {tz!r}")


def _named(name: str) -> datetime.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except _NOT_FOUND:
        if name == "UTC":  # needs no data
            return datetime.UTC
        raise ValueError(
            f"there is no time zone {name!r}: use a name such as 'Europe/Prague' (where the "
            "system has no zones, the package tzdata brings them)"
        ) from None


# The machine's.


def local_zone() -> datetime.tzinfo:
    """Return the machine's zone with its rules, looked for as the C library does it.

    If only its offset can be had, that is returned, and a warning logged.
    """
    text = os.environ.get("TZ")
    if text is not None and (text or os.name == "posix"):
        zone = _of_variable(text)
        return zone or _offset_alone(f"TZ={text!r} names no zone that can be read")
    try:
        return _of_file(LOCALTIME)
    except _NOT_FOUND:
        return _of_tzlocal()


def _of_variable(text: str) -> datetime.tzinfo | None:
    """Return the zone that a value of TZ means: a file, a name, or a rule."""
    name = text.removeprefix(":")
    if not name:
        return datetime.UTC
    try:
        return _of_file(name) if os.path.isabs(name) else _named(name)
    except _NOT_FOUND:
        pass
    try:
        return PosixZone(name)
    except ValueError:
        return None


def _of_file(path: str) -> datetime.tzinfo:
    """Return the zone of a file, by its name if it is one of the system's."""
    real = os.path.realpath(path)
    for root in zoneinfo.TZPATH:
        folder = os.path.join(os.path.realpath(root), "")
        if real.startswith(folder):
            try:
                return zoneinfo.ZoneInfo(real.removeprefix(folder).replace(os.sep, "/"))
            except _NOT_FOUND:
                break
    with open(path, "rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=path)


def _of_tzlocal() -> datetime.tzinfo:
    """Return the zone that ``tzlocal`` finds: Windows' registry, ``/etc/timezone``, Android."""
    try:
        tzlocal: Any = import_module("tzlocal")
    except ImportError:
        return _offset_alone(
            "the system does not say which zone it is in; the package tzlocal "
            "(pip install 'neotasker[cron]') may know how to ask it"
        )
    try:
        # Not its zone, which it compares with the C library's by a Python warning.
        zone = zone_of(tzlocal.get_localzone_name() or "")
    except Exception as exc:  # what it raises is not documented
        return _offset_alone(f"the system does not say which zone it is in ({exc})")
    now = time.time()
    offset = datetime.datetime.fromtimestamp(now, zone).utcoffset()
    if offset != datetime.timedelta(seconds=time.localtime(now).tm_gmtoff):
        logger.warning(
            "cron goes by %s, as the machine is set, but its C library does not: give "
            "tz='Europe/Prague' for one, or set the variable TZ",
            zone,
        )
    return zone


def _offset_alone(reason: str) -> datetime.tzinfo:
    zone: Any = datetime.datetime.now().astimezone().tzinfo
    logger.warning(
        "cron goes by a fixed offset (%s), wrong when the clocks change: %s; give "
        "tz='Europe/Prague' for one",
        datetime.timezone(zone.utcoffset(None)),
        reason,
    )
    return zone if isinstance(zone, datetime.tzinfo) else datetime.UTC


# Those of others.


def _unwrapped(tz: datetime.tzinfo) -> datetime.tzinfo:
    """Return the zone that one of another package stands for; itself if it is right."""
    makers = {cls.__module__.partition(".")[0] for cls in type(tz).__mro__}
    if "pytz" in makers:
        name = getattr(tz, "zone", None)
        if isinstance(name, str):
            try:
                return _named(name)
            except ValueError:
                pass  # a fixed one is right without a name
    if "dateutil" in makers:
        kinds = {cls.__name__ for cls in type(tz).__mro__}
        if "tzlocal" in kinds:
            return local_zone()
        if "tzfile" in kinds:
            name = str(getattr(tz, "_filename", ""))
            try:
                return _of_file(name) if os.path.isabs(name) else _named(name)
            except _NOT_FOUND:
                raise ValueError(_refusal(tz, "it does not say which file it is of")) from None
    try:
        fault = _fault(tz)
    except Exception as exc:
        raise ValueError(_refusal(tz, f"it raises {exc!r}")) from exc
    if fault is not None:
        raise ValueError(_refusal(tz, fault))
    return tz


def _refusal(tz: datetime.tzinfo, reason: str) -> str:
    return (
        f"tz={tz!r} cannot be used, {reason}: give the name of a zone, such as "
        "'Europe/Prague', or a zoneinfo.ZoneInfo"
    )


def _fault(tz: datetime.tzinfo) -> str | None:
    """Return what a zone does wrong around the coming changes; None: it is right."""
    day = datetime.timedelta(days=1)
    moment = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    before = moment.astimezone(tz).utcoffset()
    for _ in range(_LOOK_AHEAD):
        moment += day
        offset = moment.astimezone(tz).utcoffset()
        probes = [moment]
        if offset != before:
            change = _change_between(tz, moment - day, moment)
            probes += [change + datetime.timedelta(minutes=15 * k) for k in range(-12, 13)]
            probes.append(change - datetime.timedelta(seconds=1))
        before = offset
        for probe in probes:
            local = probe.astimezone(tz)
            if local.tzinfo is not tz:
                return "it makes another zone of itself"
            again = datetime.datetime.combine(local.date(), local.time(), tz)
            if again.astimezone(datetime.UTC) != probe:
                return f"it does not know when {again.replace(tzinfo=None)} is"
    return None


def _change_between(
    tz: datetime.tzinfo, before: datetime.datetime, after: datetime.datetime
) -> datetime.datetime:
    """Return the first second, in UTC, at which a zone has its later offset."""
    offset = before.astimezone(tz).utcoffset()
    while after - before > datetime.timedelta(seconds=1):
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(tz).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after
