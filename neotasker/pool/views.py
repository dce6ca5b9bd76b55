"""Views of a pool: `Lane`, of one priority; `WaitingWork`, of what waits."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from ..base.known_as import known_as
from ..base.priority import Priority, lane_of
from ..core import Dispatcher, Submitter
from .task import Task

if TYPE_CHECKING:
    from .pool import TaskPool

__all__ = ["Lane", "WaitingWork"]

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


class WorkItem:
    """A task that was taken out of the queue, in the shape of the standard's work item."""

    __slots__ = ("future",)

    def __init__(self, task: Task[Any]) -> None:
        self.future = task

    def run(self) -> None:
        """Run the task in this thread."""
        self.future._run()


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

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close this view.

        Parameters:
            wait: return only when the tasks submitted through this view have ended.
            cancel_futures: cancel those of them that have not begun.
        """
        self._shutdown = True
        self.shut_door()
        if cancel_futures:
            for task in self.pool._crew.dispatcher.take_waiting(self):
                task.cancel()
        if wait:
            self.wait_outstanding()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.priority.name} of {self.pool!r}>"
