"""`Runs`: what a life asks of the driver that makes its runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..timing.loopclock import Timing

__all__ = ["Runs", "RunsFactory"]


class Runs(Protocol):
    """How runs are made: the driver of a `SerialLife`, a ``SerialCore``."""

    owed: int
    not_before: float
    pending: bool
    open: bool
    late: bool

    task: Any
    """The latest run, for those who want to look."""

    @property
    def idle(self) -> bool: ...

    @property
    def queued(self) -> bool: ...

    def take_idle(self) -> bool: ...

    def put_idle(self) -> None: ...

    def take_queued(self) -> bool: ...

    def put_queued(self) -> None: ...

    def claim(self) -> bool: ...

    def give_back(self) -> None: ...

    def prompt(self, hold: bool = False) -> bool: ...

    def trigger(self) -> bool: ...

    def fire(self) -> None: ...

    clock: Timing
    """Where timers are set whose callbacks may call `enter_due`."""

    def begin(self) -> None:
        """Be ready for runs."""

    def enter(self) -> None:
        """Have a run begin soon, one that was claimed: from any thread."""

    def enter_due(self) -> None:
        """Do the same in the callback of a timer of `clock`."""

    def conclude(self) -> None:
        """End the life, which is closed, and no run is on: from any thread."""

    def inside(self) -> bool:
        """Return whether the caller is in a run."""

    async def serve(self) -> None:
        """Make the runs in the task that calls this."""


RunsFactory = Callable[[Any], Runs]
"""Makes the driver of a life."""
