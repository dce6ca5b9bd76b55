"""An in-process task supervisor: a thread pool with priority reserves, aloops, workers, jobs.

``task_supervisor`` is the default supervisor, made at import; `TaskSupervisor` makes more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import host as _host
from ._accel import COMPILED
from .aloop import ALoop
from .errors import (
    AloopError,
    NeotaskerError,
    QueueFull,
    SupervisorNotStarted,
    UnknownAloop,
    UnknownScheduler,
    WorkerNotStarted,
)
from .pool import ExecutorPool, Lane, TaskPool
from .priority import TASK_CRITICAL, TASK_HIGH, TASK_LOW, TASK_NORMAL, Priority
from .stop import StopReport
from .supervisor import TaskSupervisor
from .task import Task, TaskStatus
from .ticker import Ticker, Timer

if TYPE_CHECKING:
    from .jobs import AsyncJob, AsyncJobScheduler
    from .workers import (
        BackgroundAsyncWorker,
        BackgroundEventWorker,
        BackgroundIntervalWorker,
        BackgroundQueueWorker,
        BackgroundWorker,
        background_worker,
    )

__version__ = "0.1.0"

__all__ = [
    "COMPILED",
    "TASK_CRITICAL",
    "TASK_HIGH",
    "TASK_LOW",
    "TASK_NORMAL",
    "ALoop",
    "AloopError",
    "AsyncJob",
    "AsyncJobScheduler",
    "BackgroundAsyncWorker",
    "BackgroundEventWorker",
    "BackgroundIntervalWorker",
    "BackgroundQueueWorker",
    "BackgroundWorker",
    "ExecutorPool",
    "Lane",
    "NeotaskerError",
    "Priority",
    "QueueFull",
    "StopReport",
    "SupervisorNotStarted",
    "Task",
    "TaskPool",
    "TaskStatus",
    "TaskSupervisor",
    "Ticker",
    "Timer",
    "UnknownAloop",
    "UnknownScheduler",
    "WorkerNotStarted",
    "background_worker",
    "spawn",
    "spawn_ajob",
    "task_supervisor",
]

task_supervisor = TaskSupervisor("default")
"""The default supervisor."""

spawn = task_supervisor.spawn
"""``task_supervisor.spawn``: good for life, whatever becomes of the pool."""

spawn_ajob = task_supervisor.create_async_job
"""``task_supervisor.create_async_job``."""

_host.default = lambda: task_supervisor


def __getattr__(name: str) -> Any:
    """Import workers and jobs when they are first asked for: not every program has both."""
    home = "jobs" if name in ("AsyncJob", "AsyncJobScheduler", "jobs") else "workers"
    if name not in __all__ and name != home:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{home}")
    if name == home:
        return module
    value = globals()[name] = getattr(module, name)
    return value
