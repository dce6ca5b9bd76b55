"""`TaskTable`: the tasks of a supervisor that have not ended, by id."""

from __future__ import annotations

from typing import Any

from .task import Task

__all__ = ["TaskTable"]


class TaskTable:
    """Tasks from when they are added until they end.

    No lock is needed: each step is one operation on a set or a dictionary, which is
    atomic, with the GIL and without. Most tasks are never asked for their id, so it is not
    made here.
    """

    def __init__(self) -> None:
        self._tasks: set[Task[Any]] = set()
        self._by_id: dict[str, Task[Any]] = {}  # those that were given one

    def add(self, task: Task[Any]) -> None:
        """Keep a task until it ends, which it may have done.

        One with the id of another takes its place.
        """
        self._tasks.add(task)
        name = getattr(task, "_id", None)
        if name is not None:
            self._by_id[name] = task
        task.add_done_callback(self.drop)

    def drop(self, task: Task[Any]) -> None:
        """Keep a task no more."""
        self._tasks.discard(task)
        name = getattr(task, "_id", None)
        if name is not None and self._by_id.get(name) is task:
            self._by_id.pop(name, None)

    def get(self, task_id: str) -> Task[Any] | None:
        """Return the task of that id; None if there is none, or it has ended."""
        task = self._by_id.get(task_id)
        if task is not None:
            return task
        for task in self._tasks.copy():
            if getattr(task, "_id", None) == task_id:  # made when it was first asked for
                return task
        return None

    def all(self) -> dict[str, Task[Any]]:
        """Return the tasks by id: a copy."""
        return {task.id: task for task in self._tasks.copy()}

    def abandon(self) -> None:
        """Forget all: in a forked child."""
        self._tasks = set()
        self._by_id = {}
