"""Async jobs: what runs now and then, or at its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..base.known_as import parted

if TYPE_CHECKING:
    from .job import AsyncJob
    from .scheduler import AsyncJobScheduler

__all__ = ["AsyncJob", "AsyncJobScheduler"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: each supervisor has a table of job schedulers, few have any."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import scheduler

    value = globals()[name] = getattr(scheduler, name)
    return value


parted(__name__, "neotasker.jobs.scheduler")
