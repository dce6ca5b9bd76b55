"""Waits that last longer than the system's locks can wait, and numbers at the edge."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from functools import partial
from queue import Queue

import pytest
from helpers import Blocker, wait_until

LONG = (1e7, 1e10, 1e300)


@pytest.fixture
def forty_nine_days(monkeypatch):
    """Locks as they are on Windows: they refuse to wait for more than 49 days."""
    monkeypatch.setattr(threading, "TIMEOUT_MAX", 4294967.0)


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor()
    supervisor.start()
    supervisor.create_aloop("loop", default=True)
    yield supervisor
    supervisor.stop(timeout=30)


def run_soon(call):
    """Call from another thread, a little later."""
    timer = threading.Timer(0.03, call)
    timer.start()
    return timer


@pytest.mark.parametrize("seconds", LONG)
def test_a_stop_waits_as_long_as_one_likes(nt, supervisor, forty_nine_days, seconds):
    loop = supervisor.get_aloop("loop")
    task = supervisor.spawn(time.sleep, 0.05)
    coroutine = loop.spawn_coroutine_threadsafe(asyncio.sleep(0.05, "slept"))
    report = supervisor.stop(wait=seconds)
    assert report.clean and task.done() and coroutine.result() == "slept"


@pytest.mark.parametrize("seconds", LONG)
def test_a_bound_of_a_stop_may_be_as_far_as_one_likes(supervisor, forty_nine_days, seconds):
    supervisor.spawn(time.sleep, 0.02)
    assert supervisor.stop(timeout=seconds).clean


@pytest.mark.parametrize("seconds", LONG)
def test_whoever_waits_may_do_so_as_long_as_one_likes(nt, supervisor, forty_nine_days, seconds):
    loop = supervisor.create_aloop("other")
    with Blocker() as block:
        worker = nt.BackgroundIntervalWorker("w", block, interval=60, supervisor=supervisor)
        worker.start()
        block.wait_running(1)
        run_soon(block.release)
        worker.stop(wait=seconds)
        assert worker.is_stopped() and worker.wait_until_stop(seconds)
    latch = nt.base.latch.Latch()
    run_soon(latch.set)
    assert latch.wait(seconds)
    latch = nt.base.latch.Latch()
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(latch.wait(seconds)))
    waiter.start()
    latch.set()
    waiter.join()
    assert waited == [True]
    task = supervisor.spawn(time.sleep, 0.02)
    assert nt.wait_completed([task], timeout=seconds) == [None]
    task = supervisor.spawn(time.sleep, 0.02)
    assert task.completed.wait(seconds)
    loop.stop(wait=seconds)
    assert loop.join(seconds)
    assert supervisor.thread_pool._crew.dispatcher.wait_drained(seconds)
    scheduler = supervisor.create_async_job_scheduler("jobs")
    assert scheduler.stop(wait=seconds)


@pytest.mark.parametrize("seconds", LONG)
@pytest.mark.parametrize("own", [False, True])
def test_a_put_waits_for_room_as_long_as_one_likes(
    nt, supervisor, forty_nine_days, seconds, own
):
    options = {"q": partial(Queue, 1)} if own else {"q": True, "maxsize": 1}
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker(
            "w", lambda item, **_: block(), supervisor=supervisor, **options
        )
        worker.start()
        worker.put_threadsafe(1)
        block.wait_running(1)
        worker.put_threadsafe(2)
        run_soon(block.release)
        worker.put_threadsafe(3, timeout=seconds)
        wait_until(lambda: block.finished == 3)
        worker.stop()


def test_a_wait_is_made_in_parts_where_it_lasts_longer(nt, monkeypatch):
    monkeypatch.setattr(threading, "TIMEOUT_MAX", 0.01)
    parts: list[float] = []
    begun = time.monotonic()

    def wait(part):
        parts.append(part)
        time.sleep(part)

    assert not nt.base.seconds.wait_in_parts(wait, 0.05)
    assert time.monotonic() - begun >= 0.05
    assert len(parts) >= 3 and max(parts) <= 0.01
    lock = threading.Lock()
    lock.acquire()
    assert not nt.base.seconds.acquire_within(lock, 0.03)
    assert not nt.base.seconds.acquire_within(lock, -1)
    run_soon(lock.release)
    assert nt.base.seconds.acquire_within(lock, 1e300)


@pytest.mark.parametrize("wait", ["5", b"5", -1, float("nan"), float("inf"), [1], 10**400])
def test_a_wait_that_is_no_time_is_refused_before_anything_stops(nt, supervisor, wait):
    worker = nt.BackgroundEventWorker("w", print, supervisor=supervisor)
    worker.start()
    scheduler = supervisor.create_async_job_scheduler("jobs")
    for stop in (worker.stop, scheduler.stop, supervisor.stop, supervisor.get_aloop().stop):
        with pytest.raises((TypeError, ValueError), match="wait must be"):
            stop(wait=wait)
    assert worker.is_active() and scheduler.active and supervisor.active


@pytest.mark.parametrize("delay", ["1", b"1", True, -1, float("nan"), 10**400, None, [1]])
def test_a_delay_that_is_no_time_is_refused(supervisor, delay):
    with pytest.raises((TypeError, ValueError), match="delay must be"):
        supervisor.call_later(delay, print)


def test_a_future_that_waits_in_vain_says_so(nt):
    with pytest.raises(TimeoutError, match="not ended"):
        nt.wait_completed([Future()], timeout=0.001)
