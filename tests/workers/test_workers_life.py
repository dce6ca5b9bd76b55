"""What all workers have in common: starting, stopping, hooks."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time

import pytest
from helpers import Blocker, switch_interval, wait_until
from worker_tools import KINDS, in_kind, make, run_once


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_start_and_stop_tell_how_it_stands(nt, host, kind, is_async):
    with Blocker() as block:
        worker = make(nt, host, kind, block, False)
        assert worker.start() is True
        assert worker.start() is False
        assert worker.is_active()
        run_once(worker)
        block.wait_running(1)
        assert worker.is_started()
        assert host.get_schedulers() == {"_background_worker_made": worker}
        worker.stop(wait=False)
        assert not worker.is_active()
        assert worker.is_started()
        assert not worker.is_stopped()
    assert worker.wait_until_stop(10)
    assert worker.is_stopped()
    assert not worker.is_started()
    assert host.get_schedulers() == {}
    worker.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_stop_waits_for_the_run_that_is_on(nt, host, kind, is_async):
    ended = threading.Event()
    begun = threading.Event()

    def plain(*args, **kwargs):
        begun.set()
        time.sleep(0.05)
        ended.set()

    async def coroutine(*args, **kwargs):
        begun.set()
        await asyncio.sleep(0.05)
        ended.set()

    if is_async and kind == "BackgroundWorker":
        kind = "BackgroundAsyncWorker"
    options = {"interval": 0.01} if "Interval" in kind else {}
    target = coroutine if is_async else plain
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    run_once(worker)
    assert begun.wait(10)
    worker.stop()
    assert ended.is_set()
    assert worker.is_stopped()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_idle_worker_stops_at_once(nt, host, kind, is_async):
    worker = make(nt, host, kind, lambda *args, **kwargs: None, is_async)
    if worker is None or kind in ("BackgroundWorker", "BackgroundAsyncWorker"):
        worker = nt.BackgroundIntervalWorker(
            "x", in_kind(lambda **kw: None, is_async), delay=1000, supervisor=host
        )
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("way", "is_async"),
    [
        ("False", False),
        ("False", True),
        ("worker", False),
        ("worker", True),
        ("process_result", False),  # results of coroutines are not processed
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_is_stopped_from_inside(nt, host, kind, is_async, way):
    def target(*args, _worker, **kwargs):
        if way == "worker":
            _worker.stop()
        return way != "False"

    worker = make(nt, host, kind, target, is_async)
    if worker is None:
        worker = nt.BackgroundAsyncWorker("x", in_kind(target, True), supervisor=host)
    if way == "process_result":
        worker.process_result = lambda result: False
    worker.start()
    run_once(worker)
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert worker.runs == 1
    assert worker.start()


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_called_in_order(nt, host, kind):
    calls = []

    class Mine(getattr(nt, kind)):
        def run(self, *args, **kwargs):
            time.sleep(0.001)

        def before_start(self):
            calls.append(("before_start", self.is_active()))

        def after_start(self):
            calls.append(("after_start", self.is_active()))

        def before_stop(self):
            calls.append(("before_stop", self.is_active()))

        def send_stop_events(self):
            calls.append(("send_stop_events", self.is_active()))

        def after_stop(self):
            calls.append(("after_stop", self.is_active()))

    worker = Mine(supervisor=host, interval=0.01)
    worker.start()
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)
    worker.stop()
    worker.stop()
    assert calls == [
        ("before_start", False),
        ("after_start", True),
        ("before_stop", True),
        ("send_stop_events", False),
        ("after_stop", False),
    ]


def test_after_stop_is_called_when_the_run_has_ended(nt, host):
    order = []
    begun = threading.Event()

    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs):
            begun.set()
            time.sleep(0.05)
            order.append("run")

        def after_stop(self):
            order.append("after_stop")

    worker = Mine(supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert begun.wait(10)
    host.stop()
    assert order == ["run", "after_stop"]


def test_a_hook_that_raises_does_not_keep_the_worker_from_stopping(nt, host, caplog):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def before_stop(self):
            raise ValueError("before")

        after_stop = send_stop_events = before_stop

    worker = Mine("mine", supervisor=host)
    worker.start()
    worker.stop()
    assert worker.is_stopped()
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert messages == ["error in a hook of worker mine"] * 3


def test_a_hook_that_raises_keeps_the_worker_from_starting(nt, host):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def before_start(self):
            raise ValueError("not today")

    worker = Mine(supervisor=host)
    with pytest.raises(ValueError, match="not today"):
        worker.start()
    assert not worker.is_active()


def test_hooks_may_stop_the_worker(nt, host):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def after_start(self):
            self.stop()

        def before_stop(self):
            self.stop()

    worker = Mine(supervisor=host)
    assert worker.start()
    assert worker.is_stopped()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_waits_for_that_of_the_life_before(nt, host, kind, is_async):
    """A stop that does not wait, and a start at once: never two runs at the same time."""
    on, most, total = 0, 0, 0
    lock = threading.Lock()

    def enter():
        nonlocal on, most, total
        with lock:
            on, total = on + 1, total + 1
            most = max(most, on)

    def leave():
        nonlocal on
        with lock:
            on -= 1

    def plain(*args, **kwargs):
        enter()
        time.sleep(0.005)
        leave()

    async def coroutine(*args, **kwargs):
        enter()
        await asyncio.sleep(0.005)
        leave()

    if is_async and kind == "BackgroundWorker":
        kind = "BackgroundAsyncWorker"
    target = coroutine if is_async else plain
    options = {"interval": 0.001} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    with switch_interval():
        for _ in range(20):
            assert worker.start()
            run_once(worker)
            time.sleep(0.002)
            worker.stop(wait=False)
    assert worker.start()
    run_once(worker)
    wait_until(worker.is_started)
    seen = total
    run_once(worker)
    wait_until(lambda: total > seen)
    worker.stop()
    assert most == 1
    assert host.get_schedulers() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_restarts_itself(nt, host, kind):
    runs = queue.Queue()

    def target(*args, _worker, number, **kwargs):
        runs.put(number)
        if number == 1:
            _worker.restart(number=2)
            run_once(_worker)
        else:
            time.sleep(0.001)

    worker = make(nt, host, kind, target, False)
    worker.start(number=1)
    run_once(worker)
    assert [runs.get(timeout=10), runs.get(timeout=10)] == [1, 2]
    worker.stop()


def test_starts_and_stops_from_many_threads_leave_it_in_order(nt, host):
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=0.001, supervisor=host)
    barrier = threading.Barrier(6)

    def toggle(number):
        barrier.wait()
        for _ in range(30):
            if number % 2:
                worker.start()
            else:
                worker.stop(wait=number == 0)

    threads = [threading.Thread(target=toggle, args=(n,)) for n in range(6)]
    with switch_interval():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    worker.stop()
    assert worker.is_stopped()
    assert host.get_schedulers() == {}
    assert worker.start()
    before = worker.runs
    wait_until(lambda: worker.runs > before)


def test_two_workers_of_one_name_are_both_stopped(nt, host):
    workers = [nt.BackgroundEventWorker("x", print, supervisor=host) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert list(host.get_schedulers()) == [
        "_background_worker_x",
        "_background_worker_x_2",
        "_background_worker_x_3",
    ]
    host.stop()
    assert all(worker.is_stopped() for worker in workers)


def test_a_target_may_take_the_lock_of_starts_and_stops(nt, host):
    """Programs do so to draw, say, only while the worker is active."""
    shown = threading.Event()

    class Mine(nt.BackgroundIntervalWorker):
        def run(self, **kwargs):
            with self.start_stop_lock:
                if self.is_active():
                    shown.set()

    for is_async in (False, True):
        shown.clear()
        worker = Mine(delay=0.001, supervisor=host)
        if is_async:
            worker.run = in_kind(worker.run, True)
        with switch_interval():
            for _ in range(20):
                worker.start()
                assert shown.wait(10)
                worker.stop()


def test_a_worker_may_be_started_and_stopped_in_its_own_loop(nt, host):
    worker = nt.BackgroundIntervalWorker(
        "x", in_kind(lambda: None, True), delay=0.001, supervisor=host
    )

    async def both():
        worker.start()
        await asyncio.sleep(0.01)
        worker.stop()
        return worker.is_active()

    assert host.get_aloop("main").run_coroutine_threadsafe(both()) is False
    assert worker.wait_until_stop(10)
    assert worker.runs
