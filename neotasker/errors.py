"""The public exceptions.

Each carries the value that was wrong and says the way out. They derive from the
standard exception that a caller would otherwise expect, so that ``except
RuntimeError`` or ``except queue.Full`` goes on working.
"""

from __future__ import annotations

import queue
from concurrent.futures import InvalidStateError

__all__ = [
    "AloopError",
    "NeotaskerError",
    "QueueFull",
    "SupervisorNotStarted",
    "UnknownAloop",
    "UnknownScheduler",
    "WorkerNotStarted",
]


class NeotaskerError(Exception):
    """Base of the exceptions that only this package raises."""


class SupervisorNotStarted(NeotaskerError, RuntimeError):
    """A task, worker, timer or scheduler was used while the supervisor does not run."""


class WorkerNotStarted(NeotaskerError, RuntimeError):
    """A worker was given an item or a trigger while it does not run."""


class AloopError(NeotaskerError, RuntimeError):
    """A coroutine was given to an aloop that does not run, or to itself to wait for."""


class UnknownAloop(NeotaskerError, LookupError):
    """No aloop of that name, or no default aloop where one is needed."""


class UnknownScheduler(NeotaskerError, LookupError):
    """No async job scheduler of that name, or no default one where one is needed."""


class QueueFull(NeotaskerError, queue.Full):
    """The bound on waiting tasks or items is reached and the caller asked not to wait."""


class UnexpectedState(InvalidStateError, RuntimeError):
    """A future was to run that runs or has finished: a `RuntimeError` in the standard."""
