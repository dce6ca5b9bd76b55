"""An in-process task supervisor: a thread pool with priority reserves, aloops, workers, jobs.

``task_supervisor`` is the default supervisor, made at import; `TaskSupervisor` makes more.
"""

from __future__ import annotations

import sys

from .compat.older_paths import HOMES as _OLDER_PATHS
from .compat.older_paths import OlderPaths as _OlderPaths

# First of all: while the rest is imported other threads may ask for modules by older paths.
if _OlderPaths not in sys.meta_path:  # it is there when this is loaded again
    sys.meta_path.append(_OlderPaths)

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import host as _host
from .base.priority import TASK_CRITICAL, TASK_HIGH, TASK_LOW, TASK_NORMAL, Priority
from .base.progress import TT_COROUTINE, TT_MP, TT_THREAD, TaskType
from .core import COMPILED
from .errors import (
    AloopError,
    NeotaskerError,
    QueueFull,
    SupervisorNotStarted,
    UnknownAloop,
    UnknownScheduler,
    WorkerNotStarted,
)
from .lifecycle.stop import StopReport
from .localproxy import LocalProxy
from .loops.aloop import ALoop
from .pool.pool import ExecutorPool, TaskPool
from .pool.task import (
    TASK_STATUS_CANCELED,
    TASK_STATUS_COMPLETED,
    TASK_STATUS_DELAYED,
    TASK_STATUS_FAILED,
    TASK_STATUS_QUEUED,
    TASK_STATUS_STARTED,
    Task,
    TaskStatus,
)
from .pool.views import Lane
from .supervisor import TaskSupervisor
from .timing.ticker import Ticker, Timer

if TYPE_CHECKING:
    from .compat.background import background_task, co_mp_apply, wait_completed
    from .functions import FunctionCollection, TaskCollection
    from .jobs.scheduler import AsyncJob, AsyncJobScheduler
    from .locker import Locker
    from .pool.processes import ProcessPool
    from .workers import (
        BackgroundAsyncWorker,
        BackgroundEventWorker,
        BackgroundIntervalWorker,
        BackgroundQueueWorker,
        BackgroundWorker,
        background_worker,
    )

__version__ = "0.1.0"
__author__ = "the neotasker developers"
__license__ = "MIT"

__all__ = [
    "COMPILED",
    "TASK_CRITICAL",
    "TASK_HIGH",
    "TASK_LOW",
    "TASK_NORMAL",
    "TASK_STATUS_CANCELED",
    "TASK_STATUS_COMPLETED",
    "TASK_STATUS_DELAYED",
    "TASK_STATUS_FAILED",
    "TASK_STATUS_QUEUED",
    "TASK_STATUS_STARTED",
    "TT_COROUTINE",
    "TT_MP",
    "TT_THREAD",
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
    "FunctionCollection",
    "Lane",
    "LocalProxy",
    "Locker",
    "NeotaskerError",
    "Priority",
    "ProcessPool",
    "QueueFull",
    "StopReport",
    "SupervisorNotStarted",
    "Task",
    "TaskCollection",
    "TaskPool",
    "TaskStatus",
    "TaskSupervisor",
    "TaskType",
    "Ticker",
    "Timer",
    "UnknownAloop",
    "UnknownScheduler",
    "WorkerNotStarted",
    "background_task",
    "background_worker",
    "co_mp_apply",
    "g",
    "set_debug",
    "spawn",
    "spawn_ajob",
    "task_supervisor",
    "wait_completed",
]

task_supervisor = TaskSupervisor("default")
"""The default supervisor."""

spawn = task_supervisor.spawn
"""``task_supervisor.spawn``: good for life, whatever becomes of the pool."""

spawn_ajob = task_supervisor.create_async_job
"""``task_supervisor.create_async_job``."""

g = LocalProxy()
"""A namespace of which each thread sees its own copy."""

_host.default = lambda: task_supervisor

# What is imported when it is first asked for, as not every program has all of it.
_HOMES = {
    "AsyncJob": "jobs.job",
    "AsyncJobScheduler": "jobs.scheduler",
    "FunctionCollection": "functions",
    "Locker": "locker",
    "ProcessPool": "pool.processes",
    "TaskCollection": "functions",
    "background_task": "compat.background",
    "co_mp_apply": "compat.background",
    "wait_completed": "compat.background",
}
_WORKERS = (
    "BackgroundAsyncWorker",
    "BackgroundEventWorker",
    "BackgroundIntervalWorker",
    "BackgroundQueueWorker",
    "BackgroundWorker",
    "background_worker",
)
_HOMES |= dict.fromkeys(_WORKERS, "workers")
_MODULES = {"cli", "embed", "f", "functions", "jobs", "locker", "testing", "workers"}

_level_before_debug: int | None = None


def set_debug(mode: bool = True) -> None:
    """Let the logger ``neotasker`` pass debug messages, or put it back to what it passed.

    Parameters:
        mode: whether to log them. A handler that takes them is the program's to set up.
    """
    global _level_before_debug
    for name in ("supervisor", "workers", "embed"):
        import_module(f"{__name__}.{name}").__dict__["debug"] = bool(mode)
    logger = logging.getLogger("neotasker")
    if mode:
        if _level_before_debug is None:
            _level_before_debug = logger.level
        logger.setLevel(logging.DEBUG)
    elif _level_before_debug is not None:
        logger.setLevel(_level_before_debug)
        _level_before_debug = None


def __dir__() -> list[str]:
    """Return the public names, those that are imported later among them."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import workers, jobs and the like when they are first asked for."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    home = _HOMES.get(name)
    if home is None:
        if name in _OLDER_PATHS:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
