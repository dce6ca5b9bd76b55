"""Executors of others behind the lanes and reserves of a supervisor."""

from __future__ import annotations

import contextvars
import multiprocessing
import os
import threading
import time
from concurrent import futures

import pytest
from helpers import Blocker, wait_until

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def threads():
    with futures.ThreadPoolExecutor(2, thread_name_prefix="theirs") as threads:
        yield threads


@pytest.fixture
def flood():
    with Blocker() as flood:
        yield flood


def thread_name():
    return threading.current_thread().name


def test_a_process_pool_runs_the_tasks_of_all_lanes(supervisor, nt):
    spawn = supervisor.spawn
    with futures.ProcessPoolExecutor(2, mp_context=SPAWN) as processes:
        supervisor.thread_pool = processes
        assert spawn(os.getpid).result(60) != os.getpid()
        for priority in (nt.TASK_LOW, nt.TASK_HIGH, nt.TASK_CRITICAL):
            assert supervisor.put_task(pow, (2, 3), priority=priority).result(60) == 8
            assert list(supervisor.lane(priority).map(abs, [-1, -2])) == [1, 2]
        assert supervisor.put_task(pow, (2, 3), delay=0.01).result(60) == 8
        assert isinstance(spawn(int, "x").exception(60), ValueError)
        # What cannot be sent to another process fails alone.
        assert spawn(lambda: 1).exception(60) is not None
        assert spawn(pow, 2, 4).result(60) == 16
        supervisor.thread_pool = None
        assert spawn(os.getpid).result(10) == os.getpid()


def test_the_process_pool_in_place_is_shut_down_with_the_supervisor(supervisor, caplog):
    processes = futures.ProcessPoolExecutor(1, mp_context=SPAWN)
    supervisor.set_thread_pool(pool=processes)
    tasks = [supervisor.spawn(pow, n, 2) for n in range(10)]
    with caplog.at_level("INFO", "neotasker"):
        assert supervisor.stop().clean
    assert [task.result(0) for task in tasks] == [n * n for n in range(10)]
    with pytest.raises(RuntimeError):
        processes.submit(int)
    assert "goes back to threads of its own" in caplog.text
    supervisor.start()
    assert supervisor.spawn(os.getpid).result(10) == os.getpid()


def test_the_thread_pool_stays_the_same_object(supervisor, threads):
    pool, spawn = supervisor.thread_pool, supervisor.spawn
    supervisor.thread_pool = threads
    assert supervisor.thread_pool is pool
    assert supervisor.thread_pool.executor is threads
    assert supervisor.spawn == spawn
    assert spawn(thread_name).result(10).startswith("theirs")


def test_reserves_hold_before_an_executor_of_others(supervisor, nt, flood):
    with futures.ThreadPoolExecutor(20) as wide:
        supervisor.set_thread_pool(pool=wide, pool_size=2, reserve_normal=1, reserve_high=1)
        for priority, running in ((nt.TASK_LOW, 2), (nt.TASK_NORMAL, 3), (nt.TASK_HIGH, 4)):
            for _ in range(10):
                supervisor.put_task(flood, priority=priority)
            flood.expect_exactly(running, quiet=0.03)
        assert supervisor.put_task(pow, (2, 3), priority=nt.TASK_CRITICAL).result(10) == 8
        flood.release()
        supervisor.thread_pool = None
        supervisor.stop()


def test_sizes_are_the_executors_unless_they_were_set(nt, threads):
    supervisor = nt.TaskSupervisor("test")
    supervisor.set_thread_pool(pool=threads)
    assert supervisor.get_info().pool["pool_size"] == 2
    supervisor = nt.TaskSupervisor("test")
    supervisor.thread_pool = threads
    assert supervisor.get_info().pool["pool_size"] == 2
    supervisor = nt.TaskSupervisor("test")
    supervisor.set_thread_pool(pool_size=7, reserve_high=1)
    supervisor.set_thread_pool(pool=threads)
    assert supervisor.get_info().pool["pool_size"] == 7
    assert supervisor.get_info().pool["reserve_high"] == 1
    supervisor = nt.TaskSupervisor("test")
    supervisor.set_thread_pool(pool_size=7)
    supervisor.thread_pool = threads
    assert supervisor.get_info().pool["pool_size"] == 7
    assert supervisor.get_info().pool["executor"] == repr(threads)


def test_tasks_move_between_executors_and_none_is_lost(supervisor, threads):
    ended = threading.Event()

    def swap():
        while not ended.is_set():
            supervisor.thread_pool = threads
            supervisor.thread_pool = None

    swapper = threading.Thread(target=swap)
    swapper.start()
    tasks = [supervisor.spawn(pow, n, 2) for n in range(3000)]
    assert [task.result(60) for task in tasks] == [n * n for n in range(3000)]
    ended.set()
    swapper.join()
    assert supervisor.stop().clean


def test_what_runs_elsewhere_goes_on_there(supervisor, threads, flood):
    supervisor.thread_pool = threads
    theirs = supervisor.spawn(lambda: (flood(), thread_name())[1])
    flood.wait_running(1)
    supervisor.thread_pool = None
    ours = supervisor.spawn(thread_name)
    assert ours.result(10).startswith("supervisor_test_pool_")
    flood.release()
    assert theirs.result(10).startswith("theirs")


def test_thread_executors_carry_the_context(supervisor, threads):
    var = contextvars.ContextVar("var", default="none")
    var.set("mine")
    supervisor.thread_pool = threads
    assert supervisor.spawn(var.get).result(10) == "mine"


def test_setting_sizes_without_an_executor_goes_back_to_own_threads(
    supervisor, threads, caplog
):
    supervisor.thread_pool = threads
    with caplog.at_level("INFO", "neotasker"):
        supervisor.set_thread_pool(pool_size=3)
    assert supervisor.thread_pool.executor is None
    assert "its owner's to shut down" in caplog.text
    assert supervisor.spawn(thread_name).result(10).startswith("supervisor_test_pool_")
    assert threads.submit(pow, 2, 3).result(10) == 8


def test_the_pool_cannot_be_its_own_executor(supervisor, nt):
    for own in (supervisor.thread_pool, supervisor.lane(nt.TASK_HIGH)):
        with pytest.raises(ValueError, match="already"):
            supervisor.thread_pool = own
    with pytest.raises(TypeError, match="submit"):
        supervisor.thread_pool = 5
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


def test_a_broken_executor_fails_the_tasks_and_the_supervisor_serves_on(supervisor, threads):
    broken = futures.ThreadPoolExecutor(1)
    broken.shutdown()
    supervisor.thread_pool = broken
    with pytest.raises(RuntimeError, match="shutdown"):
        supervisor.spawn(int).result(10)
    supervisor.thread_pool = threads
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


def test_stop_from_a_task_in_an_executor_of_others(supervisor):
    theirs = futures.ThreadPoolExecutor(2)
    supervisor.thread_pool = theirs
    supervisor.spawn(supervisor.stop)
    assert supervisor.block(10)
    assert supervisor.thread_pool.executor is None


def test_what_still_runs_elsewhere_is_reported(supervisor, flood):
    theirs = futures.ThreadPoolExecutor(2)
    supervisor.thread_pool = theirs
    task = supervisor.spawn(flood)
    flood.wait_running(1)
    began = time.monotonic()
    report = supervisor.stop(timeout=0.05)
    assert time.monotonic() - began < 2
    assert not report.clean
    assert supervisor.block(10)
    flood.release()
    assert task.result(10) is None
    wait_until(lambda: not supervisor.thread_pool.active)
