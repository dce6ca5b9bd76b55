"""`PooledTimer`: a timer whose callback runs in the pool."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from ..base.known_as import also_known_as, known_as, parted
from ..base.report import Reporter
from ..base.targets import INERT, check_callback, see_to_result
from ..core import Dispatcher
from ..errors import SupervisorNotStarted
from ..pool.task import Task
from .ticker import Missed, Ticker

__all__ = ["PooledTimer"]

logger = Reporter("neotasker")


@known_as("neotasker.timers")
class PooledTimer:
    """A timer whose callback runs in the pool, once or every *interval* seconds.

    Guarantees: no two runs of one timer at once, and no more than one waits for its
    turn. What falls due meanwhile follows the policy: ``'skip'`` counts it as missed
    and keeps the phase, ``'delay'`` counts it and starts a new phase when the run has
    ended, ``'burst'`` makes up for it run by run. An exception in the callback is
    logged; the timer goes on. Runs carry the context of who set the timer.

    The lock protects all fields. The ticker's lock may be taken inside it.
    """

    def __init__(
        self,
        ticker: Ticker,
        dispatcher: Dispatcher,
        delay: float,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        lane: int,
        interval: float | None = None,
        missed: Missed = "skip",
    ) -> None:
        """Set a timer; see ``TaskSupervisor.call_later`` and ``call_every``."""
        check_callback(fn)
        self.interval = interval
        self.runs = 0
        self._ticker = ticker
        self._dispatcher = dispatcher
        self._fn = fn
        self._args = args
        self._lane = lane
        self._policy = missed
        self._context = contextvars.copy_context()
        self._lock = threading.RLock()
        self._task: Task[Any] | None = None  # the run that waits or runs
        self._cancelled = False
        self._missed = 0
        self._told_of_result = False
        self._owed = 0  # fires to make up for
        self._late_since: float | None = None
        if interval is None:
            self._timer = ticker.call_later(delay, self._fire)
        else:
            self._timer = ticker.call_every(interval, self._fire, missed=missed)

    @property
    def when(self) -> float:
        """When the timer fires next: seconds of the ticker's clock."""
        return self._timer.when

    @property
    def active(self) -> bool:
        """Whether the timer will fire."""
        return not self._cancelled and (self._late_since is not None or self._timer.active)

    @property
    def missed(self) -> int:
        """How many fires were not followed by a run."""
        return self._missed + self._timer.missed

    def cancel(self) -> bool:
        """Keep the callback from running again; return False if it had no run left to do.

        A run that has begun goes on.
        """
        with self._lock:
            pending = self.active
            self._cancelled = True
            self._timer.cancel()
            task = self._task
        return task.cancel() or pending if task is not None else pending

    def _fire(self) -> None:
        with self._lock:
            if self._cancelled:
                return
            if self._task is not None:
                self._run_is_late()
                return
            self._task = task = self._make()
        self._enter(task)

    def _run_is_late(self) -> None:
        """Note a fire that fell due while a run was on. The lock is held."""
        if self._policy == "burst":
            self._owed += 1
        elif self._policy == "delay":
            self._late_since = self._ticker.now()
            self._timer.cancel()
        else:
            self._missed += 1

    def _make(self) -> Task[Any]:
        task: Task[Any] = self._context.run(
            self._dispatcher.make, self._fn, self._args, None, self._lane
        )
        self.runs += 1
        return task

    def _enter(self, task: Task[Any]) -> None:
        try:
            task.add_done_callback(self._ended)
            self._dispatcher.enqueue(task)
        except SupervisorNotStarted:  # it stops, and its timers with it
            self.cancel()
        except BaseException:  # the next fire makes another run
            task.cancel()
            with self._lock:
                if self._task is task:
                    self._task = None
            raise

    def _ended(self, task: Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("exception in timer callback %r", self._fn, exc_info=error)
        elif not task.cancelled() and type(result := task.result()) not in INERT:
            see_to_result(self, "timer", self._fn, result, logger)
        again: Task[Any] | None = None
        with self._lock:
            self._task = None
            if self._cancelled:
                return
            if self._owed:
                again = self._task = self._make()
                self._owed -= 1
            elif self._late_since is not None and self.interval is not None:
                late = self._ticker.now() - self._late_since
                timer = self._ticker.call_every(self.interval, self._fire, missed="delay")
                self._missed += 1 + int(late / self.interval) + self._timer.missed
                self._late_since = None
                self._timer = timer
        if again is not None:
            self._enter(again)

    def __repr__(self) -> str:
        every = "once" if self.interval is None else f"every {self.interval} s"
        state = "active" if self.active else "done"
        return f"<{type(self).__name__} of {self._fn!r} {every}, {state}>"


also_known_as("neotasker.timers", __name__)
parted(__name__, "neotasker.timing.delays", "neotasker.base.seconds")
