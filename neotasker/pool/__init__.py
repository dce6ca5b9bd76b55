"""The pool: threads behind four lanes, tasks, and the way to executors of others."""

from __future__ import annotations

from ..base.known_as import parted
from . import views
from .pool import ExecutorPool, SupervisedPool, TaskPool, WhenFull, width_of
from .views import Lane

__all__ = ["ExecutorPool", "Lane", "SupervisedPool", "TaskPool", "WhenFull", "width_of"]

# Views are made of pools, and cannot import them: who reads type hints finds the name there.
vars(views)["TaskPool"] = TaskPool

parted(__name__, "neotasker.pool.pool", "neotasker.pool.views", "neotasker.base.priority")
