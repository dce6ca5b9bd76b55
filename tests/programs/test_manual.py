"""The examples of the manuals and READMEs of neotasker 0.0.x and atasker, retyped."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest
from helpers import wait_until


@pytest.fixture
def task_supervisor(nt, monkeypatch):
    """A default supervisor that has not been used before, as every example has it."""
    supervisor = nt.TaskSupervisor("default")
    monkeypatch.setattr(nt, "task_supervisor", supervisor)
    supervisor.set_thread_pool(min_size="max", max_size=20)
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def said():
    """What an example prints: calling it is printing."""

    class Said(queue.SimpleQueue):
        __call__ = queue.SimpleQueue.put

        def soon(self):
            return self.get(timeout=10)

    return Said()


# Start and stop.


def test_start_block_and_stop(nt):
    from neotasker import task_supervisor

    task_supervisor.set_thread_pool(min_size="max", max_size=20)
    task_supervisor.start()
    assert len(task_supervisor.thread_pool._threads) == 20
    # stop from any thread
    stopper = threading.Timer(0.05, task_supervisor.stop)
    stopper.start()
    # optionally block current thread
    task_supervisor.block()
    assert not task_supervisor.active
    stopper.join()
    task_supervisor.set_thread_pool()


def test_sizes_of_atasker(nt):
    from neotasker import task_supervisor

    task_supervisor.set_thread_pool(pool_size=20, reserve_normal=5, reserve_high=5)
    task_supervisor.start()
    assert task_supervisor.thread_pool.sizes.limits[1:] == (30, 25, 20)
    task_supervisor.stop()
    task_supervisor.set_thread_pool()


def test_a_custom_supervisor(nt):
    from neotasker import TaskSupervisor

    my_supervisor = TaskSupervisor(id="my_supervisor")

    class MyTaskSupervisor(TaskSupervisor):
        pass

    my_supervisor2 = MyTaskSupervisor()
    assert my_supervisor.id == "my_supervisor"
    assert len(my_supervisor2.id) == 36


def test_a_scheduler_of_ones_own(nt, task_supervisor):
    started, stopped = threading.Event(), threading.Event()

    class Scheduler:
        async def loop(self):
            started.set()

        def stop(self):
            stopped.set()

    class SyncScheduler:
        def stop(self):
            pass

    task_supervisor.register_scheduler(Scheduler())
    sync = SyncScheduler()
    task_supervisor.register_sync_scheduler(sync)
    task_supervisor.unregister_sync_scheduler(sync)
    assert started.wait(10)
    task_supervisor.stop()
    assert stopped.is_set()


# Tasks.


def test_executing_a_future(nt, task_supervisor, said):
    def mytask(a, b, c):
        said(f"I am working in the background! {a} {b} {c}")
        return 777

    task = task_supervisor.spawn(mytask, 1, 2, c=3)

    # get future result
    result = task.result()
    assert result == 777
    assert said.soon() == "I am working in the background! 1 2 3"
    assert task_supervisor.thread_pool.submit(mytask, 1, 2, 3).result() == 777


def test_background_tasks(nt, task_supervisor, said):
    from neotasker import TASK_HIGH, background_task, wait_completed

    # with annotation
    @background_task
    def mytask():
        said("I am working in the background!")
        return 777

    task = mytask()
    # optional
    result = wait_completed(task)
    assert task.result() == 777  # a method here
    assert result == 777

    # with manual decoration
    def mytask2():
        said("I am working in the background too!")

    task = background_task(mytask2, name="mytask", priority=TASK_HIGH)()
    assert wait_completed([task]) == [None]
    assert said.soon() == "I am working in the background!"
    assert said.soon() == "I am working in the background too!"


def test_async_tasks(nt, task_supervisor):
    from neotasker import background_task, wait_completed

    # new asyncio loop is automatically created in own thread
    a1 = task_supervisor.create_aloop("myaloop", default=True)

    async def calc(a):
        await asyncio.sleep(0.001)
        return a * 3

    # put coroutine
    task = background_task(calc)(1)
    assert wait_completed(task) == 3
    # run coroutine and wait for result
    assert a1.run(calc(1)) == 3


def test_tasks_in_processes(nt, task_supervisor):
    from neotasker import TASK_HIGH, TT_MP, background_task, co_mp_apply, wait_completed

    task_supervisor.set_mp_pool(pool_size=1)
    task = background_task(pow, priority=TASK_HIGH, tt=TT_MP)(2, exp=3)
    assert wait_completed(task) == 8

    async def f1():
        return await co_mp_apply(pow, args=(2,), kwargs={"exp": 4}, priority=TASK_HIGH)

    aloop = task_supervisor.create_aloop("a")
    assert aloop.run_coroutine_threadsafe(f1()) == 16


def test_putting_own_tasks(nt, task_supervisor):
    from neotasker import TASK_NORMAL

    def myfunc(_task_id):
        task_supervisor.mark_task_completed(task_id=_task_id)
        return _task_id

    task = task_supervisor.put_task(
        target=myfunc, args=(), kwargs={}, priority=TASK_NORMAL, delay=None
    )
    assert task.result(10) == task.id
    assert task_supervisor.mark_task_completed(task=task)


# Aloops.


def test_aloops(nt, task_supervisor):
    a = task_supervisor.create_aloop("myworkers", default=True, daemon=True)
    b = task_supervisor.create_aloop("resting", start=False)
    assert b.get_loop() is None
    task_supervisor.start_aloop("resting")

    async def where():
        return threading.current_thread().name

    # put coroutine to loop
    task = a.spawn_coroutine_threadsafe(where())
    # blocking wait for result from coroutine
    result = b.run_coroutine_threadsafe(where())
    assert task.result(10) == "supervisor_aloop_myworkers"
    assert result == "supervisor_aloop_resting"
    # set default aloop
    task_supervisor.set_default_aloop(b)
    # get aloop by name
    assert task_supervisor.get_aloop("myworkers") is a and task_supervisor.get_aloop() is b
    # get aloop async event loop object for direct access
    assert isinstance(a.get_loop(), asyncio.AbstractEventLoop)
    # stop aloop (not required, supervisor stops all aloops at shutdown)
    assert task_supervisor.stop_aloop("myworkers") is True
    assert a.get_loop() is None


# Workers.


def test_workers_of_functions(nt, task_supervisor, said):
    from neotasker import TASK_HIGH, background_worker

    # we need to create at least one aloop to start workers
    task_supervisor.create_aloop("default", default=True)
    # create one more async loop
    task_supervisor.create_aloop("loop2")
    ran = {name: threading.Event() for name in ("plain", "async", "interval", "queue", "event")}

    @background_worker
    def worker1(**kwargs):
        ran["plain"].set()
        threading.Event().wait(0.01)

    @background_worker
    async def worker_async(**kwargs):
        ran["async"].set()

    @background_worker(interval=1, loop="loop2")
    def worker2(**kwargs):
        ran["interval"].set()

    @background_worker(queue=True)
    def worker3(task, **kwargs):
        assert task == "todo1"
        ran["queue"].set()

    @background_worker(event=True, priority=TASK_HIGH)
    def worker4(**kwargs):
        ran["event"].set()

    worker1.start()
    worker_async.start()
    worker2.start()
    worker3.start()
    worker4.start()

    worker3.put_threadsafe("todo1")
    worker4.trigger_threadsafe()

    assert all(event.wait(10) for event in ran.values())


def test_workers_of_classes(nt, task_supervisor, said):
    from neotasker import (
        BackgroundAsyncWorker,
        BackgroundEventWorker,
        BackgroundIntervalWorker,
        BackgroundQueueWorker,
        BackgroundWorker,
    )

    task_supervisor.create_aloop("default", default=True)

    class MyWorker(BackgroundWorker):
        def run(self, *args, **kwargs):
            said("I am a worker too")
            return False

    class MyAsyncWorker(BackgroundAsyncWorker):
        async def run(self, *args, **kwargs):
            said("I am async worker too")
            return False

    class MyQueueWorker(BackgroundQueueWorker):
        def run(self, task, *args, **kwargs):
            said(f"my task is {task}")

    class MyEventWorker(BackgroundEventWorker):
        def run(self, *args, **kwargs):
            said("happened")

    class MyIntervalWorker(BackgroundIntervalWorker):
        def run(self, **kwargs):
            said(f"I am custom worker class {self._name}")
            return False

    for kind, text in [
        (MyWorker, "I am a worker too"),
        (MyAsyncWorker, "I am async worker too"),
        (MyQueueWorker, "my task is task 3"),
        (MyEventWorker, "happened"),
    ]:
        worker = kind()
        worker.start()
        if kind is MyQueueWorker:
            worker.put_threadsafe("task 3")
        if kind is MyEventWorker:
            worker.trigger_threadsafe()
        assert said.soon() == text
        # don't wait until it is really stopped
        worker.stop(wait=False)
    worker5 = MyIntervalWorker(interval=0.1, name="worker5")
    worker5.start()
    assert said.soon() == "I am custom worker class _background_worker_worker5"


def test_parameters_are_overridden_at_the_start(nt, task_supervisor, said):
    @nt.background_worker(interval=3600, o="thing")
    def myworker(o, _name, **kwargs):
        said((o, _name, myworker.delay, myworker.priority, kwargs.get("a")))

    myworker.start(_name="worker1", _priority=nt.TASK_LOW, _interval=60, a=1)
    assert said.soon() == ("thing", "worker1", 60, nt.TASK_LOW, 1)
    myworker.restart(o="other")
    assert said.soon()[:2] == ("other", "_background_worker_myworker")
    myworker.stop()


def test_a_queue_class(nt, task_supervisor, said):
    @nt.background_worker(q=asyncio.queues.PriorityQueue)
    def f2(task, **kwargs):
        said(task)

    task_supervisor.create_aloop("default", default=True)
    f2.start()
    f2.put_threadsafe("task 2")
    assert said.soon() == "task 2"
    asyncio.run(f2.put("task 3"))
    assert said.soon() == "task 3"
    f2.stop()


def test_an_interval_worker_runs_every_so_often_and_skips_once(nt, task_supervisor, said):
    @nt.background_worker(interval=0.2)
    async def myfunc2(**kwargs):
        said("run")
        return "result"

    task_supervisor.create_aloop("default", default=True)
    myfunc2.start()
    assert [said.soon(), said.soon()] == ["run", "run"]

    async def by_hand():
        await myfunc2.trigger(skip=True)
        return await myfunc2.run()

    assert task_supervisor.get_aloop().run_coroutine_threadsafe(by_hand()) == "result"
    assert said.soon() == "run"
    myfunc2.stop()


# Collections and the rest.


def test_collections(nt, capsys):
    from neotasker import TASK_HIGH, TASK_LOW, FunctionCollection

    def error(**kwargs):
        import traceback

        traceback.print_exc()

    startup = FunctionCollection(on_error=error)

    @startup
    def f1():
        return 1

    @startup(priority=TASK_LOW)
    def f2():
        raise ValueError("on purpose")

    # lower number = higher priority
    @startup(priority=TASK_HIGH)
    def f3():
        return 3

    result, all_ok = startup.execute()
    assert list(result.values()) == [3, 1, None] and not all_ok
    assert next(iter(result)).endswith(".f3")
    assert "ValueError: on purpose" in capsys.readouterr().err


def test_task_collections(nt, task_supervisor):
    from neotasker import TaskCollection

    total = []
    f = TaskCollection()

    @f
    def f1():
        total.append(1)

    @f
    def f2():
        total.append(2)

    f.run()
    assert sum(total) == 3


def test_the_thread_local_proxy(nt, task_supervisor):
    from neotasker import background_task, g, wait_completed

    @background_task
    def f():
        g.set("ttt", 333)
        return g.get("test", 222)

    if not g.has("db"):
        g.set("db", "connection")
    g.set("test", 999)
    assert wait_completed(f()) == 222
    assert g.get("ttt") is None and g.get("db") == "connection"
    g.clear("db")
    g.clear("test")
    assert not g.has("db")


def test_the_locker(nt):
    from neotasker import Locker

    result = []
    with_lock = Locker(mod="test (broken is fine!)", relative=False, timeout=0.01)

    @with_lock
    def test_locker():
        result.append("locked")

    with_lock.critical = lambda: result.append("critical")
    test_locker()
    with_lock.lock.acquire()
    test_locker()
    with_lock.lock.release()
    with with_lock:
        result.append("with")
    assert result == ["locked", "critical", "with"]


def test_async_jobs(nt, task_supervisor, said):
    async def test1():
        said("I am lightweight async job")

    task_supervisor.create_aloop("jobs")
    # if aloop id not specified, default aloop is used
    task_supervisor.create_async_job_scheduler("default", aloop="jobs", default=True)
    # create async job
    job1 = task_supervisor.create_async_job(target=test1, interval=0.01)
    job2 = task_supervisor.create_async_job(target=test1, interval=0.01, number=1, timer=0.01)
    assert all(said.soon() for _ in range(5))
    # cancel async job
    assert task_supervisor.cancel_async_job(job=job1)
    wait_until(lambda: not job2.active)
    assert not job1.active and job2.runs == 1


def test_debugging(nt):
    import logging

    import neotasker

    neotasker.set_debug()
    assert logging.getLogger("neotasker").isEnabledFor(logging.DEBUG)
    neotasker.set_debug(False)
    assert not neotasker.supervisor.debug
