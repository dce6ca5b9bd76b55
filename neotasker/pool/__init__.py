"""The pool: threads behind four lanes, tasks, and the way to executors of others."""

from __future__ import annotations

from .pool import ExecutorPool, SupervisedPool, TaskPool, WhenFull, width_of
from .views import Lane

__all__ = ["ExecutorPool", "Lane", "SupervisedPool", "TaskPool", "WhenFull", "width_of"]
