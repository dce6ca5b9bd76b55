"""Stopping: what is waited for, what is cancelled, what is reported, and from where."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from concurrent import futures

import pytest
from helpers import Blocker, run_forked, run_python, switch_interval, wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def flood():
    with Blocker() as flood:
        yield flood


async def forever():
    await asyncio.Event().wait()


def test_stop_before_start_is_harmless(nt):
    supervisor = nt.TaskSupervisor("test")
    assert supervisor.stop().clean
    supervisor.start()
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    supervisor.stop()


def test_a_second_stop_returns_the_report_of_the_first(supervisor):
    report = supervisor.stop()
    assert supervisor.stop() is report


def test_a_stopped_supervisor_can_be_started_again(supervisor):
    spawn, pool = supervisor.spawn, supervisor.thread_pool
    for n in range(3):
        assert spawn(pow, n, 2).result(10) == n * n
        assert supervisor.put_task(pow, (n, 2), delay=0.001).result(10) == n * n
        assert supervisor.stop().clean
        assert supervisor.start() is True
    assert supervisor.thread_pool is pool


def test_aloops_that_were_stopped_with_the_supervisor_start_with_it(supervisor):
    one = supervisor.create_aloop("one", default=True)
    two = supervisor.create_aloop("two")
    two.stop()
    supervisor.stop()
    assert not one.active
    supervisor.start()
    assert (one.active, two.active) == (True, False)
    assert one.run_coroutine_threadsafe(asyncio.sleep(0, 5)) == 5


def test_stop_finishes_what_waits_and_what_runs(supervisor, flood):
    supervisor.set_thread_pool(pool_size=1)
    aloop = supervisor.create_aloop("one")
    tasks = [supervisor.spawn(flood, n) for n in range(5)]
    coroutine = aloop.spawn_coroutine_threadsafe(asyncio.sleep(0.05, "slept"))
    flood.wait_running(1)
    releaser = threading.Timer(0.05, flood.release)
    releaser.start()
    report = supervisor.stop()
    assert [task.result(0) for task in tasks] == list(range(5))
    assert coroutine.result(0) == "slept"
    assert report.clean
    assert report.duration >= 0.03
    assert (report.cancelled, report.unprocessed, report.still_running) == (0, {}, [])
    assert "clean" in str(report)
    releaser.join()


def test_new_work_is_refused_while_it_stops(supervisor, nt, flood):
    supervisor.spawn(flood)
    flood.wait_running(1)
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    wait_until(lambda: not supervisor.active)
    for use in (
        lambda: supervisor.spawn(int),
        lambda: supervisor.lane(nt.TASK_CRITICAL).submit(int),
        lambda: supervisor.put_task(int, delay=1),
        lambda: supervisor.call_later(1, int),
    ):
        with pytest.raises(nt.SupervisorNotStarted, match="is stopping"):
            use()
    flood.release()
    stopping.join()


def test_aloops_take_coroutines_while_tasks_finish(supervisor):
    aloop = supervisor.create_aloop("one")
    running = threading.Event()

    def task():
        running.set()
        wait_until(lambda: not supervisor.active)
        return aloop.run_coroutine_threadsafe(asyncio.sleep(0, "done"))

    result = supervisor.spawn(task)
    assert running.wait(10)
    assert supervisor.stop().clean
    assert result.result(0) == "done"


def test_cancel_tasks_cancels_what_has_not_begun_and_coroutines(supervisor, flood):
    supervisor.set_thread_pool(pool_size=1)
    aloop = supervisor.create_aloop("one")
    running = supervisor.spawn(flood, "ran")
    flood.wait_running(1)
    waiting = [supervisor.spawn(flood) for _ in range(3)]
    coroutine = aloop.spawn_coroutine_threadsafe(forever())
    coroutine.add_done_callback(lambda _: flood.release())
    report = supervisor.stop(cancel_tasks=True)
    assert all(task.cancelled() for task in waiting)
    assert coroutine.cancelled()
    assert running.result(0) == "ran"
    assert report.cancelled == 4
    assert not report.clean
    assert "4 cancelled" in str(report)


def test_delayed_tasks_are_cancelled_and_said_so(supervisor, caplog):
    tasks = [supervisor.put_task(int, delay=60) for _ in range(2)]
    report = supervisor.stop()
    assert all(task.cancelled() for task in tasks)
    assert report.cancelled == 2
    assert "2 delayed tasks cancelled" in caplog.text


def test_a_number_is_how_long_coroutines_may_take(supervisor):
    """0.0.41 took 2.5 s for stop(wait=0.5)."""
    aloop = supervisor.create_aloop("one")
    coroutine = aloop.spawn_coroutine_threadsafe(forever())
    quick = aloop.spawn_coroutine_threadsafe(asyncio.sleep(0.01, "done"))
    began = time.monotonic()
    report = supervisor.stop(wait=0.2)
    assert 0.2 <= time.monotonic() - began < 1
    assert coroutine.cancelled()
    assert quick.result(0) == "done"
    assert report.cancelled == 1


def test_a_number_is_how_long_tasks_may_wait_to_begin(supervisor, flood):
    supervisor.set_thread_pool(pool_size=1)
    running = supervisor.spawn(flood, "ran")
    flood.wait_running(1)
    waiting = [supervisor.spawn(flood) for _ in range(3)]
    waiting[-1].add_done_callback(lambda _: flood.release())
    report = supervisor.stop(wait=0.05)
    assert running.result(0) == "ran"
    assert all(task.cancelled() for task in waiting)
    assert report.cancelled == 3


def test_a_task_that_waits_for_a_coroutine_is_freed_when_that_is_cancelled(supervisor):
    aloop = supervisor.create_aloop("one")
    running = threading.Event()

    def task():
        running.set()
        return aloop.run_coroutine_threadsafe(forever())

    result = supervisor.spawn(task)
    assert running.wait(10)
    report = supervisor.stop(wait=0.05)
    assert isinstance(result.exception(0), futures.CancelledError)
    assert report.cancelled == 1


def test_stop_without_wait_returns_at_once_and_goes_on_by_itself(supervisor, flood):
    task = supervisor.spawn(flood, "ran")
    flood.wait_running(1)
    began = time.monotonic()
    report = supervisor.stop(wait=False)
    assert time.monotonic() - began < 5
    assert not supervisor.active
    assert not report.clean
    assert "Blocker" in report.still_running[0].name
    flood.release()
    assert supervisor.block(10)
    assert task.result(0) == "ran"
    assert supervisor.stop().clean


def test_start_waits_for_a_stop_under_way(supervisor, flood):
    supervisor.spawn(flood)
    flood.wait_running(1)
    supervisor.stop(wait=False)
    releaser = threading.Timer(0.05, flood.release)
    releaser.start()
    assert supervisor.start() is True
    assert flood.finished == 1
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    releaser.join()


def test_stop_of_an_idle_supervisor_without_wait_is_clean(supervisor):
    supervisor.create_aloop("one")
    assert supervisor.stop(wait=False).clean
    assert supervisor.block(10)


# A hard bound.


def test_timeout_bounds_the_call_and_the_report_says_what_still_runs(supervisor, flood):
    supervisor.set_thread_pool(pool_size=1)
    running = supervisor.spawn(flood)
    flood.wait_running(1)
    waiting = supervisor.spawn(flood)
    began = time.monotonic()
    report = supervisor.stop(timeout=0.2)
    assert 0.19 <= time.monotonic() - began < 2
    assert not report.clean
    assert supervisor.block(10)
    report = supervisor.stop()
    assert waiting.cancelled()
    (still,) = report.still_running
    assert still.name.startswith("supervisor_test_pool_0: ")
    assert still.age >= 0.15
    assert "_may_pass" in still.stack
    assert "still running" in str(report)
    assert still.name in str(report)
    flood.release()
    assert running.result(10) is None


def test_a_supervisor_starts_again_although_a_task_of_before_runs_on(supervisor, flood):
    supervisor.set_thread_pool(pool_size=2)
    old = supervisor.spawn(flood, "old")
    flood.wait_running(1)
    supervisor.stop(timeout=0.05)
    supervisor.start()
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    flood.release()
    assert old.result(10) == "old"


def test_past_the_timeout_futures_of_coroutines_end_whatever_those_do(supervisor):
    aloop = supervisor.create_aloop("one")
    release = threading.Event()
    started = threading.Event()

    async def stubborn():
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    future = aloop.spawn_coroutine_threadsafe(stubborn())
    assert started.wait(10)
    report = supervisor.stop(timeout=0.1)
    supervisor.block(10)
    assert future.done()
    report = supervisor.stop()
    (still,) = report.still_running
    assert "stubborn" in still.name
    assert "asyncio.sleep(0.01)" in still.stack
    release.set()
    aloop.thread.join(10)
    assert not aloop.thread.is_alive()


def test_a_thread_of_a_worker_that_does_not_end_is_reported(supervisor, flood):
    thread = supervisor.start_thread("mine", flood)
    assert thread.name == "supervisor_test_worker_mine"
    flood.wait_running(1)
    supervisor.stop(timeout=0.05)
    supervisor.block(10)
    (still,) = supervisor.stop().still_running
    assert still.name == "supervisor_test_worker_mine"
    assert "_may_pass" in still.stack
    flood.release()
    thread.join()


def test_the_report_of_a_clean_stop_pickles(supervisor):
    report = pickle.loads(pickle.dumps(supervisor.stop()))
    assert report.clean


@pytest.mark.parametrize("wrong", [{"wait": -1}, {"timeout": -1}, {"wait": float("nan")}])
def test_negative_seconds_are_refused_and_nothing_is_stopped(supervisor, wrong):
    with pytest.raises(ValueError, match="must be"):
        supervisor.stop(**wrong)
    with pytest.raises(TypeError, match="must be"):
        supervisor.stop(**dict.fromkeys(wrong, "soon"))
    assert supervisor.active
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


# From inside.


def test_stop_from_a_task(supervisor):
    reports = []
    supervisor.spawn(lambda: reports.append(supervisor.stop()))
    assert supervisor.block(10)
    assert supervisor.stop().clean
    assert "<lambda>" in reports[0].still_running[0].name


def test_stop_from_two_tasks_at_once(supervisor):
    barrier = threading.Barrier(2)
    tasks = [
        supervisor.spawn(lambda: (barrier.wait(), supervisor.stop(), supervisor.stop()))
        for _ in range(2)
    ]
    assert supervisor.block(10)
    assert all(task.done() for task in tasks)


def test_stop_from_a_coroutine(supervisor):
    aloop = supervisor.create_aloop("one")

    async def stops():
        supervisor.stop()
        await asyncio.sleep(0.01)
        return "ended"

    future = aloop.spawn_coroutine_threadsafe(stops())
    assert supervisor.block(10)
    assert future.result(0) == "ended"


def test_stop_from_a_thread_of_a_coroutine(supervisor):
    aloop = supervisor.create_aloop("one")
    future = aloop.spawn_coroutine_threadsafe(asyncio.to_thread(supervisor.stop))
    assert supervisor.block(10)
    assert future.done()


def test_stop_from_the_tick(supervisor):
    supervisor.ticker.call_later(0.001, supervisor.stop)
    assert supervisor.block(10)
    assert not supervisor.active


def test_stop_from_a_thread_of_a_worker(supervisor):
    thread = supervisor.start_thread("mine", supervisor.stop)
    assert supervisor.block(10)
    assert not thread.is_alive()


def test_stop_from_a_callback_of_a_task(supervisor):
    supervisor.put_task(int, callback=lambda task: supervisor.stop())
    assert supervisor.block(10)
    assert supervisor.stop().clean


def test_start_from_inside_while_it_stops_says_no_instead_of_hanging(supervisor, nt):
    def restart():
        supervisor.stop()
        with pytest.raises(nt.SupervisorNotStarted, match="is stopping"):
            supervisor.start()
        return "refused"

    task = supervisor.spawn(restart)
    assert supervisor.block(10)
    assert task.result(0) == "refused"


# At the same time.


def test_concurrent_stops_return_one_report(supervisor, flood):
    supervisor.spawn(flood)
    flood.wait_running(1)
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(supervisor.stop())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: not supervisor.active)
    flood.release()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    assert len({id(report) for report in reports}) == 1


def test_a_second_stop_may_ask_for_more(supervisor):
    aloop = supervisor.create_aloop("one")
    future = aloop.spawn_coroutine_threadsafe(forever())
    first = threading.Thread(target=supervisor.stop)
    first.start()
    wait_until(lambda: not supervisor.active)
    assert not supervisor.block(0.05)
    report = supervisor.stop(cancel_tasks=True)
    assert future.cancelled()
    assert report.cancelled == 1
    first.join()


def test_a_second_stop_may_be_less_patient(supervisor):
    aloop = supervisor.create_aloop("one")
    future = aloop.spawn_coroutine_threadsafe(forever())
    supervisor.stop(wait=False)
    assert supervisor.stop(wait=0.05).cancelled == 1
    assert future.cancelled()


def test_start_and_stop_from_many_threads_end_in_order(nt):
    supervisor = nt.TaskSupervisor("test")

    def cycle():
        for _ in range(15):
            supervisor.start()
            with contextlib.suppress(nt.SupervisorNotStarted):
                supervisor.spawn(int)
            supervisor.stop()

    threads = [threading.Thread(target=cycle) for _ in range(4)]
    with switch_interval():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not supervisor.active
    assert supervisor.start()
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    assert supervisor.stop().clean


def test_every_future_ends_when_submitters_race_with_stop(nt):
    for cancel in (False, True):
        supervisor = nt.TaskSupervisor("test")
        supervisor.set_thread_pool(pool_size=2)
        supervisor.start()
        aloop = supervisor.create_aloop("one")
        handed = []
        begun = threading.Barrier(4)

        def submit(supervisor=supervisor, aloop=aloop, handed=handed, begun=begun):
            begun.wait()
            try:
                while True:
                    handed.append(supervisor.spawn(int))
                    handed.append(supervisor.put_task(int, delay=0.0005))
                    handed.append(aloop.spawn_coroutine_threadsafe(asyncio.sleep(0)))
            except (nt.SupervisorNotStarted, nt.AloopError):
                pass

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        time.sleep(0.02)
        report = supervisor.stop(cancel_tasks=cancel)
        for thread in threads:
            thread.join()
        assert all(future.done() for future in handed)
        assert not report.still_running


def test_stop_while_the_pool_is_resized(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    ended = threading.Event()

    def resize():
        n = 0
        while not ended.is_set():
            n += 1
            supervisor.set_thread_pool(pool_size=1 + n % 5, min_size=n % 2)

    thread = threading.Thread(target=resize)
    thread.start()
    tasks = [supervisor.spawn(int) for _ in range(200)]
    report = supervisor.stop()
    ended.set()
    thread.join()
    assert report.clean
    assert all(task.done() for task in tasks)
    assert len(supervisor.thread_pool._threads) == 0


# Schedulers.


class Scheduler:
    def __init__(self, name, error=None):
        self._name = name
        self.error = error
        self.stopped = 0

    def stop(self, wait=True):
        self.stopped += 1
        if self.error is not None:
            raise self.error


def test_registered_schedulers_are_stopped_unless_asked_otherwise(supervisor):
    one, two = Scheduler("one"), Scheduler("two")
    supervisor.register_sync_scheduler(one)
    supervisor.stop(stop_schedulers=False)
    assert one.stopped == 0
    supervisor.start()
    supervisor.register_sync_scheduler(two)
    supervisor.stop()
    assert two.stopped == 1


def test_a_scheduler_that_fails_to_stop_does_not_keep_the_rest(supervisor, caplog):
    supervisor.register_sync_scheduler(Scheduler("one", ZeroDivisionError("in stop")))
    other = Scheduler("two")
    supervisor.register_sync_scheduler(other)
    supervisor.stop()
    assert other.stopped
    assert "in stop" in caplog.text
    assert not supervisor.active


# Workers.


def test_stop_reports_what_a_queue_worker_did_not_process(supervisor, nt, flood):
    """0.0.41 ran 4 of 20 items and dropped 16 without a word."""

    @nt.background_worker(queue=True, supervisor=supervisor)
    def consumer(item, **kwargs):
        flood(item)

    consumer.start()
    for n in range(20):
        consumer.put_threadsafe(n)
    flood.wait_running(1)
    stopping = threading.Thread(target=supervisor.stop)
    stopping.start()
    wait_until(lambda: not consumer.is_active())
    flood.release()
    stopping.join()
    report = supervisor.stop()
    assert list(report.unprocessed) == ["consumer"]
    left = report.unprocessed["consumer"]
    assert left == list(range(20))[-len(left) :]
    assert flood.finished == 20 - len(left)
    assert not report.clean
    assert f"{len(left)} unprocessed by consumer" in str(report)


@pytest.mark.parametrize("wait", [True, False])
def test_stop_with_drain_finishes_the_queues(supervisor, nt, wait):
    supervisor.create_aloop("one", default=True)
    done: dict[str, list[int]] = {"plain": [], "async": []}

    @nt.background_worker(queue=True, supervisor=supervisor)
    def plain(item, **kwargs):
        time.sleep(0.001)
        done["plain"].append(item)

    @nt.background_worker(queue=True, supervisor=supervisor)
    async def asynchronous(item, **kwargs):
        await asyncio.sleep(0.001)
        done["async"].append(item)

    for worker in (plain, asynchronous):
        worker.start()
        for n in range(50):
            worker.put_threadsafe(n)
    supervisor.stop(wait=wait, drain=True)
    assert supervisor.block(10)
    report = supervisor.stop()
    assert done == {"plain": list(range(50)), "async": list(range(50))}
    assert report.clean


def kinds(nt, supervisor, action):
    """Yield a worker of each kind whose target calls *action*, and what makes it run."""

    def plain(*args, **kwargs):
        action()

    async def asynchronous(*args, **kwargs):
        action()

    for target in (plain, asynchronous):
        for kind in ({}, {"interval": 0.01}, {"delay": 0.01}, {"queue": True}, {"event": True}):
            worker = nt.background_worker(target, supervisor=supervisor, **kind)
            if "queue" in kind:
                yield worker, lambda worker=worker: worker.put_threadsafe(1)
            elif "event" in kind:
                yield worker, worker.trigger_threadsafe
            else:
                yield worker, lambda: None


@pytest.mark.parametrize("number", range(10))
def test_stop_from_the_target_of_a_worker_of_any_kind(supervisor, nt, number):
    """In 0.0.41 stop() from inside a worker's own run deadlocks."""
    supervisor.create_aloop("one", default=True)
    worker, run = list(kinds(nt, supervisor, supervisor.stop))[number]
    worker.start()
    run()
    assert supervisor.block(10)
    assert not worker.is_active()
    assert not supervisor.stop().still_running


def test_cancel_tasks_ends_workers_that_wait_for_ever(supervisor, nt):
    supervisor.create_aloop("one", default=True)
    started = threading.Event()

    @nt.background_worker(interval=60, supervisor=supervisor)
    async def stuck(**kwargs):
        started.set()
        await forever()

    stuck.start()
    assert started.wait(10)
    report = supervisor.stop(cancel_tasks=True)
    assert not stuck.is_active()
    assert not report.still_running


def test_a_number_ends_workers_that_wait_for_ever(supervisor, nt):
    supervisor.create_aloop("one", default=True)
    started = threading.Event()

    @nt.background_worker(supervisor=supervisor)
    async def stuck(**kwargs):
        started.set()
        await forever()

    stuck.start()
    assert started.wait(10)
    began = time.monotonic()
    supervisor.stop(wait=0.1)
    assert 0.1 <= time.monotonic() - began < 2
    assert not stuck.is_active()


def test_waiting_runs_of_workers_may_be_cancelled(supervisor, nt, flood):
    supervisor.set_thread_pool(pool_size=1)

    @nt.background_worker(queue=True, supervisor=supervisor)
    def consumer(item, **kwargs):
        pass

    consumer.start()
    supervisor.spawn(flood)
    flood.wait_running(1)
    for n in range(5):
        consumer.put_threadsafe(n)
    supervisor.spawn(int).add_done_callback(lambda _: flood.release())
    assert supervisor.stop(cancel_tasks=True).unprocessed == {"consumer": [0, 1, 2, 3, 4]}


def test_workers_run_again_after_a_restart(supervisor, nt):
    ran = threading.Semaphore(0)

    @nt.background_worker(interval=0.01, supervisor=supervisor)
    def again(**kwargs):
        ran.release()

    for _ in range(3):
        again.start()
        assert ran.acquire(timeout=10)
        assert supervisor.stop().clean
        assert not again.is_active()
        supervisor.start()


# Forks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_finds_a_stopped_supervisor_and_may_start_it(nt):
    ran = run_forked(
        """
        import asyncio
        import neotasker
        from neotasker import task_supervisor as s

        s.start()
        aloop = s.create_aloop("one", default=True)
        gate = threading.Event()
        running = s.spawn(gate.wait)
        delayed = s.put_task(int, delay=60)
        lane = s.lane(neotasker.TASK_HIGH)
        """,
        """
        assert not s.active
        assert s.block()
        assert delayed.cancelled()
        assert not aloop.active
        try:
            neotasker.spawn(int)
        except neotasker.SupervisorNotStarted:
            pass
        else:
            raise AssertionError("not refused")
        assert s.stop().clean
        assert s.start()
        assert neotasker.spawn(pow, 2, 3).result(10) == 8
        assert lane.submit(pow, 2, 3).result(10) == 8
        assert s.put_task(pow, (2, 3), delay=0.01).result(10) == 8
        assert s.start_aloop("one")
        assert aloop.run_coroutine_threadsafe(asyncio.sleep(0, 5)) == 5
        assert s.stop().clean
        assert [t.name for t in threading.enumerate()] == ["MainThread"]
        """,
        """
        gate.set()
        assert running.result(10) is True
        assert aloop.run_coroutine_threadsafe(asyncio.sleep(0, 6)) == 6
        assert s.stop().cancelled == 1
        """,
    )
    assert (ran.rc, ran.err) == (0, "supervisor default: 1 delayed tasks cancelled\n") or (
        ran.rc == 0 and "Traceback" not in ran.err
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("runs_in", ["own threads", "an executor of others"])
def test_views_of_a_forked_child_are_empty_and_go(nt, runs_in):
    ran = run_forked(
        """
        import gc, weakref
        from concurrent.futures import ThreadPoolExecutor
        import neotasker

        def hold():
            entered.set()
            return gate.wait()

        pool = neotasker.TaskPool(1)
        if sys.argv[1] == "an executor of others":
            pool.use_executor(ThreadPoolExecutor(2))
        lane = pool.lane(neotasker.TASK_HIGH)
        entered, gate = threading.Event(), threading.Event()
        doors = [door for door in (pool, lane) for _ in range(3)]
        tasks = [door.submit(hold) for door in doors]
        entered.wait()
        """,
        """
        assert (pool.outstanding, lane.outstanding) == (0, 0)
        assert all(task.cancelled() or task.exception(0) for task in tasks)
        assert [task for task in tasks if task.target or task.time_finished is None] == []
        pool.use_executor(None)
        assert lane.submit(pow, 2, 3).result(10) == 8
        lane.shutdown(wait=True)
        assert pool.submit(pow, 2, 3).result(10) == 8
        gone = weakref.ref(pool)
        del pool, lane, tasks, doors
        while gone() is not None:
            gc.collect()
        """,
        """
        gate.set()
        assert [task.result(10) for task in tasks] == [True] * 6
        pool.shutdown()
        assert (pool.outstanding, lane.outstanding) == (0, 0)
        """,
        runs_in,
    )
    assert (ran.rc, ran.err) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_target_that_forks_is_there_in_the_child_until_it_returns(nt):
    ran = run_python(
        """
        import functools, gc, os, threading, warnings, weakref
        warnings.simplefilter("ignore")
        import neotasker

        def target():
            let_go.wait()
            pid = os.fork()
            if not pid:
                gc.collect()
                os._exit(0 if called() is not None else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        let_go = threading.Event()
        with neotasker.TaskPool(1) as pool:
            call = functools.partial(target)
            called = weakref.ref(call)
            task = pool.submit(call)
            del call
            let_go.set()
            assert task.result(10) == 0
        """
    )
    assert ran.rc == 0, ran.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_child_that_a_task_forked_ends_when_the_task_returns_in_it(nt):
    ran = run_python(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        import neotasker

        def target():
            return os.fork()

        with neotasker.TaskPool(2) as pool:
            pid = pool.submit(target).result(10)
            os.waitpid(pid, 0)
        print("ended")
        """
    )
    assert (ran.rc, ran.out) == (0, "ended\n"), ran.err


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_stop_from_a_signal_handler_while_it_starts(nt):
    ran = run_python(
        """
        import os, signal, threading
        from neotasker import task_supervisor as s

        def on_signal(number, frame):
            s.stop()

        signal.signal(signal.SIGUSR1, on_signal)
        for _ in range(30):
            pest = threading.Timer(0.0005, os.kill, (os.getpid(), signal.SIGUSR1))
            pest.start()
            s.start()
            pest.join()
            s.stop()
            assert not s.active
        assert len(threading.enumerate()) == 1
        """
    )
    assert (ran.rc, ran.err) == (0, "")


def test_stop_takes_no_longer_than_what_it_waits_for(nt):
    began = time.monotonic()
    for _ in range(20):
        supervisor = nt.TaskSupervisor("test")
        supervisor.start()
        supervisor.create_aloop("one")
        supervisor.spawn(int)
        supervisor.stop()
    assert time.monotonic() - began < 10
    assert sys.exc_info() == (None, None, None)
