"""Continuous workers: in a thread of their own, or on an aloop; restarts and giving up."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time

import pytest
from helpers import Blocker, wait_until


@pytest.fixture(params=["thread", "aloop", "pool"])
def make(request, nt, host):
    """Return what makes a continuous worker: in its own thread, on a loop, in the pool."""

    def make(fn, **options):
        if request.param == "thread":
            return nt.BackgroundWorker("x", fn, supervisor=host, **options)
        if request.param == "pool":
            return nt.BackgroundAsyncWorker("x", fn, supervisor=host, **options)

        async def coroutine(**kwargs):
            return fn()

        return nt.BackgroundAsyncWorker("x", coroutine, supervisor=host, **options)

    return make


def test_a_plain_worker_has_a_thread_of_its_own_and_no_place_of_the_pool(nt, host):
    host.set_thread_pool(pool_size=1)
    names = set()
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        worker = nt.BackgroundWorker(
            "mine", lambda: names.add(threading.current_thread().name), supervisor=host
        )
        worker.start()
        wait_until(lambda: worker.runs > 10)
        worker.stop()
    assert names == {"supervisor_tests_worker_mine"}


def test_a_plain_worker_makes_no_pause(nt, host):
    worker = nt.BackgroundWorker("x", lambda: None, supervisor=host, poll_delay=10)
    worker.start()
    wait_until(lambda: worker.runs > 1000)
    worker.stop()


def test_an_async_worker_pauses_for_the_poll_delay(nt, host):
    times = []

    async def target(**kwargs):
        times.append(time.monotonic())

    worker = nt.BackgroundAsyncWorker("x", target, supervisor=host, poll_delay=0.02)
    worker.start()
    wait_until(lambda: len(times) > 10)
    worker.stop()
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.019


def test_the_poll_delay_is_the_supervisors_unless_given(nt):
    supervisor = nt.TaskSupervisor("slow")
    worker = nt.BackgroundWorker(supervisor=supervisor)
    assert worker.poll_delay == 0.01
    supervisor.poll_delay = 0.5
    assert worker.poll_delay == 0.5
    worker.poll_delay = 0.2
    assert worker.poll_delay == 0.2
    assert nt.BackgroundWorker(supervisor=supervisor, poll_delay=0.3).poll_delay == 0.3


def test_an_async_worker_without_a_pause_leaves_the_loop_to_others(nt, host):
    async def target(**kwargs): ...

    worker = nt.BackgroundAsyncWorker("x", target, supervisor=host, poll_delay=0)
    worker.start()
    wait_until(lambda: worker.runs > 100)
    assert host.get_aloop("main").run_coroutine_threadsafe(asyncio.sleep(0, "seen")) == "seen"
    worker.stop()


def test_a_worker_that_always_raises_backs_off(make, caplog):
    """At most 15 runs in the first five seconds, each traceback logged; stop is immediate."""
    times = []

    def target(**kwargs):
        times.append(time.monotonic())
        raise ValueError("again")

    worker = make(target)
    worker.start()
    wait_until(lambda: len(times) >= 7)
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert worker.is_active()
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 0.3
    expected = [0.01 * 2**n for n in range(len(pauses))]
    assert all(p >= e * 0.95 for p, e in zip(pauses, expected, strict=True)), pauses
    assert worker.errors == worker.runs == len(times)
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.getMessage() for r in errors] == ["exception in worker x"] * len(times)
    assert all("again" in r.exc_text for r in errors)


def test_the_back_off_ends_at_one_second(nt):
    from neotasker.base.restarts import Restarts

    restarts = Restarts(first=0.01)
    pauses = [restarts.next_pause(0.0) for _ in range(10)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0]
    runs_in_five_seconds = sum(at < 5 for at in itertools.accumulate([0.0, *pauses]))
    assert runs_in_five_seconds <= 15


def test_a_success_ends_the_back_off(make):
    outcomes = iter([1, 1, 1, 1, 0] * 1000)
    times = []

    def target(**kwargs):
        times.append(time.monotonic())
        if next(outcomes):
            raise ValueError

    worker = make(target, on_error=lambda: None)
    worker.start()
    wait_until(lambda: worker.runs >= 7)
    worker.stop()
    assert times[6] - times[5] < 0.07  # 0.01 s again, and not 0.16


def test_a_worker_is_given_up_after_too_many_restarts(make, caplog):
    gone = threading.Event()
    worker = make(lambda **kwargs: 1 / 0, max_restarts=3, period=1, on_give_up=gone.set)
    worker.start()
    assert gone.wait(10)
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert worker.runs == 4
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert record.getMessage() == (
        "worker x is given up: 3 restarts within 1 s were not enough"
    )


def test_restarts_count_within_the_period_only(nt):
    from neotasker.base.restarts import Restarts

    restarts = Restarts("on_error", 2, 10.0, 0.01)
    assert [restarts.next_pause(now) is None for now in (0, 5, 9, 10.5, 11, 21)] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_on_give_up_runs_inside_the_except(make):
    seen = []

    def on_give_up():
        try:
            raise
        except ZeroDivisionError as exc:
            seen.append(exc)

    worker = make(
        lambda **kwargs: 1 / 0, restart="never", on_error=lambda: None, on_give_up=on_give_up
    )
    worker.start()
    assert worker.wait_until_stop(10)
    assert len(seen) == worker.runs == 1


def test_on_give_up_may_be_a_method_and_may_raise(nt, host, caplog):
    class Mine(nt.BackgroundWorker):
        def run(self, **kwargs):
            raise ValueError

        def on_give_up(self):
            raise KeyError

    worker = Mine("mine", supervisor=host, restart="never")
    worker.start()
    assert worker.wait_until_stop(10)
    assert "error in on_give_up of worker mine" in caplog.text


def test_always_means_that_nothing_but_a_stop_ends_it(make):
    worker = make(lambda **kwargs: False, restart="always")
    worker.start()
    wait_until(lambda: worker.runs >= 3)
    assert worker.is_active()
    worker.stop()
    assert worker.is_stopped()


def test_one_is_given_up_and_the_others_go_on(nt, host):
    others = [nt.BackgroundWorker(n, lambda: time.sleep(0.001), supervisor=host) for n in "ab"]
    bad = nt.BackgroundWorker("bad", lambda: 1 / 0, supervisor=host, restart="never")
    for worker in (*others, bad):
        worker.start()
    assert bad.wait_until_stop(10)
    before = [worker.runs for worker in others]
    wait_until(lambda: all(w.runs > n for w, n in zip(others, before, strict=True)))


def test_a_worker_that_was_given_up_can_be_started_again(make):
    worker = make(lambda **kwargs: 1 / 0, restart="never")
    for n in (1, 2):
        worker.start()
        assert worker.wait_until_stop(10)
        assert worker.runs == n
