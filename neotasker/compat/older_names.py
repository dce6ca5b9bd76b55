"""What programs written for atasker and neotasker 0.0.x ask of a supervisor besides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base.progress import kind_of
from ..pool.task import Task
from .put_task import PutTask

__all__ = ["OlderNames"]


class OlderNames(PutTask):
    """The names of older programs that have no other place.

    Nothing of the library itself goes through them.
    """

    pool_timeout = 1
    """Nothing: launch timeouts (`timeout_warning`) have taken the place of pool checks."""

    pool_check_interval = 5
    """Nothing, as `pool_timeout`."""

    # Tasks.

    def spawn_thread(
        self,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Task[Any]:
        """Run a call in the pool at NORMAL priority, as ``spawn`` does."""
        task: Task[Any] = self._pool.submit(target, *args, **(kwargs or {}))
        return task

    def get_task(self, task_id: str) -> Task[Any] | None:
        """Return the task of that id which `put_task` has made; None once it has ended."""
        return self._tasks.get(task_id)

    def get_tasks(self, tt: int | None = None) -> dict[str, Task[Any]]:
        """Return the tasks that `put_task` has made and that have not ended, by id.

        Parameters:
            tt: ``TT_THREAD`` or ``TT_MP``: those of that kind only.
        """
        kind = None if tt is None else kind_of(tt)
        tasks = self._tasks.all()
        return {id: task for id, task in tasks.items() if kind is None or task.tt == kind}

    def mark_task_started(self, task: Task[Any]) -> None:
        """Do nothing: a task notices by itself that it begins."""

    def mark_task_completed(
        self, task: Task[Any] | None = None, task_id: str | None = None
    ) -> bool:
        """Do nothing but say so: a task notices by itself that it ends.

        Returns:
            True.

        Raises:
            LookupError: there is no task of that id, or it has ended.
        """
        if task is None and (task_id is None or self._tasks.get(task_id) is None):
            raise LookupError(
                f"supervisor {self.id} has no task {task_id!r} that has not ended: tasks end "
                "by themselves, there is no need to mark them"
            )
        return True

    # Sizes and loops.

    @property
    def thread_pool_size(self) -> int:
        """Places in the pool for tasks of all lanes; 0: no limit."""
        return self._pool.sizes.pool_size

    @property
    def thread_reserve_normal(self) -> int:
        """Places more for NORMAL and above."""
        return self._pool.sizes.reserve_normal

    @property
    def thread_reserve_high(self) -> int:
        """Places more for HIGH and above."""
        return self._pool.sizes.reserve_high

    @property
    def mp_pool_size(self) -> int:
        """Places in the pool of processes; 0: no limit, or no such pool."""
        return 0 if self._processes is None else self._processes.sizes.pool_size

    @property
    def mp_reserve_normal(self) -> int:
        """Places more there for NORMAL and above."""
        return 0 if self._processes is None else self._processes.sizes.reserve_normal

    @property
    def mp_reserve_high(self) -> int:
        """Places more there for HIGH and above."""
        return 0 if self._processes is None else self._processes.sizes.reserve_high

    @property
    def event_loop(self) -> asyncio.AbstractEventLoop | None:
        """The supervisor's own asyncio loop; None while it does not run."""
        return self._aloops.own.get_loop()

    # Schedulers.

    def register_async_scheduler(self, scheduler: Any) -> bool:
        """Run ``scheduler.loop()`` as a task of its loop, as ``register_scheduler`` does."""
        return self._registry.register_scheduler(scheduler)
