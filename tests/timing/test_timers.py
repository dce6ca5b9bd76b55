"""Timers of the supervisor: delayed tasks, and callbacks that run in the pool."""

from __future__ import annotations

import contextvars
import queue
import threading
import time

import pytest
from helpers import Blocker, wait_until


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


# Delayed tasks.


def test_a_delayed_task_enters_its_lane_after_the_delay(supervisor, nt):
    began = time.monotonic()
    task = supervisor.put_task(time.monotonic, delay=0.05, priority=nt.TASK_HIGH)
    assert task.status is nt.TaskStatus.DELAYED
    assert task.time_queued is None
    assert task.result(10) - began >= 0.05
    assert task.time_queued - began >= 0.05
    assert task.priority is nt.TASK_HIGH
    assert task.status is nt.TaskStatus.COMPLETED


def test_delayed_tasks_run_in_order_of_their_time(supervisor):
    supervisor.set_thread_pool(pool_size=1)
    order = []
    tasks = [supervisor.put_task(order.append, (n,), delay=n / 100) for n in (5, 1, 4, 2, 3)]
    for task in tasks:
        task.result(10)
    assert order == [1, 2, 3, 4, 5]


def test_no_delay_and_zero_delay_are_at_once(supervisor, nt):
    for delay in (None, 0, 0.0):
        task = supervisor.put_task(pow, (2, 3), delay=delay)
        assert task.time_queued is not None
        assert task.result(10) == 8


def test_cancelling_a_delayed_task_takes_its_timer_away(supervisor, nt):
    ran = threading.Event()
    timers = len(supervisor.ticker)
    task = supervisor.put_task(ran.set, delay=60)
    assert len(supervisor.ticker) == timers + 1
    assert task.cancel()
    assert len(supervisor.ticker) == timers
    assert task.status is nt.TaskStatus.CANCELED
    assert not ran.is_set()


def test_a_delayed_task_calls_back_when_it_is_done(supervisor):
    done: queue.SimpleQueue = queue.SimpleQueue()
    task = supervisor.put_task(pow, (2, 3), delay=0.001, callback=done.put, task_id="mine")
    assert done.get(timeout=10) is task
    assert task.id == "mine"
    other = supervisor.put_task(int, delay=60, callback=done.put)
    other.cancel()
    assert done.get(timeout=10).cancelled()


def test_delayed_tasks_do_not_leave_timers_behind(supervisor):
    timers = len(supervisor.ticker)
    for task in [supervisor.put_task(int, delay=0.001) for _ in range(100)]:
        task.result(10)
    wait_until(lambda: len(supervisor.ticker) == timers)
    assert len(supervisor._delayed) == 0


# call_later.


def test_call_later_runs_once_in_the_pool(supervisor):
    seen: queue.SimpleQueue = queue.SimpleQueue()
    began = time.monotonic()

    def callback(*args):
        seen.put((time.monotonic(), threading.current_thread().name, args))

    timer = supervisor.call_later(0.02, callback, 1, 2)
    assert timer.active
    when, thread, args = seen.get(timeout=10)
    assert when - began >= 0.02
    assert thread.startswith("supervisor_test_pool_")
    assert args == (1, 2)
    assert (timer.runs, timer.active, timer.interval) == (1, False, None)
    assert not timer.cancel()


def test_a_cancelled_timer_does_not_run(supervisor):
    ran = threading.Event()
    timer = supervisor.call_later(0.01, ran.set)
    assert timer.cancel() is True
    assert timer.cancel() is False
    assert not timer.active
    assert not ran.wait(0.05)


def test_cancel_catches_a_run_that_waits_in_its_lane(supervisor, flood):
    supervisor.set_thread_pool(pool_size=1)
    supervisor.spawn(flood)
    flood.wait_running(1)
    ran = threading.Event()
    timer = supervisor.call_later(0, ran.set)
    wait_until(lambda: timer.runs == 1)
    assert timer.cancel() is True
    flood.release()
    supervisor.stop()
    assert not ran.is_set()


def test_a_timer_runs_at_its_priority(supervisor, nt, flood):
    supervisor.set_thread_pool(pool_size=1)
    supervisor.spawn(flood)
    flood.wait_running(1)
    ran = threading.Event()
    supervisor.call_later(0, ran.set, priority=nt.TASK_CRITICAL)
    assert ran.wait(10)


def test_timers_carry_the_context_of_who_set_them(supervisor):
    var = contextvars.ContextVar("var", default="none")
    seen: queue.SimpleQueue = queue.SimpleQueue()
    var.set("mine")

    def callback():
        seen.put(var.get())
        var.set("changed")  # in the context of this run alone

    supervisor.call_later(0, callback)
    assert seen.get(timeout=10) == "mine"
    timer = supervisor.call_every(0.001, callback)
    assert [seen.get(timeout=10) for _ in range(3)] == ["mine"] * 3
    timer.cancel()


# call_every.


def test_call_every_keeps_its_rate(supervisor):
    seen: queue.SimpleQueue = queue.SimpleQueue()
    began = time.monotonic()
    timer = supervisor.call_every(0.02, lambda: seen.put(time.monotonic() - began))
    moments = [seen.get(timeout=10) for _ in range(5)]
    timer.cancel()
    assert all(moment >= 0.02 * n for n, moment in enumerate(moments, 1))
    assert timer.runs >= 5
    assert timer.interval == 0.02


def test_an_exception_in_a_timer_is_logged_and_the_timer_goes_on(supervisor, caplog):
    runs: queue.SimpleQueue = queue.SimpleQueue()

    def fails():
        runs.put(1)
        raise ZeroDivisionError("in a timer")

    timer = supervisor.call_every(0.001, fails)
    for _ in range(3):
        runs.get(timeout=10)
    timer.cancel()
    wait_until(lambda: caplog.text.count("in a timer") >= 2)
    assert "exception in timer callback" in caplog.text


@pytest.mark.parametrize("missed", ["skip", "delay", "burst"])
def test_never_two_runs_of_one_timer_at_once(supervisor, flood, missed):
    supervisor.set_thread_pool(pool_size=4)
    timer = supervisor.call_every(0.001, flood, missed=missed)
    flood.expect_exactly(1)
    for _ in range(5):
        flood.release(1)
        wait_until(lambda before=flood.finished: flood.finished > before - 1)
    timer.cancel()
    flood.release()
    assert flood.peak == 1


def test_skip_counts_what_fell_due_during_a_run_and_keeps_the_phase(supervisor, flood):
    timer = supervisor.call_every(0.01, flood)
    flood.wait_running(1)
    first = timer.when
    wait_until(lambda: timer.missed >= 3)
    assert timer.runs == 1
    flood.release()
    wait_until(lambda: timer.runs >= 3)
    timer.cancel()
    phase = (timer.when - first) / 0.01
    assert abs(phase - round(phase)) < 1e-3


def test_delay_starts_a_new_phase_when_the_run_has_ended(supervisor, flood):
    timer = supervisor.call_every(0.01, flood, missed="delay")
    flood.wait_running(1)
    first = timer.when
    wait_until(lambda: supervisor.ticker.now() > first + 0.05)
    assert timer.active
    ended = supervisor.ticker.now()
    flood.release()
    wait_until(lambda: timer.runs >= 2)
    assert timer.missed >= 5
    assert timer.when > ended + 0.01
    timer.cancel()


def test_burst_makes_up_for_what_fell_due_during_a_run(supervisor, flood):
    timer = supervisor.call_every(0.01, flood, missed="burst")
    flood.wait_running(1)
    began = timer.when - 0.01
    wait_until(lambda: supervisor.ticker.now() > began + 0.1)
    assert timer.runs == 1
    flood.release()
    wait_until(lambda: timer.runs >= 10)
    runs = timer.runs
    due = int((supervisor.ticker.now() - began) / 0.01) + 1  # by now, later than that
    assert timer.missed == 0
    assert runs <= due + 1
    timer.cancel()


def test_a_timer_may_cancel_itself(supervisor):
    seen: queue.SimpleQueue = queue.SimpleQueue()
    timers = []
    ready = threading.Event()

    def once():
        ready.wait(10)
        seen.put(timers[0].cancel())

    timers.append(supervisor.call_every(0.001, once))
    ready.set()
    assert seen.get(timeout=10) is True
    supervisor.stop()
    assert timers[0].runs == 1
    assert seen.empty()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_a_bad_interval_is_named(supervisor, interval):
    with pytest.raises(ValueError, match="interval must be positive"):
        supervisor.call_every(interval, int)


def test_a_bad_policy_is_named(supervisor):
    with pytest.raises(ValueError, match="'skip', 'delay' or 'burst', not 'drop'"):
        supervisor.call_every(1, int, missed="drop")


def test_timers_end_with_the_supervisor(supervisor):
    timers = [supervisor.call_later(60, int), supervisor.call_every(0.001, int)]
    wait_until(lambda: timers[1].runs)
    assert supervisor.stop().clean
    assert not any(timer.active for timer in timers)
    assert len(supervisor.ticker) == 0


def test_many_timers_run_once_each(supervisor):
    counts = [0] * 2000

    def count(n):
        counts[n] += 1

    timers = [supervisor.call_later(n % 7 / 1000, count, n) for n in range(2000)]
    wait_until(lambda: sum(counts) >= 2000)
    supervisor.stop()
    assert counts == [1] * 2000
    assert all(timer.runs == 1 for timer in timers)


# The ticker itself.


def test_the_ticker_runs_callbacks_inline_in_its_thread(supervisor):
    seen: queue.SimpleQueue = queue.SimpleQueue()
    supervisor.ticker.call_later(0, lambda: seen.put(threading.current_thread().name))
    assert seen.get(timeout=10) == "supervisor_test_ticker"


def test_timers_set_on_the_ticker_before_start_fire_after_it(nt):
    supervisor = nt.TaskSupervisor("test")
    fired = threading.Event()
    supervisor.ticker.call_later(0, fired.set)
    assert not fired.wait(0.02)
    supervisor.start()
    assert fired.wait(10)
    supervisor.stop()
