"""`DelayedTasks`: the tasks that enter their lane later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any

from ..core import Dispatcher
from ..errors import SupervisorNotStarted
from ..pool.task import Task, cancel_all
from .ticker import Ticker

__all__ = ["DelayedTasks"]


class DelayedTasks:
    """The tasks that enter their lane later.

    Guarantees: each enters its lane when its time has come, or is cancelled. A task
    that is cancelled takes its timer with it. None is taken from `cancel_all` to `open`.

    The lock protects the set of those that wait, and whether they are taken.
    """

    def __init__(self, ticker: Ticker, dispatcher: Dispatcher) -> None:
        self._ticker = ticker
        self._dispatcher = dispatcher
        self._lock = threading.RLock()
        self._waiting: set[Task[Any]] = set()
        self._closed = False
        self._abandoned = False  # the ticker is the parent's

    def open(self) -> None:
        """Take tasks again."""
        with self._lock:
            self._closed = False

    def add(self, task: Task[Any], delay: float, dispatcher: Dispatcher | None = None) -> None:
        """Let *task* enter its lane in *delay* seconds.

        Parameters:
            task: the task.
            delay: seconds.
            dispatcher: whose lane it is; that of the threads when left out.

        Raises:
            SupervisorNotStarted: the supervisor stops.
        """
        with self._lock:
            if self._closed:
                raise SupervisorNotStarted(
                    "the supervisor is stopping, a delayed task is refused: put it before "
                    "stop(), or after the next start()"
                )
            self._waiting.add(task)
        timer = None
        try:
            enter = (dispatcher or self._dispatcher).enqueue
            timer = self._ticker.call_later(delay, self._enter, task, enter)
            task.add_done_callback(partial(self._ended, timer))
        except BaseException:  # nobody will have the task
            if timer is not None:
                timer.cancel()
            with self._lock:
                self._waiting.discard(task)
            raise

    def _enter(self, task: Task[Any], enqueue: Callable[[Task[Any]], object]) -> None:
        with self._lock:
            if task not in self._waiting:
                return
            self._waiting.discard(task)
        try:
            enqueue(task)
        except SupervisorNotStarted:  # it stops
            task.cancel()
        except (RuntimeError, MemoryError) as exc:  # there is no thread for it, say
            with suppress(InvalidStateError):  # it was cancelled meanwhile
                task.set_exception(exc)
        except BaseException:
            task.cancel()
            raise

    def _ended(self, timer: Any, task: Task[Any]) -> None:
        if self._abandoned:
            return
        timer.cancel()
        with self._lock:
            self._waiting.discard(task)

    def cancel_all(self) -> int:
        """Cancel those that wait, and take no more; return how many there were."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        return cancel_all(waiting)

    def abandon(self) -> None:
        """Cancel the tasks, and leave the ticker alone: in a forked child."""
        self._lock = threading.RLock()
        waiting, self._waiting = self._waiting, set()
        self._abandoned = True
        for task in waiting:
            task._abandon()

    def __len__(self) -> int:
        return len(self._waiting)
