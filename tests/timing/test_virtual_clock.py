"""A clock that is turned by hand: hours of schedules in milliseconds, the same each time."""

from __future__ import annotations

import asyncio
import datetime
import threading
import time

import pytest
from helpers import run_python


@pytest.fixture
def clock(nt):
    from neotasker.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def supervisor(nt, clock):
    supervisor = nt.TaskSupervisor(id="virtual", clock=clock)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def test_the_clock_stands_still_until_it_is_turned(clock):
    before = clock.monotonic()
    threading.Event().wait(0.01)
    assert clock.monotonic() == before
    clock.advance(5)
    assert clock.monotonic() == before + 5


def test_the_clock_knows_the_date(nt):
    from neotasker.testing import VirtualClock

    start = datetime.datetime(2026, 3, 29, 0, 59, tzinfo=datetime.UTC)
    clock = VirtualClock(start)
    assert clock.datetime() == start
    clock.advance(60)
    assert clock.datetime() == start + datetime.timedelta(minutes=1)
    assert clock.time() == start.timestamp() + 60


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_clock_is_not_turned_back(clock, seconds):
    with pytest.raises(ValueError, match="from 0"):
        clock.advance(seconds)
    assert clock.monotonic() == 0


def test_a_naive_start_is_refused(nt):
    from neotasker.testing import VirtualClock

    with pytest.raises(ValueError, match="aware"):
        VirtualClock(datetime.datetime(2026, 1, 1))


def test_timers_fire_in_order_each_at_its_time(supervisor, clock):
    seen: list[tuple[str, float]] = []

    def note(name):
        seen.append((name, clock.monotonic()))

    supervisor.call_later(2, note, "pool")
    supervisor.ticker.call_later(1, note, "tick")
    supervisor.call_every(1.5, note, "every")
    supervisor.put_task(note, ("task",), delay=2.5)
    clock.advance(0.5)
    assert seen == []
    clock.advance(3.5)
    assert seen == [
        ("tick", 1.0),
        ("every", 1.5),
        ("pool", 2.0),
        ("task", 2.5),
        ("every", 3.0),
    ]


def test_sleep_in_an_aloop_goes_by_the_clock(supervisor, clock):
    seen: list[float] = []

    async def nap():
        for _ in range(3):
            await asyncio.sleep(100)
            seen.append(clock.monotonic())
        return "rested"

    future = supervisor.get_aloop().spawn_coroutine_threadsafe(nap())
    clock.advance(250)
    assert seen == [100, 200]
    assert not future.done()
    clock.advance(50)
    assert future.result(10) == "rested"


def test_asyncio_timeouts_go_by_the_clock(supervisor, clock):
    async def impatient():
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 3600)
        except TimeoutError:
            return clock.monotonic()

    future = supervisor.get_aloop().spawn_coroutine_threadsafe(impatient())
    clock.advance(7200)
    assert future.result(10) == 3600


def test_loops_and_pool_wake_one_another_within_a_moment(supervisor, clock):
    steps: list[tuple[str, float]] = []

    async def chain():
        await asyncio.sleep(1)
        steps.append((await supervisor.spawn(lambda: "pool"), clock.monotonic()))
        await asyncio.to_thread(steps.append, ("thread", clock.monotonic()))
        await asyncio.sleep(1)
        return supervisor.call_later(1, steps.append, ("timer", 3.0))

    future = supervisor.get_aloop().spawn_coroutine_threadsafe(chain())
    clock.advance(10)
    assert future.done()
    assert steps == [("pool", 1.0), ("thread", 1.0), ("timer", 3.0)]


def test_a_task_that_waits_for_a_later_moment_does_not_hold_the_clock(supervisor, clock):
    async def nap():
        await asyncio.sleep(30)
        return clock.monotonic()

    aloop = supervisor.get_aloop()
    task = supervisor.spawn(lambda: aloop.run_coroutine_threadsafe(nap()))
    clock.advance(29)
    assert not task.done()
    clock.advance(1)
    assert task.result(10) == 30


def test_interval_workers_run_at_their_virtual_times(nt, supervisor, clock):
    plain: list[float] = []
    coroutine: list[float] = []

    @nt.background_worker(interval=10, supervisor=supervisor)
    def sample(**kwargs):
        plain.append(clock.monotonic())

    @nt.background_worker(interval=60, supervisor=supervisor)
    async def report(**kwargs):
        await asyncio.sleep(5)
        coroutine.append(clock.monotonic())

    sample.start()
    report.start()
    began = time.monotonic()
    clock.advance(3600)
    assert time.monotonic() - began < 30
    assert plain == [10.0 * n for n in range(361)]
    assert coroutine == [60.0 * n + 5 for n in range(60)]
    clock.advance(5)  # the run that began at 3600 sleeps still
    sample.stop()
    report.stop()
    assert len(coroutine) == 61


def test_a_moment_that_does_not_settle_is_reported(nt):
    from neotasker.testing import VirtualClock

    clock = VirtualClock(patience=0.1)
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    release = threading.Event()

    def stuck():
        release.wait()

    supervisor.spawn(stuck)
    with pytest.raises(RuntimeError, match="stuck"):
        clock.advance(1)
    release.set()
    clock.advance(1)
    supervisor.stop()


def test_a_loop_that_cannot_be_turned_is_refused(nt, supervisor):
    class Loop(asyncio.AbstractEventLoop):
        pass

    with pytest.raises(TypeError, match="selector loop"):
        supervisor.create_aloop("other", loop_factory=Loop)


@pytest.mark.hang_limit(240)
@pytest.mark.parametrize("hours", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_a_virtual_day_is_the_same_three_times(nt, hours):
    from neotasker.testing import VirtualClock

    start = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)

    def day():
        clock = VirtualClock(start)
        supervisor = nt.TaskSupervisor(clock=clock)
        supervisor.start()
        supervisor.create_aloop("main", default=True)
        jobs = supervisor.create_async_job_scheduler("jobs", default=True)
        at_cron: list[float] = []
        at_second: list[float] = []
        at_sleep: list[float] = []

        async def cron():
            at_cron.append(clock.monotonic())

        async def sleeper():
            await asyncio.sleep(30)
            at_sleep.append(clock.monotonic())

        supervisor.create_async_job(jobs, target=cron, cron="*/5 * * * *", tz="UTC")
        supervisor.create_async_job(jobs, target=sleeper, interval=60)
        worker = nt.BackgroundIntervalWorker(
            fn=lambda **kwargs: at_second.append(clock.monotonic()),
            interval=1,
            supervisor=supervisor,
        )
        worker.start()
        clock.advance(hours * 3600)
        supervisor.stop(cancel_tasks=True)
        return at_cron, at_second, at_sleep

    first = day()
    assert first[0] == [300.0 * n for n in range(1, hours * 12 + 1)]
    assert first[1] == [float(n) for n in range(hours * 3600 + 1)]
    assert first[2] == [60.0 * n + 30 for n in range(hours * 60)]
    assert day() == first
    assert day() == first


def test_the_fixture_is_there_for_pytest(nt, tmp_path):
    test = tmp_path / "test_it.py"
    test.write_text(
        "def test_hours(virtual_supervisor):\n"
        "    hours = []\n"
        "    virtual_supervisor.call_every(3600, hours.append, 1)\n"
        "    virtual_supervisor.clock.advance(36000)\n"
        "    assert hours == [1] * 10\n"
    )
    code = """
        import sys, pytest
        from importlib.metadata import entry_points

        installed = entry_points(group="pytest11", name="neotasker")
        plugin = [] if installed else ["-p", "neotasker.pytest_plugin"]
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *plugin, sys.argv[1]]))
    """
    ran = run_python(code, str(test))
    assert ran.rc == 0, ran.out + ran.err
    assert "1 passed" in ran.out
