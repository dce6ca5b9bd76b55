"""`Host`: what workers, job schedulers and the registry ask of a supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from .base.clock import Clock
from .core import Submitter, TaskCore, TickerCore

__all__ = ["Host"]


class Host(Protocol):
    """The supervisor, as those see it whom it hosts.

    A test may host a worker on something smaller.
    """

    id: str
    poll_delay: float
    clock: Clock

    @property
    def active(self) -> bool:
        """Whether the host takes work."""

    @property
    def ticker(self) -> TickerCore:
        """The clockwork of the host."""

    @property
    def thread_pool(self) -> Any:
        """The pool; its ``executor`` is None while it runs tasks in threads of its own."""

    def require_started(self, what: str) -> None:
        """Raise `SupervisorNotStarted`, naming *what* needs the host, unless it runs."""

    def enqueue(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: int,
    ) -> TaskCore:
        """Queue a run that was accepted before: never blocks, ignores the queue's bound.

        Raises:
            SupervisorNotStarted: the host does not run.
        """

    def lane(self, priority: int) -> Submitter:
        """Return a view of one lane of the pool."""

    def resolve_aloop(self, loop: Any) -> Any:
        """Return the aloop or asyncio loop that is meant; None: the host's default.

        Raises:
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """

    def start_thread(self, name: str, target: Callable[[], object]) -> threading.Thread:
        """Start a thread for a worker, and wait for it when the host stops."""

    def register_sync_scheduler(self, scheduler: Any) -> bool:
        """Stop *scheduler* with the host."""

    def unregister_sync_scheduler(self, scheduler: Any) -> bool:
        """Forget *scheduler*."""


default: Callable[[], Host] | None = None
"""Returns the supervisor of those that were given none; the package sets it."""
