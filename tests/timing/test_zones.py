"""Time zones: the machine's, and those that callers bring."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
import types
from importlib import resources
from zoneinfo import ZoneInfo

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="the variable TZ of POSIX")
PRAGUE = ZoneInfo("Europe/Prague")
CHANGES = {
    "spring": datetime.datetime(2027, 3, 27, 12, tzinfo=PRAGUE),
    "autumn": datetime.datetime(2027, 10, 30, 12, tzinfo=PRAGUE),
    "southern spring": datetime.datetime(2027, 10, 2, 12, tzinfo=PRAGUE),
    "southern autumn": datetime.datetime(2027, 4, 3, 12, tzinfo=PRAGUE),
}
eves = pytest.mark.parametrize("eve", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def zone_file(tmp_path):
    """A copy of the zone file of Prague, outside the system's folder."""
    there = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Prague")
    copy = tmp_path / "a zone"
    copy.write_bytes(there.read_bytes())
    return copy


@pytest.fixture
def set_zone(monkeypatch):
    """Have the machine go by a value of TZ; None: by none."""

    def set_zone(text):
        if text is None:
            monkeypatch.delenv("TZ", raising=False)
        else:
            monkeypatch.setenv("TZ", text)
        if hasattr(time, "tzset"):
            time.tzset()

    yield set_zone
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


@pytest.fixture
def without_localtime(nt, set_zone, monkeypatch, tmp_path):
    """A machine whose C library knows nothing of its zone."""
    from neotasker.timing import zones

    set_zone(None)
    monkeypatch.setattr(zones, "LOCALTIME", str(tmp_path / "nothing"))


def moments(cron, eve, count=4):
    """Return the first moments after an eve, in seconds since the epoch."""
    cron.begin(eve.timestamp())
    found = []
    for _ in range(count):
        found.append(cron.next.timestamp())
        cron.step()
    return found


def in_prague(cron, eve):
    """Return whether it is nine by the clocks of Prague at the moments of ``0 9 * * *``."""
    walls = [datetime.datetime.fromtimestamp(m, PRAGUE) for m in moments(cron, eve)]
    return all((wall.hour, wall.minute) == (9, 0) for wall in walls)


@posix
@eves
@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "UTC",
        "UTC0",
        "Europe/Prague",
        ":Europe/Prague",
        "Australia/Sydney",
        "EST5EDT",
        ":/etc/localtime",
        "/etc/localtime",
        "FILE",
        ":FILE",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        ":CET-1CEST,M3.5.0,M10.5.0/3",
        "EST5EDT4,M3.2.0/2,M11.1.0/2",
        "AEST-10AEDT,M10.1.0,M4.1.0/3",
        "CET-1CEST,J87,J304/3",
        "CET-1CEST,86,303/3",
        "AEST-10AEDT,J276,J94/3",
        "IST-1GMT0,M10.5.0,M3.5.0/1",
        "<+03>-3",
        "<-0330>3:30",
    ],
)
def test_cron_goes_by_the_wall_of_the_machine(nt, set_zone, zone_file, caplog, text, eve):
    from neotasker.timing.cron import Cron

    set_zone(text.replace("FILE", str(zone_file)))
    daily, often = Cron("0 9 * * *"), Cron("*/30 * * * *")
    for moment in moments(daily, eve):
        assert time.localtime(moment)[3:5] == (9, 0)
    found = moments(often, eve, 60)
    assert found == [found[0] + 1800 * k for k in range(60)]
    for moment in found:
        wall = datetime.datetime.fromtimestamp(moment, often.tz)
        assert wall.timetuple()[:5] == time.localtime(moment)[:5]
    assert not caplog.records


@posix
@pytest.mark.parametrize(
    "text", ["Nowhere/Land", "Europe", "/nowhere", "/", "\x01", "CET-1CEST,x,y"]
)
def test_a_value_of_tz_that_means_nothing_is_said_to_be_so(nt, set_zone, caplog, text):
    from neotasker.timing.cron import Cron

    set_zone(text)
    cron = Cron("0 9 * * *")
    moment = moments(cron, datetime.datetime.now(datetime.UTC))[0]
    assert time.localtime(moment)[3:5] == (9, 0)  # as the C library takes it
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"TZ={text!r} names no zone" in record.getMessage()
    assert "tz='Europe/Prague'" in record.getMessage()


@eves
@pytest.mark.parametrize("kind", ["copy", "link", "link to the system's"])
def test_without_tz_the_file_of_the_machine_counts(
    nt, without_localtime, monkeypatch, tmp_path, zone_file, caplog, kind, eve
):
    from neotasker.timing import zones
    from neotasker.timing.cron import Cron

    place = tmp_path / "localtime"
    if kind == "copy":
        shutil.copy(zone_file, place)
    else:
        if kind != "link":
            monkeypatch.setattr("zoneinfo.TZPATH", (str(tmp_path),))
            zone_file = zone_file.rename(tmp_path / "Prague")
        place.symlink_to(zone_file)
    monkeypatch.setattr(zones, "LOCALTIME", str(place))
    assert in_prague(Cron("0 9 * * *"), eve)
    assert not caplog.records


def test_a_file_of_the_systems_is_taken_by_its_name(nt, without_localtime, monkeypatch):
    import zoneinfo

    from neotasker.timing import zones

    paths = [os.path.join(root, "Europe", "Prague") for root in zoneinfo.TZPATH]
    path = next(filter(os.path.exists, paths), None)
    if path is None:
        pytest.skip("the system has no zones")
    monkeypatch.setattr(zones, "LOCALTIME", path)
    assert zones.local_zone().key == "Europe/Prague"


@eves
def test_what_the_system_names_in_another_place_is_asked_of_tzlocal(
    nt, without_localtime, monkeypatch, caplog, eve
):
    from neotasker.timing.cron import Cron

    tzlocal = types.SimpleNamespace(get_localzone_name=lambda: "Europe/Prague")
    monkeypatch.setitem(sys.modules, "tzlocal", tzlocal)
    assert in_prague(Cron("0 9 * * *"), eve)


@posix
def test_a_zone_that_the_c_library_does_not_go_by_is_told(
    nt, without_localtime, set_zone, monkeypatch, caplog
):
    from neotasker.timing.cron import Cron

    monkeypatch.setitem(
        sys.modules, "tzlocal", types.SimpleNamespace(get_localzone_name=lambda: "Asia/Tokyo")
    )
    set_zone("UTC")  # and then, as if it had never been set
    monkeypatch.delenv("TZ")
    assert str(Cron("0 9 * * *").tz) == "Asia/Tokyo"
    assert "cron goes by Asia/Tokyo, as the machine is set, but" in caplog.text


@eves
def test_windows_is_understood_by_the_names_of_its_registry(
    nt, without_localtime, monkeypatch, eve
):
    from neotasker.timing.cron import Cron

    values = [("TimeZoneKeyName", "Central Europe Standard Time\0\0"), ("Bias", -60)]
    registry = types.ModuleType("winreg")
    registry.HKEY_LOCAL_MACHINE = 0
    registry.ConnectRegistry = registry.OpenKey = lambda *args: types.SimpleNamespace(
        Close=lambda: None
    )
    registry.QueryInfoKey = lambda key: (0, len(values), 0)
    registry.EnumValue = lambda key, index: (*values[index], 1)
    monkeypatch.setitem(sys.modules, "winreg", registry)
    win32 = pytest.importorskip("tzlocal.win32")
    monkeypatch.setattr(win32, "winreg", registry)
    monkeypatch.setattr(win32, "_cache_tz_name", None)
    monkeypatch.setattr("tzlocal.get_localzone_name", win32.get_localzone_name)
    cron = Cron("0 9 * * *")
    assert cron.tz.key in {"Europe/Budapest", "Europe/Prague"}
    assert in_prague(cron, eve)


@pytest.mark.parametrize("tzlocal", ["missing", "at a loss", "raising"])
def test_a_fixed_offset_is_never_taken_in_silence(
    nt, without_localtime, monkeypatch, caplog, tzlocal
):
    from neotasker.timing.cron import Cron

    def raising():
        raise LookupError("conflicting configurations")

    module = {
        "missing": None,
        "at a loss": types.SimpleNamespace(get_localzone_name=lambda: None),
        "raising": types.SimpleNamespace(get_localzone_name=raising),
    }[tzlocal]
    monkeypatch.setitem(sys.modules, "tzlocal", module)
    cron = Cron("0 9 * * *")
    now = datetime.datetime.now()
    assert now.astimezone(cron.tz).utcoffset() == now.astimezone().utcoffset()
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "fixed offset" in record.getMessage()
    assert "tz='Europe/Prague'" in record.getMessage()
    assert ("neotasker[cron]" in record.getMessage()) == (tzlocal == "missing")
    assert ("conflicting" in record.getMessage()) == (tzlocal == "raising")


# Those of others.


@eves
@pytest.mark.parametrize(
    "make",
    [
        lambda: __import__("pytz").timezone("Europe/Prague"),
        lambda: (
            __import__("pytz")
            .timezone("Europe/Prague")
            .localize(datetime.datetime(2026, 1, 1))
            .tzinfo
        ),
        lambda: __import__("dateutil.tz").tz.gettz("Europe/Prague"),
        lambda: __import__("dateutil.tz").tz.tzstr("CET-1CEST,M3.5.0,M10.5.0/3"),
        lambda: ZoneInfo.no_cache("Europe/Prague"),
    ],
    ids=["pytz", "pytz localized", "dateutil", "dateutil rule", "zoneinfo"],
)
def test_zones_of_other_packages_change_their_clocks_too(nt, make, eve):
    from neotasker.timing.cron import Cron

    assert in_prague(Cron("0 9 * * *", make()), eve)


def test_zones_of_pytz_and_dateutil_become_those_of_zoneinfo(nt):
    import dateutil.tz
    import pytz

    from neotasker.timing.zones import zone_of

    for name in pytz.common_timezones:
        assert zone_of(pytz.timezone(name)) is ZoneInfo(name)
    prague = zone_of(dateutil.tz.gettz("Europe/Prague"))
    far = datetime.datetime(2060, 7, 1, tzinfo=prague)
    assert far.utcoffset() == datetime.timedelta(hours=2)  # dateutil stops in 2037


@pytest.mark.parametrize(
    "make",
    [
        lambda: datetime.timezone(datetime.timedelta(hours=2)),
        lambda: __import__("pytz").FixedOffset(120),
        lambda: __import__("dateutil.tz").tz.tzoffset("two", 7200),
    ],
    ids=["datetime", "pytz", "dateutil"],
)
def test_fixed_offsets_are_as_they_say(nt, make):
    from neotasker.timing.cron import Cron

    for eve in CHANGES.values():
        assert {m % 86400 for m in moments(Cron("0 9 * * *", make()), eve)} == {7 * 3600}


class _Blind(datetime.tzinfo):
    """Summer from April to September, and does not look at `fold`."""

    def utcoffset(self, dt):
        return datetime.timedelta(hours=2 if 4 <= dt.month < 10 else 1)

    def dst(self, dt):
        return self.utcoffset(dt) - datetime.timedelta(hours=1)


class _Raising(datetime.tzinfo):
    def utcoffset(self, dt):
        raise RuntimeError("no")


def _pytz_without_a_name():
    import pytz

    zone = type("Own", (type(pytz.timezone("Europe/Prague")),), {"zone": "Mine/Own"})
    return zone()


def _dateutil_without_a_file():
    import io

    import dateutil.tz

    data = resources.files("tzdata").joinpath("zoneinfo", "Europe", "Prague").read_bytes()
    return dateutil.tz.tzfile(io.BytesIO(data))


@pytest.mark.parametrize(
    "make", [_Blind, _Raising, datetime.tzinfo, _pytz_without_a_name, _dateutil_without_a_file]
)
def test_a_zone_that_cannot_be_relied_on_is_refused_with_words(nt, make):
    from neotasker.timing.cron import Cron

    with pytest.raises(ValueError, match=r"tz=.* cannot be used, .*'Europe/Prague'"):
        Cron("0 9 * * *", make())


@pytest.mark.parametrize(
    "name", ["Nowhere/Land", "", "Europe", "/etc/localtime", "a\0b", "x" * 999]
)
def test_a_name_of_no_zone_is_refused_with_words(nt, name):
    from neotasker.timing.cron import Cron

    with pytest.raises(ValueError, match="there is no time zone"):
        Cron("0 9 * * *", name)


def test_utc_needs_no_data(nt, monkeypatch):
    import zoneinfo

    from neotasker.timing.zones import zone_of

    def nothing(name):
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr("zoneinfo.ZoneInfo", nothing)
    monkeypatch.setattr("neotasker.timing.zones.zoneinfo.ZoneInfo", nothing)
    assert zone_of("UTC") is datetime.UTC
