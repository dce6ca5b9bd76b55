"""Where the runs of workers are made, and what the supervisor does with its workers."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from helpers import Blocker, run_forked, wait_until
from worker_tools import KINDS, make, run_once


def test_targets_see_the_context_of_who_started_the_worker(nt, host):
    name = contextvars.ContextVar("name", default="nobody")
    got = queue.Queue()
    workers = [
        make(
            nt,
            host,
            kind,
            lambda *args, **kw: got.put(name.get()) or time.sleep(0.01),
            is_async,
        )
        for kind in KINDS
        for is_async in (False, True)
    ]
    name.set("me")
    for worker in filter(None, workers):
        worker.start()
        run_once(worker)
        assert got.get(timeout=10) == "me"
        worker.stop()
        while not got.empty():
            assert got.get() == "me"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_worker_on_an_aloop_is_one_task_whose_coroutine_has_it_as_self(nt, host, kind):
    worker = make(nt, host, kind, lambda *args, **kwargs: None, True)
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)

    async def look():
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return [task.get_coro().cr_frame.f_locals.get("self") for task in tasks]

    assert host.get_aloop("main").run_coroutine_threadsafe(look()) == [worker]
    worker.stop()
    assert host.get_aloop("main").run_coroutine_threadsafe(look()) == []
    assert worker.aloop is host.get_aloop("main")
    assert worker.worker_loop is host.get_aloop("main").get_loop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_runs_on_an_aloop_are_part_of_the_workers_task(nt, host, kind):
    seen = queue.Queue()

    async def target(*args, **kwargs):
        before = asyncio.current_task()
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.put((before, asyncio.current_task()))

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    for _ in range(3):
        run_once(worker)
        before, after = seen.get(timeout=10)
        assert before is after
        assert inspect.iscoroutine(before.get_coro())
        assert before.get_name() == "_background_worker_x"
    assert worker.errors == 0


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_worker_runs_on_the_loop_that_start_names(nt, host, kind):
    host.create_aloop("second")
    names = queue.Queue()

    def target(*args, **kwargs):
        names.put(threading.current_thread().name)

    worker = make(nt, host, kind, target, True, loop="main")
    for start, expected in (({}, "main"), ({"_loop": "second"}, "second"), ({}, "second")):
        worker.start(**start)
        run_once(worker)
        assert names.get(timeout=10) == f"supervisor_tests_aloop_{expected}"
        worker.stop()
        assert worker.aloop.name == expected
        names.queue.clear()


def test_a_worker_runs_on_a_loop_of_the_programs(nt, host):
    runs = []

    async def target(_worker, **kwargs):
        runs.append(asyncio.get_running_loop())
        if len(runs) == 3:
            _worker.stop()

    async def main():
        loop = asyncio.get_running_loop()
        worker = nt.BackgroundIntervalWorker(
            "x", target, delay=0.001, supervisor=host, loop=loop
        )
        worker.start()
        while not worker.is_stopped():
            await asyncio.sleep(0.001)
        assert worker.aloop is None
        return loop

    assert [asyncio.run(main())] * 3 == runs


def test_a_worker_on_a_loop_that_is_gone_stops(nt, host):
    async def target(**kwargs): ...

    async def main():
        worker = nt.BackgroundEventWorker(
            "x", target, supervisor=host, loop=asyncio.get_running_loop()
        )
        worker.start()
        await asyncio.sleep(0.01)
        return worker

    worker = asyncio.run(main())
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    worker.stop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_cancelling_the_task_ends_the_worker(nt, host, caplog, kind):
    begun = threading.Event()

    async def target(*args, **kwargs):
        begun.set()
        await asyncio.Event().wait()

    options = {"interval": 1} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    run_once(worker)
    assert begun.wait(10)
    loop = worker.worker_loop
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert "its task was cancelled" in caplog.text
    assert worker.errors == 0
    if "Queue" in kind:
        assert worker.unprocessed == ["item"]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_cancellation_inside_the_target_is_an_error_of_it(nt, host, kind):
    async def target(*args, **kwargs):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, on_error=lambda: None, **options)
    worker.start()
    for n in range(2):
        run_once(worker)
        wait_until(lambda n=n: worker.errors > n)
    assert worker.is_active()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_run_that_takes_longer_than_its_timeout_is_cancelled(nt, host, caplog, kind):
    begun = threading.Semaphore(0)

    async def target(*args, **kwargs):
        begun.release()
        await asyncio.Event().wait()

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, timeout=0.02, **options)
    worker.start()
    for n in range(3):
        run_once(worker)
        assert begun.acquire(timeout=10)
        wait_until(lambda n=n: worker.errors > n)
    assert worker.is_active()
    assert "took longer than its timeout of 0.02 s" in caplog.text
    worker.stop()
    assert worker.is_stopped()


def test_plain_targets_need_no_loop(nt):
    supervisor = nt.TaskSupervisor("bare")
    supervisor.start()
    supervisor.create_aloop("asleep", start=False, default=True)
    ran = queue.Queue()
    workers = [
        make(nt, supervisor, kind, lambda *a, kind=kind, **kw: ran.put(kind), False)
        for kind in KINDS[2:]
    ]
    for worker in workers:
        worker.start()
        run_once(worker)
    seen = set()
    while len(seen) < 3:
        seen.add(ran.get(timeout=10))
    supervisor.stop()


def square(number, **kwargs):
    """Be a target that another process finds by its name."""
    return number * number, sorted(kwargs)


def tick(**kwargs):
    """Be another."""
    return sorted(kwargs)


def test_workers_run_in_a_process_pool_and_get_no_worker(nt, host):
    results = queue.Queue()
    with ProcessPoolExecutor(1) as pool:
        worker = nt.BackgroundQueueWorker("q", square, pool=pool, supervisor=host, o="o")
        worker.process_result = results.put
        other = nt.BackgroundIntervalWorker(
            "i", tick, pool=pool, interval=0.01, supervisor=host
        )
        other.process_result = results.put
        worker.start(extra=1)
        for n in range(5):
            worker.put_threadsafe(n)
        worker.stop(drain=True)
        got = [results.get(timeout=30) for _ in range(5)]
        assert got == [(n * n, ["_name", "extra", "o"]) for n in range(5)]
        other.start()
        assert results.get(timeout=30) == ["_name", "o"]
        other.stop()
    assert worker.runs == 5


def test_workers_follow_the_pool_to_another_process(nt, host):
    results = queue.Queue()
    worker = nt.BackgroundEventWorker("e", tick, supervisor=host)
    worker.process_result = results.put
    worker.start()
    worker.trigger_threadsafe()
    assert results.get(timeout=10) == ["_name", "_worker", "o"]
    with ProcessPoolExecutor(1) as pool:
        host.thread_pool = pool
        worker.trigger_threadsafe()
        assert results.get(timeout=30) == ["_name", "o"]
        host.thread_pool = None
    worker.trigger_threadsafe()
    assert results.get(timeout=10) == ["_name", "_worker", "o"]
    worker.stop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_workers_run_in_a_pool_of_the_programs(nt, host, kind):
    names = queue.Queue()
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        worker = make(
            nt,
            host,
            kind,
            lambda *args, _worker, **kw: names.put(threading.current_thread().name),
            False,
            pool=pool,
        )
        worker.start()
        run_once(worker)
        assert names.get(timeout=10) == "mine_0"
        worker.stop()


def test_a_bounded_pool_does_not_hold_up_the_tick(nt, host):
    """Runs that are due enter the pool whatever its bound: they were accepted before."""
    host.set_thread_pool(pool_size=1, queue_size=1)
    pool = nt.TaskPool(pool_size=1, queue_size=1)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        host.spawn(int)
        pool.submit(block)
        block.wait_running(2)
        pool.submit(int)
        workers = [
            nt.BackgroundIntervalWorker(
                n, lambda: None, interval=0.01, supervisor=host, pool=pool if n % 2 else None
            )
            for n in range(20)
        ]
        for worker in workers:
            worker.start()
        ticked = threading.Event()
        host.ticker.call_later(0.02, ticked.set)
        assert ticked.wait(10)
    for worker in workers:
        wait_until(lambda worker=worker: worker.runs)
        worker.stop()
    pool.shutdown()


def test_runs_have_the_priority_of_the_worker(nt, host):
    host.set_thread_pool(pool_size=1, reserve_high=1)
    ran = threading.Event()
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        low = nt.BackgroundEventWorker("l", block, supervisor=host, priority=nt.TASK_LOW)
        high = nt.BackgroundEventWorker("h", ran.set, supervisor=host, priority=nt.TASK_HIGH)
        for worker in (low, high):
            worker.start()
            worker.trigger_threadsafe()
        assert ran.wait(10)
        assert low.runs == 0


# The supervisor and its workers.


@pytest.mark.parametrize("kind", KINDS)
def test_the_supervisor_stops_its_workers_together(nt, host, kind):
    """Each is told before any is waited for: else a hundred runs of 0.1 s took ten seconds."""
    workers = []
    for n in range(50):
        worker = make(nt, host, kind, lambda *args, **kwargs: time.sleep(0.1), False)
        worker.set_name(n)
        worker.start()
        run_once(worker)
        workers.append(worker)
    began = time.monotonic()
    host.stop()
    assert time.monotonic() - began < 3
    assert all(worker.is_stopped() for worker in workers)


def test_an_overridden_stop_is_called_by_the_supervisor(nt, host):
    calls = []

    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def stop(self, *args, **kwargs):
            calls.append((args, kwargs))
            super().stop(*args, **kwargs)

    worker = Mine(supervisor=host)
    worker.start()
    host.stop()
    assert calls == [((), {"wait": True, "drain": False})]
    assert worker.is_stopped()


def test_workers_are_not_started_while_the_supervisor_stops(nt, host):
    late = nt.BackgroundEventWorker("late", print, supervisor=host)
    errors = queue.Queue()

    def target(_worker):
        while _worker.is_active():
            time.sleep(0.001)
        try:
            late.start()
        except nt.SupervisorNotStarted as exc:
            errors.put(exc)

    worker = nt.BackgroundWorker("x", target, supervisor=host)
    worker.start()
    wait_until(lambda: worker.runs)
    host.stop()
    assert "is stopping, worker late is refused" in str(errors.get_nowait())
    assert not late.is_active()


def test_a_forked_child_finds_its_workers_stopped(nt):
    ran = run_forked(
        """
        import neotasker as nt
        nt.task_supervisor.start()
        runs = []
        workers = [
            nt.BackgroundIntervalWorker("i", lambda: runs.append(1), interval=0.01),
            nt.BackgroundEventWorker("e", lambda: runs.append(1)),
            nt.BackgroundQueueWorker("q", lambda item: runs.append(1)),
            nt.BackgroundWorker("c", lambda: threading.Event().wait(0.01)),
        ]
        for worker in workers:
            worker.start()
        """,
        """
        assert not any(worker.is_active() or worker.is_started() for worker in workers)
        nt.task_supervisor.start()
        runs.clear()
        workers[0].start()
        while not runs:
            pass
        nt.task_supervisor.stop()
        """,
        """
        nt.task_supervisor.stop()
        """,
    )
    assert ran.rc == 0, ran.err
