"""Functions as tasks, waiting for them, and what atasker asks of tasks and supervisors."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import operator
import os
import queue
import signal
import sys
import threading
import time
import weakref

import pytest
from helpers import Blocker, run_forked, run_python, wait_until, wait_until_logged


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("tasks")
    supervisor.set_thread_pool(pool_size=2, reserve_normal=1, reserve_high=1)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def task(nt, supervisor):
    """Make a function a task, on the supervisor of the test."""
    return lambda fn, **options: nt.background_task(fn, supervisor=supervisor, **options)


# background_task.


def test_a_plain_function_runs_in_the_pool(nt, task):
    def add(a, b=0):
        """Add."""
        return a + b, threading.current_thread().name

    add_later = task(add)
    assert add_later.__name__ == "add" and add_later.__doc__ == "Add."
    started = add_later(1, b=2)
    assert isinstance(started, nt.Task)
    total, thread = started.result(10)
    assert total == 3 and thread.startswith("supervisor_tasks_pool_")
    assert add(1, b=2)[0] == 3  # stays what it was


def test_it_decorates_bare_and_with_options(nt, supervisor):
    supervisor_of_module, nt.task_supervisor = nt.task_supervisor, supervisor
    try:

        @nt.background_task
        def bare():
            return 1

        @nt.background_task(priority=nt.TASK_HIGH)
        def optioned():
            return 2

        assert bare().result(10) == 1
        started = optioned()
        assert started.result(10) == 2 and started.priority == nt.TASK_HIGH
    finally:
        nt.task_supervisor = supervisor_of_module


def test_priority_delay_and_callback(nt, task):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()
    began = time.monotonic()
    started = task(pow, priority=nt.TASK_LOW, delay=0.05, callback=got.put)(2, 3)
    assert started.priority == nt.TASK_LOW and started.status == nt.TASK_STATUS_DELAYED
    assert started.delay == 0.05
    assert got.get(timeout=10) == 8
    assert time.monotonic() - began >= 0.05


def test_an_async_function_runs_on_a_loop(nt, supervisor, task):
    supervisor.create_aloop("other")
    got: queue.SimpleQueue[object] = queue.SimpleQueue()

    async def where(x):
        await asyncio.sleep(0)
        return x, threading.current_thread().name

    for options, name in [
        ({}, "main"),
        ({"loop": "other"}, "other"),
        ({"loop": supervisor.get_aloop("other")}, "other"),
        ({"loop": supervisor.get_aloop("other").get_loop()}, "other"),
        ({"loop": "other", "delay": 0.01}, "other"),
    ]:
        started = task(where, callback=got.put, **options)(5)
        assert started.tt == nt.TT_COROUTINE
        assert nt.wait_completed(started, 10) == (5, f"supervisor_tasks_aloop_{name}")
        assert started.is_completed() and got.get(timeout=10)[0] == 5
    with pytest.raises(nt.UnknownAloop, match="nowhere"):
        task(where, loop="nowhere")(5)


def test_a_loop_of_somebody_else_takes_tasks_too(nt, task):
    async def answer():
        return 42

    async def main():
        return await asyncio.wrap_future(task(answer, loop=asyncio.get_running_loop())())

    assert asyncio.run(main()) == 42


def test_without_a_default_aloop_the_supervisor_has_a_loop_of_its_own(nt, supervisor, task):
    supervisor.default_aloop = None

    async def where():
        return threading.current_thread().name

    assert task(where)().result(10) == "supervisor_tasks_event_loop"


def test_a_function_that_returns_a_coroutine_is_named_as_such(nt, task):
    async def inner(x):
        return x

    assert task(lambda x: inner(x), tt=nt.TT_COROUTINE)(3).result(10) == 3


def test_a_callback_is_not_called_for_a_failure_which_is_logged(nt, task, caplog):
    called = []
    started = task(operator.truediv, callback=called.append)(1, 0)
    wait_until(started.done)
    started = None
    wait_until_logged("ZeroDivisionError", caplog)
    assert not called


def test_bad_options_are_refused_when_the_function_is_decorated(nt):
    def fn():
        return None

    with pytest.raises(TypeError, match="callable, not of 5"):
        nt.background_task(5)
    with pytest.raises(ValueError, match="unknown priority 7"):
        nt.background_task(fn, priority=7)
    with pytest.raises(ValueError, match="-1"):
        nt.background_task(fn, delay=-1)
    with pytest.raises(TypeError, match="callback"):
        nt.background_task(fn, callback="x")
    with pytest.raises(ValueError, match=r"kind of task 9: use .*TT_MP"):
        nt.background_task(fn, tt=9)
    assert callable(nt.background_task(fn, name="x", wait_start=True, daemon=True))


def test_a_task_needs_a_supervisor_that_runs(nt):
    stopped = nt.TaskSupervisor("stopped")
    with pytest.raises(nt.SupervisorNotStarted, match="start"):
        nt.background_task(print, supervisor=stopped)()


# wait_completed.


def test_waiting_for_one_and_for_several(nt, task):
    double = task(lambda x: 2 * x)
    assert nt.wait_completed(double(4)) == 8
    assert nt.wait_completed([double(n) for n in range(4)]) == [0, 2, 4, 6]
    assert nt.wait_completed((double(n) for n in range(2)), timeout=10) == [0, 2]
    assert nt.wait_completed([]) == []


def test_waiting_gives_up_after_its_time(nt, task):
    with Blocker() as block:
        started = task(block)()
        with pytest.raises(TimeoutError, match=r"1 of 2 tasks .* 0\.01 s"):
            nt.wait_completed([started, task(int)()], timeout=0.01)
        with pytest.raises(TimeoutError):
            nt.wait_completed(started, 0)


def test_what_a_task_raised_comes_out_when_all_have_ended(nt, task):
    done = []
    started = [task(operator.truediv)(1, 0), task(lambda: done.append(1))()]
    with pytest.raises(ZeroDivisionError):
        nt.wait_completed(started)
    assert done == [1]
    with pytest.raises(TypeError, match="future is needed, not 5"):
        nt.wait_completed([5])


def test_a_task_may_wait_for_tasks_of_the_same_pool(nt, supervisor, task):
    supervisor.set_thread_pool(pool_size=1)
    inner = task(lambda n: n)
    outer = task(lambda: nt.wait_completed([inner(n) for n in range(5)]))
    assert nt.wait_completed(outer(), 10) == [0, 1, 2, 3, 4]


# Tasks, as atasker has them.


def test_a_task_says_what_it_is_and_how_far_it_has_come(nt, supervisor):
    with Blocker() as block:
        task = supervisor.put_task(block, (1,), {"x": 2}, task_id="mine", worker="w")
        block.wait_running(1)
        assert (task.id, task.tt, task.worker) == ("mine", nt.TT_THREAD, "w")
        assert (task.target, task.args, task.kwargs) == (block, (1,), {"x": 2})
        assert task.started.wait(10) and task.is_started()
        assert not task.is_completed() and not task.completed.wait(0.01)
        task.mark_started()
        task.mark_completed()  # says nothing new, and changes nothing
        assert task.status == nt.TASK_STATUS_STARTED == 100
        block.release()
        assert task.completed.wait(10) and task.completed.is_set()
    assert task.status == nt.TASK_STATUS_COMPLETED == 200
    assert task.result() == 1
    assert (task.target, task.args, task.kwargs) == (None, (), {})


def test_a_start_can_be_waited_for(nt, supervisor):
    with Blocker() as block:
        supervisor.set_thread_pool(pool_size=1)
        first, second = supervisor.put_task(block), supervisor.put_task(block)
        assert first.started.wait(10)
        assert not second.started.wait(0.02) and not second.is_started()
        threading.Timer(0.05, block.release).start()
        assert second.started.wait(10)


def test_names_have_the_values_of_atasker(nt):
    assert (nt.TT_COROUTINE, nt.TT_THREAD, nt.TT_MP) == (0, 1, 2)
    assert (nt.TASK_LOW, nt.TASK_NORMAL, nt.TASK_HIGH, nt.TASK_CRITICAL) == (200, 100, 50, 0)
    values = {"QUEUED": 0, "DELAYED": 2, "STARTED": 100, "COMPLETED": 200, "CANCELED": -1}
    for name, value in values.items():
        assert getattr(nt, f"TASK_STATUS_{name}") == value
        assert getattr(nt.supervisor, f"TASK_STATUS_{name}") == value


def test_put_task_takes_its_arguments_by_position(nt, supervisor):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()
    task = supervisor.put_task(
        pow, (2,), {"exp": 3}, got.put, nt.TASK_HIGH, None, nt.TT_THREAD, "an id", None
    )
    assert task.result(10) == 8 and got.get(timeout=10) is task
    assert (task.id, task.priority) == ("an id", nt.TASK_HIGH)


def test_a_target_that_names_it_gets_the_id_of_its_task(nt, supervisor):
    def named(_task_id=None):
        return _task_id, supervisor.get_task(_task_id).id

    def keywords(**kwargs):
        return kwargs

    task = supervisor.put_task(named)
    assert task.result(10) == (task.id, task.id)
    assert supervisor.put_task(named, task_id="x").result(10) == ("x", "x")
    assert supervisor.put_task(keywords, (), {"a": 1}).result(10) == {"a": 1}
    task = supervisor.put_task(keywords, _send_task_id=True)
    assert task.result(10) == {"_task_id": task.id}

    def unnamed(_task_id=5):
        return _task_id

    assert supervisor.put_task(unnamed, _send_task_id=False).result(10) == 5


@pytest.mark.parametrize("bound", [None, 100])
def test_tasks_are_found_by_id_until_they_end(nt, supervisor, bound):
    supervisor.set_thread_pool(pool_size=2, queue_size=bound)
    with Blocker() as block:
        task = supervisor.put_task(block)
        later = supervisor.put_task(int, delay=60, task_id="later")
        assert supervisor.get_task(task.id) is task
        assert supervisor.get_task("later") is later
        assert supervisor.get_tasks() == {task.id: task, "later": later}
        assert supervisor.get_tasks(nt.TT_MP) == {}
        assert set(supervisor.get_tasks(nt.TT_THREAD)) == {task.id, "later"}
        assert supervisor.mark_task_completed(task) is True
        assert supervisor.mark_task_completed(task_id=task.id) is True
        wait_until(task.running)
        info = supervisor.get_info(tt=nt.TT_THREAD)
        assert info.tasks == supervisor.get_tasks()
        assert (info.thread_tasks_count, info.mp_tasks_count, info.started) == (1, 0, True)
    task.result(10)
    later.cancel()
    wait_until(lambda: not supervisor.get_tasks())
    assert supervisor.get_task(task.id) is None
    with pytest.raises(LookupError, match=task.id):
        supervisor.mark_task_completed(task_id=task.id)


def test_a_refused_task_is_not_kept(nt):
    supervisor = nt.TaskSupervisor("stopped")
    with pytest.raises(nt.SupervisorNotStarted):
        supervisor.put_task(int, task_id="x")
    assert supervisor.get_tasks() == {}


def test_older_names_of_a_supervisor(nt, supervisor):
    assert supervisor.spawn_thread(pow, (2,), {"exp": 3}).result(10) == 8
    sizes = ("thread_pool_size", "thread_reserve_normal", "thread_reserve_high")
    assert [getattr(supervisor, name) for name in sizes] == [2, 1, 1]
    assert [getattr(supervisor.get_info(), name) for name in sizes] == [2, 1, 1]
    assert supervisor.event_loop.is_running()
    assert (supervisor.pool_timeout, supervisor.pool_check_interval) == (1, 5)
    ran = threading.Event()

    class Scheduler:
        async def loop(self):
            ran.set()

        def stop(self):
            pass

    scheduler = Scheduler()
    assert supervisor.register_async_scheduler(scheduler) is True
    assert ran.wait(10)
    supervisor.unregister_scheduler(scheduler)


def test_older_names_of_an_aloop(nt, supervisor):
    async def answer():
        return 42

    aloop = supervisor.get_aloop("main")
    assert aloop.is_active() and aloop.supervisor is supervisor
    assert aloop.run(answer()) == 42
    assert aloop.background_task(answer()).result(10) == 42
    assert nt.ALoop("lone").supervisor is None


# Processes.


@pytest.fixture
def processes(supervisor):
    """A pool of two processes, and the supervisor that has it."""
    pool = supervisor.create_mp_pool(2)
    assert supervisor.mp_pool is pool
    return supervisor


def test_a_task_runs_in_a_process(nt, processes):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()
    getpid = nt.background_task(os.getpid, tt=nt.TT_MP, callback=got.put, supervisor=processes)
    task = getpid()
    assert task.tt == nt.TT_MP
    assert nt.wait_completed(task, 60) == got.get(timeout=60) != os.getpid()
    task = processes.put_task(pow, (2, 3), tt=nt.TT_MP, callback=got.put, delay=0.01)
    assert task.status == nt.TASK_STATUS_DELAYED
    assert got.get(timeout=60) == 8
    assert processes.mp_pool.apply(pow, (2, 4)) == 16
    failed: queue.SimpleQueue[object] = queue.SimpleQueue()
    processes.mp_pool.apply_async(
        operator.truediv, (1, 0), callback=got.put, error_callback=failed.put
    ).exception(60)
    assert type(failed.get(timeout=60)) is ZeroDivisionError and got.empty()


def test_a_coroutine_waits_for_a_process(nt, processes):
    async def both():
        return await asyncio.gather(
            nt.co_mp_apply(pow, (2,), {"exp": 3}, supervisor=processes),
            nt.co_mp_apply(
                pow, args=(2, 4), priority=nt.TASK_HIGH, delay=0.01, supervisor=processes
            ),
            nt.co_mp_apply(operator.truediv, (1, 0), supervisor=processes),
            return_exceptions=True,
        )

    results = processes.get_aloop().run_coroutine_threadsafe(both())
    assert results[:2] == [8, 16] and type(results[2]) is ZeroDivisionError


def test_lanes_and_reserves_hold_before_processes(nt, supervisor):
    supervisor.set_mp_pool(pool_size=1, reserve_normal=1, reserve_high=1)
    pool = supervisor.mp_pool
    assert pool.sizes.limits[1:] == (3, 2, 1)
    assert pool.executor._max_workers == 3
    sizes = ("mp_pool_size", "mp_reserve_normal", "mp_reserve_high")
    assert [getattr(supervisor, name) for name in sizes] == [1, 1, 1]
    supervisor.set_mp_pool(pool_size=2)
    assert supervisor.mp_pool is pool and pool.sizes.limits[1:] == (2, 2, 2)
    assert supervisor.get_info().mp_pool["pool_size"] == 2


def test_a_process_that_dies_is_replaced(nt, processes):
    task = processes.put_task(signal.raise_signal, (signal.SIGTERM,), tt=nt.TT_MP)
    with pytest.raises(Exception, match="terminated abruptly"):
        task.result(60)
    assert processes.put_task(pow, (2, 3), tt=nt.TT_MP).result(60) == 8


def test_without_a_pool_of_processes_there_is_a_word_about_it(nt, supervisor):
    assert supervisor.mp_pool is None and supervisor.mp_pool_size == 0
    with pytest.raises(RuntimeError, match="create_mp_pool"):
        supervisor.put_task(int, tt=nt.TT_MP)
    with pytest.raises(ValueError, match="background_task"):
        supervisor.put_task(int, tt=nt.TT_COROUTINE)


def test_processes_are_stopped_with_the_supervisor_and_start_again(nt, processes):
    assert processes.put_task(pow, (2, 3), tt=nt.TT_MP).result(60) == 8
    workers = list(processes.mp_pool.executor._processes.values())
    task = processes.put_task(time.sleep, (0.1,), tt=nt.TT_MP)
    report = processes.stop()
    assert report.clean and task.result(0) is None
    assert not any(worker.is_alive() for worker in workers)
    with pytest.raises(nt.SupervisorNotStarted):
        processes.put_task(int, tt=nt.TT_MP)
    processes.start()
    assert processes.put_task(pow, (2, 3), tt=nt.TT_MP).result(60) == 8
    assert processes.mp_pool.sizes.pool_size == 2


def test_processes_past_the_deadline_of_a_stop_are_killed(nt, processes):
    processes.put_task(int, tt=nt.TT_MP).result(60)
    task = processes.put_task(time.sleep, (600,), tt=nt.TT_MP)
    waiting = [processes.put_task(int, tt=nt.TT_MP) for _ in range(9)]
    wait_until(lambda: all(t.done() for t in waiting))
    began = time.monotonic()
    report = processes.stop(timeout=0.2)
    assert time.monotonic() - began < 30
    assert "1 tasks in" in report.still_running[0].name
    with pytest.raises(Exception, match="terminated abruptly"):
        task.result(60)


def test_a_new_pool_takes_the_place_of_another(nt, processes):
    before = processes.mp_pool
    task = processes.put_task(time.sleep, (0.1,), tt=nt.TT_MP)
    after = processes.create_mp_pool(processes=1)
    assert processes.mp_pool is after is not before
    assert task.result(60) is None
    assert processes.put_task(pow, (2, 3), tt=nt.TT_MP).result(60) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_program_without_a_main_guard_may_make_processes_by_fork(nt):
    ran = run_python(
        """
        import multiprocessing, os
        multiprocessing.set_start_method("fork")
        faulthandler.cancel_dump_traceback_later()  # a thread of its own
        from neotasker import TT_MP, background_task, task_supervisor
        task_supervisor.set_mp_pool(pool_size=2)
        task_supervisor.start()
        print(background_task(pow, tt=TT_MP)(2, 3).result(30))
        print(task_supervisor.stop().clean)
        """
    )
    assert (ran.rc, ran.out.split(), ran.err) == (0, ["8", "True"], "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_processes_of_its_own(nt):
    ran = run_forked(
        """
        from neotasker import TT_MP, task_supervisor as s
        s.set_mp_pool(pool_size=1)
        s.start()
        assert s.put_task(pow, (2, 3), tt=TT_MP).result(30) == 8
        """,
        """
        s.start()
        assert s.put_task(pow, (2, 4), tt=TT_MP).result(30) == 16
        assert s.stop().clean
        """,
        """
        assert s.put_task(pow, (2, 5), tt=TT_MP).result(30) == 32
        print(s.stop().clean)
        """,
    )
    assert (ran.rc, ran.out.strip()) == (0, "True"), ran.err


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others do not count")
def test_a_task_that_fails_leaves_its_frame_to_nobody_who_has_waited_for_it(nt):
    class Big:
        pass

    held = []

    def fails():
        big = Big()
        held.append(weakref.ref(big))
        raise ValueError

    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    gc.collect()
    gc.disable()
    try:
        for several in (False, True):
            task = supervisor.spawn(fails)
            with contextlib.suppress(ValueError):
                nt.wait_completed([task] if several else task)
            del task
            wait_until(lambda: held[-1]() is None)
    finally:
        gc.enable()
        supervisor.stop()
