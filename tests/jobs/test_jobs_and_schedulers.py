"""Async jobs and registered schedulers, under a real supervisor or a clock of one's own."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import threading

import pytest
from helpers import Blocker, wait_until


@pytest.fixture
def virtual(nt):
    from neotasker.testing import VirtualClock

    start = datetime.datetime(2026, 3, 29, 0, 0, tzinfo=datetime.UTC)
    supervisor = nt.TaskSupervisor(clock=VirtualClock(start))
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    supervisor.create_async_job_scheduler("jobs", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("schedulers")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def test_a_job_runs_after_its_timer_and_then_at_its_interval(virtual):
    at: list[float] = []

    async def target(a, b):
        at.append(virtual.clock.monotonic() + a + b)

    job = virtual.create_async_job(
        target=target, args=(0,), kwargs={"b": 0}, timer=2, interval=10
    )
    virtual.clock.advance(35)
    assert at == [2, 12, 22, 32]
    assert job.active and job.runs == 4
    assert job.cancel()
    virtual.clock.advance(35)
    assert len(at) == 4 and not job.active


def test_a_job_runs_as_often_as_it_is_told(virtual):
    runs: list[int] = []

    async def target():
        runs.append(1)

    job = virtual.create_async_job(target=target, interval=1, number=3)
    virtual.clock.advance(10)
    assert len(runs) == 3 == job.runs
    assert not job.active


def test_a_job_slower_than_its_interval_never_runs_twice_at_once(virtual):
    on = 0
    most = 0

    async def target():
        nonlocal on, most
        on += 1
        most = max(most, on)
        await asyncio.sleep(0.3)
        on -= 1

    job = virtual.create_async_job(target=target, interval=0.05)
    virtual.clock.advance(10)
    assert most == 1
    assert job.missed > 0 and job.runs > 10


def test_a_job_that_fails_is_logged_and_goes_on(virtual, caplog):
    async def target():
        raise ValueError("job failed")

    job = virtual.create_async_job(target=target, interval=1)
    virtual.clock.advance(2.5)
    assert job.runs == 3 and job.active
    assert isinstance(job.last_error, ValueError)
    assert caplog.text.count("ValueError: job failed") == 3


def test_a_plain_function_runs_in_the_pool(virtual):
    names: list[str] = []
    job = virtual.create_async_job(
        target=lambda: names.append(threading.current_thread().name), interval=1, number=2
    )
    virtual.clock.advance(5)
    assert job.runs == 2
    assert all("_pool_" in name for name in names) and len(names) == 2


@pytest.mark.parametrize(
    ("zone", "eve"),
    [
        ("Europe/Prague", (2026, 3, 28)),
        ("Europe/Prague", (2026, 10, 24)),
        ("Europe/Prague", (2027, 3, 27)),
        ("Europe/Prague", (2027, 10, 30)),
        ("America/New_York", (2026, 3, 7)),
        ("America/New_York", (2026, 10, 31)),
        ("America/New_York", (2027, 3, 13)),
        ("America/New_York", (2027, 11, 6)),
    ],
)
def test_cron_keeps_going_across_changes_of_the_clock(nt, zone, eve):
    from zoneinfo import ZoneInfo

    from cronsim import CronSim

    from neotasker.testing import VirtualClock

    start = datetime.datetime(*eve, tzinfo=datetime.UTC)
    end = start + datetime.timedelta(days=2)
    clock = VirtualClock(start)
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    supervisor.create_async_job_scheduler("jobs", default=True)
    ran: dict[str, list[datetime.datetime]] = {}

    async def target(expression):
        ran.setdefault(expression, []).append(clock.datetime())

    for expression in ("30 2 * * *", "*/20 * * * *", "15 1-3 * * *"):
        supervisor.create_async_job(target=target, args=(expression,), cron=expression, tz=zone)
    clock.advance(2 * 86400)
    supervisor.stop(cancel_tasks=True)
    assert len(ran) == 3
    for expression, at in ran.items():
        documented = (
            moment.astimezone(datetime.UTC)
            for moment in CronSim(expression, start.astimezone(ZoneInfo(zone)))
        )
        assert at == list(itertools.takewhile(lambda moment: moment <= end, documented))
        assert len(set(at)) == len(at) >= 1


def test_bad_jobs_are_refused(virtual):
    async def target():
        return None

    for bad in (
        {"target": 5, "interval": 1},
        {"target": target, "interval": -1},
        {"target": target, "interval": 1, "overlap": "never"},
        {"target": target, "cron": "not a cron"},
    ):
        with pytest.raises((TypeError, ValueError)):
            virtual.create_async_job(**bad)
    assert virtual.create_async_job(target=target, interval=1).active


def test_jobs_need_a_scheduler_of_that_name(virtual, nt):
    with pytest.raises(nt.UnknownScheduler, match="nowhere"):
        virtual.create_async_job("nowhere", target=asyncio.sleep, interval=1)
    assert virtual.create_async_job_scheduler("jobs") is False


# Registered schedulers.


class Own:
    """A scheduler of the user's own."""

    _name = "own"

    def __init__(self, worker_loop=None, fails=False):
        self.worker_loop = worker_loop
        self.fails = fails
        self.began = threading.Event()
        self.stopped = threading.Event()
        self.thread = ""

    async def loop(self):
        self.thread = threading.current_thread().name
        self.began.set()
        if self.fails:
            raise LookupError("scheduler died")
        while not self.stopped.is_set():
            await asyncio.sleep(0.005)

    def stop(self):
        self.stopped.set()


@pytest.mark.parametrize("loop", [None, "main"])
def test_a_scheduler_runs_on_its_loop_and_is_stopped_with_the_supervisor(nt, loop):
    supervisor = nt.TaskSupervisor("own")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    scheduler = Own(loop)
    assert supervisor.register_scheduler(scheduler)
    assert scheduler.began.wait(10)
    assert scheduler.thread.endswith("_aloop_main")
    assert scheduler in supervisor.get_schedulers().values()
    report = supervisor.stop()
    assert scheduler.stopped.is_set() and report.still_running == []


def test_without_any_aloop_a_scheduler_runs_on_the_supervisors_own_loop(nt):
    supervisor = nt.TaskSupervisor("alone")
    supervisor.start()
    scheduler = Own()
    supervisor.register_scheduler(scheduler)
    assert scheduler.began.wait(10)
    assert scheduler.thread == "supervisor_alone_event_loop"
    supervisor.stop()
    assert scheduler.stopped.is_set()


def test_a_scheduler_whose_loop_dies_is_logged_and_unregistered(supervisor, caplog):
    scheduler = Own(fails=True)
    supervisor.register_scheduler(scheduler)
    wait_until(lambda: scheduler not in supervisor.get_schedulers().values())
    assert "LookupError: scheduler died" in caplog.text


def test_of_a_sync_scheduler_only_stop_is_called(nt):
    supervisor = nt.TaskSupervisor("sync")
    supervisor.start()
    scheduler = Own()
    assert supervisor.register_sync_scheduler(scheduler)
    supervisor.stop()
    assert scheduler.stopped.is_set() and not scheduler.began.is_set()


def test_an_unregistered_scheduler_is_left_alone(nt):
    supervisor = nt.TaskSupervisor("left")
    supervisor.start()
    scheduler = Own()
    supervisor.register_sync_scheduler(scheduler)
    assert supervisor.unregister_sync_scheduler(scheduler)
    assert not supervisor.unregister_sync_scheduler(scheduler)
    supervisor.stop()
    assert not scheduler.stopped.is_set()


def test_a_thousand_jobs_start_together(virtual):
    runs: list[int] = []

    async def target(n):
        runs.append(n)

    for n in range(1000):
        virtual.create_async_job(target=target, args=(n,), timer=1, interval=1, number=2)
    virtual.clock.advance(3)
    assert sorted(runs) == sorted([*range(1000), *range(1000)])


def test_a_blocked_pool_does_not_hold_up_async_jobs(supervisor):
    supervisor.create_async_job_scheduler("jobs", default=True)
    ran = threading.Event()
    with Blocker() as block:
        for _ in range(200):
            supervisor.spawn(block)

        async def target():
            ran.set()

        supervisor.create_async_job(target=target, interval=10)
        assert ran.wait(10)
