"""Workers under a real supervisor: what the design promises of each kind."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections import Counter

import pytest
from helpers import Blocker, switch_interval, wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("workers")
    supervisor.set_thread_pool(pool_size=8)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    supervisor.create_aloop("other")
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def make(nt, supervisor):
    """Make a worker of a function, on the supervisor of the test."""

    def make(**kwargs):
        return nt.background_worker(supervisor=supervisor, **kwargs)

    return make


# The decorator.


def test_the_decorator_chooses_the_kind(nt, make):
    def plain(**kwargs):
        return None

    async def coroutine(**kwargs):
        return None

    kinds = [
        (plain, {}, nt.BackgroundWorker),
        (coroutine, {}, nt.BackgroundAsyncWorker),
        (plain, {"interval": 1}, nt.BackgroundIntervalWorker),
        (plain, {"delay": 1}, nt.BackgroundIntervalWorker),
        (coroutine, {"delay_before": 1}, nt.BackgroundIntervalWorker),
        (plain, {"q": True}, nt.BackgroundQueueWorker),
        (plain, {"queue": queue.PriorityQueue}, nt.BackgroundQueueWorker),
        (coroutine, {"e": True}, nt.BackgroundEventWorker),
        (plain, {"event": True}, nt.BackgroundEventWorker),
    ]
    for target, arguments, kind in kinds:
        assert type(make(**arguments)(target)) is kind
    assert type(nt.background_worker(plain)) is nt.BackgroundWorker
    assert nt.background_worker(plain)._name == "_background_worker_plain"


def test_a_target_gets_worker_name_o_and_the_arguments_of_start(make):
    got: queue.SimpleQueue[dict] = queue.SimpleQueue()

    @make(event=True, o="anything", name="mine")
    def target(**kwargs):
        got.put(kwargs)

    target.start(extra=5)
    target.trigger_threadsafe()
    kwargs = got.get(timeout=10)
    assert kwargs["_worker"] is target
    assert kwargs["_name"] == "_background_worker_mine"
    assert kwargs["o"] == "anything" and kwargs["extra"] == 5
    target.stop()


# Life.


def test_start_stop_and_restart(make):
    ran = threading.Event()

    @make(interval=0.01)
    def target(**kwargs):
        ran.set()

    assert not target.is_active()
    assert target.start() is True
    assert target.start() is False
    assert ran.wait(10) and target.is_active() and target.is_started()
    target.stop()
    assert not target.is_active() and target.is_stopped()
    ran.clear()
    target.restart()
    assert ran.wait(10)
    target.stop()


def test_hooks_run_in_order(nt, supervisor):
    calls: list[str] = []

    class Hooked(nt.BackgroundEventWorker):
        def before_start(self):
            calls.append("before_start")

        def after_start(self):
            calls.append("after_start")

        def before_stop(self):
            calls.append("before_stop")

        def after_stop(self):
            calls.append("after_stop")

        def run(self, **kwargs):
            calls.append("run")

    worker = Hooked(supervisor=supervisor)
    worker.start()
    worker.trigger_threadsafe()
    wait_until(lambda: "run" in calls)
    worker.stop()
    assert calls == ["before_start", "after_start", "run", "before_stop", "after_stop"]


@pytest.mark.parametrize("way", ["false", "stop", "supervisor"])
@pytest.mark.parametrize("kind", ["plain", "async"])
@pytest.mark.parametrize("arguments", [{}, {"interval": 0.01}, {"event": True}, {"q": True}])
def test_a_worker_can_be_stopped_from_its_own_run(nt, way, kind, arguments):
    supervisor = nt.TaskSupervisor("inside")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    ran = threading.Event()

    def body(worker):
        ran.set()
        if way == "false":
            return False
        (worker if way == "stop" else supervisor).stop()
        return None

    if kind == "plain":

        def target(*args, _worker, **kwargs):
            return body(_worker)

    else:

        async def target(*args, _worker, **kwargs):
            return body(_worker)

    worker = nt.background_worker(supervisor=supervisor, **arguments)(target)
    worker.start()
    if "event" in arguments:
        worker.trigger_threadsafe()
    if "q" in arguments:
        worker.put_threadsafe(1)
    assert ran.wait(20)
    wait_until(lambda: not worker.is_active(), timeout=20)
    report = supervisor.stop()
    assert report.still_running == []


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_exception_is_logged_and_the_worker_lives_on(make, caplog, kind):
    count = Counter()

    def body():
        count["runs"] += 1
        raise ValueError("on purpose")

    if kind == "plain":

        @make(event=True)
        def worker(**kwargs):
            body()

    else:

        @make(event=True)
        async def worker(**kwargs):
            body()

    worker.start()
    for n in range(1, 4):
        worker.trigger_threadsafe()
        wait_until(lambda n=n: count["runs"] == n)
    wait_until(lambda: worker.errors == 3)
    assert worker.is_active()
    worker.stop()
    assert caplog.text.count("ValueError: on purpose") == 3


def test_on_error_is_called_inside_the_except(make):
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()

    def note(**kwargs):
        import sys

        seen.put((sys.exc_info()[0], kwargs))

    @make(event=True, on_error=note, on_error_kwargs={"a": 1})
    def worker(**kwargs):
        raise LookupError

    worker.start()
    worker.trigger_threadsafe()
    assert seen.get(timeout=10) == (LookupError, {"a": 1})
    worker.stop()


def test_a_continuous_worker_that_fails_backs_off(make):
    @make(poll_delay=0.01)
    def worker(**kwargs):
        raise ValueError("again")

    worker.start()
    threading.Event().wait(1)
    assert 2 <= worker.errors <= 15
    assert worker.is_active()
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 1


# Interval.


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_an_interval_worker_keeps_its_rate(make, kind):
    times: list[float] = []
    if kind == "plain":

        @make(interval=0.02)
        def worker(**kwargs):
            times.append(time.monotonic())

    else:

        @make(interval=0.02)
        async def worker(**kwargs):
            times.append(time.monotonic())

    worker.start()
    wait_until(lambda: len(times) >= 20)
    worker.stop()
    mean = (times[19] - times[0]) / 19
    assert 0.019 <= mean < 0.1


def test_never_two_runs_of_one_worker_at_once(make):
    with Blocker() as block:

        @make(interval=0.005)
        def worker(**kwargs):
            block()

        worker.start()
        block.expect_exactly(1, quiet=0.1)
        wait_until(lambda: worker.missed >= 3)
        block.release()
        worker.stop()
    assert block.peak == 1


def test_a_loop_may_be_named_at_construction_and_at_start(make):
    names: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def target(**kwargs):
        names.put(threading.current_thread().name)

    worker = make(event=True, loop="other")(target)
    worker.start()
    worker.trigger_threadsafe()
    assert names.get(timeout=10).endswith("_aloop_other")
    worker.stop()
    worker.start(_loop="main")
    worker.trigger_threadsafe()
    assert names.get(timeout=10).endswith("_aloop_main")
    worker.stop()


# Queue.


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_eight_producers_keep_their_order(make, nt, kind):
    each = 20_000 if nt.COMPILED else 3_000
    got: list[tuple[int, int]] = []
    if kind == "plain":

        @make(q=True)
        def worker(item, **kwargs):
            got.append(item)

    else:

        @make(q=True)
        async def worker(item, **kwargs):
            got.append(item)

    worker.start()

    def produce(name):
        for n in range(each):
            worker.put_threadsafe((name, n))

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(got) == 8 * each, timeout=60)
    worker.stop()
    for name in range(8):
        assert [n for who, n in got if who == name] == list(range(each))


def test_items_of_one_key_keep_their_order_side_by_side(make, nt):
    each = 5_000 if nt.COMPILED else 1_000
    got: list[tuple[int, int]] = []

    @make(q=True, concurrency=4, key=lambda item: item[0])
    def worker(item, **kwargs):
        got.append(item)

    worker.start()

    def produce(name):
        for n in range(each):
            worker.put_threadsafe((name, n))

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: len(got) == 8 * each, timeout=60)
    worker.stop()
    for name in range(8):
        assert [n for who, n in got if who == name] == list(range(each))


@pytest.mark.parametrize("drain", [True, False])
def test_stopping_with_twenty_items_loses_none(nt, caplog, drain):
    supervisor = nt.TaskSupervisor("twenty")
    supervisor.start()
    done: list[int] = []
    with Blocker() as block:

        @nt.background_worker(q=True, supervisor=supervisor, name="twenty")
        def worker(item, **kwargs):
            block()
            done.append(item)

        worker.start()
        for n in range(21):
            worker.put_threadsafe(n)
        block.wait_running(1)
        threading.Timer(0.1, block.release).start()
        report = supervisor.stop(drain=drain)
    if drain:
        assert done == list(range(21))
        assert report.unprocessed == {}
    else:
        assert done == [0]
        assert report.unprocessed == {"twenty": list(range(1, 21))}
        assert worker.unprocessed == list(range(1, 21))
        assert "20" in caplog.text


@pytest.mark.parametrize("kind", [asyncio.PriorityQueue, queue.PriorityQueue])
def test_a_queue_class_of_ones_own_decides_the_order(make, kind):
    got: list[int] = []
    with Blocker() as block:

        @make(q=kind)
        def worker(item, **kwargs):
            block()
            got.append(item)

        worker.start()
        worker.put_threadsafe(5)
        block.wait_running(1)
        for item in (9, 7, 8):
            worker.put_threadsafe(item)
        wait_until(lambda: worker.get_queue_obj().qsize() >= 2)
        block.release()
        wait_until(lambda: len(got) == 4)
        worker.stop()
    assert got[0] == 5 and sorted(got[1:]) == [7, 8, 9]


# Event.


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_the_last_trigger_is_followed_by_a_run_that_began_after_it(make, nt, kind):
    each = 25_000 if nt.COMPILED else 2_000
    began: list[int] = []
    rng = random.Random(1)
    if kind == "plain":

        @make(event=True, poll_delay=0)
        def worker(**kwargs):
            began.append(time.monotonic_ns())
            if rng.random() < 0.01:
                time.sleep(rng.random() * 0.001)

    else:

        @make(event=True, poll_delay=0)
        async def worker(**kwargs):
            began.append(time.monotonic_ns())
            if rng.random() < 0.01:
                await asyncio.sleep(rng.random() * 0.001)

    worker.start()

    def trigger():
        for _ in range(each):
            worker.trigger_threadsafe()

    with switch_interval(1e-5):
        threads = [threading.Thread(target=trigger) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    last = time.monotonic_ns()
    worker.trigger_threadsafe()
    wait_until(lambda: began[-1] >= last)
    worker.stop()
    assert 0 < len(began) <= 4 * each + 1


def test_a_trigger_during_a_run_means_one_more_run_and_not_two(make):
    with Blocker() as block:

        @make(event=True, poll_delay=0)
        def worker(**kwargs):
            block()

        worker.start()
        worker.trigger_threadsafe()
        block.wait_running(1)
        for _ in range(5):
            worker.trigger_threadsafe()
        block.release()
        wait_until(lambda: block.finished == 2)
        threading.Event().wait(0.05)
        assert block.finished == 2
        worker.stop()


# Bad input.


def test_bad_arguments_are_refused_with_the_value(nt, make):
    for arguments in ({"interval": 0}, {"interval": -1}, {"interval": 1, "delay": 1}):
        with pytest.raises(ValueError):
            make(**arguments)(lambda **kwargs: None)
    with pytest.raises(TypeError, match="callable"):
        nt.BackgroundWorker(fn=5)


def test_a_worker_does_not_start_before_its_supervisor(nt):
    worker = nt.background_worker(supervisor=nt.TaskSupervisor("idle"), interval=1)(
        lambda **kwargs: None
    )
    with pytest.raises(nt.SupervisorNotStarted, match="start"):
        worker.start()
    assert not worker.is_active()


def test_giving_work_to_a_worker_that_does_not_run_says_so(make, nt):
    items = make(q=True)(lambda item, **kwargs: None)
    with pytest.raises(nt.WorkerNotStarted, match="start"):
        items.put_threadsafe(1)
    with pytest.raises(nt.WorkerNotStarted):
        items.get_queue_obj()


def test_an_unknown_loop_is_named_together_with_the_known(make, nt):
    async def target(**kwargs):
        return None

    worker = make(interval=1, loop="nowhere")(target)
    with pytest.raises(nt.UnknownAloop, match=r"nowhere.*main, other"):
        worker.start()


def test_unknown_arguments_do_no_harm_and_are_kept_from_the_target(make):
    got: queue.SimpleQueue[set] = queue.SimpleQueue()

    @make(event=True, colour="blue")
    def worker(**kwargs):
        got.put(set(kwargs))

    worker.start()
    worker.trigger_threadsafe()
    assert "colour" not in got.get(timeout=10)
    worker.stop()
