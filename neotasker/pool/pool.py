"""The pool: threads behind four lanes, in the shape of the standard's executor.

`TaskPool` has the threads of a crew, `ExecutorPool` puts the lanes and reserves before
somebody else's executor. The rule of who may start is the dispatcher's, in the core.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import (
    Executor,
    ThreadPoolExecutor,
)
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from ..base.known_as import known_as
from ..base.priority import TASK_NORMAL, UNLIMITED, PoolSizes, default_width, lane_of
from ..base.report import Reporter
from ..core import Dispatcher, Submitter
from .task import Task, cancel_all
from .threads import Crew, Initializer
from .views import IdleThreads, Lane, WaitingWork

__all__ = [
    "ExecutorPool",
    "SupervisedPool",
    "TaskPool",
    "WhenFull",
    "check_executor",
    "width_of",
]

P = ParamSpec("P")
T = TypeVar("T")

WhenFull = Literal["block", "raise", "run"]

logger = Reporter("neotasker")

_AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
_NORMAL_LANE = lane_of(TASK_NORMAL)

_pool_number = itertools.count().__next__


def _refuse_after_shutdown() -> Exception:
    return RuntimeError(_AFTER_SHUTDOWN)


@known_as("neotasker.pool")
class TaskPool(Submitter, ThreadPoolExecutor):
    """A thread pool with priority reserves that is a ``ThreadPoolExecutor`` to others.

    `submit` queues at NORMAL priority; `lane` gives a view of another. Which task
    may start is said in `neotasker.base.priority`; a task starts when another ends or
    arrives, never by polling.
    """

    if TYPE_CHECKING:

        def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]:
            """See `Submitter.submit`, which this is."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        pool_size: int | None = None,
        reserve_normal: int | None = None,
        reserve_high: int | None = None,
        min_size: int | Literal["max"] | None = None,
        queue_size: int | None = None,
        when_full: WhenFull = "block",
        idle_timeout: float | None = 60,
    ) -> None:
        """Make a pool.

        Parameters:
            max_workers: the most threads; when neither it nor *pool_size* is given,
                the standard's default width.
            thread_name_prefix: what the threads are called, before their number.
            initializer, initargs: called in each thread before its first task.
            pool_size, reserve_normal, reserve_high, min_size, queue_size, when_full,
                idle_timeout: see `resize`.

        Raises:
            TypeError: a size is not a whole number, or the initializer not callable.
            ValueError: a size is out of range, or the sizes contradict one another.
        """
        if max_workers is not None and max_workers <= 0:
            raise ValueError(f"max_workers must be greater than 0, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r}")
        if max_workers is None and pool_size is None:
            cpu_count = getattr(os, "process_cpu_count", os.cpu_count)
            max_workers = min(32, (cpu_count() or 1) + 4)
        prefix = thread_name_prefix or f"ThreadPoolExecutor-{_pool_number()}"
        first = None if initializer is None else Initializer(initializer, initargs)
        crew = Crew(prefix, first)
        super().__init__(crew.dispatcher, _NORMAL_LANE)
        self._crew = crew
        self._threads = crew.threads
        self._work_queue = WaitingWork(crew.dispatcher)  # type: ignore[assignment]
        self._shutdown = False
        self._initializer = initializer
        self._initargs = initargs
        self._initialization = first
        self._idle_semaphore = IdleThreads(crew.dispatcher)  # type: ignore[assignment]
        self._thread_name_prefix = prefix
        self.executor: Executor | None = None
        self.resize(
            max_size=max_workers,
            pool_size=pool_size,
            reserve_normal=reserve_normal,
            reserve_high=reserve_high,
            min_size=min_size,
            queue_size=queue_size,
            when_full=when_full,
            idle_timeout=idle_timeout,
        )
        weakref.finalize(self, _abandoned, crew.dispatcher).atexit = False

    def resize(
        self,
        *,
        max_size: int | None = None,
        pool_size: int | None = None,
        reserve_normal: int | None = None,
        reserve_high: int | None = None,
        min_size: int | Literal["max"] | None = None,
        queue_size: int | None = None,
        when_full: WhenFull = "block",
        idle_timeout: float | None = 60,
        width: int | None = None,
    ) -> None:
        """Set all sizes anew, at any time; what waits or runs goes on.

        Parameters:
            max_size: the most threads; ``pool_size`` plus the reserves when left out.
            pool_size: places for tasks of all lanes; 0 takes all limits off.
            reserve_normal, reserve_high: places more for NORMAL, and for HIGH.
            min_size: threads that are always there, or ``'max'`` for all.
            queue_size: the most tasks that may wait, CRITICAL aside; None: no bound.
            when_full: what a submission beyond that does: ``'block'`` waits for room
                (a thread of the pool runs the task itself, as it might wait for
                itself), ``'raise'`` raises `QueueFull`, ``'run'`` runs it at once.
            idle_timeout: seconds after which an idle thread goes; None: never.
            width: stands in for ``pool_size`` when no size is given.

        Raises:
            TypeError: a size is not a whole number.
            ValueError: a size is out of range, or the sizes contradict one another.
        """
        sizes = PoolSizes.resolve(
            max_size=max_size,
            pool_size=pool_size,
            reserve_normal=reserve_normal,
            reserve_high=reserve_high,
            min_size=min_size,
            width=width,
        )
        bound = 0
        if queue_size is not None:
            if isinstance(queue_size, bool) or not isinstance(queue_size, int):
                raise TypeError(f"queue_size must be a whole number, not {queue_size!r}")
            if queue_size < 1:
                raise ValueError(f"queue_size must be at least 1, or None, not {queue_size!r}")
            bound = queue_size
        if when_full not in ("block", "raise", "run"):
            raise ValueError(f"when_full must be 'block', 'raise' or 'run', not {when_full!r}")
        if idle_timeout is not None and not 0 <= idle_timeout <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"idle_timeout must be seconds from 0 to {threading.TIMEOUT_MAX:.0f}, "
                f"or None, not {idle_timeout!r}"
            )
        self.sizes = sizes
        self.queue_size = queue_size
        self.when_full = when_full
        self.idle_timeout = idle_timeout
        self._crew.dispatcher.configure(
            sizes.limits, sizes.min_size, sizes.max_size, idle_timeout, bound, when_full
        )

    def use_executor(self, executor: Executor | None) -> None:
        """Run tasks on *executor* from now on, behind the same lanes; None: on own threads.

        What runs goes on where it runs. The executor stays its owner's to shut down.
        """
        if executor is not None:
            check_executor(executor)
        if executor is self or getattr(executor, "pool", None) is self:
            raise ValueError(f"{self!r} cannot be its own executor")
        self.executor = executor
        dispatcher = self._crew.dispatcher
        if executor is None:
            dispatcher.set_launcher(None)
            return
        from .launcher import Launcher  # not before somebody wants one

        dispatcher.set_launcher(Launcher(executor, dispatcher))

    def lane(self, priority: int) -> Lane:
        """Return a view of the lane of *priority*.

        Raises:
            ValueError: there is no such priority.
        """
        return Lane(self, priority)

    @property
    def active(self) -> int:
        """How many tasks run, in all lanes."""
        return self._crew.dispatcher.active

    @property
    def _broken(self) -> str | Literal[False]:  # type: ignore[override]
        return self._crew.broken

    @property
    def _max_workers(self) -> int:
        # Programs divide work by this number, so "no limit" has to be a number too.
        most = self.sizes.max_size
        return most if most != UNLIMITED else default_width()

    @_max_workers.setter
    def _max_workers(self, value: int) -> None:
        self.resize(
            max_size=value,
            reserve_normal=self.sizes.reserve_normal,
            reserve_high=self.sizes.reserve_high,
            min_size=min(self.sizes.min_size, value),
            queue_size=self.queue_size,
            when_full=self.when_full,
            idle_timeout=self.idle_timeout,
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new tasks and let the threads go when the queued ones are done.

        Parameters:
            wait: return only when all threads have ended.
            cancel_futures: cancel the tasks that have not begun.

        Raises:
            RuntimeError: told to wait by a task or a thread of its own, which would wait
                for itself; the pool is shut down nevertheless, as the standard's is.
        """
        self._shutdown = True
        self.terminate(_refuse_after_shutdown, cancel_futures)
        if wait:
            me = threading.get_ident()
            if self._crew.dispatcher.runs_here() or any(t.ident == me for t in self._threads):
                raise RuntimeError("cannot join current thread")
            self._crew.dispatcher.wait_drained()
            self._crew.join()

    def terminate(self, refusal: Callable[[], Exception | None], cancel: bool) -> int:
        """Refuse new tasks as `Dispatcher.close` does, and let idle threads go.

        Returns:
            How many waiting tasks were cancelled; none unless *cancel*.
        """
        dispatcher = self._crew.dispatcher
        dispatcher.close(refusal)
        try:
            return cancel_all(dispatcher.take_waiting()) if cancel else 0
        finally:
            dispatcher.leave()

    def __repr__(self) -> str:
        s = self.sizes
        return (
            f"<{type(self).__name__} {self._thread_name_prefix} "
            f"{s.pool_size}+{s.reserve_normal}+{s.reserve_high}>"
        )


def _abandoned(dispatcher: Dispatcher) -> None:
    """Let the threads of a pool go that nobody holds any more, once its work is done."""
    dispatcher.close(_refuse_after_shutdown)
    dispatcher.leave()


@known_as("neotasker.pool")
class ExecutorPool(TaskPool):
    """The lanes and reserves of a `TaskPool` before somebody else's executor.

    Its width is the executor's (``_max_workers``) unless sizes are given. Shutting
    the pool down waits for its tasks and leaves the executor to its owner.
    """

    def __init__(self, executor: Executor, **sizes: Any) -> None:
        """Put lanes before *executor*.

        Parameters:
            executor: anything with ``submit``: a ``ProcessPoolExecutor``, a Dask or
                MPI executor.
            sizes: see `TaskPool`.

        Raises:
            TypeError: the executor has no ``submit``, or as `TaskPool`.
            ValueError: as `TaskPool`.
        """
        check_executor(executor)
        if sizes.get("max_workers") is None and sizes.get("pool_size") is None:
            sizes["pool_size"] = width_of(executor)
        super().__init__(**sizes)
        self.use_executor(executor)


def check_executor(executor: object) -> None:
    """Refuse what tasks cannot be given to.

    Raises:
        TypeError: it has no ``submit``, or is a class and not an instance of it.
    """
    if isinstance(executor, type):
        raise TypeError(
            f"an executor is wanted, not the class {executor.__name__}: "
            f"give an instance, {executor.__name__}()"
        )
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"an executor needs a method submit, which {executor!r} has not")


def width_of(executor: Executor) -> int:
    """Return how many tasks an executor runs at once, or CPU count × 5 if it does not say."""
    width = getattr(executor, "_max_workers", None)
    return width if isinstance(width, int) and width > 0 else default_width()


@known_as("neotasker.pool")
class SupervisedPool(TaskPool):
    """The pool of a supervisor, which alone stops it."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing but say so: clients (``asyncio.run`` is one) do not own this pool."""
        logger.warning(
            "shutdown of %r ignored: it belongs to a supervisor, whose stop() ends it", self
        )

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
