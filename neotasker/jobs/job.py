"""`AsyncJob`: one job of a job scheduler: what is run, when, and how it went."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import Any, Literal

from ..base.known_as import also_known_as, known_as
from ..base.priority import TASK_NORMAL, lane_of
from ..base.report import Reporter
from ..base.seconds import epoch_of, interval_seconds, real_seconds, seconds
from ..base.targets import INERT, check_called, see_to_result
from ..core import JobCore, TimerCore
from ..pool.launcher import OwnRun, has_strayed, keeps_threads
from ..timing.cron import Cron
from ..timing.due import DueTimes
from ..timing.loopclock import Timing
from ..timing.ticker import Missed
from .frames import without_frames_of

__all__ = ["AsyncJob"]

logger = Reporter("neotasker")

Overlap = Literal["skip", "allow", "queue"]

_BEGUN = (None,)  # what `_on_done` is told of a run whose first step was made at once

_OVERLAPS = ("skip", "allow", "queue")
_POLICIES = ("skip", "delay", "burst")


@known_as("neotasker.job")
class AsyncJob(JobCore, OwnRun):
    """One job: what is run, when, and how it went.

    Guarantees: runs begin at due times only, never early; at most one at once unless
    ``overlap='allow'``. What fell due and had no run is counted in `missed`. A run that
    raises is logged and kept as `last_error`; the job goes on.

    The runs of a coroutine and what belongs to them are touched by the loop's thread
    alone; those of a plain function are protected by the scheduler's lock, as is the
    timer of both.
    """

    def __init__(
        self,
        scheduler: Any,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        interval: float | None = None,
        timer: float | None = None,
        number: int = 0,
        *,
        overlap: Overlap = "skip",
        missed: Missed = "skip",
        max_runs: int | None = None,
        until: datetime.datetime | float | None = None,
        cron: str | None = None,
        tz: str | datetime.tzinfo | None = None,
        priority: int = TASK_NORMAL,
        name: str | None = None,
    ) -> None:
        """Make a job; see `AsyncJobScheduler.create_threadsafe`."""
        kind = check_called("the target of a job", target)
        if overlap not in _OVERLAPS:
            raise ValueError(f"overlap must be 'skip', 'allow' or 'queue', not {overlap!r}")
        if missed not in _POLICIES:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        if cron is not None and interval is not None:
            raise ValueError(
                f"both cron ({cron!r}) and interval ({interval!r}) are given: choose one"
            )
        if tz is not None and cron is None:
            raise ValueError(f"tz={tz!r} is for cron=, which was not given")
        lane_of(priority)
        super().__init__()
        self.target = target
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self.interval = (
            None
            if interval is None
            else interval_seconds("interval", real_seconds("interval", interval))
        )
        self.timer = 0.0 if timer is None else seconds("timer", real_seconds("timer", timer))
        self.number = _count("number", number, 0)
        self.overlap = overlap
        self.priority = priority
        self.name = name or getattr(target, "__name__", None) or type(target).__name__
        self.last_error: BaseException | None = None
        """The exception of the latest run that has failed."""
        self._limit = min(
            self.number or math.inf,
            math.inf if max_runs is None else _count("max_runs", max_runs, 1),
        )
        self._cron = None if cron is None else Cron(cron, tz)
        self._due: DueTimes | None = None
        if self.interval is None and self._cron is None:
            if self._limit not in (1, math.inf):
                raise ValueError(
                    f"a job that is to run {self._limit} times needs interval= or cron="
                )
            self._limit = 1
        self._until = epoch_of(until)
        self._policy: Missed = missed
        self._is_async = kind in ("async", "awaitable")
        self._told_of_result = False
        self._scheduler = scheduler
        self._lock = scheduler._lock
        self._context = contextvars.copy_context()
        self._id: str | None = None
        self._active = True
        self._armed: TimerCore | None = None
        self._missed = 0
        self._owed = 0  # runs that the queue of overlap='queue' holds
        self._late = False  # something was missed since the phase began
        self._call = self.target
        if self.args or self.kwargs:
            self._call = partial(self.target, *self.args, **self.kwargs)
        self._is_simple = (
            kind == "async" and overlap != "allow" and until is None and self._limit == math.inf
        )

    # Looking.

    @property
    def id(self) -> str:
        """A UUID."""
        if self._id is None:
            self._id = str(uuid.uuid4())
        return self._id

    @property
    def active(self) -> bool:
        """Whether the job will run again, once its scheduler does."""
        return self._active

    @property
    def running(self) -> int:
        """How many runs are on."""
        return self._running

    @property
    def missed(self) -> int:
        """How many times the job fell due and was not run."""
        armed = self._armed
        return self._missed + (0 if armed is None else armed.missed)

    @property
    def last_start(self) -> datetime.datetime | None:
        """When the latest run began."""
        return None if self._began is None else self._moment(self._began)

    @property
    def next_run(self) -> datetime.datetime | None:
        """When the job is due next, in the zone of its cron, else in UTC; None: not at all."""
        armed = self._armed
        if not self._active or armed is None:
            return None
        if self._cron is not None:
            return self._cron.next
        return self._moment(armed.when)

    def _moment(self, when: float) -> datetime.datetime:
        """Return a time of the ticker's clock as one of the calendar."""
        host = self._scheduler._host
        seconds = host.clock.time() + when - host.ticker.now()
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)

    def cancel(self) -> bool:
        """Let no further run begin; return False if there was none to come.

        A run that is on goes on.
        """
        with self._lock:
            if not self._active:
                return False
            self._finish()
            return True

    def _abandon(self) -> None:
        """Be without a timer and without runs: in a forked child."""
        self._lock = self._scheduler._lock
        self._armed = None
        self._ready = False
        self._owed = self._running = 0

    def __repr__(self) -> str:
        if self._cron is not None:
            when = f"cron {self._cron.expression!r}"
        elif self.interval is not None:
            when = f"every {self.interval:g} s"
        else:
            when = "once"
        state = "active" if self._active else "done"
        return f"<{type(self).__name__} {self.name} {when}, {self.runs} runs, {state}>"

    # Timing.

    def _arm(self) -> None:
        """Set the timer: at first, and when the scheduler starts again. The lock is held."""
        if not self._active:
            return
        scheduler = self._scheduler
        first = self.timer if not self.runs or self.interval is None else self.interval
        if self._cron is not None:
            self._due = DueTimes(self._cron, scheduler._host.clock, self.timer)
            self._arm_cron()
        elif self.interval is None:
            self._armed = self._clock().call_later(first, self._fire)
        else:
            fire = self._fire
            if self._is_simple:
                fire = self._fire_coroutine
                maker, ticker = scheduler._task_maker, scheduler._host.ticker
                self._stage(self._call, self.name, self._context, maker, ticker)
            self._armed = self._clock().call_every(
                self.interval, fire, missed=self._policy, first=first
            )
            self._ready = True
        if not (self._active and scheduler._active):  # a signal handler came in between
            self._disarm()

    def _clock(self) -> Timing:
        """Return the clock that calls where the job begins its runs."""
        scheduler = self._scheduler
        on_loop = self._is_async or self._cron is not None
        clock: Timing = scheduler._loop_clock() if on_loop else scheduler._host.ticker
        return clock

    def _arm_cron(self) -> None:
        cron, due = self._cron, self._due
        assert cron is not None and due is not None
        moment = cron.next
        if moment is None or (self._until is not None and moment.timestamp() > self._until):
            self._finish()
            return
        self._armed = self._clock().call_later(due.pause(), self._look)

    def _disarm(self) -> None:
        self._ready = False
        armed, self._armed = self._armed, None
        if armed is not None:
            armed.cancel()
            self._missed += armed.missed

    def _finish(self) -> None:
        """Be done: nothing will be due any more. The lock is held."""
        self._active = False
        self._owed = 0
        self._disarm()
        self._scheduler._forget(self)

    def _look(self) -> None:
        """See what the clock of the wall says of a cron job: in the loop."""
        with self._lock:
            due = self._due
            if not self._active or self._armed is None or due is None:
                return
            fires, missed = due.take(self._policy == "burst")
            self._missed += missed
            self._arm_cron()
        for _ in range(fires):
            self._begin()

    def _fire(self) -> None:
        """Begin the run that is due: on the tick, or in the loop."""
        if self._until is not None and self._scheduler._host.clock.time() > self._until:
            self.cancel()
        elif self._active:
            self._begin()

    def _begin(self) -> None:
        """Begin a run, unless the one before is in the way."""
        if self._is_async:
            if self._may_begin():
                self._launch()
            return
        with self._lock:
            begin = self._may_begin()
            if begin:  # from here on a stop waits for it
                self._scheduler._in_pool += 1
        if begin:
            self._hand_over()

    def _may_begin(self) -> bool:
        """Count a run that is about to begin, or what becomes of it if it may not."""
        if not self._scheduler._active or self.runs >= self._limit:
            return False
        if self._running and self.overlap != "allow":
            if self.overlap == "queue":
                self._owed += 1
            else:
                self._missed += 1
                self._late = True
            return False
        self.runs += 1
        self._running += 1
        if self.runs >= self._limit and self._active:
            with self._lock:
                self._finish()
        return True

    def _may_go_on(self) -> bool:
        """See to what was passed over in a run that has ended; return whether to begin one."""
        if self._late:
            self._late = False
            if self._policy == "delay" and self.interval is not None:
                with self._lock:
                    if self._active and self._armed is not None:
                        # First, as there may be no memory for it.
                        armed = self._clock().call_every(
                            self.interval, self._fire, missed="delay"
                        )
                        self._disarm()
                        self._armed = armed
        if not self._owed:
            return False
        self._owed -= 1
        return self._may_begin()

    # Runs of coroutines, in the loop.

    def _stays_on(self, began: float, task: asyncio.Task[Any]) -> None:
        """See to a run that has begun, and waits for something."""
        self._scheduler._on_loop += 1
        try:
            self._scheduler._gate.hold(task, began)
            task.add_done_callback(partial(self._on_done, began, _BEGUN))
        except BaseException:  # nobody would hear of its end
            task.cancel()
            self._landed(began)
            raise

    def _launch(self) -> None:
        """Begin a run that was counted already."""
        scheduler = self._scheduler
        scheduler._on_loop += 1
        began = 0.0
        begun: list[None] = []
        coro = task = None
        try:
            self._began = began = scheduler._now()
            coro = self._run_on_loop(begun)
            task = scheduler._gate.create_task(
                coro, name=self.name, context=self._context.copy(), since=began
            )
            task.add_done_callback(partial(self._on_done, began, begun))
        except BaseException as exc:  # the loop has a task factory of the user's
            if task is not None:
                task.cancel()
            elif coro is not None:
                coro.close()
            try:
                self._failed(exc)
            finally:
                self._landed(began)
        finally:
            coro = task = None  # frames of an eager first step lead here

    async def _run_on_loop(self, begun: list[None]) -> None:
        begun.append(None)
        await self._call()

    def _on_done(self, began: float, begun: Sequence[None], task: asyncio.Task[Any]) -> None:
        if not begun:  # it was cancelled before its first step
            self.runs -= 1
            self._missed += 1
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._failed(error)
        self._landed(began)

    def _landed(self, began: float) -> None:
        scheduler = self._scheduler
        self._running -= 1
        scheduler._on_loop -= 1
        self.last_duration = scheduler._now() - began
        if (self._owed or self._late) and self._may_go_on():
            self._launch()
        elif scheduler._parked and not scheduler._on_loop:
            # Who parks has the loop look once after that.
            scheduler._look_at_parked()

    # Runs of plain functions, in the pool.

    def _hand_over(self) -> None:
        """Hand a run to the pool that was counted already."""
        scheduler = self._scheduler
        host = scheduler._host
        here = keeps_threads(host.thread_pool.executor)
        call = self._run if here else self._call
        try:
            task: Any = self._context.copy().run(host.enqueue, call, (), None, self.priority)
        except Exception as exc:  # the supervisor is going down, or worse
            self.was_not_run(exc)
        else:
            if not here:
                self._began = scheduler._now()
            task.add_done_callback(self._on_task_done if here else self._came_back)

    def _on_task_done(self, task: Any) -> None:
        if task.cancelled():
            self.was_not_run(None)

    def was_not_run(self, error: BaseException | None) -> None:
        """Count the run as missed: it was counted as one before it began."""
        if has_strayed(error, self._scheduler._host.thread_pool.executor):
            self._hand_over()
            return
        if error is not None:
            logger.error("job %s could not be run: %s", self.name, error)
        with self._lock:
            self.runs -= 1
            self._missed += 1
        self._ended()

    def _came_back(self, task: Any) -> None:
        """See to a run that was made in another process."""
        if task.cancelled():
            self.was_not_run(None)
            return
        error = task.exception()
        if error is not None:
            self._failed(error)
        self.last_duration = self._scheduler._now() - self._began
        self._ended()

    def _run(self) -> None:
        scheduler = self._scheduler
        ident = get_ident()
        try:
            scheduler._threads.add(ident)
            self._began = began = scheduler._now()
            try:
                result = self._call()
                if type(result) not in INERT:
                    see_to_result(self, f"job {self.name}", self.target, result, logger)
            except BaseException as exc:
                self._failed(exc)
            self.last_duration = scheduler._now() - began
        finally:
            scheduler._threads.discard(ident)
            self._ended()

    def _ended(self) -> None:
        again = False
        with self._lock:
            self._running -= 1
            try:
                again = self._may_go_on()
            finally:
                if not again:
                    self._scheduler._count_out_of_pool()
        if again:
            self._hand_over()

    def _failed(self, exc: BaseException) -> None:
        self.last_error = without_frames_of(exc, globals())
        logger.error("exception in job %s", self.name, exc_info=exc)


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


also_known_as("neotasker.job", __name__)
