"""`TaskSupervisor`: pool, timers, aloops, schedulers and jobs under one roof."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from concurrent.futures import Executor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .base.known_as import parted
from .base.priority import (
    TASK_CRITICAL,
    TASK_HIGH,
    TASK_LOW,
    TASK_NORMAL,
    default_width,
    lane_of,
)
from .base.progress import TT_COROUTINE, TT_MP, TT_THREAD
from .base.seconds import check_delay
from .compat.older_names import OlderNames
from .lifecycle.start import logger
from .loops.aloop import ALoop, LoopFactory
from .pool.pool import SupervisedPool, WhenFull, check_executor, width_of
from .pool.task import (
    TASK_STATUS_CANCELED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_DELAYED,
    TASK_STATUS_FAILED,
    TASK_STATUS_QUEUED,
    TASK_STATUS_STARTED,
    Task,
)

if TYPE_CHECKING:
    from .jobs.scheduler import AsyncJob, AsyncJobScheduler
    from .observe.info import SupervisorInfo
    from .timing.pooled_timer import PooledTimer
    from .timing.ticker import Missed

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
        if pool is None and self._pool.executor is not None:
            self._use_executor(None)  # before the sizes change: it is to have no more tasks
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
        if executor is not None:
            check_executor(executor)
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
        from .timing.pooled_timer import PooledTimer  # not before somebody sets one

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
        # Not before somebody asks: an import is to be quick.
        from .observe.info import AloopInfo, SchedulerInfo, SupervisorInfo, pool_figures

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


parted(__name__, "neotasker.compat.put_task")
