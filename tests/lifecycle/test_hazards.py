"""What users of such systems have hit elsewhere, each by the tracker that tells of it.

Most of it is tested at more length beside the part that it concerns.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures
from zoneinfo import ZoneInfo

import pytest
from helpers import (
    Blocker,
    needs_late_threads,
    run_python,
    switch_interval,
    wait_until,
    wait_until_logged,
)


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def virtual(nt):
    """A supervisor on a clock that is turned by hand, and that clock."""
    from neotasker.testing import VirtualClock

    clock = VirtualClock()
    supervisor = nt.TaskSupervisor("virtual", clock=clock)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor, clock
    supervisor.stop(cancel_tasks=True)


async def forever():
    await asyncio.Event().wait()


# Schedules.


def test_apscheduler_423_474_644_a_slow_job_misses_runs_and_says_how_many(virtual):
    supervisor, clock = virtual
    scheduler = supervisor.create_async_job_scheduler("jobs")

    async def slow():
        await asyncio.sleep(2.5)

    job = scheduler.create_threadsafe(slow, interval=1.0)
    clock.advance(10.6)
    began, missed = job.runs, job.missed
    assert began + missed == 11  # what fell due from 0 to 10
    clock.advance(100)
    assert job.runs > 20


def test_apscheduler_292_182_a_run_that_is_late_takes_place(virtual):
    supervisor, clock = virtual
    ran = []
    supervisor.ticker.call_later(1.0, lambda: time.sleep(0))
    supervisor.ticker.call_later(1.0, ran.append, "late")
    clock.advance(3600)
    assert ran == ["late"]


@pytest.mark.parametrize("missed", ["skip", "delay", "burst"])
def test_apscheduler_1095_after_an_overrun_the_user_has_the_choice(nt, supervisor, missed):
    release = threading.Event()
    times = []

    def target(**_):
        times.append(time.monotonic())
        if len(times) == 1:
            release.wait(10)

    worker = nt.BackgroundIntervalWorker(
        "worker", target, interval=0.05, missed=missed, supervisor=supervisor
    )
    worker.start()
    time.sleep(0.275)  # what falls due meanwhile cannot be had otherwise
    release.set()
    wait_until(lambda: len(times) >= 8)
    worker.stop()
    assert worker.missed == 0 if missed == "burst" else worker.missed >= 4


def test_apscheduler_1126_there_is_a_fixed_delay(nt, virtual):
    supervisor, clock = virtual
    times = []

    async def target(**_):
        times.append(clock.monotonic())
        await asyncio.sleep(2)

    worker = nt.BackgroundIntervalWorker("worker", target, delay=1.0, supervisor=supervisor)
    worker.start()
    clock.advance(30)
    distances = {round(b - a, 6) for a, b in itertools.pairwise(times)}
    assert distances == {3.0}


def test_tokio_3721_akka_core_26910_a_stall_is_followed_by_no_flood(nt, supervisor):
    gate = threading.Event()
    runs = []

    def target(**_):
        runs.append(time.monotonic())
        if len(runs) == 1:
            gate.wait(10)

    worker = nt.BackgroundIntervalWorker("worker", target, interval=0.01, supervisor=supervisor)
    worker.start()
    wait_until(lambda: len(runs) == 1)
    time.sleep(0.3)  # thirty intervals
    gate.set()
    released = time.monotonic()
    wait_until(lambda: time.monotonic() - released > 0.1)
    worker.stop()
    assert len(runs) <= 4 + (time.monotonic() - released) / 0.01


def test_apscheduler_1021_980_372_cron_goes_on_through_dst_changes(nt):
    pytest.importorskip("cronsim")
    from neotasker.testing import VirtualClock

    zone = ZoneInfo("Europe/Prague")
    start = datetime.datetime(2026, 3, 28, 12, tzinfo=zone)
    clock = VirtualClock(start=start.timestamp())
    supervisor = nt.TaskSupervisor("dst", clock=clock)
    supervisor.start()
    scheduler = supervisor.create_async_job_scheduler("jobs")
    times = []
    scheduler.create_threadsafe(
        lambda: times.append(datetime.datetime.fromtimestamp(clock.time(), zone)),
        cron="30 2 * * *",
        tz="Europe/Prague",
    )
    clock.advance(86400 * 3)
    supervisor.stop()
    days = [moment.date().isoformat() for moment in times]
    assert days == ["2026-03-29", "2026-03-30", "2026-03-31"]


def test_apscheduler_794_1066_351_a_step_of_the_clock_floods_nobody(nt, virtual):
    supervisor, clock = virtual
    ran = []
    worker = nt.BackgroundIntervalWorker(
        "worker", lambda **_: ran.append(None), interval=3600, supervisor=supervisor
    )
    worker.start()
    clock.advance(1)
    clock.advance(86400 * 7)  # a week passes, in order and at once
    assert len(ran) == 1 + 24 * 7


# Exit and shutdown.


@needs_late_threads
def test_apscheduler_985_cpython_148280_threads_that_still_work_may_submit(nt):
    ran = run_python(
        """
        import threading, time
        from neotasker import TaskPool
        pool = TaskPool(2)
        main = threading.main_thread()
        def work():
            main.join()
            print(pool.submit(pow, 2, 3).result(10), flush=True)
        threading.Thread(target=work).start()
        """
    )
    assert ran == (0, "8\n", "")


def test_cpython_80961_shutdown_without_wait_does_not_block_the_exit(nt):
    began = time.monotonic()
    ran = run_python(
        """
        import time
        from neotasker import TaskSupervisor
        s = TaskSupervisor("s")
        s.start(daemon=True)
        s.spawn(time.sleep, 60)
        s.stop(wait=False)
        """
    )
    assert ran.rc == 0
    assert time.monotonic() - began < 20


@needs_late_threads
@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_cpython_111358_a_blocked_thread_needs_two_ctrl_c_at_most(nt):
    code = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from neotasker import task_supervisor as s
s.start()
s.spawn(threading.Event().wait)
print("ready", flush=True)
s.block()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.5)  # it waits for the thread that is blocked
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
    finally:
        child.kill()
        child.communicate()


def test_cpython_120508_schedule_77_exceptions_do_not_vanish_or_stop_a_schedule(
    nt, supervisor, caplog
):
    def fail():
        raise ValueError("nobody looks")

    task = supervisor.spawn(fail)
    futures.wait([task])
    del task
    scheduler = supervisor.create_async_job_scheduler("jobs")
    job = scheduler.create_threadsafe(fail, interval=0.005)
    wait_until(lambda: job.runs >= 5)
    wait_until_logged("never retrieved", caplog)
    assert caplog.text.count("exception in job") >= 4
    assert isinstance(job.last_error, ValueError)


# The pool.


def test_cpython_73781_the_queue_can_be_bounded(nt):
    with nt.TaskPool(1, queue_size=2, when_full="raise") as pool, Blocker() as blocker:
        pool.submit(blocker)
        blocker.wait_running(1)
        for _ in range(2):
            pool.submit(int)
        with pytest.raises(nt.QueueFull, match="2 tasks wait already"):
            pool.submit(int)


def test_loky_291_the_urgent_do_not_starve(nt, supervisor):
    supervisor.set_thread_pool(pool_size=2, reserve_normal=1, reserve_high=1)
    with Blocker() as blocker:
        for _ in range(100):
            supervisor.put_task(blocker, priority=nt.TASK_LOW)
        blocker.wait_running(2)
        assert supervisor.put_task(pow, (2, 3), priority=nt.TASK_HIGH).result(10) == 8
        assert supervisor.put_task(pow, (2, 3), priority=nt.TASK_CRITICAL).result(10) == 8


def test_opentelemetry_3329_saturation_and_queue_wait_have_figures(nt, supervisor):
    supervisor.set_thread_pool(pool_size=1)
    with Blocker() as blocker:
        supervisor.spawn(blocker)
        blocker.wait_running(1)
        waiting = [supervisor.spawn(int) for _ in range(5)]
        pool = supervisor.get_info().pool
        assert (pool["active"], sum(pool["waiting"].values()), pool["threads"]) == (1, 5, 1)
    futures.wait(waiting)
    assert sum(supervisor.get_info().pool["wait_seconds"].values()) > 0


def test_apscheduler_332_flask_apscheduler_251_one_can_see_what_runs_now(nt, supervisor):
    scheduler = supervisor.create_async_job_scheduler("jobs")
    with Blocker() as blocker:
        job = scheduler.create_threadsafe(blocker, interval=60)
        blocker.wait_running(1)
        assert job.running == 1
        assert [job.name for job in scheduler.jobs if job.running] == [job.name]
    wait_until(lambda: job.running == 0)


def test_cpython_78195_context_variables_come_along(supervisor):
    var = contextvars.ContextVar("var", default="none")
    var.set("mine")
    aloop = supervisor.create_aloop("main")

    async def look():
        return var.get()

    assert supervisor.spawn(var.get).result(10) == "mine"
    assert supervisor.put_task(var.get, delay=0.001).result(10) == "mine"
    assert aloop.run_coroutine_threadsafe(look()) == "mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_cpython_88110_a_forked_child_does_not_hang(supervisor):
    with Blocker() as blocker:
        running = supervisor.spawn(blocker)
        blocker.wait_running(1)
        pid = os.fork()
        if not pid:
            status = 1
            try:
                ended = isinstance(running.exception(10), futures.BrokenExecutor)
                supervisor.start()
                if ended and supervisor.spawn(pow, 2, 3).result(10) == 8:
                    status = 0
            finally:
                os._exit(status)
        wait_until(lambda: ended_child(pid))
        assert running.running()


def ended_child(pid):
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        assert status == 0
    return bool(found)


def test_cpython_117344_idle_threads_and_submits_do_not_miss_each_other(nt):
    with switch_interval(), nt.TaskPool(4, idle_timeout=0.0005) as pool:
        for n in range(2000):
            assert pool.submit(pow, n, 2).result(10) == n * n
            if n % 200 == 0:
                time.sleep(0.001)  # the threads are about to go


def test_trio_6_hard_caps_do_not_deadlock_tasks_that_wait_for_tasks(nt):
    with nt.TaskPool(2) as pool:

        def recurse(depth):
            return 0 if not depth else 1 + pool.submit(recurse, depth - 1).result(60)

        assert pool.submit(recurse, 1000).result(60) == 1000


def test_aiojobs_98_nothing_stalls_at_a_limit(nt):
    with nt.TaskPool(2, queue_size=3) as pool:
        done = []
        threads = [
            threading.Thread(
                target=lambda: done.extend(
                    pool.submit(pow, n, 2).result(30) for n in range(500)
                )
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(done) == 2000


def test_apscheduler_293_schedule_629_schedules_are_tested_without_waiting(nt, virtual):
    supervisor, clock = virtual
    ran = []
    supervisor.call_later(86400, ran.append, "tomorrow")
    began = time.monotonic()
    clock.advance(86400)
    assert ran == ["tomorrow"]
    assert time.monotonic() - began < 5


# Aloops.


def test_cpython_105836_cancel_may_be_waited_for(supervisor):
    aloop = supervisor.create_aloop("main")
    ended = []

    async def slow_to_end():
        try:
            await forever()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    future = aloop.spawn_coroutine_threadsafe(slow_to_end())
    wait_until(lambda: aloop.tasks())
    future.cancel()
    supervisor.stop_aloop("main")
    assert ended == [True]


def test_bellows_745_a_call_to_a_stopped_loop_does_not_hang(nt, supervisor):
    aloop = supervisor.create_aloop("main")
    waiting = aloop.spawn_coroutine_threadsafe(forever())
    supervisor.stop_aloop("main", cancel_tasks=True)
    with pytest.raises(futures.CancelledError):
        waiting.result(10)
    coro = forever()
    with pytest.raises(nt.AloopError):
        aloop.run_coroutine_threadsafe(coro)
    coro.close()


def test_cpython_pr_93258_coroutines_that_nobody_holds_do_not_vanish(supervisor):
    aloop = supervisor.create_aloop("main")
    done = []

    async def lonely():
        await asyncio.sleep(0.01)
        done.append(True)

    for _ in range(50):
        aloop.spawn_coroutine_threadsafe(lonely())
    for _ in range(5):
        gc.collect()
    wait_until(lambda: len(done) == 50)


# The predecessors.


def test_neotasker_0_0_41_spawn_stays_bound_to_the_pool(nt):
    ran = run_python(
        """
        import threading
        from neotasker import spawn, task_supervisor as s
        s.start()
        s.set_thread_pool(min_size=1, max_size=3)
        print(spawn(lambda: threading.current_thread().name).result(10))
        s.stop()
        """
    )
    assert ran.out.startswith("supervisor_default_pool_"), ran


def test_neotasker_0_0_41_a_stopped_queue_worker_gives_back_what_it_holds(
    nt, supervisor, caplog
):
    with Blocker() as blocker:
        worker = nt.BackgroundQueueWorker("worker", blocker, supervisor=supervisor)
        worker.start()
        for item in range(20):
            worker.put_threadsafe(item)
        blocker.wait_running(1)
        worker.stop(wait=False)
        blocker.release()
        wait_until(lambda: not worker.is_active() and len(worker.unprocessed) == 19)
    assert worker.unprocessed == list(range(1, 20))


def test_neotasker_0_0_41_a_stop_takes_the_last_items_of_those_that_run(nt, supervisor):
    stored = []
    running, go_on = threading.Event(), threading.Event()
    store = nt.BackgroundQueueWorker(
        "store", lambda item: stored.append(item), supervisor=supervisor
    )
    store.start()

    def sample(**_):
        running.set()
        go_on.wait(10)
        store.put_threadsafe("last")

    worker = nt.BackgroundIntervalWorker("w", sample, interval=60, supervisor=supervisor)
    worker.start()
    assert running.wait(10)
    reports = []
    stopper = threading.Thread(target=lambda: reports.append(supervisor.stop(drain=True)))
    stopper.start()
    wait_until(lambda: not supervisor.active)
    time.sleep(0.05)  # the stop has come to the worker that runs
    go_on.set()
    stopper.join(10)
    assert stored == ["last"]
    assert reports[0].clean
    assert worker.errors == 0


def test_neotasker_0_0_41_a_continuous_worker_that_raises_lives_on(nt, supervisor):
    runs = []

    def target(**_):
        runs.append(None)
        raise ValueError("again")

    worker = nt.BackgroundWorker("worker", target, supervisor=supervisor, poll_delay=0.001)
    worker.start()
    wait_until(lambda: len(runs) >= 2)
    assert worker.is_active()
    worker.stop()
    assert not worker.is_active()
    worker.start()
    wait_until(lambda: len(runs) >= 4)
    worker.stop()


def test_neotasker_0_0_41_stop_from_its_own_run_does_not_deadlock(nt, supervisor):
    stopped = threading.Event()

    def target(**kwargs):
        kwargs["_worker"].stop()
        stopped.set()

    worker = nt.BackgroundIntervalWorker("worker", target, interval=60, supervisor=supervisor)
    worker.start()
    assert stopped.wait(10)
    wait_until(lambda: not worker.is_active())


def test_neotasker_0_0_41_a_stop_that_waits_half_a_second_takes_no_longer(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    aloop = supervisor.create_aloop("main")
    aloop.spawn_coroutine_threadsafe(forever())
    began = time.monotonic()
    supervisor.stop(wait=0.5)
    assert 0.5 <= time.monotonic() - began < 2


def test_aiosched_0_0_25_a_slow_body_has_one_run_at_a_time(nt, supervisor):
    supervisor.create_aloop("main", default=True)
    on = most = 0

    async def slow(**_):
        nonlocal on, most
        on += 1
        most = max(most, on)
        await asyncio.sleep(0.06)
        on -= 1

    worker = nt.BackgroundIntervalWorker("worker", slow, interval=0.01, supervisor=supervisor)
    worker.start()
    wait_until(lambda: worker.runs >= 4)
    worker.stop()
    assert most == 1


def test_atasker_0_7_9_a_waiting_task_starts_at_once_and_stop_works(supervisor):
    supervisor.set_thread_pool(pool_size=1)
    with Blocker() as blocker:
        supervisor.spawn(blocker)
        blocker.wait_running(1)
        waiting = supervisor.spawn(time.monotonic)
        wait_until(lambda: not waiting.running())
        released = time.monotonic()
        blocker.release()
        assert waiting.result(10) - released < 0.09  # there it was asked for every 0.1 s
    assert supervisor.stop().clean
