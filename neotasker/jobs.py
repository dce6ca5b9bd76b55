"""Async jobs: coroutines and calls by interval, timer or cron, in a scheduler on an aloop."""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import inspect
import logging
import math
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from threading import get_ident
from typing import Any, Literal

from ._accel import TimerCore
from .aloop import ForeignLoop, LoopGate, LoopPort
from .cron import Cron
from .errors import AloopError
from .host import Host
from .priority import TASK_NORMAL, lane_of

__all__ = ["AsyncJob", "AsyncJobScheduler"]

logger = logging.getLogger("neotasker")

Overlap = Literal["skip", "allow", "queue"]
Missed = Literal["skip", "delay", "burst"]

_OVERLAPS = ("skip", "allow", "queue")
_POLICIES = ("skip", "delay", "burst")

# Cron goes by the clock of the wall, which may be set and runs on while the machine is
# suspended: so a job looks at it again after that many seconds, however far its moment.
_CRON_NAP = 30.0
# After a suspension of years there is no telling how much was missed, but when to run next.
_CRON_STEPS = 10_000


class _Run:
    """One run of a coroutine."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began: float | None = None


class AsyncJob:
    """One job: what is run, when, and how it went.

    Guarantees: runs begin at due times only, never early; at most one at once unless
    ``overlap='allow'``. What fell due and had no run is counted in `missed`. A run that
    raises is logged and kept as `last_error`; the job goes on.

    Fields are protected by the scheduler's lock.
    """

    def __init__(
        self,
        scheduler: AsyncJobScheduler,
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
        if not callable(target):
            raise TypeError(f"the target of a job must be callable, not {target!r}")
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
        self.target = target
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self.interval = None if interval is None else _seconds("interval", interval, True)
        self.timer = 0.0 if timer is None else _seconds("timer", timer, False)
        self.number = _count("number", number, 0)
        self.overlap = overlap
        self.priority = priority
        self.name = name or getattr(target, "__name__", None) or type(target).__name__
        self.runs = 0
        self.last_error: BaseException | None = None
        """The exception of the latest run that has failed."""
        self.last_duration: float | None = None
        """How many seconds the latest run that has ended took."""
        self._limit = min(
            self.number or math.inf,
            math.inf if max_runs is None else _count("max_runs", max_runs, 1),
        )
        self._cron = None if cron is None else Cron(cron, tz)
        if self.interval is None and self._cron is None:
            if self._limit not in (1, math.inf):
                raise ValueError(
                    f"a job that is to run {self._limit} times needs interval= or cron="
                )
            self._limit = 1
        self._until = _epoch(until)
        self._policy: Missed = missed
        self._is_async = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
            getattr(target, "__call__", None)  # noqa: B004
        )
        self._scheduler = scheduler
        self._lock = scheduler._lock
        self._context = contextvars.copy_context()
        self._id: str | None = None
        self._active = True
        self._armed: TimerCore | None = None
        self._missed = 0
        self._owed = 0  # runs that the queue of overlap='queue' holds
        self._late = False  # something was missed since the phase began
        self._running = 0
        self._last_start: float | None = None

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
        return _datetime(self._last_start)

    @property
    def next_run(self) -> datetime.datetime | None:
        """When the job is due next, in the zone of its cron, else in UTC; None: not at all."""
        armed = self._armed
        if not self._active or armed is None:
            return None
        if self._cron is not None:
            return self._cron.next
        host = self._scheduler._host
        return _datetime(host.clock.time() + armed.when - host.ticker.now())

    def cancel(self) -> bool:
        """Let no further run begin; return False if there was none to come.

        A run that is on goes on.
        """
        with self._lock:
            if not self._active:
                return False
            self._finish()
            return True

    def __repr__(self) -> str:
        if self._cron is not None:
            when = f"cron {self._cron.expression!r}"
        elif self.interval is not None:
            when = f"every {self.interval:g} s"
        else:
            when = "once"
        state = "active" if self._active else "done"
        return f"<{type(self).__name__} {self.name} {when}, {self.runs} runs, {state}>"

    # Timing. The lock is held, but for what the ticker and the loop call.

    def _arm(self) -> None:
        """Set the timer: at first, and when the scheduler starts again."""
        if not self._active:
            return
        ticker = self._scheduler._host.ticker
        first = self.timer if not self.runs or self.interval is None else self.interval
        if self._cron is not None:
            self._cron.begin(self._scheduler._host.clock.time() + self.timer)
            self._arm_cron()
        elif self.interval is None:
            self._armed = ticker.call_later(first, self._due)
        else:
            self._armed = ticker.call_every(
                self.interval, self._due, missed=self._policy, first=first
            )

    def _arm_cron(self) -> None:
        cron, host = self._cron, self._scheduler._host
        assert cron is not None
        if cron.next is None or (
            self._until is not None and cron.next.timestamp() > self._until
        ):
            self._finish()
            return
        pause = cron.next.timestamp() - host.clock.time()
        self._armed = host.ticker.call_later(min(max(pause, 0.0), _CRON_NAP), self._due)

    def _disarm(self) -> None:
        armed, self._armed = self._armed, None
        if armed is not None:
            armed.cancel()
            self._missed += armed.missed

    def _finish(self) -> None:
        """Be done: nothing will be due any more."""
        self._active = False
        self._owed = 0
        self._disarm()
        self._scheduler._forget(self)

    def _due(self) -> None:
        """Go to where the run is to begin: on the tick."""
        if not self._is_async and self._cron is None:
            self._fire()
        elif not self._scheduler._post(self._fire if self._cron is None else self._look):
            with self._lock:
                self._missed += 1

    def _look(self) -> None:
        """See what the clock of the wall says: in the loop."""
        fires = 0
        with self._lock:
            cron, now = self._cron, self._scheduler._host.clock.time()
            assert cron is not None
            if not self._active or self._armed is None:
                return
            for _ in range(_CRON_STEPS):
                if cron.next is None or cron.next.timestamp() > now:
                    break
                if not fires or self._policy == "burst":
                    fires += 1
                else:
                    self._missed += 1
                cron.step()
            else:
                cron.begin(now)
            self._arm_cron()
        for _ in range(fires):
            self._fire(True)

    def _fire(self, anyway: bool = False) -> None:
        """Run, unless the run before is in the way.

        Parameters:
            anyway: even if the job's last due time has passed, as this is it.
        """
        with self._lock:
            if not self._scheduler._active or not (self._active or anyway):
                return
            until = self._until
            if until is not None and self._scheduler._host.clock.time() > until:
                if self._active:
                    self._finish()
                if self._cron is None:
                    return
            if self._running and self.overlap != "allow":
                if self.overlap == "queue":
                    self._owed += 1
                else:
                    self._missed += 1
                    self._late = True
                return
            if not self._take_off():
                return
        self._launch()

    def _take_off(self) -> bool:
        """Count a run that is about to begin; return False if there may be none."""
        if self.runs >= self._limit:
            return False
        self.runs += 1
        self._running += 1
        self._scheduler._running += 1
        if self.runs >= self._limit and self._active:
            self._finish()
        return True

    def _launch(self) -> None:
        scheduler = self._scheduler
        try:
            if self._is_async:
                run = _Run()
                create_task = partial(scheduler._create_task, self._run(run), self.name)
                self._context.run(create_task).add_done_callback(
                    partial(self._on_coroutine_done, run)
                )
            else:
                self._context.run(
                    scheduler._host.enqueue, self._run_plain, (), None, self.priority
                ).add_done_callback(self._on_task_done)
        except RuntimeError as exc:  # the loop, or the supervisor, is going down
            logger.error("job %s could not be run: %s", self.name, exc)
            self._ended(None)

    def _on_task_done(self, task: Any) -> None:
        if task.cancelled():
            self._ended(None)

    def _on_coroutine_done(self, run: _Run, task: asyncio.Task[Any]) -> None:
        if run.began is None:  # cancelled before its first step
            self._ended(None)

    # Runs.

    def _run_plain(self) -> None:
        threads = self._scheduler._threads
        ident = get_ident()
        threads.add(ident)
        began = self._began()
        try:
            self.target(*self.args, **self.kwargs)
        except BaseException as exc:
            self._failed(exc)
        finally:
            threads.discard(ident)
            self._ended(began)

    async def _run(self, run: _Run) -> None:
        began = run.began = self._began()
        try:
            await self.target(*self.args, **self.kwargs)
        except GeneratorExit:
            raise
        except BaseException as exc:
            task = asyncio.current_task()
            if isinstance(exc, asyncio.CancelledError) and task and task.cancelling():
                raise
            self._failed(exc)
        finally:
            self._ended(began)

    def _began(self) -> float:
        host = self._scheduler._host
        self._last_start = host.clock.time()
        return host.ticker.now()

    def _failed(self, exc: BaseException) -> None:
        self.last_error = exc
        logger.error("exception in job %s", self.name, exc_info=exc)

    def _ended(self, began: float | None) -> None:
        """Account for the end of a run, None if it has not come about."""
        scheduler = self._scheduler
        with self._lock:
            if began is not None:
                self.last_duration = scheduler._host.ticker.now() - began
            self._running -= 1
            if self._late:
                self._late = False
                if self._policy == "delay" and self.interval and self._armed is not None:
                    self._disarm()
                    self._armed = scheduler._host.ticker.call_every(
                        self.interval, self._due, missed="delay"
                    )
            again = self._owed > 0 and self._take_off()
            if again:
                self._owed -= 1
            scheduler._count_out()
        if again:
            self._launch()


class AsyncJobScheduler:
    """Runs jobs: coroutines on its aloop, plain functions in the pool.

    Guarantees: jobs that fall due together begin in one pass of the loop. No run begins
    after `stop`; jobs stay, and go on when it is started again.

    The lock protects the jobs and their fields. It is reentrant, as finalizers and signal
    handlers may cancel. Locks of the core may be taken inside it; no target runs under it.
    """

    def __init__(self, name: str, host: Host, aloop: Any = None) -> None:
        """Make a scheduler; `start` runs it.

        Parameters:
            name: in logs.
            host: the supervisor.
            aloop: an aloop, the name of one, or an asyncio loop, looked up at the start;
                the default one when left out.
        """
        self.name = name
        self._host = host
        self._given_loop = aloop
        self._lock = threading.RLock()
        self._port: LoopPort | None = None
        self._gate: LoopGate | None = None  # into the loop that runs were given to
        self._active = False
        self._jobs: dict[int, AsyncJob] = {}
        self._running = 0  # runs of all jobs that are on
        self._threads: set[int] = set()  # in which a plain target runs
        self._parked: list[threading.Lock] = []

    @property
    def id(self) -> str:
        """The name."""
        return self.name

    @property
    def active(self) -> bool:
        """Whether jobs are run."""
        return self._active

    @property
    def jobs(self) -> list[AsyncJob]:
        """The jobs that will run again; `AsyncJob.running` says which run now."""
        with self._lock:
            return list(self._jobs.values())

    @property
    def aloop(self) -> LoopPort | None:
        """The aloop, once started."""
        return self._port

    def start(self) -> bool:
        """Run the jobs.

        Returns:
            False if it does so already.

        Raises:
            SupervisorNotStarted: the supervisor does not run.
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """
        self._host.require_started(f"job scheduler {self.name}")
        loop = self._host.resolve_aloop(self._given_loop)
        port = loop if isinstance(loop, LoopPort) else ForeignLoop(loop)
        if not port.active:
            raise AloopError(f"job scheduler {self.name}: {port.name} does not run")
        with self._lock:
            if self._active:
                return False
            self._port = port
            self._active = True
            for job in list(self._jobs.values()):
                job._arm()
        return True

    def stop(self, wait: bool | float = True) -> bool:
        """Let no further run begin.

        Parameters:
            wait: True waits for the runs that are on, a number at most so many seconds,
                False not at all. In a run of its own, and in the thread of its loop,
                nothing is waited for.

        Returns:
            Whether all runs have ended.
        """
        with self._lock:
            self._active = False
            for job in self._jobs.values():
                job._disarm()
                job._owed = 0
        if not wait or self._inside():
            return not self._running
        return self._join(None if wait is True else float(wait))

    def _inside(self) -> bool:
        if get_ident() in self._threads:
            return True
        loop = None if self._port is None else self._port.get_loop()
        try:
            return asyncio.get_running_loop() is loop
        except RuntimeError:
            return loop is None

    def _join(self, timeout: float | None) -> bool:
        parker = threading.Lock()
        parker.acquire()
        with self._lock:
            if not self._running:
                return True
            self._parked.append(parker)
        if parker.acquire(timeout=-1 if timeout is None else timeout):
            return True
        with self._lock:
            if parker in self._parked:
                self._parked.remove(parker)
            return not self._running

    def create_threadsafe(self, target: Callable[..., Any], **job: Any) -> AsyncJob:
        """Make a job and run it from now on, or from the start of the scheduler: any thread.

        Parameters:
            target: a coroutine function, which runs on the aloop, or a plain function,
                which runs in the pool.
            args, kwargs: of the target.
            interval: seconds between two due times.
            timer: seconds until the first run; 0 when left out.
            number: how many times to run; 0: again and again. Without *interval* and
                *cron* a job runs once.
            max_runs: the same bound by another name.
            overlap: what follows when the job is due while a run of it is on: ``'skip'``
                counts it as missed, ``'queue'`` runs it afterwards, ``'allow'`` at once.
            missed: what follows when the tick is late by an interval or more: ``'skip'``
                keeps to the phase, ``'delay'`` begins a new one (also after a run that
                was in the way), ``'burst'`` makes up for it.
            until: a datetime, or seconds since the epoch: no run begins later.
            cron: an expression in place of *interval*; needs ``neotasker[cron]``.
            tz: the zone of *cron*, or its name; the machine's when left out.
            priority: of a plain function, in the pool.
            name: in logs; that of the target when left out.

        Raises:
            TypeError: the target cannot be called, or a value is of the wrong kind.
            ValueError: a value is out of range, or makes no sense beside another.
            ImportError: *cron* is given and ``cronsim`` is not installed.
        """
        made = AsyncJob(self, target, **job)
        with self._lock:
            self._jobs[id(made)] = made
            if self._active:
                made._arm()
        return made

    async def create(self, target: Callable[..., Any], **job: Any) -> AsyncJob:
        """Make a job, as `create_threadsafe` does; from a coroutine."""
        return self.create_threadsafe(target, **job)

    def cancel(self, job: AsyncJob) -> bool:
        """Let no further run of *job* begin; return False if there was none to come."""
        return job.cancel()

    def __repr__(self) -> str:
        state = "active" if self._active else "stopped"
        return f"<{type(self).__name__} {self.name} {state}, {len(self._jobs)} jobs>"

    # What jobs ask of it.

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have *callback* called in the loop; return False if it does not run."""
        gate = None if self._port is None else self._port._gate
        if gate is None:
            return False
        if gate is not self._gate:
            self._on_new_loop(gate)
        return gate.post(callback)

    def _on_new_loop(self, gate: LoopGate) -> None:
        """Forget the runs of a loop that is gone: they may have been dropped unbegun."""
        with self._lock:
            if self._gate is not None:
                for job in self._jobs.values():
                    if job._is_async:
                        self._running -= job._running
                        job._running = 0
            self._gate = gate

    def _create_task(self, coro: Any, name: str) -> asyncio.Task[Any]:
        assert self._port is not None
        return self._port.create_task(coro, name=f"job {name}")

    def _forget(self, job: AsyncJob) -> None:
        self._jobs.pop(id(job), None)

    def _count_out(self) -> None:
        """Account for the end of a run. The lock is held."""
        self._running -= 1
        if not self._running:
            for parker in self._parked:
                parker.release()
            self._parked.clear()


def _seconds(name: str, value: Any, above: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if not 0 <= value < math.inf or (above and not value):
        bound = "more than 0" if above else "at least 0"
        raise ValueError(f"{name} must be {bound} seconds, and finite, not {value!r}")
    return float(value)


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def _epoch(moment: Any) -> float | None:
    if isinstance(moment, datetime.datetime):
        return moment.timestamp()
    if moment is None:
        return None
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        raise TypeError(f"until must be a datetime or seconds since the epoch, not {moment!r}")
    return float(moment)


def _datetime(moment: float | None) -> datetime.datetime | None:
    return None if moment is None else datetime.datetime.fromtimestamp(moment, datetime.UTC)
