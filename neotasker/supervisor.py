"""`TaskSupervisor`: pool, timers, aloops, schedulers and jobs under one roof."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import cached_property, partial
from inspect import CO_COROUTINE
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .aloop import ALoop, LoopFactory
from .info import AloopInfo, SchedulerInfo, SupervisorInfo, pool_figures
from .legacy import OlderNames
from .life import logger
from .pool import SupervisedPool, TaskPool, WhenFull, width_of
from .priority import TASK_CRITICAL, TASK_HIGH, TASK_LOW, TASK_NORMAL, default_width, lane_of
from .progress import TT_COROUTINE, TT_MP, TT_THREAD, TaskType, kind_of
from .task import (
    TASK_STATUS_CANCELED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_DELAYED,
    TASK_STATUS_FAILED,
    TASK_STATUS_QUEUED,
    TASK_STATUS_STARTED,
    Task,
)
from .timers import Missed, PooledTimer, check_delay, check_target

if TYPE_CHECKING:
    from .jobs import AsyncJob, AsyncJobScheduler
    from .processes import ProcessPool

__all__ = [
    "TASK_CRITICAL",
    "TASK_HIGH",
    "TASK_LOW",
    "TASK_NORMAL",
    "TASK_STATUS_CANCELED",
    "TASK_STATUS_COMPLETED",
    "TASK_STATUS_DELAYED",
    "TASK_STATUS_FAILED",
    "TASK_STATUS_QUEUED",
    "TASK_STATUS_STARTED",
    "TT_COROUTINE",
    "TT_MP",
    "TT_THREAD",
    "ALoop",
    "Task",
    "TaskSupervisor",
]

T = TypeVar("T")

debug = False
"""Whether ``set_debug`` has turned debug messages on."""

default_poll_delay = 0.01
"""Seconds: what ``poll_delay`` is at first."""

thread_pool_default_size = default_width()
"""Threads of a supervisor that was given no sizes."""

mp_pool_default_size = os.cpu_count() or 1
"""Processes of a supervisor that was given no number."""

default_timeout_warning = 5
default_timeout_critical = 10


class TaskSupervisor(OlderNames):
    """A thread pool with reserves, aloops, schedulers and timers under one roof.

    Guarantees: what was accepted runs, or its future ends otherwise; what is refused
    says why. Handles taken once (``spawn``, lanes, the pool) hold for life, whatever
    the pool's sizes or executor become.
    """

    # The pool.

    def set_thread_pool(
        self,
        min_size: int | Literal["max"] | None = None,
        max_size: int | None = None,
        pool: Executor | None = None,
        *,
        pool_size: int | None = None,
        reserve_normal: int | None = None,
        reserve_high: int | None = None,
        queue_size: int | None = None,
        when_full: WhenFull = "block",
        idle_timeout: float | None = 60,
    ) -> None:
        """Set sizes and executor of the pool, at any time; what waits or runs goes on.

        Parameters:
            min_size: threads that are always there, or ``'max'`` for all of them.
            max_size: the most threads; ``pool_size`` plus the reserves when left out.
            pool: an executor to run the tasks in place of threads of our own. Given
                alone, the sizes stay as they were set, or else become the executor's.
            pool_size: places for tasks of all lanes, CPU count × 5 when neither it nor
                *max_size* is given; 0 takes all limits off.
            reserve_normal: places more for NORMAL and above.
            reserve_high: places more for HIGH and above.
            queue_size: the most tasks that may wait, CRITICAL aside; None: no bound.
            when_full: beyond that, ``'block'`` the submitter, ``'raise'`` `QueueFull`,
                or ``'run'`` the task in the submitter's thread.
            idle_timeout: seconds after which an idle thread goes; None: never.

        Raises:
            TypeError: a size is not a whole number, or *pool* is not an executor.
            ValueError: a size is out of range, or the sizes contradict one another.
        """
        self._check_executor(pool)
        given = (min_size, max_size, pool_size, reserve_normal, reserve_high, queue_size)
        if pool is None or not self._sized or any(size is not None for size in given):
            self._pool.resize(
                min_size=min_size,
                max_size=max_size,
                pool_size=pool_size,
                reserve_normal=reserve_normal,
                reserve_high=reserve_high,
                queue_size=queue_size,
                when_full=when_full,
                idle_timeout=idle_timeout,
                width=None if pool is None else width_of(pool),
            )
            self._sized = any(size is not None for size in given)
        if pool is not self._pool.executor:
            self._use_executor(pool)

    @property
    def thread_pool(self) -> SupervisedPool:
        """The pool, the same object for life; set an executor to have it run the tasks."""
        return self._pool

    @thread_pool.setter
    def thread_pool(self, executor: Executor | None) -> None:
        self._check_executor(executor)
        if executor is not None and not self._sized:
            self._pool.resize(width=width_of(executor))
        self._use_executor(executor)

    def _check_executor(self, executor: Executor | None) -> None:
        if executor is not None and not callable(getattr(executor, "submit", None)):
            raise TypeError(f"an executor needs a method submit, which {executor!r} has not")
        if executor is self._pool or getattr(executor, "pool", None) is self._pool:
            raise ValueError(f"{executor!r} is the pool of this supervisor already")

    def _use_executor(self, executor: Executor | None) -> None:
        before = self._pool.executor
        self._pool.use_executor(executor)
        if executor is not None:
            logger.info("%s: tasks go to %r", self._title, executor)
        elif before is not None:
            logger.info(
                "%s: tasks go to threads of its own; %r is its owner's to shut down",
                self._title,
                before,
            )

    @cached_property
    def spawn(self) -> Callable[..., Task[Any]]:
        """``spawn(fn, /, *args, **kwargs)``: run a call in the pool at NORMAL priority.

        This is the pool's ``submit``; it returns a `Task`.
        """
        return self._pool.submit

    def put_task(
        self,
        target: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., object] | None = None,
        priority: int = TASK_NORMAL,
        delay: float | None = None,
        tt: int = TT_THREAD,
        task_id: str | None = None,
        worker: Any = None,
        _send_task_id: bool | None = None,
    ) -> Task[T]:
        """Run a call in the pool, now or later.

        Parameters:
            target, args, kwargs: what to call.
            callback: called with the task when it is done; with ``TT_MP`` with the result,
                if there is one.
            priority: of the lane.
            delay: seconds until the task enters its lane; at once when left out.
            tt: ``TT_THREAD``, or ``TT_MP`` for the pool of processes.
            task_id: the task's id; one is made if left out.
            worker: kept in the task, for those who look at it.
            _send_task_id: whether the target gets the id as a keyword ``_task_id``; when
                left out, if it has a parameter of that name.

        Raises:
            TypeError: the target or the callback cannot be called, or the target is a
                coroutine function.
            ValueError: there is no such priority or kind of task, or the delay is negative.
            RuntimeError: there is no pool of processes.
            SupervisorNotStarted: the supervisor does not run.
            QueueFull: the bound on waiting tasks is reached and the pool refuses.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback must be callable, not {callback!r}")
        sends_id = _takes_task_id(target) if _send_task_id is None else _send_task_id
        usual = not delay and delay is not False and tt is TT_THREAD
        if usual and not (task_id or worker or sends_id) and self._pool.queue_size is None:
            if type(target) is not FunctionType or target.__code__.co_flags & CO_COROUTINE:
                check_target(target)
            lane = lane_of(priority)
            task: Task[T] = self._dispatcher.make(target, tuple(args), dict(kwargs or ()), lane)
            if callback is not None:
                task.__dict__["callback"] = callback
                task.add_done_callback(callback)
            self._tasks.add(task)  # before it begins: it may ask for itself
            try:
                self._dispatcher.enqueue(task)
            except BaseException:
                self._tasks.drop(task)
                raise
            return task
        kind = _kind_of_call(tt)
        given = dict(kwargs or {})
        if sends_id:
            task_id = given["_task_id"] = task_id or str(uuid.uuid4())
        pool = self._pool if kind == TT_THREAD else self._require_processes()
        view = pool.lane(priority)
        check_target(target)
        dispatcher = pool._crew.dispatcher
        seconds = 0.0 if delay is None else check_delay(delay)
        if seconds:
            self.require_started("a task")
        if not seconds and pool.queue_size is not None:
            task = view.submit(target, *args, **given)
        else:
            task = dispatcher.make(target, tuple(args), given, lane_of(priority))
        traits = _traits(task_id, kind, seconds, callback, worker)
        if traits:
            task.__dict__.update(traits)
        if callback is not None:
            task.add_done_callback(
                callback if kind == TT_THREAD else partial(_hand_result, callback)
            )
        self._tasks.add(task)  # before it begins: it may ask for itself
        try:
            if seconds:
                self._delayed.add(task, seconds, dispatcher)
            elif pool.queue_size is None:
                dispatcher.enqueue(task)
        except BaseException:
            self._tasks.drop(task)
            raise
        return task

    # Processes.

    @property
    def mp_pool(self) -> ProcessPool | None:
        """The pool of processes for ``TT_MP``; None if none was made."""
        return self._processes

    def create_mp_pool(self, *args: Any, **kwargs: Any) -> ProcessPool:
        """Make the pool of processes that tasks with ``TT_MP`` run in.

        It is stopped with the supervisor, and made again when that starts again. One that
        was made before gives way to it, and ends when its tasks have.

        Parameters:
            args, kwargs: see `ProcessPool`; those of ``multiprocessing.Pool``, besides
                others. One process per CPU when left out.

        Raises:
            TypeError: a size is not a whole number, or the initializer not callable.
            ValueError: a size is out of range.
        """
        from .processes import ProcessPool  # not before somebody wants one

        pool = ProcessPool(*args, **kwargs)
        before, self._processes = self._processes, pool
        if before is not None:
            before.shutdown(wait=False)
        return pool

    def set_mp_pool(
        self, pool_size: int = 0, reserve_normal: int = 0, reserve_high: int = 0
    ) -> None:
        """Set the sizes of the pool of processes; make it if there is none.

        A pool that is there keeps its number of processes.

        Parameters:
            pool_size: places for tasks of all lanes; 0: no limit.
            reserve_normal: places more for NORMAL and above.
            reserve_high: places more for HIGH and above.

        Raises:
            TypeError: a size is not a whole number.
            ValueError: a size is negative.
        """
        make = self.create_mp_pool if self._processes is None else self._processes.resize
        make(pool_size=pool_size, reserve_normal=reserve_normal, reserve_high=reserve_high)

    def _require_processes(self) -> TaskPool:
        self.require_started("a task")
        pool = self._processes
        if pool is None:
            raise RuntimeError(
                f"supervisor {self.id} has no pool of processes for a task with TT_MP: make it "
                "with create_mp_pool() or set_mp_pool(pool_size=...)"
            )
        pool.mend()
        return pool

    # Timers.

    def call_later(
        self, delay: float, fn: Callable[..., Any], /, *args: Any, priority: int = TASK_NORMAL
    ) -> PooledTimer:
        """Call ``fn(*args)`` in the pool in *delay* seconds.

        Raises:
            TypeError: *fn* cannot be called, or is a coroutine function.
            ValueError: there is no such priority, or the delay is negative.
            SupervisorNotStarted: the supervisor does not run.
        """
        seconds = check_delay(delay)
        return self._set_timer(seconds, fn, args, priority)

    def call_every(
        self,
        interval: float,
        fn: Callable[..., Any],
        /,
        *args: Any,
        priority: int = TASK_NORMAL,
        missed: Missed = "skip",
    ) -> PooledTimer:
        """Call ``fn(*args)`` in the pool every *interval* seconds, at a fixed rate.

        Never two runs at once: a run that takes longer than the interval follows
        *missed*: ``'skip'`` keeps the phase, ``'delay'`` starts a new one when the run
        has ended, ``'burst'`` catches up.

        Raises:
            TypeError: *fn* cannot be called, or is a coroutine function.
            ValueError: there is no such priority or policy, or the interval is not
                positive and finite.
            SupervisorNotStarted: the supervisor does not run.
        """
        return self._set_timer(0.0, fn, args, priority, interval, missed)

    def _set_timer(
        self,
        delay: float,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        priority: int,
        interval: float | None = None,
        missed: Missed = "skip",
    ) -> PooledTimer:
        lane = lane_of(priority)
        self.require_started("a timer")
        return PooledTimer(
            self._ticker, self._dispatcher, delay, fn, args, lane, interval, missed
        )

    # Launch timeouts.

    @property
    def timeout_warning(self) -> float | None:
        """After how many seconds a task that has not started is logged; None: never."""
        return self._watch.age(1)

    @timeout_warning.setter
    def timeout_warning(self, seconds: float | None) -> None:
        self._watch.set_age(1, seconds)

    @property
    def timeout_critical(self) -> float | None:
        """After how many seconds that is logged as critical; None: never."""
        return self._watch.age(2)

    @timeout_critical.setter
    def timeout_critical(self, seconds: float | None) -> None:
        self._watch.set_age(2, seconds)

    # Aloops.

    def create_aloop(
        self,
        name: str,
        daemon: bool = False,
        start: bool = True,
        default: bool = False,
        loop_factory: LoopFactory | None = None,
    ) -> ALoop | Literal[False]:
        """Make an aloop: an asyncio loop in a thread of its own.

        Parameters:
            name: of the aloop.
            daemon: whether its thread lets the process end while it runs.
            start: start it at once; else `start_aloop` does.
            default: make it the default aloop.
            loop_factory: makes the loop, ``uvloop.new_event_loop`` for one.

        Returns:
            The aloop; False, and an error in the log, if the name is taken.

        Raises:
            SupervisorNotStarted: the supervisor is stopping its aloops.
            TypeError: the name is not a string, or the factory cannot be called.
            AloopError: the name is that of the supervisor's own loop.
        """
        aloop = self._aloops.create(name, daemon, start, default, loop_factory)
        if aloop:
            aloop.owner = weakref.ref(self)
        return aloop

    def start_aloop(self, name: str) -> bool:
        """Start an aloop; return False, with an error in the log, if there is none."""
        aloop = self._aloops.find(name)
        if aloop is None:
            return False
        self._aloops.start(aloop)
        return True

    def stop_aloop(
        self, name: str, wait: bool | float = True, cancel_tasks: bool = False
    ) -> bool:
        """Stop an aloop, as `ALoop.stop` does; return False if there is none, see the log."""
        aloop = self._aloops.find(name)
        if aloop is None:
            return False
        aloop.stop(wait, cancel_tasks)
        return True

    def get_aloop(self, name: str | None = None, default: bool = True) -> ALoop | None:
        """Return the aloop of that name, the default one without; None if there is none."""
        return None if name is None and not default else self._aloops.get(name)

    def set_default_aloop(self, aloop: ALoop | str | None) -> None:
        """Set the aloop for what names none.

        Raises:
            UnknownAloop: there is none of that name.
            TypeError: it is neither an aloop nor a name.
        """
        self._aloops.set_default(aloop)

    def get_aloops(self) -> dict[str, ALoop]:
        """Return the aloops by name."""
        return self._aloops.all()

    @property
    def aloops(self) -> dict[str, ALoop]:
        """The aloops by name: a copy."""
        return self._aloops.all()

    @property
    def default_aloop(self) -> ALoop | None:
        """The aloop for what names none."""
        return self._aloops.get(None)

    @default_aloop.setter
    def default_aloop(self, aloop: ALoop | str | None) -> None:
        self._aloops.set_default(aloop)

    # Schedulers.

    def register_scheduler(self, scheduler: Any, **restarts: Any) -> bool:
        """Run ``scheduler.loop()`` as a task of its loop, and stop it with the supervisor.

        The loop is ``scheduler.worker_loop`` (an aloop, its name, or a loop), else the
        default aloop, else the supervisor's own loop. An exception that ends it is
        logged, and the scheduler unregistered, unless *restarts* say otherwise.

        Parameters:
            scheduler: an object with ``stop()`` and ``async loop()``.
            restarts: ``restart``, ``max_restarts``, ``period`` and ``on_give_up``, see
                ``Registry.register_scheduler``.
        """
        return self._registry.register_scheduler(scheduler, **restarts)

    def register_sync_scheduler(self, scheduler: Any) -> bool:
        """Stop ``scheduler`` (its ``stop()``) with the supervisor."""
        return self._registry.register_sync_scheduler(scheduler)

    def unregister_scheduler(self, scheduler: Any) -> bool:
        """Forget a scheduler; return False if it was not registered."""
        return self._registry.unregister_scheduler(scheduler)

    def unregister_sync_scheduler(self, scheduler: Any) -> bool:
        """Forget a scheduler; return False if it was not registered."""
        return self._registry.unregister_sync_scheduler(scheduler)

    def get_schedulers(self) -> dict[str, Any]:
        """Return the registered schedulers by name."""
        return self._registry.get_schedulers()

    # Async jobs.

    def create_async_job_scheduler(
        self,
        name: str,
        aloop: ALoop | str | None = None,
        start: bool = True,
        default: bool = False,
    ) -> AsyncJobScheduler | Literal[False]:
        """Make a scheduler of async jobs that lives in an aloop.

        Parameters:
            name: of the scheduler.
            aloop: an aloop or its name; the default aloop, else the supervisor's own loop.
            start: start it at once.
            default: make it the default job scheduler.

        Returns:
            The scheduler; False, and an error in the log, if the name is taken.

        Raises:
            SupervisorNotStarted: it shall start, and the supervisor does not run.
            UnknownAloop: there is no aloop of that name.
            AloopError: the name is reserved, or the aloop does not run.
        """
        return self._jobs.create(name, aloop, start, default)

    def create_async_job(
        self, scheduler: AsyncJobScheduler | str | None = None, **job: Any
    ) -> AsyncJob:
        """Give a job to a scheduler, the default one if none is named.

        Parameters:
            scheduler: a job scheduler or its name.
            job: see ``AsyncJobScheduler.create_threadsafe``.

        Raises:
            UnknownScheduler: there is none of that name, or no default one.
        """
        return self._jobs.find(scheduler).create_threadsafe(**job)

    def cancel_async_job(
        self, scheduler: AsyncJobScheduler | str | None = None, job: AsyncJob | None = None
    ) -> bool:
        """Cancel a job; return False if there is none."""
        return False if job is None else self._jobs.find(scheduler).cancel(job)

    def set_default_async_job_scheduler(self, scheduler: AsyncJobScheduler | str) -> None:
        """Set the job scheduler for jobs that name none."""
        self._jobs.default = self._jobs.find(scheduler)

    @property
    def default_async_job_scheduler(self) -> AsyncJobScheduler | None:
        """The job scheduler for jobs that name none."""
        return self._jobs.default

    @default_async_job_scheduler.setter
    def default_async_job_scheduler(self, scheduler: AsyncJobScheduler | str | None) -> None:
        self._jobs.default = None if scheduler is None else self._jobs.find(scheduler)

    @property
    def async_job_schedulers(self) -> dict[str, AsyncJobScheduler]:
        """The job schedulers by name: a copy."""
        return self._jobs.all()

    # Looking.

    def get_info(
        self,
        aloops: bool = True,
        schedulers: bool = True,
        async_job_schedulers: bool = True,
        *,
        tt: int | Literal[False] | None = False,
    ) -> SupervisorInfo:
        """Return what there is to say at this moment, as plain objects that pickle.

        Parameters:
            aloops, schedulers, async_job_schedulers: whether to say that of them.
            tt: ``TT_THREAD``, ``TT_MP``, or None for both: add ``tasks``, those of
                `get_tasks` by id, which are what they are and do not pickle.
        """
        info = SupervisorInfo(id=self.id, active=self.active, pool=pool_figures(self._pool))
        if self._processes is not None:
            info.mp_pool = pool_figures(self._processes)
        if tt is not False:
            info.tasks = self.get_tasks(tt)
        if aloops:
            default = self.default_aloop
            info.aloops = {
                name: AloopInfo.of(aloop, aloop is default)
                for name, aloop in self.get_aloops().items()
            }
        if schedulers:
            info.schedulers = {
                name: SchedulerInfo.of(name, scheduler)
                for name, scheduler in self.get_schedulers().items()
            }
        if async_job_schedulers:
            info.async_job_schedulers = {
                name: SchedulerInfo.of(name, scheduler)
                for name, scheduler in self.async_job_schedulers.items()
            }
        return info


def _kind_of_call(tt: int) -> TaskType:
    kind = kind_of(tt)
    if kind == TT_COROUTINE:
        raise ValueError(
            f"put_task takes TT_THREAD or TT_MP, not {tt!r}: give a coroutine to an aloop "
            "(aloop.spawn_coroutine_threadsafe), or its function to background_task"
        )
    return kind


def _traits(
    task_id: str | None,
    kind: TaskType,
    delay: float,
    callback: Callable[..., object] | None,
    worker: Any,
) -> dict[str, Any]:
    """Return the attributes of a task that are other than those of its class."""
    traits = {"_id": task_id, "delay": delay or None, "callback": callback, "worker": worker}
    if kind != TT_THREAD:
        traits["tt"] = kind
    return {name: value for name, value in traits.items() if value is not None}


def _takes_task_id(target: Callable[..., Any]) -> bool:
    """Return whether *target* has a parameter ``_task_id``."""
    code = getattr(target, "__code__", None) or getattr(
        getattr(target, "__func__", None), "__code__", None
    )
    if code is None:
        return False
    return "_task_id" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _hand_result(callback: Callable[[Any], object], task: Task[Any]) -> None:
    # Not by exception(), which would count as a look at it: it is logged if nobody takes one.
    if not task.cancelled() and task._exception is None:
        callback(task.result())
