"""An in-process task supervisor: a thread pool with priority reserves, aloops, workers, jobs.

``task_supervisor`` is the default supervisor, made at import; `TaskSupervisor` makes more.
"""

from __future__ import annotations

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
from .jobs import AsyncJob, AsyncJobScheduler
from .pool import ExecutorPool, Lane, TaskPool
from .priority import TASK_CRITICAL, TASK_HIGH, TASK_LOW, TASK_NORMAL, Priority
from .stop import StopReport
from .supervisor import TaskSupervisor
from .task import Task, TaskStatus
from .workers import (
    BackgroundAsyncWorker,
    BackgroundEventWorker,
    BackgroundIntervalWorker,
    BackgroundQueueWorker,
    BackgroundWorker,
    background_worker,
)
from .workers import base as _base

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
    "UnknownAloop",
    "UnknownScheduler",
    "WorkerNotStarted",
    "background_worker",
    "spawn",
    "spawn_ajob",
    "task_supervisor",
]

task_supervisor = TaskSupervisor("default")
spawn = task_supervisor.spawn
spawn_ajob = task_supervisor.create_async_job

_base.default_host = lambda: task_supervisor
