"""Async jobs by the calendar."""

from __future__ import annotations

import datetime
import sys

import pytest
from helpers import near


def test_cron_runs_at_the_moments_of_the_calendar(create, clock, times):
    job = create(cron="*/5 * * * *", tz="UTC")
    assert job.next_run == datetime.datetime(2026, 1, 1, 0, 5, tzinfo=datetime.UTC)
    clock.advance(3600)
    assert times == near(*range(300, 3601, 300))
    assert (job.runs, job.missed) == (12, 0)


def test_cron_is_bounded_as_other_jobs_are(create, clock, times):
    job = create(cron="* * * * *", tz="UTC", number=2)
    until = create(cron="* * * * *", tz="UTC", until=clock.time() + 130)
    clock.advance(600)
    assert (job.runs, until.runs) == (2, 2)
    assert not job.active
    assert not until.active


CLOCK_CHANGES = {
    "Europe/Prague": [(2026, 3, 29), (2026, 10, 25), (2027, 3, 28), (2027, 10, 31)],
    "America/New_York": [(2026, 3, 8), (2026, 11, 1), (2027, 3, 14), (2027, 11, 7)],
}


@pytest.mark.parametrize(
    ("zone", "day"), [(zone, day) for zone, days in CLOCK_CHANGES.items() for day in days]
)
def test_cron_goes_through_clock_changes_as_cronsim_documents(nt, zone, day):
    """Elsewhere cron stops or loops for ever there; a weekly interval shifts an hour."""
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

    from neotasker.testing import VirtualClock

    tz = ZoneInfo(zone)
    start = datetime.datetime(*day, tzinfo=tz) - datetime.timedelta(hours=1)
    end = start.timestamp() + 8 * 3600
    clock = VirtualClock(start)
    supervisor = nt.TaskSupervisor("dst", clock=clock)
    supervisor.start()
    scheduler = supervisor.create_async_job_scheduler("jobs")
    ran, announced, expected = {}, set(), {}
    jobs = []
    for expression in ("30 2 * * *", "*/30 * * * *", "15 1-3 * * *", "0 3 * * 0"):
        ran[expression] = []

        async def target(moments):
            moments.append(clock.time())

        jobs.append(
            scheduler.create_threadsafe(
                target, args=(ran[expression],), cron=expression, tz=zone
            )
        )
        moments = CronSim(expression, start)
        due = expected.setdefault(expression, [])
        while (moment := next(moments).timestamp()) <= end:
            due.append(moment)
    while clock.time() < end:
        announced |= {job.next_run for job in jobs}
        clock.advance(900)
    supervisor.stop()
    assert {k: [pytest.approx(t, abs=0.01) for t in v] for k, v in expected.items()} == ran
    assert all(moment.tzinfo is tz for moment in announced)
    assert all(len(moments) >= 1 for moments in ran.values())


def test_cron_after_a_suspend_runs_once_and_soon(virtual, clock, times, is_async):
    """The monotonic clock stands still while the machine sleeps, that of the wall does not."""
    clock.steady = False  # may be set, as the machine's
    ran = []

    def plain():
        ran.append(clock.time())

    async def coroutine():
        plain()

    job = virtual.create_async_job(
        target=coroutine if is_async else plain, cron="0 * * * *", tz="UTC"
    )
    clock.advance(60)
    woken = clock.time() + 10 * 3600
    clock._epoch += 10 * 3600
    clock.advance(31)
    assert len(ran) == 1
    assert woken <= ran[0] <= woken + 30
    assert job.missed == 9
    clock.advance(3600)
    assert len(ran) == 2


def test_cron_does_not_run_twice_when_the_clock_is_set_back(create, clock, times):
    clock.steady = False  # may be set, as the machine's
    job = create(cron="0 * * * *", tz="UTC")
    clock.advance(3605)
    assert job.runs == 1
    clock._epoch -= 1800
    clock.advance(3599 - 5)
    assert job.runs == 1
    clock.advance(1802)
    assert job.runs == 2


@pytest.mark.parametrize("days", [3, 5000])
def test_cron_goes_on_when_the_clock_is_put_right(create, clock, days):
    clock.steady = False  # may be set, as the machine's
    job = create(cron="0 * * * *", tz="UTC")
    clock.advance(60)
    clock._epoch += days * 86400
    clock.advance(31)
    assert job.runs == 1
    clock._epoch -= days * 86400
    clock.advance(31)
    assert job.next_run == datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.UTC)
    clock.advance(3600)
    assert job.runs == 2
    clock.advance(3 * 3600)
    assert job.runs == 5


def test_cron_goes_on_when_the_clock_was_ahead_from_the_start(create, clock):
    clock.steady = False
    clock._epoch += 10 * 86400
    job = create(cron="*/10 * * * *", tz="UTC")
    clock.advance(3605)
    assert job.runs == 6
    clock._epoch -= 10 * 86400
    clock.advance(3600)
    assert (job.runs, job.missed) == (12, 0)


def test_cron_runs_once_what_falls_due_before_the_next_look_at_a_clock_put_right(
    create, clock, times
):
    clock.steady = False
    clock._epoch += 86400
    job = create(cron="0 * * * *", tz="UTC")
    clock.advance(3590)
    clock._epoch -= 86400
    clock.advance(60)
    assert job.runs == 1
    assert 3600 <= times[0] <= 3620
    clock.advance(3600)
    assert job.runs == 2


def test_cron_that_is_bounded_stays_so_when_the_clock_is_put_back(create, clock):
    clock.steady = False
    job = create(cron="* * * * *", tz="UTC", until=clock.time() + 300)
    clock.advance(125)
    clock._epoch -= 3600
    clock.advance(3600 + 400)
    assert not job.active
    assert job.runs == 2 + 63


def test_cron_makes_up_for_what_it_missed_if_told_so(virtual, clock):
    clock.steady = False  # may be set, as the machine's

    async def target(): ...

    job = virtual.create_async_job(
        target=target, cron="0 * * * *", tz="UTC", missed="burst", overlap="queue"
    )
    clock._epoch += 10 * 3600
    clock.advance(31)
    assert (job.runs, job.missed) == (10, 0)


def test_the_machines_zone_is_taken_when_none_is_given(virtual, monkeypatch):
    async def target(): ...

    monkeypatch.setenv("TZ", "Europe/Prague")
    job = virtual.create_async_job(target=target, cron="0 12 * * *")
    assert job.next_run.astimezone(datetime.UTC).hour == 11


def test_cron_without_its_package_says_what_to_install(virtual, monkeypatch):
    async def target(): ...

    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ImportError, match=r"pip install 'neotasker\[cron\]'"):
        virtual.create_async_job(target=target, cron="* * * * *")


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        ({"cron": "61 * * * *"}, ValueError, "cron='61 .*' makes no sense"),
        ({"cron": "* *"}, ValueError, "makes no sense"),
        ({"cron": 5}, TypeError, "cron must be a text"),
        ({"cron": "* * * * *", "tz": "Moon/Sea"}, ValueError, "no time zone 'Moon/Sea'"),
        ({"cron": "* * * * *", "tz": 5}, TypeError, "tz must be a zone"),
    ],
)
def test_cron_says_what_is_wrong(virtual, job, error, words):
    async def target(): ...

    with pytest.raises(error, match=words):
        virtual.create_async_job(target=target, **job)
