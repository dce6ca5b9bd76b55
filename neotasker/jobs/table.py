"""The table of a supervisor's async job schedulers."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from ..base.report import Reporter
from ..errors import AloopError, UnknownScheduler
from ..host import Host
from ..loops.aloop import ALoop

if TYPE_CHECKING:
    from .scheduler import AsyncJobScheduler

__all__ = ["JobSchedulerTable"]

logger = Reporter("neotasker")

_RESERVED = "__supervisor__"


class JobSchedulerTable:
    """The job schedulers of one supervisor by name, and the default one.

    The lock protects the table; no scheduler is started or stopped under it.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.RLock()
        self._by_name: dict[str, AsyncJobScheduler] = {}
        self.default: AsyncJobScheduler | None = None

    def create(
        self, name: str, aloop: ALoop | str | None, start: bool, default: bool
    ) -> AsyncJobScheduler | Literal[False]:
        """Make a job scheduler; see ``TaskSupervisor.create_async_job_scheduler``."""
        if not isinstance(name, str):
            raise TypeError(f"the name of a job scheduler must be a string, not {name!r}")
        if name == _RESERVED:
            raise AloopError(f"the name {_RESERVED!r} is reserved: choose another")
        if start:
            self._host.require_started(f"job scheduler {name!r}")
        from .scheduler import AsyncJobScheduler  # not before somebody wants one

        scheduler = AsyncJobScheduler(name, self._host, aloop)
        with self._lock:
            if self._by_name.setdefault(name, scheduler) is not scheduler:
                logger.error(
                    "supervisor %s async job scheduler %s already exists", self._host.id, name
                )
                return False
        if start:
            try:
                scheduler.start()
            except BaseException:
                with self._lock:
                    del self._by_name[name]
                raise
        if default:
            self.default = scheduler
        return scheduler

    def all(self) -> dict[str, AsyncJobScheduler]:
        """Return the job schedulers by name: a copy."""
        with self._lock:
            return dict(self._by_name)

    def find(self, scheduler: AsyncJobScheduler | str | None) -> AsyncJobScheduler:
        """Return the scheduler that is meant, the default one for None.

        Raises:
            UnknownScheduler: there is none of that name, or no default one.
        """
        if scheduler is None:
            if self.default is None:
                raise UnknownScheduler(
                    f"supervisor {self._host.id} has no default async job scheduler: make one "
                    "with create_async_job_scheduler(name, default=True), or name one"
                )
            return self.default
        if isinstance(scheduler, str):
            known = self.all()
            if scheduler not in known:
                there = f"there are {', '.join(sorted(known))}" if known else "there are none"
                raise UnknownScheduler(
                    f"supervisor {self._host.id} has no async job scheduler {scheduler!r} "
                    f"({there}): make it with create_async_job_scheduler({scheduler!r})"
                )
            return known[scheduler]
        return scheduler

    def abandon(self) -> None:
        """Forget all: in a forked child."""
        self._lock = threading.RLock()
        for scheduler in self._by_name.values():
            scheduler._abandon()
        self._by_name.clear()
        self.default = None
