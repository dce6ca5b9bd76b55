"""A program that uses every public name, for type checkers to read: it is not run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, assert_type

import neotasker
from neotasker import (
    COMPILED,
    TASK_CRITICAL,
    TASK_HIGH,
    TASK_LOW,
    TASK_NORMAL,
    TASK_STATUS_CANCELED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_DELAYED,
    TASK_STATUS_FAILED,
    TASK_STATUS_QUEUED,
    TASK_STATUS_STARTED,
    TT_COROUTINE,
    TT_MP,
    TT_THREAD,
    ALoop,
    AloopError,
    AsyncJob,
    AsyncJobScheduler,
    BackgroundAsyncWorker,
    BackgroundEventWorker,
    BackgroundIntervalWorker,
    BackgroundQueueWorker,
    BackgroundWorker,
    ExecutorPool,
    FunctionCollection,
    Lane,
    LocalProxy,
    Locker,
    NeotaskerError,
    Priority,
    ProcessPool,
    QueueFull,
    StopReport,
    SupervisorNotStarted,
    Task,
    TaskCollection,
    TaskPool,
    TaskStatus,
    TaskSupervisor,
    TaskType,
    Ticker,
    Timer,
    UnknownAloop,
    UnknownScheduler,
    WorkerNotStarted,
    background_task,
    background_worker,
    co_mp_apply,
    g,
    set_debug,
    spawn,
    spawn_ajob,
    task_supervisor,
    wait_completed,
)
from neotasker import embed as embedded
from neotasker.f import FunctionCollection as OldFunctionCollection
from neotasker.localproxy import LocalProxy as OldLocalProxy
from neotasker.supervisor import ALoop as OldALoop
from neotasker.workers import BackgroundWorker as OldBackgroundWorker

assert_type(COMPILED, bool)
assert_type(g, LocalProxy)
version: str = neotasker.__version__

priorities: list[Priority] = [TASK_LOW, TASK_NORMAL, TASK_HIGH, TASK_CRITICAL]
kinds: list[TaskType] = [TT_COROUTINE, TT_THREAD, TT_MP]
states: list[TaskStatus] = [
    TASK_STATUS_CANCELED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_DELAYED,
    TASK_STATUS_FAILED,
    TASK_STATUS_QUEUED,
    TASK_STATUS_STARTED,
]
errors: list[type[NeotaskerError]] = [
    AloopError,
    QueueFull,
    SupervisorNotStarted,
    UnknownAloop,
    UnknownScheduler,
    WorkerNotStarted,
]


def add(a: int, b: int = 0) -> int:
    return a + b


async def answer(x: int) -> str:
    await asyncio.sleep(0)
    return str(x)


def supervise() -> StopReport:
    set_debug(False)
    task_supervisor.set_thread_pool(min_size="max", max_size=20)
    supervisor = TaskSupervisor(id="mine")
    supervisor.set_thread_pool(pool_size=20, reserve_normal=5, reserve_high=5)
    assert_type(supervisor.start(), bool)
    supervisor.timeout_warning = 5
    lane: Lane = supervisor.lane(TASK_HIGH)
    executor: Executor = lane
    assert_type(lane.submit(add, 1, b=2), Task[int])
    executor.submit(add, 1)
    task: Task[int] = supervisor.put_task(add, (1,), {"b": 2}, priority=TASK_LOW, delay=1.5)
    assert_type(task.result(), int)
    assert_type(task.status, TaskStatus)
    assert_type(task.priority, Priority)
    assert_type(task.is_completed(), bool)
    assert_type(task.completed.wait(1), bool)
    assert_type(supervisor.get_task(task.id), Task[Any] | None)
    spawn(add, 1, b=2).add_done_callback(print)
    ticker: Ticker = supervisor.ticker
    timer: Timer = ticker.call_later(1, print, "x")
    assert_type(timer.cancel(), bool)
    supervisor.call_every(1, print, missed="delay").cancel()
    info = supervisor.get_info(aloops=False, schedulers=False, async_job_schedulers=False)
    assert_type(info.active, bool)
    assert_type(info.thread_tasks_count, int)
    return supervisor.stop(wait=5, cancel_tasks=True, drain=False, timeout=10)


async def whole_lives() -> None:
    with TaskSupervisor("a") as supervisor:
        assert_type(supervisor, TaskSupervisor)
    async with TaskSupervisor("b") as other:
        assert_type(other, TaskSupervisor)
    assert_type(supervisor.run(5, signals=False, wait=1, timeout=None), StopReport)
    assert_type(supervisor.block(1, signals=True), bool)


def pools() -> None:
    with TaskPool(4, pool_size=2, reserve_high=2) as pool:
        assert_type(pool.submit(add, 1), Task[int])
        standard: ThreadPoolExecutor = pool
        standard.map(add, [1, 2])
    ExecutorPool(ThreadPoolExecutor(2)).shutdown()
    made: ProcessPool = task_supervisor.create_mp_pool(processes=2)
    assert_type(made.apply(add, (1,)), Any)
    task_supervisor.set_mp_pool(pool_size=2, reserve_normal=1, reserve_high=1)
    assert_type(task_supervisor.mp_pool, ProcessPool | None)


async def loops() -> None:
    aloop = task_supervisor.create_aloop("main", default=True)
    assert aloop
    assert_type(aloop, ALoop)
    future: Future[str] = aloop.spawn_coroutine_threadsafe(answer(1))
    assert_type(aloop.run_coroutine_threadsafe(answer(2)), str)
    assert_type(aloop.run(answer(2)), str)
    assert_type(future.result(), str)
    assert_type(await task_supervisor.put_task(add, (1,)), int)
    assert_type(await co_mp_apply(add, (1,), {"b": 2}, priority=TASK_HIGH), int)


def tasks() -> None:
    add_later: Callable[..., Task[int]] = background_task(add)
    assert_type(wait_completed(add_later(1, b=2)), int)
    assert_type(wait_completed([add_later(1), add_later(2)], timeout=5), list[int])
    answer_later = background_task(answer, loop="main", delay=1, callback=print)
    assert_type(wait_completed(answer_later(5)), str)

    @background_task(priority=TASK_HIGH, tt=TT_THREAD)
    def decorated(x: int) -> int:
        return x

    decorated(5)


def jobs() -> None:
    scheduler = task_supervisor.create_async_job_scheduler("jobs", aloop="main", default=True)
    assert scheduler
    assert_type(scheduler, AsyncJobScheduler)
    job: AsyncJob = spawn_ajob(target=answer, args=(1,), interval=1, number=3)
    task_supervisor.cancel_async_job(job=job)
    assert_type(job.runs, int)


class Device(BackgroundIntervalWorker):
    """A worker with attributes of its own, some of them set before the constructor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.timeout = 10
        self._lock = 5
        self.name = "device"
        super().__init__(*args, **kwargs)

    def run(self, *args: Any, **kwargs: Any) -> bool:
        return self.timeout > 0

    def before_start(self) -> None:
        self.data = [1, 2]

    def process_result(self, result: Any) -> None:
        print(result)


def workers() -> None:
    @background_worker
    def plain(**kwargs: Any) -> None: ...

    @background_worker(interval=1, loop="main")
    async def timed(**kwargs: Any) -> None: ...

    plain.start()
    timed.start(_interval=2, o=5)
    device = Device("device", interval=1, on_error=print, on_error_kwargs={})
    assert_type(device.start(_delay=1), bool)
    assert_type(device.trigger_threadsafe(skip=True), bool)
    assert_type(device.is_active(), bool)
    assert_type(device.runs, int)
    assert_type(device.delay, float)
    queued = BackgroundQueueWorker("queued", fn=print, q=asyncio.PriorityQueue)
    queued.put_threadsafe(5)
    event = BackgroundEventWorker("event", fn=print)
    event.get_event_obj().set()
    several: list[BackgroundWorker] = [queued, event, device, BackgroundAsyncWorker(fn=answer)]
    for worker in several:
        worker.stop(wait=False)
        with worker.start_stop_lock:
            worker.restart()


def conveniences() -> None:
    collection = FunctionCollection(on_error=print, on_error_kwargs={}, include_exceptions=True)

    @collection
    def first() -> int:
        return 1

    @collection(priority=10)
    def second() -> int:
        return 2

    assert_type(first(), int)
    assert_type(second(), int)
    assert_type(collection.execute(), tuple[dict[str, Any], bool])
    assert_type(collection.run(), dict[str, Any])
    TaskCollection(supervisor=task_supervisor).append(first, priority=TASK_HIGH)
    proxy = LocalProxy()
    proxy.set("db", 1)
    proxy.anything = g.get("db", None)
    locker = Locker(mod="main", timeout=5, relative=False)

    @locker
    def guarded(x: int) -> int:
        return x

    assert_type(guarded(5), int | None)
    with locker as locked:
        assert_type(locked, Locker)


def embed() -> None:
    embedded.start()
    embedded.call("id", add, 1, b=2)
    embedded.report_result("id", result=3)
    embedded.stop(wait=True)


old: list[type] = [OldFunctionCollection, OldLocalProxy, OldALoop, OldBackgroundWorker]
