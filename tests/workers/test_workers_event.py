"""Event workers: no trigger is lost, none counts twice, storms are few runs."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import queue
import random
import signal
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
from helpers import switch_interval, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st


class Slow:
    """A target that takes its time, and says when it began."""

    def __init__(self, is_async):
        self.begun = []
        self.target = self.coroutine if is_async else self.plain
        self.pause = lambda: random.random() * 0.0005

    def plain(self):
        self.begun.append(time.perf_counter())
        time.sleep(self.pause())

    async def coroutine(self):
        self.begun.append(time.perf_counter())
        await asyncio.sleep(self.pause())


@pytest.fixture
def slow(is_async):
    return Slow(is_async)


@pytest.fixture
def make(nt, host, slow):
    def make(**options):
        options.setdefault("poll_delay", 0)
        worker = nt.BackgroundEventWorker("e", slow.target, supervisor=host, **options)
        worker.start()
        return worker

    return make


def test_it_runs_when_triggered_and_not_before(make, slow):
    worker = make()
    assert worker.trigger_threadsafe() is True
    wait_until(lambda: worker.runs == 1)
    time.sleep(0.02)
    assert worker.runs == 1
    asyncio.run(worker.trigger())
    wait_until(lambda: worker.runs == 2)


def test_a_trigger_during_a_run_means_one_more_run(nt, host, is_async):
    begun = threading.Semaphore(0)
    go = threading.Event()

    async def coroutine():
        begun.release()
        while not go.is_set():
            await asyncio.sleep(0.001)

    def plain():
        begun.release()
        go.wait(10)

    worker = nt.BackgroundEventWorker("e", coroutine if is_async else plain, supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert begun.acquire(timeout=10)
    for force in (False, True, False, True):
        worker.trigger_threadsafe(force=force)
    go.set()
    assert begun.acquire(timeout=10)
    assert not begun.acquire(timeout=0.05)
    assert worker.runs == 2


def test_an_idle_worker_answers_at_once(make, slow):
    worker = make(poll_delay=0.02)
    waits = []
    for n in range(10):
        time.sleep(0.025)
        triggered = time.perf_counter()
        worker.trigger_threadsafe()
        wait_until(lambda n=n: len(slow.begun) > n)
        waits.append(slow.begun[n] - triggered)
    assert sorted(waits)[5] < 0.01


def test_a_storm_of_triggers_is_a_few_runs_and_the_last_is_answered(make, slow):
    worker = make(poll_delay=0.02)
    stop = time.monotonic() + 0.3
    triggers = 0
    while time.monotonic() < stop:
        last = time.perf_counter()
        worker.trigger_threadsafe()
        triggers += 1
    wait_until(lambda: slow.begun and slow.begun[-1] >= last)
    time.sleep(0.05)
    assert triggers > 1_000
    assert len(slow.begun) <= 20
    assert min(b - a for a, b in itertools.pairwise(slow.begun)) > 0.015


def storm(worker, slow, threads, triggers):
    """Trigger from many threads; return when the last trigger came."""
    times = []

    def trigger():
        for _ in range(triggers):
            times.append(time.perf_counter())
            worker.trigger_threadsafe()

    runners = [threading.Thread(target=trigger) for _ in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    return max(times)


def test_the_last_of_many_triggers_is_followed_by_a_run(make, slow):
    worker = make()
    for _ in range(10):
        with switch_interval():
            last = storm(worker, slow, threads=4, triggers=500)
            wait_until(lambda last=last: slow.begun and slow.begun[-1] > last)
    worker.stop()
    assert worker.runs == len(slow.begun)


@pytest.mark.slow
def test_the_last_of_a_hundred_thousand_triggers_is_followed_by_a_run(make, slow):
    worker = make()
    last = storm(worker, slow, threads=4, triggers=25_000)
    wait_until(lambda: slow.begun and slow.begun[-1] > last)


@settings(max_examples=30)
@given(
    pauses=st.lists(st.sampled_from([0, 0, 0, 1e-5, 1e-4, 1e-3]), min_size=1, max_size=40),
    lengths=st.lists(st.sampled_from([0, 1e-5, 1e-4, 1e-3]), min_size=1, max_size=10),
    poll_delay=st.sampled_from([0, 0.001]),
)
def test_every_trigger_is_followed_by_a_run_that_began_after_it(
    nt, host, is_async, pauses, lengths, poll_delay
):
    slow = Slow(is_async)
    slow.pause = itertools.cycle(lengths).__next__
    worker = nt.BackgroundEventWorker("e", slow.target, supervisor=host, poll_delay=poll_delay)
    worker.start()
    triggered = []
    for pause in pauses:
        triggered.append(time.perf_counter())
        worker.trigger_threadsafe()
        if pause:
            time.sleep(pause)
    wait_until(lambda: slow.begun and slow.begun[-1] > triggered[-1])
    worker.stop()
    assert len(slow.begun) <= len(triggered)
    assert all(any(begun > at for begun in slow.begun) for at in triggered)


def test_triggers_meet_the_end_of_a_run(make, slow):
    """One trigger for each run, just as the one before ends: none is lost."""
    worker = make()
    slow.pause = lambda: 0
    with switch_interval():
        for n in range(1_000):
            worker.trigger_threadsafe()
            wait_until(lambda n=n: len(slow.begun) > n)
    assert worker.runs == 1_000


def test_a_worker_triggers_itself(nt, host, is_async):
    def plain(_worker):
        if _worker.runs < 50:
            _worker.trigger_threadsafe()

    async def coroutine(_worker):
        plain(_worker)

    worker = nt.BackgroundEventWorker(
        "e", coroutine if is_async else plain, supervisor=host, poll_delay=0
    )
    worker.start()
    worker.trigger_threadsafe()
    wait_until(lambda: worker.runs == 50)


def test_workers_of_one_loop_trigger_one_another(nt, host):
    workers = []
    seen = []

    async def target(o):
        seen.append(o)
        if len(seen) < 20:
            await asyncio.sleep(0)
            workers[1 - o].trigger_threadsafe()

    workers += [
        nt.BackgroundEventWorker(n, target, o=n, supervisor=host, poll_delay=0) for n in (0, 1)
    ]
    for worker in workers:
        worker.start()
    workers[0].trigger_threadsafe()
    wait_until(lambda: len(seen) == 20)
    assert seen == [0, 1] * 10


def test_a_signal_handler_may_trigger(nt, host):
    """Also in the middle of another trigger of the same thread."""
    worker = nt.BackgroundEventWorker("e", lambda: None, supervisor=host, poll_delay=0)
    worker.start()
    fired = 0

    def handler(*args):
        nonlocal fired
        fired += 1
        worker.trigger_threadsafe(force=True)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        wait_until(lambda: [worker.trigger_threadsafe() for _ in range(100)] and fired > 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seen = worker.runs
    worker.trigger_threadsafe()
    wait_until(lambda: worker.runs > seen)
    worker.stop()


# Policies.


@pytest.fixture
def timed(nt, virtual, clock, is_async):
    """Return what makes a worker of the virtual supervisor, and the times of its runs."""

    def timed(**options):
        times = []

        def plain():
            times.append(clock.monotonic())

        async def coroutine():
            plain()

        worker = nt.BackgroundEventWorker(
            "e", coroutine if is_async else plain, supervisor=virtual, **options
        )
        worker.start()
        return worker, times

    return timed


@pytest.mark.parametrize("options", [{"poll_delay": 1}, {"throttle": 1}])
def test_runs_are_at_least_so_far_apart(timed, clock, options):
    worker, times = timed(**options)
    for _ in range(30):
        worker.trigger_threadsafe()
        clock.advance(0.1)
    clock.advance(5)
    assert times == [pytest.approx(t) for t in (0, 1, 2, 3)]
    worker.trigger_threadsafe()
    clock.advance(0)
    assert times[-1] == pytest.approx(8)


def test_a_debounced_worker_waits_until_it_is_quiet(timed, clock):
    worker, times = timed(debounce=1)
    for _ in range(30):
        worker.trigger_threadsafe()
        clock.advance(0.1)
    assert times == []
    clock.advance(5)
    assert times == [pytest.approx(3.9)]
    worker.trigger_threadsafe()
    clock.advance(0.99)
    assert len(times) == 1
    clock.advance(0.02)
    assert times[1:] == [pytest.approx(9)]


def test_a_stop_forgets_the_trigger_that_waits_for_its_time(timed, clock):
    worker, times = timed(debounce=10)
    worker.trigger_threadsafe()
    clock.advance(1)
    worker.stop()
    assert worker.is_stopped()
    clock.advance(20)
    assert times == []
    worker.start()
    worker.trigger_threadsafe()
    clock.advance(20)
    assert len(times) == 1


@pytest.mark.parametrize("name", ["throttle", "debounce"])
def test_negative_times_are_refused(nt, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 0 seconds, .* not -1"):
        nt.BackgroundEventWorker("e", print, **{name: -1})


def test_a_trigger_before_the_start_is_refused_and_after_a_stop_in_vain(nt, host):
    worker = nt.BackgroundEventWorker("e", lambda: None, supervisor=host)
    with pytest.raises(nt.WorkerNotStarted, match=r"worker e was not started: call start\(\)"):
        worker.trigger_threadsafe()
    with pytest.raises(nt.WorkerNotStarted):
        asyncio.run(worker.trigger())
    worker.start()
    worker.stop()
    assert worker.trigger_threadsafe() is False
    assert worker.runs == 0


def test_a_trigger_while_the_life_before_ends_is_answered_by_the_next(nt, host, is_async):
    begun = threading.Semaphore(0)
    go = threading.Event()

    def plain():
        begun.release()
        go.wait(10)

    async def coroutine():
        begun.release()
        while not go.is_set():
            await asyncio.sleep(0.001)

    worker = nt.BackgroundEventWorker("e", coroutine if is_async else plain, supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert begun.acquire(timeout=10)
    worker.stop(wait=False)
    worker.start()
    worker.trigger_threadsafe()
    assert worker.runs == 1
    go.set()
    assert begun.acquire(timeout=10)
    worker.stop()
    assert worker.runs == 2


def test_a_run_that_the_pool_refuses_is_tried_again(nt, host, monkeypatch, caplog):
    """As when the system has no thread left to give."""
    import neotasker.workers.in_pool

    monkeypatch.setattr(neotasker.workers.in_pool, "_RETRY", 0.02)
    refusals = [RuntimeError("can't start new thread")] * 2
    worker = nt.BackgroundEventWorker("e", lambda: None, supervisor=host)
    worker.start()
    start = threading.Thread.start

    def refuse(thread):
        if refusals and "_pool" in thread.name:
            raise refusals.pop()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    worker.trigger_threadsafe()
    wait_until(lambda: worker.runs == 1)
    assert "worker e: its run was refused: can't start new thread" in caplog.text


def test_many_triggers_at_once_keep_to_the_throttle(nt, host):
    runs: list[float] = []
    with switch_interval():
        for _ in range(50):
            runs.clear()
            worker = nt.BackgroundEventWorker(
                "e", lambda: runs.append(time.monotonic()), supervisor=host, throttle=60
            )
            worker.start()
            storm(worker, None, threads=4, triggers=20)
            wait_until(lambda life=worker._life: life.driver.not_before)
            worker.stop()
            assert len(runs) == 1


def test_a_stop_while_a_run_is_refused_ends_the_worker(nt, host):
    class Refusing(Executor):
        def submit(self, fn, /, *args, **kwargs):
            worker.stop(wait=False)
            raise RuntimeError("cannot schedule new futures after shutdown")

    worker = nt.BackgroundEventWorker("e", print, supervisor=host, pool=Refusing())
    worker.start()
    worker.trigger_threadsafe()
    assert worker.wait_until_stop(5)
    assert worker._current_task is None


def test_a_poll_delay_that_is_no_time_is_refused_at_the_start(nt, host):
    worker = nt.BackgroundEventWorker("e", print, supervisor=host)
    worker.poll_delay = -1
    with pytest.raises(ValueError, match=r"poll_delay .* -1"):
        worker.start()
    runs = threading.Semaphore(0)
    worker = nt.BackgroundEventWorker("e", lambda **_: runs.release(), supervisor=host)
    worker.poll_delay = None
    worker.start()
    for _ in range(3):
        worker.trigger_threadsafe()
        assert runs.acquire(timeout=10)
    worker.stop()


@pytest.mark.parametrize("where", ["pool", "executor", "own executor"])
def test_a_run_does_not_see_the_context_of_who_triggers_it(nt, host, where):
    var = contextvars.ContextVar("var", default="none")
    seen = queue.SimpleQueue()

    def look(**_):
        seen.put(var.get())

    with ThreadPoolExecutor(1) as threads:
        pool = {"pool": threads} if where == "own executor" else {}
        if where == "executor":
            host.thread_pool = threads
        bare = nt.BackgroundEventWorker("bare", look, supervisor=host, poll_delay=0, **pool)
        contextvars.Context().run(bare.start)
        var.set("starter")
        worker = nt.BackgroundEventWorker("e", look, supervisor=host, poll_delay=0, **pool)
        worker.start()
        var.set("triggerer")
        for started, expected in ((bare, "none"), (worker, "starter")):
            started.trigger_threadsafe()
            assert seen.get(timeout=10) == expected
            started.stop()
        if where == "executor":
            host.thread_pool = None
