"""Views of a pool: `Lane`, of one priority; `WaitingWork`, of what waits; `IdleThreads`."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from ..base.known_as import known_as
from ..base.priority import Priority, lane_of
from ..core import Dispatcher, Submitter
from .task import Task, cancel_all

if TYPE_CHECKING:
    from .pool import TaskPool

__all__ = ["IdleThreads", "Lane", "WaitingWork", "WorkItem"]

P = ParamSpec("P")
T = TypeVar("T")


class WaitingWork:
    """The view of what waits that programs look for under ``_work_queue``."""

    __slots__ = ("_dispatcher",)

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def qsize(self) -> int:
        """Return how many tasks wait, in all lanes."""
        return self._dispatcher.waiting

    def empty(self) -> bool:
        """Return whether no task waits."""
        return not self._dispatcher.waiting

    def get_nowait(self) -> WorkItem:
        """Take the first waiting task away from the pool: it is the caller's from now on.

        Raises:
            queue.Empty: no task waits.
        """
        task = self._dispatcher.take_one()
        if task is None:
            raise queue.Empty
        return WorkItem(task)

    def get(self, block: bool = True, timeout: float | None = None) -> WorkItem:
        """Take the first waiting task away; only without blocking.

        Raises:
            queue.Empty: no task waits.
            NotImplementedError: asked to block; the pool's threads do not wait here.
        """
        if block:
            raise NotImplementedError("the pool's queue can only be read with block=False")
        return self.get_nowait()

    def put(
        self, item: WorkItem | None, block: bool = True, timeout: float | None = None
    ) -> None:
        """Give a task back that was taken away: it waits again, behind the others.

        None is what the standard's threads are woken with, so that they look whether to go;
        ours are told in other ways.
        """
        if item is not None:
            self._dispatcher.enqueue(item.future)

    def put_nowait(self, item: WorkItem | None) -> None:
        """See `put`."""
        self.put(item)


class WorkItem:
    """A task that was taken out of the queue, in the shape of the standard's work item.

    Up to 3.13 that has ``fn``, ``args`` and ``kwargs``, from 3.14 on ``task``, which is all
    three. Here they are there on all versions.
    """

    __slots__ = ("future",)

    def __init__(self, task: Task[Any]) -> None:
        self.future = task

    @property
    def fn(self) -> Callable[..., Any] | None:
        """What the task calls; None when it has ended."""
        return self.future.target

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments; empty when the task has ended."""
        return self.future.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments; empty when the task has ended."""
        return self.future.kwargs

    @property
    def task(self) -> tuple[Callable[..., Any] | None, tuple[Any, ...], Mapping[str, Any]]:
        """The call: ``(fn, args, kwargs)``."""
        return self.fn, self.args, self.kwargs

    def run(self, ctx: Any = None) -> None:
        """Run the task in this thread, in its own context.

        Parameters:
            ctx: what the threads of the standard's pool give from 3.14 on; not used.
        """
        self.future._run()


class IdleThreads:
    """The count of idle threads, in the shape of the standard's ``_idle_semaphore``.

    Programs look at ``_value``. The threads here do not go by it.
    """

    __slots__ = ("_dispatcher",)

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    @property
    def _value(self) -> int:
        return self._dispatcher.idle

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Return whether a thread is idle; never blocks."""
        return self._dispatcher.idle > 0

    def release(self, n: int = 1) -> None:
        """Do nothing."""


@known_as("neotasker.pool")
class Lane(Submitter, ThreadPoolExecutor):
    """A view of one lane of a pool, which can be given to anything that takes an executor.

    Shutting it down closes this view alone: its own tasks are waited for or
    cancelled, the pool lives on.
    """

    if TYPE_CHECKING:

        def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]:
            """See `Submitter.submit`, which this is."""

    def __init__(self, pool: TaskPool, priority: int) -> None:
        super().__init__(pool._crew.dispatcher, lane_of(priority))
        self.pool = pool
        self.priority = Priority(priority)
        self._threads = pool._threads
        self._work_queue = pool._work_queue
        self._shutdown = False

    @property
    def _max_workers(self) -> int:  # type: ignore[override]
        return self.pool._max_workers

    @property
    def _broken(self) -> str | Literal[False]:  # type: ignore[override]
        return self.pool._broken

    @property
    def _thread_name_prefix(self) -> str:  # type: ignore[override]
        return self.pool._thread_name_prefix or ""

    @property
    def _initializer(self) -> Any:  # type: ignore[override]
        return self.pool._initializer

    @property
    def _initargs(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.pool._initargs

    @property
    def _idle_semaphore(self) -> Any:  # type: ignore[override]
        return self.pool._idle_semaphore

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close this view.

        Parameters:
            wait: return only when the tasks submitted through this view have ended.
            cancel_futures: cancel those of them that have not begun.

        Raises:
            RuntimeError: told to wait by one of these tasks, which would wait for itself;
                the view is closed nevertheless.
        """
        self._shutdown = True
        self.shut_door()
        if cancel_futures:
            cancel_all(self.pool._crew.dispatcher.take_waiting(self))
        if wait:
            self.wait_outstanding()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.priority.name} of {self.pool!r}>"
