"""`Task`: one call handed to a pool, which is a standard future."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..base.known_as import also_known_as, known_as
from ..base.priority import LANES, Priority
from ..base.progress import TT_THREAD, Progress, TaskType
from ..base.targets import check_task
from ..core import TaskCore

__all__ = [
    "TASK_STATUS_CANCELED",
    "TASK_STATUS_COMPLETED",
    "TASK_STATUS_DELAYED",
    "TASK_STATUS_FAILED",
    "TASK_STATUS_QUEUED",
    "TASK_STATUS_STARTED",
    "Task",
    "TaskStatus",
    "cancel_all",
    "check_target",
]

T = TypeVar("T")


@known_as("neotasker.task")
class TaskStatus(enum.IntEnum):
    """How far a task has come (values of atasker; `FAILED` is ours)."""

    FAILED = -2
    CANCELED = -1
    QUEUED = 0
    DELAYED = 2
    STARTED = 100
    COMPLETED = 200


TASK_STATUS_FAILED: Final = TaskStatus.FAILED
TASK_STATUS_CANCELED: Final = TaskStatus.CANCELED
TASK_STATUS_QUEUED: Final = TaskStatus.QUEUED
TASK_STATUS_DELAYED: Final = TaskStatus.DELAYED
TASK_STATUS_STARTED: Final = TaskStatus.STARTED
TASK_STATUS_COMPLETED: Final = TaskStatus.COMPLETED


@known_as("neotasker.task")
class Task(TaskCore, Progress, Future[T]):
    """One call handed to a pool: a ``concurrent.futures.Future`` with a priority.

    It can be awaited in any asyncio loop; a coroutine that is cancelled while it
    awaits the task cancels the task, if that has not begun to run. An exception
    that nobody retrieves is logged when the task goes, as asyncio does.

    ``time_queued``, ``time_started`` and ``time_finished`` are seconds of
    ``time.monotonic()``, or None while it has not come to that.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def result(self, timeout: float | None = None) -> T:
            """See ``concurrent.futures.Future.result``, which this is."""

    tt: TaskType = TT_THREAD
    """Where the task runs: in a thread, or in a process (``TT_MP``)."""

    callback: Callable[..., object] | None = None
    """The callback that ``put_task`` was given."""

    delay: float | None = None
    """The seconds of delay that ``put_task`` was given."""

    worker: Any = None
    """What ``put_task`` was told to be the worker that the task belongs to."""

    @property
    def id(self) -> str:
        """The task's id: as given to ``put_task``, else a UUID made when first asked for."""
        made = self.__dict__.get("_id")
        return str(
            made if made is not None else self.__dict__.setdefault("_id", str(uuid.uuid4()))
        )

    @id.setter
    def id(self, value: str) -> None:
        self.__dict__["_id"] = value

    @property
    def target(self) -> Callable[..., T] | None:
        """What the task calls; None when it has ended."""
        return self._get_call()[0]

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments of the call; empty when it has ended."""
        return self._get_call()[1] or ()

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments of the call; empty when it has ended."""
        return self._get_call()[2] or {}

    @property
    def priority(self) -> Priority:
        """The priority of the lane that the task was given to."""
        return LANES[self.lane]

    @property
    def status(self) -> TaskStatus:
        """How far the task has come."""
        if self.cancelled():
            return TaskStatus.CANCELED
        if self.done():
            return TaskStatus.FAILED if self._exception is not None else TaskStatus.COMPLETED
        if self.running():
            return TaskStatus.STARTED
        return TaskStatus.DELAYED if self.time_queued is None else TaskStatus.QUEUED

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


check_target = check_task


def cancel_all(tasks: Iterable[Future[Any]]) -> int:
    """Cancel tasks; return how many are cancelled.

    Raises:
        BaseException: the first that a callback raised in the main thread, as Ctrl+C; all
            tasks were seen to.
    """
    cancelled = 0
    raised: BaseException | None = None
    for task in tasks:
        try:
            cancelled += task.cancel()
        except BaseException as exc:
            raised = raised or exc
            cancelled += task.cancelled()
    if raised is not None:
        try:
            raise raised
        finally:
            raised = None  # the traceback would hold the frame that holds it
    return cancelled


also_known_as("neotasker.task", __name__)
