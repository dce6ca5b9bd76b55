"""What kind of task a future is, and how far it has come, in the words of atasker."""

from __future__ import annotations

import enum
import threading
from concurrent.futures import Future, wait
from typing import Any, Final

from .clock import monotonic
from .known_as import also_known_as, known_as
from .seconds import wait_in_parts

__all__ = ["TT_COROUTINE", "TT_MP", "TT_THREAD", "Milestone", "Progress", "TaskType", "kind_of"]

_LONGEST_LOOK = 0.01  # seconds between two looks whether a task has begun


@known_as("neotasker.progress")
class TaskType(enum.IntEnum):
    """Where a task runs (values of atasker)."""

    COROUTINE = 0
    THREAD = 1
    MP = 2


TT_COROUTINE: Final = TaskType.COROUTINE
TT_THREAD: Final = TaskType.THREAD
TT_MP: Final = TaskType.MP


def kind_of(tt: int) -> TaskType:
    """Return the kind of task that is given as `TaskType` or as its number.

    Raises:
        ValueError: there is no such kind.
    """
    try:
        return TaskType(tt)
    except ValueError:
        known = ", ".join(f"TT_{kind.name} ({int(kind)})" for kind in TaskType)
        raise ValueError(f"unknown kind of task {tt!r}: use one of {known}") from None


class Milestone:
    """Something that a task passes once, in the shape of a ``threading.Event``."""

    __slots__ = ("_is_start", "_task")

    def __init__(self, task: Future[Any], is_start: bool) -> None:
        self._task = task
        self._is_start = is_start  # the start of the task is meant, not its end

    def is_set(self) -> bool:
        """Return whether the task has come so far; one that has ended has started, too."""
        return self._task.done() or (self._is_start and self._task.running())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the task has come so far; return whether it has.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        if self._is_start:
            return self._wait_for_start(timeout)
        if timeout is None:
            wait((self._task,))
        else:
            wait_in_parts(lambda part: wait((self._task,), part).done, timeout)
        return self.is_set()

    def _wait_for_start(self, timeout: float | None) -> bool:
        # A standard future tells nobody that it begins, so there is nothing but to look.
        deadline = None if timeout is None else monotonic() + timeout
        pause = 0.0005
        bell = threading.Event()
        while not self.is_set():
            if deadline is not None and monotonic() >= deadline:
                return False
            bell.wait(pause)
            pause = min(2 * pause, _LONGEST_LOOK)
        return True


class Progress:
    """What a task of atasker has besides, for the futures that take its place."""

    __slots__ = ()

    tt: TaskType
    """Where the task runs."""

    def is_started(self) -> bool:
        """Return whether the task has begun to run."""
        return self.started.is_set()

    def is_completed(self) -> bool:
        """Return whether the task has ended."""
        return self.completed.is_set()

    @property
    def started(self) -> Milestone:
        """The start of the task, as an event to be waited for."""
        return Milestone(self, is_start=True)  # type: ignore[arg-type]

    @property
    def completed(self) -> Milestone:
        """The end of the task, as an event to be waited for."""
        return Milestone(self, is_start=False)  # type: ignore[arg-type]

    def mark_started(self) -> None:
        """Do nothing: a task notices by itself that it begins."""

    def mark_completed(self) -> None:
        """Do nothing: a task notices by itself that it ends."""


also_known_as("neotasker.progress", __name__)
