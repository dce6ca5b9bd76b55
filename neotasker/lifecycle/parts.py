"""What a supervisor is made of, for a stop to take down, and the door that it closes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..base.clock import Clock
from ..errors import SupervisorNotStarted
from ..loops.table import AloopTable
from ..observe.watch import LaunchWatch
from ..pool.pool import SupervisedPool
from ..timing.delays import DelayedTasks
from ..timing.ticker import Ticker
from .registry import Registry

if TYPE_CHECKING:
    from ..pool.processes import ProcessPool

__all__ = ["Door", "Parts"]


class Door:
    """Says why a supervisor takes no work, and lets its own workers finish theirs.

    Holds nothing but that, so that the pool, which asks it, does not keep a
    supervisor alive that nobody holds.
    """

    def __init__(self, supervisor_id: str) -> None:
        self._id = supervisor_id
        self._admitted = threading.local()
        self.stopping = False
        self.lets_workers_finish = False

    def error(self, what: str) -> SupervisorNotStarted:
        """Return the exception for a use of *what*."""
        if self.stopping:
            return SupervisorNotStarted(
                f"supervisor {self._id} is stopping, {what} is refused: "
                "call start() again when stop() has returned"
            )
        return SupervisorNotStarted(
            f"supervisor {self._id} does not run, {what} is refused: call start() first"
        )

    def refusal(self) -> Exception | None:
        """Return what a submission gets, None to let it pass: what the pool asks."""
        return None if getattr(self._admitted, "now", False) else self.error("a task")

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Let the submissions of this thread pass."""
        self._admitted.now = True
        try:
            yield
        finally:
            self._admitted.now = False


class Parts(SimpleNamespace):
    """What a supervisor is made of, for the stop to take down."""

    title: str
    door: Door
    pool: SupervisedPool
    processes: ProcessPool | None
    ticker: Ticker
    clock: Clock
    delayed: DelayedTasks
    watch: LaunchWatch
    aloops: AloopTable
    registry: Registry
    job_schedulers: Callable[[], Iterable[Any]]
    threads: Callable[[], Iterable[threading.Thread]]
