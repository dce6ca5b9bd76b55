"""Queue workers: the worker, how it works through its items, and where they wait."""

from __future__ import annotations

from ...base.known_as import parted
from .worker import BackgroundQueueWorker, ItemQueue

__all__ = ["BackgroundQueueWorker", "ItemQueue"]

parted(__name__, "neotasker.workers.queue.worker")
