"""Time zones of POSIX rules, against the C library and the zones of `zoneinfo`."""

from __future__ import annotations

import copy
import datetime
import io
import pickle
import time
from functools import cache
from importlib import resources
from zoneinfo import ZoneInfo

import pytest

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)

has_tzset = pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs tzset of the system")

RULES = [
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "PST8PDT7,M4.1.0/2:30,M10.5.0/1:15:30",
    "AEST-10AEDT,M10.1.0,M4.1.0/3",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "NZST-12NZDT,M9.5.0,M4.1.0/3",
    "<-04>4<-03>,M9.1.6/24,M4.1.6/24",
    "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
    "IST-2IDT,M3.4.4/26,M10.5.0",
    "IST-1GMT0,M10.5.0,M3.5.0/1",  # the time of summer is the standard one
    "EET-2EEST,M3.5.5/0,M10.5.5/0",
    "EET-2EEST,M3.4.4/50,M10.4.4/50",
    "CET-1CEST,J88,J300/3",
    "AAA-3BBB,J59/2,J60/4",
    "AEST-10AEDT,J274,J91/3",
    "CET-1CEST,86,299/3",
    "AAA4BBB,59,300/1:30",
    "<+03>-3",
    "UTC0",
    "<-0330>+3:30",
    "ABC-5:45:10",
]


@pytest.fixture
def set_zone(monkeypatch):
    """Have the C library go by a value of TZ."""

    def set_zone(text):
        monkeypatch.setenv("TZ", text)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@cache
def footers():
    """Return the rules at the ends of the files of zones, each with a zone that has it."""
    found = {}
    folder = resources.files("tzdata") / "zoneinfo"
    names = (resources.files("tzdata") / "zones").read_text(encoding="ascii").split()
    for name in names:
        data = folder.joinpath(*name.split("/")).read_bytes()
        rule = data.rstrip(b"\n").rpartition(b"\n")[2].decode()
        if rule not in found:
            found[rule] = ZoneInfo.from_file(io.BytesIO(data), key=name)
    return found


def moments_of(zone, year):
    """Yield moments all over a year, close to one another where the offset changes."""
    step = datetime.timedelta(hours=5)
    moment = datetime.datetime(year, 1, 3, tzinfo=UTC)
    before = moment.astimezone(zone).utcoffset()
    while moment.year == year and (moment.month, moment.day) < (12, 29):
        after = moment + step
        offset = after.astimezone(zone).utcoffset()
        yield moment
        if offset != before:
            for quarter in range(-16, 17):
                for second in (-1, 0, 1):
                    yield after.replace(minute=0, second=0) + datetime.timedelta(
                        minutes=15 * quarter, seconds=second
                    )
        moment, before = after, offset


@has_tzset
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_means_what_it_means_to_the_system(nt, set_zone, rule):
    from neotasker.timing.posix_tz import PosixZone

    zone = PosixZone(rule)
    set_zone(rule)
    for year in (1999, 2000, 2026, 2027, 2028, 2036, 2099, 2100):
        for moment in moments_of(zone, year):
            seconds = int((moment - EPOCH).total_seconds())
            system = time.localtime(seconds)
            local = moment.astimezone(zone)
            said = (local.utcoffset().total_seconds(), bool(local.dst()), local.tzname())
            assert said == (system.tm_gmtoff, bool(system.tm_isdst), system.tm_zone), moment
            assert local.timetuple()[:6] == system[:6]
            assert local.timestamp() == seconds


@has_tzset
def test_without_days_the_clocks_change_as_the_system_has_it(nt, set_zone):
    from neotasker.timing.posix_tz import PosixZone

    zone = PosixZone("CET-1CEST")
    set_zone("CET-1CEST")
    for month in range(1, 13):  # at which hour of the day of a change, systems do not agree
        moment = datetime.datetime(2026, month, 20, tzinfo=UTC)
        seconds = int((moment - EPOCH).total_seconds())
        local, system = moment.astimezone(zone), time.localtime(seconds)
        assert local.timetuple()[:6] == system[:6]


@pytest.mark.slow
def test_the_rules_of_all_zones_mean_what_zoneinfo_makes_of_them(nt):
    """Their files have moments until 2087 at most; then both go by the rule alone."""
    from neotasker.timing.posix_tz import PosixZone

    assert len(footers()) > 50
    for rule, other in footers().items():
        zone = PosixZone(rule)
        for moment in moments_of(other, 2090):
            local, expected = moment.astimezone(zone), moment.astimezone(other)
            assert local.replace(tzinfo=None) == expected.replace(tzinfo=None), (rule, moment)
            assert (local.fold, local.tzname()) == (expected.fold, expected.tzname())
            for fold in (0, 1):  # also of times that are passed over
                wall = datetime.datetime.combine(moment.date(), moment.time()).replace(
                    fold=fold
                )
                here, there = wall.replace(tzinfo=zone), wall.replace(tzinfo=other)
                assert here.utcoffset() == there.utcoffset(), (rule, wall)
                assert here.dst() == there.dst(), (rule, wall)


@pytest.mark.parametrize(
    "rule", ["EST5EDT,0/0,J365/25", "<-03>3<-02>2,0/0,J365/25", "EST5EDT4,J1/0,J365/25"]
)
def test_a_rule_may_say_that_it_is_summer_all_year(nt, rule):
    from neotasker.timing.posix_tz import PosixZone

    zone = PosixZone(rule)
    for year in (2026, 2027, 2028, 2029):
        for hour in range(-48, 49):
            new_year = datetime.datetime(year, 1, 1, tzinfo=UTC)
            moment = new_year + datetime.timedelta(hours=hour)
            assert moment.astimezone(zone).dst() == datetime.timedelta(hours=1)
            assert moment.astimezone(zone) == moment


def test_a_zone_of_a_rule_is_told_apart_copied_and_pickled(nt):
    from neotasker.timing.posix_tz import PosixZone

    zone = PosixZone(RULES[0])
    assert (str(zone), repr(zone)) == (RULES[0], f"PosixZone({RULES[0]!r})")
    for other in (pickle.loads(pickle.dumps(zone)), copy.deepcopy(zone)):
        assert str(other) == RULES[0]
        assert other.tzname(datetime.datetime(2026, 7, 1)) == "CEST"
    assert zone.utcoffset(None) == datetime.timedelta(hours=1)
    assert zone.dst(None) == datetime.timedelta(0)
    assert zone.tzname(None) == "CET"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no POSIX time zone"),
        ("CET", "no POSIX time zone"),
        ("Nowhere/Land", "no POSIX time zone"),
        ("C-1", "no POSIX time zone"),
        ("CET-1CEST,M3.5.0", "no POSIX time zone"),
        ("CET-1,M3.5.0,M10.5.0", "no POSIX time zone"),
        ("CET-25", "25 in 'CET-25' is not from 0 to 24"),
        ("CET-1:60", "60 in 'CET-1:60' is not from 0 to 59"),
        ("CET-1CEST,M13.5.0,M10.5.0", "13 in .* is not from 1 to 12"),
        ("CET-1CEST,M3.6.0,M10.5.0", "6 in .* is not from 1 to 5"),
        ("CET-1CEST,M3.5.7,M10.5.0", "7 in .* is not from 0 to 6"),
        ("CET-1CEST,J0,J300", "0 in .* is not from 1 to 365"),
        ("CET-1CEST,0,366", "366 in .* is not from 0 to 365"),
        ("CET-1CEST,M3.5.0/168,M10.5.0", "168 in .* is not from 0 to 167"),
        ("CET-1CEST,spring,autumn", "'spring' in .* is no day of the year"),
    ],
)
def test_a_text_that_is_no_rule_is_refused_with_words(nt, text, words):
    from neotasker.timing.posix_tz import PosixZone

    with pytest.raises(ValueError, match=words):
        PosixZone(text)
