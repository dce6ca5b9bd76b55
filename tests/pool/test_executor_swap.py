"""Executors of others behind the lanes and reserves of a supervisor."""

from __future__ import annotations

import contextvars
import multiprocessing
import os
import threading
import time
from concurrent import futures

import pytest
from helpers import Blocker, run_forked, wait_until

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


def test_thread_executors_carry_an_empty_context_too(supervisor):
    var = contextvars.ContextVar("var", default="none")
    with futures.ThreadPoolExecutor(1, initializer=var.set, initargs=("theirs",)) as threads:
        assert threads.submit(var.get).result(10) == "theirs"
        supervisor.thread_pool = threads
        task = contextvars.Context().run(supervisor.spawn, var.get)
        assert task.result(10) == "none"
        supervisor.thread_pool = None


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


class Refusing(futures.ThreadPoolExecutor):
    """Takes nothing any more, and tells when it was asked: as one that was shut down."""

    def __init__(self):
        super().__init__(1)
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def submit(self, fn, /, *args, **kwargs):
        self.asked.set()
        assert self.go_on.wait(10)
        raise RuntimeError("cannot schedule new futures after shutdown")


def test_a_task_that_meets_a_replaced_executor_runs_on_the_next(supervisor):
    refusing = Refusing()
    supervisor.thread_pool = refusing
    tasks = []
    submitter = threading.Thread(target=lambda: tasks.append(supervisor.spawn(pow, 2, 3)))
    submitter.start()
    assert refusing.asked.wait(10)
    supervisor.thread_pool = None  # while its owner shuts the other down
    refusing.go_on.set()
    submitter.join(10)
    assert tasks[0].result(10) == 8
    wait_until(lambda: not supervisor.get_info().pool["active"])
    pool = supervisor.get_info().pool
    assert [sum(pool[name].values()) for name in ("submitted", "completed", "failed")] == [
        1,
        1,
        0,
    ]


def test_a_task_that_was_taken_back_keeps_its_place_and_may_be_cancelled(supervisor, flood):
    supervisor.set_thread_pool(pool_size=2, min_size=0, reserve_normal=0, reserve_high=0)
    supervisor.spawn(flood)
    flood.wait_running(1)
    refusing = Refusing()
    supervisor.set_thread_pool(pool=refusing, pool_size=2)
    order, tasks = [], []
    submitter = threading.Thread(
        target=lambda: tasks.append(supervisor.spawn(order.append, "first"))
    )
    submitter.start()
    assert refusing.asked.wait(10)
    others = [supervisor.spawn(order.append, name) for name in ("second", "third")]
    supervisor.set_thread_pool(pool_size=1, min_size=0, reserve_normal=0, reserve_high=0)
    refusing.go_on.set()
    submitter.join(10)
    wait_until(lambda: not tasks[0].running())
    assert tasks[0].time_started is None
    assert others[0].cancel()
    flood.release()
    others[1].result(10)
    assert order == ["first", "third"]
    assert tasks[0].time_queued <= tasks[0].time_started <= tasks[0].time_finished
    assert not tasks[0].cancel()


def test_a_task_that_was_cancelled_does_not_come_back_with_a_replaced_executor(
    nt, threads, flood, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    class Raced(nt.pool.launcher.Launcher):
        def __call__(self, task):
            if task in tasks[:1]:  # as another thread may do, between the pick and this
                assert task.cancel()
                monkeypatch.setattr(threading.Thread, "start", refuse)
                with pytest.raises(RuntimeError):
                    dispatcher.set_launcher(None)
            super().__call__(task)

    tasks: list[object] = []
    with nt.TaskPool(1) as pool:
        dispatcher = pool._crew.dispatcher
        dispatcher.set_launcher(Raced(threads, dispatcher))
        pool.submit(flood)
        flood.wait_running(1)
        tasks += [pool.submit(int), pool.submit(pow, 2, 3)]
        flood.release()
        wait_until(lambda: tasks[0].done())
        wait_until(lambda: not dispatcher.active)
        monkeypatch.undo()
        dispatcher.engage()
        assert tasks[1].result(10) == 8
        assert tasks[0].cancelled()
        wait_until(lambda: (dispatcher.active, dispatcher.waiting) == (0, 0))
        assert pool.outstanding == 0
        pool.use_executor(threads)
        assert pool.submit(pow, 2, 4).result(10) == 16


def test_tasks_go_on_to_the_executor_though_one_cannot_be_given_back(nt, threads):
    class Failing(nt.pool.launcher.Launcher):
        def __call__(self, task):
            if task is not first[0]:
                return super().__call__(task)
            entered.set()
            go_on.wait(10)
            raise ValueError("not handed over")

        def fail(self, task, error):
            super().fail(task, error)
            raise KeyboardInterrupt

    entered, go_on = threading.Event(), threading.Event()
    caught: list[BaseException] = []

    def submit():
        try:
            dispatcher.enqueue(first[0], pool)
        except KeyboardInterrupt as error:
            caught.append(error)

    with nt.TaskPool(2) as pool:
        dispatcher = pool._crew.dispatcher
        first = [dispatcher.make(int, (), {}, 2)]
        dispatcher.set_launcher(Failing(threads, dispatcher))
        submitter = threading.Thread(target=submit)
        submitter.start()
        assert entered.wait(10)
        second = pool.submit(pow, 2, 3)  # while the other thread hands over
        go_on.set()
        submitter.join(10)
        assert second.result(10) == 8
        assert isinstance(first[0].exception(10), ValueError) and len(caught) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_an_executor_that_breaks_in_a_forked_child_is_mended_there(nt):
    ran = run_forked(
        """
        from concurrent.futures import BrokenExecutor, Executor, Future
        import neotasker

        class Broken(Executor):
            def submit(self, fn, /, *args, **kwargs):
                inner = Future()
                inner.set_exception(BrokenExecutor("on purpose"))
                return inner

        pool = neotasker.TaskPool(1)
        pool.use_executor(Broken())
        meet, go_on = threading.Event(), threading.Event()
        mend = neotasker.pool.launcher.Launcher._mend
        def slowly(self):
            meet.set()
            go_on.wait()
            mend(self)
        neotasker.pool.launcher.Launcher._mend = slowly
        task = pool.submit(int)
        meet.wait()
        """,
        """
        go_on.set()
        assert isinstance(task.exception(0), BrokenExecutor)
        assert str(pool.submit(int).exception(10)) == "on purpose"
        """,
        """
        go_on.set()
        assert str(task.exception(10)) == "on purpose"
        """,
    )
    assert (ran.rc, ran.err) == (0, "")


def test_a_task_that_ends_twice_does_so_once(nt):
    class Interrupted(futures.Future):
        def add_done_callback(self, fn):
            super().add_done_callback(fn)
            raise KeyboardInterrupt

    class Late(futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            inner = Interrupted()
            calls.append(lambda: inner.set_result(fn(*args, **kwargs)))
            return inner

    calls: list[object] = []
    who = contextvars.ContextVar("who", default="nobody")
    token = who.set("the task holds a context")
    with nt.TaskPool(1) as pool:
        pool.use_executor(Late())
        task = pool.submit(pow, 2, exp=3)
        who.reset(token)
        assert isinstance(task.exception(0), KeyboardInterrupt)
        finished = task.time_finished
        calls[0]()
        assert (task.time_finished, task.target, task.args) == (finished, None, ())
        assert (pool.active, pool.outstanding) == (0, 0)
        pool.use_executor(None)


def test_an_executor_that_refuses_fails_the_task_with_its_own_words(supervisor):
    refusing = Refusing()
    refusing.go_on.set()
    supervisor.thread_pool = refusing
    with pytest.raises(RuntimeError, match="after shutdown"):
        supervisor.spawn(pow, 2, 3).result(10)
    supervisor.thread_pool = None
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


def times_called(path):
    with open(path, "a") as file:
        file.write("x")


@pytest.mark.parametrize("kind", ["refusing", "processes"])
def test_workers_and_jobs_outlive_an_executor_that_does_not_run_them(
    nt, supervisor, flood, kind, tmp_path, monkeypatch
):
    from neotasker.workers import in_pool
    from neotasker.workers.queue import counted

    monkeypatch.setattr(in_pool, "_RETRY", 0.01)
    monkeypatch.setattr(counted, "_RETRY", 0.01)
    supervisor.set_thread_pool(pool_size=1, min_size=0, reserve_normal=0, reserve_high=0)
    supervisor.create_aloop("main", default=True)
    supervisor.spawn(flood)
    flood.wait_running(1)
    marks = {name: tmp_path / name for name in ("interval", "queue", "job")}
    for mark in marks.values():
        mark.touch()
    interval = nt.BackgroundIntervalWorker(
        "interval", mark_plainly, interval=0.02, supervisor=supervisor
    )
    interval.start(path=marks["interval"])
    queue = nt.BackgroundQueueWorker("queue", times_called, supervisor=supervisor)
    queue.start()
    for _ in range(3):
        queue.put_threadsafe(marks["queue"])
    scheduler = supervisor.create_async_job_scheduler("jobs")
    job = scheduler.create_threadsafe(times_called, args=(marks["job"],), interval=0.02)
    # Runs of all three wait in the lane as the executor comes.
    wait_until(lambda: sum(supervisor.get_info().pool["waiting"].values()) >= 3)
    if kind == "refusing":
        executor = Refusing()
        executor.go_on.set()
    else:
        executor = futures.ProcessPoolExecutor(1, mp_context=SPAWN)
    supervisor.thread_pool = executor
    flood.release()
    if kind == "refusing":
        wait_until(executor.asked.is_set)
        supervisor.thread_pool = None
        executor.shutdown()
    wait_until(lambda: len(marks["interval"].read_text()) > 2, 60)
    wait_until(lambda: len(marks["job"].read_text()) > 2, 60)
    wait_until(lambda: len(marks["queue"].read_text()) == 3, 60)
    assert supervisor.stop().clean
    assert job.runs == len(marks["job"].read_text())
    assert interval.is_active() is False


def mark_plainly(path, **_):
    times_called(path)


def test_a_target_that_cannot_be_looked_at_does_not_stop_the_way_to_an_executor(
    supervisor, threads
):
    class Prickly:
        def __getattr__(self, name):
            raise RuntimeError("hands off") if name == "__self__" else AttributeError(name)

        def __call__(self):
            raise ValueError("from within")

    supervisor.thread_pool = threads
    task = supervisor.spawn(Prickly())
    assert isinstance(task.exception(10), ValueError)
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
