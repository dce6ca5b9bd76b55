"""Async jobs: when they run, overlaps, bounds, errors."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import inspect
import logging
import threading
import time

import pytest
from helpers import Blocker, near, wait_until

# When they run.


def test_a_job_runs_at_once_and_then_every_interval(create, clock, times):
    job = create(interval=0.1)
    clock.advance(10)
    assert times == near(*(n * 0.1 for n in range(101)))
    assert (job.runs, job.missed, job.active) == (101, 0, True)


def test_a_timer_comes_before_the_first_run(create, clock, times):
    create(interval=10, timer=3)
    clock.advance(25)
    assert times == near(3, 13, 23)


@pytest.mark.parametrize(
    "options", [{"number": 3}, {"max_runs": 3}, {"number": 3, "max_runs": 5}]
)
def test_a_job_runs_a_number_of_times(create, clock, times, options):
    job = create(interval=1, **options)
    clock.advance(10)
    assert times == near(0, 1, 2)
    assert (job.runs, job.active, job.next_run) == (3, False, None)
    assert job.cancel() is False


def test_without_an_interval_it_runs_once(create, clock, times):
    job = create(timer=5)
    assert job.active
    clock.advance(100)
    assert times == near(5)
    assert not job.active


def test_until_is_the_last_moment(create, clock, times):
    until = clock.datetime() + datetime.timedelta(seconds=2.5)
    job = create(interval=1, until=until)
    other = create(interval=1, until=until.timestamp())
    clock.advance(10)
    assert sorted(times) == near(0, 0, 1, 1, 2, 2)
    assert not job.active
    assert not other.active


def test_a_cancelled_job_runs_no_more(create, clock, times, virtual):
    job = create(interval=1)
    clock.advance(2.5)
    assert job.cancel() is True
    assert job.cancel() is False
    assert virtual.cancel_async_job(job=job) is False
    clock.advance(10)
    assert times == near(0, 1, 2)
    assert virtual.async_job_schedulers["jobs"].jobs == []


def test_a_job_may_cancel_itself(virtual, clock):
    jobs = []

    async def target():
        jobs[0].cancel()

    jobs.append(virtual.create_async_job(target=target, interval=1, timer=1))
    clock.advance(5)
    assert jobs[0].runs == 1


def test_arguments_are_handed_on(virtual, clock):
    got = []

    async def target(*args, **kwargs):
        got.append((args, kwargs))

    virtual.create_async_job(target=target, args=[1, 2], kwargs={"a": 3})
    clock.advance(1)
    assert got == [((1, 2), {"a": 3})]


def test_a_coroutine_may_create_a_job(virtual, clock):
    ran = []

    async def target():
        ran.append(clock.monotonic())

    async def main():
        return await virtual.default_async_job_scheduler.create(target, timer=2)

    future = virtual.get_aloop("main").spawn_coroutine_threadsafe(main())
    clock.advance(5)
    assert future.result(timeout=10).runs == 1
    assert ran == near(2)


def test_jobs_wait_for_the_start_of_their_scheduler(virtual, clock):
    scheduler = virtual.create_async_job_scheduler("later", start=False)
    ran = []

    async def target():
        ran.append(clock.monotonic())

    job = scheduler.create_threadsafe(target, interval=1)
    clock.advance(5)
    assert ran == []
    assert scheduler.start() is True
    assert scheduler.start() is False
    clock.advance(1.5)
    assert ran == near(5, 6)
    scheduler.stop()
    clock.advance(10)
    assert job.runs == 2
    scheduler.start()
    clock.advance(1.5)
    assert job.runs == 3


def test_thousands_of_jobs_start_in_one_pass_of_the_loop(host):
    loop = host.get_aloop("main").get_loop()
    passes, seen = [0], []

    def count():
        passes[0] += 1
        if len(seen) < 3_000:
            loop.call_soon(count)

    async def target():
        seen.append(passes[0])

    first = time.monotonic() + 0.5
    for _ in range(3_000):
        host.create_async_job(target=target, timer=first - time.monotonic(), interval=100)
    assert time.monotonic() < first
    loop.call_soon_threadsafe(count)
    wait_until(lambda: len(seen) == 3_000)
    assert len(set(seen)) <= 10  # due times differ by a nanosecond, and the machine may be busy


def test_runs_begin_on_the_aloop_or_in_the_pool(host):
    names = []

    def plain():
        names.append(threading.current_thread().name)

    async def coroutine():
        plain()

    host.create_async_job(target=coroutine)
    wait_until(lambda: names)
    host.create_async_job(target=plain)
    wait_until(lambda: len(names) == 2)
    assert names == ["supervisor_tests_aloop_main", "supervisor_tests_pool_0"]


def test_runs_see_the_context_of_who_made_the_job(host, is_async):
    name = contextvars.ContextVar("name")
    seen = []

    def plain():
        seen.append(name.get())
        name.set("changed")

    async def coroutine():
        plain()

    name.set("me")
    host.create_async_job(target=coroutine if is_async else plain, interval=0.01, number=2)
    wait_until(lambda: len(seen) == 2)
    assert seen == ["me", "me"]


def test_each_run_of_a_coroutine_is_a_task_of_its_own(host):
    tasks = []

    async def target():
        before = asyncio.current_task()
        await asyncio.sleep(0)
        assert asyncio.current_task() is before
        tasks.append(before)

    job = host.create_async_job(target=target, interval=0.01, number=3, name="mine")
    wait_until(lambda: len(tasks) == 3)
    assert len(set(tasks)) == 3
    assert tasks[0].get_name() in ("mine", "job mine")
    assert job.last_error is None


# Overlaps.


def slow(clock, begun, seconds):
    async def target():
        begun.append(clock.monotonic())
        await asyncio.sleep(seconds)

    return target


def test_a_job_slower_than_its_interval_is_one_run_at_a_time(virtual, clock):
    """aiosched has seven runs on at once: an interval of 0.05 s and a body of 0.3 s."""
    on, most = 0, 0

    async def target():
        nonlocal on, most
        on += 1
        most = max(most, on)
        await asyncio.sleep(0.3)
        on -= 1

    job = virtual.create_async_job(target=target, interval=0.05)
    clock.advance(3.01)
    assert most == 1
    assert 8 <= job.runs <= 10
    assert job.runs + job.missed == 61


def test_queue_runs_afterwards_what_was_in_the_way(virtual, clock):
    begun = []
    job = virtual.create_async_job(
        target=slow(clock, begun, 2.5), interval=1, number=5, overlap="queue"
    )
    clock.advance(20)
    assert begun == near(0, 2.5, 5, 7.5, 10)
    assert (job.runs, job.missed) == (5, 0)


def test_allow_lets_runs_overlap(virtual, clock):
    begun = []
    job = virtual.create_async_job(
        target=slow(clock, begun, 2.5), interval=1, number=5, overlap="allow"
    )
    clock.advance(2.25)
    assert job.running == 3
    clock.advance(20)
    assert begun == near(0, 1, 2, 3, 4)
    assert (job.running, job.missed) == (0, 0)


def test_delay_begins_a_new_phase_after_a_run_that_was_in_the_way(virtual, clock):
    begun = []
    job = virtual.create_async_job(target=slow(clock, begun, 2.5), interval=1, missed="delay")
    clock.advance(8)
    assert begun == near(0, 3.5, 7)
    assert job.missed >= 4


def test_plain_functions_do_not_overlap_either(host):
    with Blocker() as block:
        job = host.create_async_job(target=block, interval=0.01)
        wait_until(lambda: job.missed >= 5)
        block.expect_exactly(1, quiet=0.02)
        assert (job.runs, job.running) == (1, 1)


def test_a_loop_that_was_blocked_runs_each_job_once(host):
    """After a stall a burst of runs floods the callee."""
    loop = host.get_aloop("main").get_loop()
    blocked, go = threading.Event(), threading.Event()

    async def target(): ...

    def block():
        blocked.set()
        go.wait(10)

    job = host.create_async_job(target=target, interval=0.01)
    wait_until(lambda: job.runs)
    loop.call_soon_threadsafe(block)
    assert blocked.wait(10)
    before = job.runs
    time.sleep(0.5)
    go.set()
    wait_until(lambda: job.runs > before)
    assert job.runs - before < 10
    assert job.missed >= 40


# Errors, and what a job tells.


def test_a_job_that_fails_is_logged_and_goes_on(host, caplog, is_async):
    """Elsewhere exceptions vanish, or one stops the whole schedule."""

    def plain():
        raise ValueError("broken")

    async def coroutine():
        plain()

    job = host.create_async_job(
        target=coroutine if is_async else plain, interval=0.01, number=3, name="mine"
    )
    wait_until(lambda: job.runs == 3 and not job.running)
    assert str(job.last_error) == "broken"
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.getMessage() for r in errors] == ["exception in job mine"] * 3
    assert "ValueError: broken" in errors[0].exc_text


def test_a_job_keeps_its_last_error(virtual, clock):
    outcomes = iter([1, 0, 0])

    async def target():
        if next(outcomes):
            raise ValueError

    job = virtual.create_async_job(target=target, interval=1, number=3)
    clock.advance(5)
    assert job.runs == 3
    assert isinstance(job.last_error, ValueError)


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit])
def test_even_an_unusual_exception_concerns_one_run_only(host, caplog, error):
    async def target():
        raise error

    job = host.create_async_job(target=target, interval=0.01, number=3)
    wait_until(lambda: job.runs == 3 and not job.running)
    assert host.get_aloop("main").run_coroutine_threadsafe(asyncio.sleep(0, 1)) == 1


def test_a_job_tells_when_it_ran_and_runs_next(virtual, clock):
    start = clock.datetime()
    begun = []
    job = virtual.create_async_job(target=slow(clock, begun, 2), interval=10, timer=5)
    assert (job.last_start, job.last_duration) == (None, None)
    assert job.next_run == start + datetime.timedelta(seconds=5)
    clock.advance(6)
    assert job.last_start == start + datetime.timedelta(seconds=5)
    assert job.running == 1
    clock.advance(2)
    assert job.last_duration == pytest.approx(2)
    assert job.next_run == start + datetime.timedelta(seconds=15)
    assert job.next_run.tzinfo is datetime.UTC


def test_one_sees_which_jobs_run_now(host):
    """Elsewhere one cannot."""
    with Blocker() as block:
        busy = host.create_async_job(target=block, interval=100)
        idle = host.create_async_job(target=int, interval=100)
        wait_until(lambda: idle.runs and not idle.running and busy.running)
        jobs = host.default_async_job_scheduler.jobs
        assert [job for job in jobs if job.running] == [busy]
        assert idle in jobs


def test_ids_are_unique(virtual):
    async def target(): ...

    jobs = [virtual.create_async_job(target=target, interval=100) for _ in range(10)]
    assert len({job.id for job in jobs}) == 10
    assert jobs[0].id == jobs[0].id


# Stopping.


def test_stop_waits_for_the_runs_that_are_on(host, is_async):
    ended = []
    begun = threading.Event()

    def plain():
        begun.set()
        time.sleep(0.05)
        ended.append(1)

    async def coroutine():
        begun.set()
        await asyncio.sleep(0.05)
        ended.append(1)

    host.create_async_job(target=coroutine if is_async else plain, interval=100)
    assert begun.wait(10)
    scheduler = host.default_async_job_scheduler
    assert scheduler.stop() is True
    assert ended == [1]
    assert not scheduler.active


@pytest.mark.parametrize("wait", [False, 0.05])
def test_stop_does_not_wait_longer_than_it_is_told(host, wait):
    begun, go = threading.Event(), threading.Event()

    async def target():
        begun.set()
        while not go.is_set():
            await asyncio.sleep(0.001)

    host.create_async_job(target=target)
    assert begun.wait(10)
    began = time.monotonic()
    assert host.default_async_job_scheduler.stop(wait=wait) is False
    assert time.monotonic() - began < 5
    go.set()
    assert host.default_async_job_scheduler.stop() is True


def test_stop_from_inside_a_run_does_not_wait_for_it(host, is_async):
    outcome = []

    def plain():
        outcome.append(host.default_async_job_scheduler.stop())

    async def coroutine():
        plain()

    host.create_async_job(target=coroutine if is_async else plain)
    wait_until(lambda: outcome)
    assert not host.default_async_job_scheduler.active


def test_a_stop_of_the_supervisor_ends_jobs_that_would_wait_for_ever(host):
    begun = threading.Event()

    async def target():
        begun.set()
        await asyncio.Event().wait()

    job = host.create_async_job(target=target, interval=100)
    assert begun.wait(10)
    began = time.monotonic()
    host.stop(wait=0.1)
    assert time.monotonic() - began < 5
    assert job.running == 0


def test_jobs_go_on_when_their_aloop_and_scheduler_are_started_again(host):
    async def target(): ...

    job = host.create_async_job(target=target, interval=0.01)
    wait_until(lambda: job.runs)
    host.stop_aloop("main", cancel_tasks=True)
    scheduler = host.default_async_job_scheduler
    assert not scheduler.active
    host.start_aloop("main")
    before = job.runs
    assert scheduler.start() is True
    wait_until(lambda: job.runs > before + 2)


# Bad input.


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [
        ({"target": 5}, TypeError, "target of a job must be callable, not 5"),
        ({"interval": 0}, ValueError, "interval must be more than 0 seconds, .* not 0"),
        ({"interval": "1"}, TypeError, "interval must be a number of seconds, not '1'"),
        ({"timer": -1}, ValueError, "timer must be at least 0 seconds, .* not -1"),
        ({"interval": 1, "number": -1}, ValueError, "number must be at least 0, not -1"),
        ({"interval": 1, "max_runs": 0}, ValueError, "max_runs must be at least 1, not 0"),
        ({"number": 3}, ValueError, "to run 3 times needs interval= or cron="),
        ({"interval": 1, "overlap": "x"}, ValueError, "'skip', 'allow' or 'queue', not 'x'"),
        ({"interval": 1, "missed": "x"}, ValueError, "'skip', 'delay' or 'burst', not 'x'"),
        ({"interval": 1, "cron": "* * * * *"}, ValueError, "both cron .* and interval"),
        ({"interval": 1, "tz": "UTC"}, ValueError, "tz='UTC' is for cron="),
        ({"interval": 1, "until": "soon"}, TypeError, "until must be a datetime or seconds"),
        ({"interval": 1, "priority": 3}, ValueError, "unknown priority 3"),
        ({"interval": 1, "nonsense": 3}, TypeError, "nonsense"),
    ],
)
def test_a_job_says_what_is_wrong(virtual, job, error, words):
    async def target(): ...

    with pytest.raises(error, match=words):
        virtual.create_async_job(**{"target": target, **job})
    assert virtual.default_async_job_scheduler.jobs == []


@pytest.mark.skipif(not hasattr(inspect, "markcoroutinefunction"), reason="not in 3.11")
def test_a_target_that_is_marked_and_makes_no_coroutine_fails_each_time(host):
    @inspect.markcoroutinefunction
    def marked():
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    job = host.create_async_job(target=marked, interval=0.01)
    wait_until(lambda: job.runs >= 3)
    job.cancel()
    wait_until(lambda: not job.running)
    assert isinstance(job.last_error, TypeError)


@pytest.mark.parametrize("what", ["cancel", "stop"])
@pytest.mark.parametrize("again", [False, True], ids=["create", "start"])
def test_what_ends_a_job_in_the_middle_of_its_start_ends_it(host, monkeypatch, what, again):
    """As a signal handler or a finalizer may."""
    jobs = host.create_async_job_scheduler("other")
    clock_of = jobs._loop_clock
    runs: list[int] = []

    async def target():
        runs.append(1)

    def interrupted():
        if what == "stop":
            jobs.stop(wait=False)
        else:
            for job in jobs.jobs:
                job.cancel()
        return clock_of()

    if again:
        job = jobs.create_threadsafe(target, interval=0.01, timer=0.02)
        jobs.stop()
        runs.clear()
    monkeypatch.setattr(jobs, "_loop_clock", interrupted)
    if again:
        jobs.start()
    else:
        job = jobs.create_threadsafe(target, interval=0.01, timer=0.02)
    assert job.next_run is None
    assert job.active is (what == "stop")
    time.sleep(0.1)
    assert runs == [] and not job.running
