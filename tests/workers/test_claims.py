"""Claims of runs: what fails between a claim and its run leaves a worker that works."""

from __future__ import annotations

import contextvars
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
from helpers import wait_until

DEPTHS = 90  # frames below the limit at which calls are made

WORKERS = {
    "interval": ("BackgroundIntervalWorker", {"interval": 60}),
    "short interval": ("BackgroundIntervalWorker", {"interval": 0.005}),
    "delay": ("BackgroundIntervalWorker", {"delay": 0.005}),
    "event": ("BackgroundEventWorker", {"poll_delay": 0}),
    "debounced event": ("BackgroundEventWorker", {"debounce": 0.001}),
    "throttled event": ("BackgroundEventWorker", {"throttle": 0.003}),
    "queue": ("BackgroundQueueWorker", {}),
}


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor()
    supervisor.start()
    supervisor.create_aloop("loop", default=True)
    yield supervisor
    assert supervisor.stop(timeout=30) is not None


def at_every_depth(call):
    """Call near the limit of recursion, deeper each time; return how often it was refused."""

    def down(frames):
        return down(frames - 1) if frames else call()

    here, frame = 0, sys._getframe()
    while frame is not None:
        here, frame = here + 1, frame.f_back
    refused = 0
    for frames in range(
        sys.getrecursionlimit() - here - DEPTHS, sys.getrecursionlimit() - here
    ):
        try:
            down(frames)
        except RecursionError:
            refused += 1
    return refused


def make(nt, supervisor, kind, is_async, runs):
    name, options = WORKERS[kind]

    def target(*_, **__):
        runs.append(None)

    async def coroutine(*_, **__):
        runs.append(None)

    fn = coroutine if is_async else target
    return getattr(nt, name)(kind, fn, supervisor=supervisor, **options)


def prompt(worker):
    if hasattr(worker, "put_threadsafe"):
        worker.put_threadsafe("item")
    else:
        worker.trigger_threadsafe()


def lives(worker, runs):
    """Prompt the worker, and wait for two more runs."""
    for _ in range(2):
        count = len(runs)
        prompt(worker)
        wait_until(lambda count=count: len(runs) > count)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in WORKERS if kind != "queue"])
def test_a_worker_outlives_triggers_near_the_limit_of_recursion(nt, supervisor, kind, is_async):
    runs: list[None] = []
    worker = make(nt, supervisor, kind, is_async, runs)
    worker.start()
    at_every_depth(worker.trigger_threadsafe)
    lives(worker, runs)
    at_every_depth(lambda: worker.trigger_threadsafe(skip=True))
    lives(worker, runs)
    worker.stop()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", WORKERS)
def test_a_worker_outlives_start_and_stop_near_the_limit_of_recursion(
    nt, supervisor, kind, is_async
):
    runs: list[None] = []
    worker = make(nt, supervisor, kind, is_async, runs)
    assert at_every_depth(worker.start)
    worker.start()
    lives(worker, runs)
    assert at_every_depth(lambda: worker.stop(wait=False))
    worker.stop()
    at_every_depth(lambda: (worker.start(), worker.stop(wait=False)))
    worker.start()
    lives(worker, runs)
    worker.stop()


@pytest.mark.parametrize("is_async", [False, True])
def test_jobs_outlive_calls_near_the_limit_of_recursion(nt, supervisor, is_async):
    runs: list[None] = []

    async def coroutine():
        runs.append(None)

    target = coroutine if is_async else lambda: runs.append(None)
    scheduler = supervisor.create_async_job_scheduler("jobs")
    at_every_depth(lambda: scheduler.create_threadsafe(target, interval=60).cancel())
    for job in scheduler.jobs:
        job.cancel()
    at_every_depth(scheduler.stop)
    at_every_depth(scheduler.start)
    scheduler.start()
    scheduler.create_threadsafe(target, interval=0.002)
    wait_until(lambda: len(runs) > 5)
    assert scheduler.stop(wait=10)


def test_a_trigger_that_fails_does_not_take_along_that_of_another(nt, supervisor):
    runs: list[None] = []
    worker = nt.BackgroundEventWorker(
        "event", lambda **_: runs.append(None), supervisor=supervisor, poll_delay=0
    )
    worker.start()
    driver = worker._life.driver
    # What enters the claimed run fails, after another thread has relied on it.
    executor = ThreadPoolExecutor(1)
    supervisor.thread_pool = executor
    fail = [True]

    class Failing(type(driver)):
        __slots__ = ()

        def enter_slowly(self):
            if fail:
                fail.clear()
                other = threading.Thread(target=worker.trigger_threadsafe)
                other.start()
                other.join()
                raise KeyboardInterrupt
            super().enter_slowly()

    driver.__class__ = Failing
    with pytest.raises(KeyboardInterrupt):
        worker.trigger_threadsafe()
    wait_until(lambda: runs)  # the other's
    lives(worker, runs)
    worker.stop()


class Odd(Executor):
    """An executor that raises whatever comes to its mind."""

    def __init__(self, error):
        self.error = error
        self.left = 2
        self.pool = ThreadPoolExecutor(1)

    def submit(self, fn, /, *args, **kwargs):
        if self.left:
            self.left -= 1
            raise self.error
        return self.pool.submit(fn, *args, **kwargs)


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError, MemoryError, KeyError])
def test_a_worker_outlives_an_executor_that_refuses_with_anything(
    nt, supervisor, error, monkeypatch
):
    monkeypatch.setattr(nt.workers.in_pool, "_RETRY", 0.01)
    runs: list[None] = []
    executor = Odd(error)
    worker = nt.BackgroundIntervalWorker(
        "odd", runs.append, interval=0.01, supervisor=supervisor, pool=executor
    )
    worker.run = lambda **_: runs.append(None)
    worker.start()
    wait_until(lambda: executor.left == 0)
    worker.stop()
    executor.pool.shutdown()


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


@pytest.mark.parametrize("starter_has_context", [False, True])
@pytest.mark.parametrize("kind", ["interval", "delay", "event", "continuous", "executor"])
def test_each_run_of_a_plain_target_has_its_own_copy_of_the_starters_context(
    nt, supervisor, kind, starter_has_context
):
    seen: list[int] = []

    def target(**_):
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    with ThreadPoolExecutor(1) as executor:
        worker = {
            "interval": lambda: nt.BackgroundIntervalWorker(
                "w", target, interval=0.002, supervisor=supervisor
            ),
            "delay": lambda: nt.BackgroundIntervalWorker(
                "w", target, delay=0.002, supervisor=supervisor
            ),
            "event": lambda: nt.BackgroundEventWorker("w", target, supervisor=supervisor),
            "continuous": lambda: nt.BackgroundWorker("w", target, supervisor=supervisor),
            "executor": lambda: nt.BackgroundIntervalWorker(
                "w", target, interval=0.002, supervisor=supervisor, pool=executor
            ),
        }[kind]()
        context = contextvars.Context()
        if starter_has_context:
            context.run(variable.set, 7)
        context.run(worker.start)

        def enough():
            if kind == "event":
                worker.trigger_threadsafe()
            return len(seen) > 3

        wait_until(enough)
        worker.stop()
    assert set(seen) == {7 if starter_has_context else 0}


def test_an_async_worker_is_one_task_in_one_context(nt, supervisor):
    seen: list[int] = []

    async def target(**_):
        seen.append(variable.get())
        variable.set(variable.get() + 1)

    worker = nt.BackgroundIntervalWorker("w", target, interval=0.002, supervisor=supervisor)
    worker.start()
    wait_until(lambda: len(seen) > 3)
    worker.stop()
    assert seen[:4] == [0, 1, 2, 3]


def test_cores_that_were_not_staged_raise_and_do_no_harm(nt):
    serial = nt.core.SerialCore()
    serial.turn()  # nothing was claimed
    assert serial.claim()
    with pytest.raises(AttributeError):
        serial.turn()
    with pytest.raises(AttributeError):
        nt.core.SerialCore().prompt()
    with pytest.raises(AttributeError):
        nt.core.SerialCore().answer() if not nt.COMPILED else serial.trigger()
    job = nt.core.JobCore()
    job._ready = True
    with pytest.raises(AttributeError):
        job._fire_coroutine()
