"""`TaskTable`: the tasks of a supervisor that have not ended, by id."""

from __future__ import annotations

import threading
from typing import Any

from .task import Task

__all__ = ["TaskTable"]


class TaskTable:
    """Tasks by id, from when they are added until they end.

    The lock protects the table. It is reentrant, as tasks end in finalizers, too.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_id: dict[str, Task[Any]] = {}

    def add(self, task: Task[Any]) -> None:
        """Keep a task until it ends, which it may have done.

        One with the id of another takes its place.
        """
        with self._lock:
            self._by_id[task.id] = task
        task.add_done_callback(self.drop)

    def drop(self, task: Task[Any]) -> None:
        """Keep a task no more."""
        with self._lock:
            if self._by_id.get(task.id) is task:
                del self._by_id[task.id]

    def get(self, task_id: str) -> Task[Any] | None:
        """Return the task of that id; None if there is none, or it has ended."""
        with self._lock:
            return self._by_id.get(task_id)

    def all(self) -> dict[str, Task[Any]]:
        """Return the tasks by id: a copy."""
        with self._lock:
            return dict(self._by_id)

    def abandon(self) -> None:
        """Forget all: in a forked child."""
        self._lock = threading.RLock()
        self._by_id.clear()
