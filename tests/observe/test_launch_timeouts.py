"""Launch timeouts: a task that waits too long to start is logged and handed on."""

from __future__ import annotations

import logging
import queue
import threading
import time

import pytest
from helpers import Blocker, wait_until


@pytest.fixture
def full(nt):
    """A supervisor whose only place is taken."""
    supervisor = nt.TaskSupervisor("test")
    supervisor.set_thread_pool(pool_size=1)
    supervisor.start()
    with Blocker() as flood:
        supervisor.spawn(flood)
        flood.wait_running(1)
        supervisor.flood = flood
        yield supervisor
    supervisor.stop(cancel_tasks=True)


def records(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelno == level]


def test_the_defaults_are_five_and_ten_seconds(nt):
    supervisor = nt.TaskSupervisor("test")
    assert (supervisor.timeout_warning, supervisor.timeout_critical) == (5, 10)


def test_a_late_task_is_logged_once_per_level_with_figures_and_the_way_out(full, nt, caplog):
    full.timeout_warning, full.timeout_critical = 0.02, 0.06
    full.put_task(sorted, ([],), task_id="mine")
    wait_until(lambda: records(caplog, logging.CRITICAL))
    full.flood.release()
    full.stop()
    warnings, criticals = records(caplog, logging.WARNING), records(caplog, logging.CRITICAL)
    assert len(warnings) == len(criticals) == 1
    for message, age in ((warnings[0], "0.02 s"), (criticals[0], "0.06 s")):
        for part in ("supervisor test", "mine", "sorted", age, "1 run", "1 wait", "1+0+0"):
            assert part in message
        assert "set_thread_pool" in message


def test_the_functions_get_the_task(full):
    warned: queue.SimpleQueue = queue.SimpleQueue()
    full.timeout_warning_func = lambda task: warned.put(("warning", task, time.monotonic()))
    full.timeout_critical_func = lambda task: warned.put(("critical", task, time.monotonic()))
    full.timeout_warning, full.timeout_critical = 0.03, 0.08
    task = full.spawn(int)
    for level, age in (("warning", 0.03), ("critical", 0.08)):
        said, which, when = warned.get(timeout=10)
        assert (said, which) == (level, task)
        assert when - task.time_queued >= age


def test_a_subclass_may_define_the_functions(nt):
    warned: queue.SimpleQueue = queue.SimpleQueue()

    class Mine(nt.TaskSupervisor):
        def timeout_warning_func(self, task):
            warned.put((self, task))

    mine = Mine("test")
    mine.set_thread_pool(pool_size=1)
    mine.start()
    mine.timeout_warning = 0.01
    with Blocker() as flood:
        mine.spawn(flood)
        task = mine.spawn(int)
        assert warned.get(timeout=10) == (mine, task)
    mine.stop()


def test_tasks_that_start_in_time_are_not_reported(nt, caplog):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    supervisor.timeout_warning = 0.05
    for _ in range(20):
        supervisor.spawn(time.sleep, 0.01).result(10)
    supervisor.stop()
    assert not records(caplog, logging.WARNING)


def test_tasks_of_all_lanes_are_watched(full, nt):
    warned: queue.SimpleQueue = queue.SimpleQueue()
    full.timeout_warning_func = warned.put
    full.timeout_warning = 0.02
    tasks = {
        full.put_task(int, priority=p) for p in (nt.TASK_LOW, nt.TASK_NORMAL, nt.TASK_HIGH)
    }
    assert {warned.get(timeout=10) for _ in range(3)} == tasks


def test_the_age_may_be_changed_while_tasks_wait(full):
    warned = threading.Event()
    full.timeout_warning_func = lambda task: warned.set()
    full.spawn(int)
    assert not warned.wait(0.05)
    full.timeout_warning = 0.01
    assert warned.wait(10)


def test_none_turns_a_level_off(full, caplog):
    full.timeout_warning, full.timeout_critical = None, 0.02
    full.spawn(int)
    wait_until(lambda: records(caplog, logging.CRITICAL))
    assert not records(caplog, logging.WARNING)
    full.timeout_critical = None
    timers = len(full.ticker)
    assert timers == 0


def test_a_flood_of_late_tasks_does_not_flood_the_log(full, caplog):
    warned = []
    full.timeout_warning_func = warned.append
    full.timeout_critical = None
    tasks = [full.spawn(int) for _ in range(500)]
    wait_until(lambda: time.monotonic() > tasks[-1].time_queued + 0.05)
    full.timeout_warning = 0.05
    wait_until(lambda: len(warned) == 500)
    assert warned == tasks
    assert len(records(caplog, logging.WARNING)) == 11
    assert "490 other tasks" in caplog.text


def test_a_failing_function_is_logged_and_the_watch_goes_on(full, caplog):
    def fails(task):
        raise ZeroDivisionError("in a hook")

    full.timeout_warning_func = fails
    full.timeout_warning = 0.01
    full.spawn(int)
    wait_until(lambda: "in a hook" in caplog.text)
    caplog.clear()
    full.spawn(int)
    wait_until(lambda: "in a hook" in caplog.text)
    assert full.active


def test_a_function_may_stop_the_supervisor(full):
    full.timeout_warning_func = lambda task: full.stop(cancel_tasks=True)
    full.timeout_warning = 0.01
    task = full.spawn(int)
    wait_until(task.cancelled)
    full.flood.release()
    assert full.block(10)
    assert not full.active


def test_a_function_may_make_the_pool_larger(full):
    full.timeout_warning_func = lambda task: full.set_thread_pool(pool_size=2)
    full.timeout_warning = 0.01
    assert full.spawn(pow, 2, 3).result(10) == 8


@pytest.mark.parametrize("name", ["timeout_warning", "timeout_critical"])
def test_bad_timeouts_are_named(full, name):
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="launch timeout must be"):
            setattr(full, name, wrong)
    for wrong in ("soon", True):
        with pytest.raises(TypeError, match="launch timeout must be"):
            setattr(full, name, wrong)
    assert (full.timeout_warning, full.timeout_critical) == (5, 10)


def test_the_watch_does_not_poll(nt):
    """One timer, and while nothing waits it fires once per age."""
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    before = supervisor.ticker.fires
    for _ in range(100):
        supervisor.spawn(int).result(10)
    assert len(supervisor.ticker) == 1
    assert supervisor.ticker.fires == before
    supervisor.stop()
