"""Launch timeouts: says so when tasks wait too long to start."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..base.clock import monotonic
from ..base.report import Reporter
from ..base.spare import make_thread
from ..pool.pool import TaskPool
from ..pool.task import Task
from ..timing.ticker import Ticker, Timer

__all__ = ["LaunchWatch"]

logger = Reporter("neotasker")

_LEVELS = ((1, logging.WARNING), (2, logging.CRITICAL))
_MOST_LINES = 10  # of one look; a flooded pool must not flood the log as well


class LaunchWatch:
    """Watches for tasks that have not started within the warning and the critical age.

    Guarantees: each task is reported once per level, no later than one tick after it
    is due. Log lines and hooks come from a thread of their own, as the pool is the
    very thing that is stuck and the tick has no time for them.

    Assumes: `arm` and `disarm` are called by the owner as it starts and stops.

    One timer is set for the soonest moment at which any task can be due: that of the
    first task in a lane, or, when none waits, one age from now.

    The lock protects the ages, the timer and the threads.
    """

    def __init__(
        self, title: str, pool: TaskPool, hook: Callable[[int, Task[Any]], object]
    ) -> None:
        """Make a watch.

        Parameters:
            title: what the log lines begin with.
            pool: whose tasks are watched.
            hook: called with the level (1: warning, 2: critical) and the task.
        """
        self._title = title
        self._pool = pool
        self._hook = hook
        self._lock = threading.RLock()
        self._ages: dict[int, float | None] = {1: 5.0, 2: 10.0}
        self._ticker: Ticker | None = None
        self._timer: Timer | None = None
        self._speakers: set[threading.Thread] = set()

    def age(self, level: int) -> float | None:
        """Return after how many seconds a level is reported; None: never."""
        return self._ages[level]

    def set_age(self, level: int, age: float | None) -> None:
        """Set after how many seconds a level is reported; None: never.

        Raises:
            TypeError: it is not a number.
            ValueError: it is not positive and finite.
        """
        if age is not None:
            if isinstance(age, bool) or not isinstance(age, (int, float)):
                raise TypeError(f"a launch timeout must be seconds or None, not {age!r}")
            if not 0 < age < math.inf:
                raise ValueError(
                    f"a launch timeout must be positive and finite seconds, or None to "
                    f"have none, not {age!r}"
                )
        with self._lock:
            self._ages[level] = age
            ticker = self._ticker
        if ticker is not None:
            self.arm(ticker)

    def arm(self, ticker: Ticker) -> None:
        """Watch, with a timer of *ticker*."""
        with self._lock:
            self._ticker = ticker
        self._look()

    def disarm(self) -> None:
        """Watch no more; what was found is reported still."""
        with self._lock:
            self._ticker = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def speakers(self) -> list[threading.Thread]:
        """Return the threads that report still."""
        with self._lock:
            return list(self._speakers)

    def abandon(self) -> None:
        """Forget the timer and the lock: in a forked child."""
        self._lock = threading.RLock()
        self._ticker = self._timer = None
        self._speakers.clear()

    def _look(self) -> None:
        """Report what is due, and set the timer for what will be: on the tick."""
        found: list[tuple[int, int, list[Task[Any]]]] = []
        with self._lock:
            ticker = self._ticker
            if ticker is None:
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pauses = []
            now = monotonic()  # the clock of `overdue`
            for level, severity in _LEVELS:
                age = self._ages[level]
                if age is None:
                    continue
                tasks, soonest = self._pool._crew.dispatcher.overdue(level, age)
                if tasks:
                    found.append((level, severity, tasks))
                pauses.append(age if soonest is None else min(age, max(0.0, soonest - now)))
            if pauses:
                self._timer = ticker.call_later(min(pauses), self._look)
            if not found:
                return
            name = f"{self._title} watch".replace(" ", "_")
            speaker = make_thread(name, partial(self._speak, found))
            self._speakers.add(speaker)
        try:
            speaker.start()
        except RuntimeError:  # there is no thread to be had: better on the tick than not at all
            self._speak(found)
            with self._lock:
                self._speakers.discard(speaker)

    def _speak(self, found: list[tuple[int, int, list[Task[Any]]]]) -> None:
        try:
            for level, severity, tasks in found:
                self._log(level, severity, tasks)
                for task in tasks:
                    try:
                        self._hook(level, task)
                    except BaseException:
                        logger.exception("%s: exception in a launch timeout hook", self._title)
        finally:
            with self._lock:
                self._speakers.discard(threading.current_thread())

    def _log(self, level: int, severity: int, tasks: list[Task[Any]]) -> None:
        pool = self._pool
        sizes = pool.sizes
        figures = pool._crew.dispatcher.figures()
        state = (
            f"{figures['active']} run and {sum(figures['waiting'])} wait in a pool of "
            f"{sizes.pool_size}+{sizes.reserve_normal}+{sizes.reserve_high} with "
            f"{figures['threads']} threads: raise its size or the reserves "
            "(set_thread_pool), give what is urgent a higher priority, or make the "
            "tasks that run shorter"
        )
        for task in tasks[:_MOST_LINES]:
            logger.log(
                severity,
                "%s: %s has waited more than %s s to start; %s",
                self._title,
                describe(task),
                self._ages[level],
                state,
            )
        if len(tasks) > _MOST_LINES:
            logger.log(
                severity,
                "%s: and so have %d other tasks",
                self._title,
                len(tasks) - _MOST_LINES,
            )


def describe(task: Task[Any]) -> str:
    """Return a task's id, target and priority, for people to read."""
    fn = task._get_call()[0]
    name = "started by now" if fn is None else getattr(fn, "__qualname__", None) or repr(fn)
    return f"task {task.id} ({name}, {task.priority.name})"
