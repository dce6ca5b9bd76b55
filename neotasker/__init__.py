"""An in-process task supervisor."""

from __future__ import annotations

from ._accel import COMPILED
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
from .task import Task, TaskStatus
