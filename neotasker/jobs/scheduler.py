"""`AsyncJobScheduler`: runs jobs by interval, timer or cron, on an aloop and in the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

from ..base.known_as import known_as
from ..base.seconds import acquire_within, wait_seconds
from ..base.spare import need_stack
from ..errors import AloopError
from ..host import Host
from ..loops.gate import LoopGate, TaskMaker
from ..loops.port import ForeignLoop, LoopPort, running_loop, wait_on
from ..timing.loopclock import Timing, clock_for
from .job import AsyncJob

__all__ = ["AsyncJob", "AsyncJobScheduler"]


@known_as("neotasker.jobs")
class AsyncJobScheduler:
    """Runs jobs: coroutines on its aloop, plain functions in the pool.

    Guarantees: jobs that fall due together begin in one pass of the loop. No run begins
    after `stop`; jobs stay, and go on when it is started again.

    The lock protects what is said to be protected by it here and in `AsyncJob`. It is
    reentrant, as finalizers and signal handlers may cancel. Locks of the core may be taken
    inside it; no target runs under it.
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
        self._gate: Any = None  # into the loop that runs were given to
        # Of the loop's tasks, if they may begin to run where they are made.
        self._task_maker: TaskMaker | None = None
        self._now = host.ticker.now
        self._active = False
        self._jobs: dict[int, AsyncJob] = {}
        self._on_loop = 0  # runs that are on, touched in the loop only
        self._in_pool = 0  # runs that are on or about to be
        self._threads: set[int] = set()  # in which a plain target runs
        self._parked: list[threading.Lock] = []

    @property
    def id(self) -> str:
        """The name."""
        return self.name

    @property
    def active(self) -> bool:
        """Whether jobs are run."""
        return self._active and self._port is not None and self._port.active

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

        One whose aloop was stopped may be started again when that runs again.

        Returns:
            False if it does so already.

        Raises:
            SupervisorNotStarted: the supervisor does not run.
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """
        need_stack()
        self._host.require_started(f"job scheduler {self.name}")
        loop = self._host.resolve_aloop(self._given_loop)
        port = loop if isinstance(loop, LoopPort) else ForeignLoop(loop)
        if not port.active:
            raise AloopError(f"job scheduler {self.name}: {port.name} does not run")
        with self._lock:
            gate = port._gate
            if self._active and gate is self._gate:
                return False
            if gate is not self._gate:
                self._leave_loop()
                if gate is not None:
                    gate.tenants.add(self)
            self._task_maker = None if gate is None else gate.eager
            self._port, self._gate = port, gate
            self._now = self._host.ticker.now
            self._active = True
            try:
                for job in list(self._jobs.values()):
                    job._arm()
            except BaseException:
                self._active = False
                for job in self._jobs.values():
                    job._disarm()
                raise
        return True

    def stop(self, wait: bool | float = True) -> bool:
        """Let no further run begin.

        Parameters:
            wait: True waits for the runs that are on, a number at most so many seconds,
                False not at all. In a run of its own, and in the thread of its loop,
                nothing is waited for.

        Returns:
            Whether all runs have ended.

        Raises:
            TypeError: *wait* is neither a bool nor a number.
            ValueError: *wait* is negative, or not finite.
        """
        need_stack()
        seconds = wait_seconds(wait) if wait else None
        with self._lock:
            self._active = False
            for job in self._jobs.values():
                job._disarm()
                job._owed = 0
        if not wait or self._inside():
            return not (self._on_loop or self._in_pool)
        return self._join(seconds)

    def _inside(self) -> bool:
        if get_ident() in self._threads:
            return True
        running = running_loop()
        port = self._port
        return running is not None and port is not None and port.get_loop() is running

    def _join(self, timeout: float | None) -> bool:
        parker = threading.Lock()
        parker.acquire()
        with self._lock:
            self._parked.append(parker)
        if not self._post(self._look_at_parked):
            self._look_at_parked()  # there is no loop any more that anything could run on
        if wait_on(self._port, partial(acquire_within, parker), timeout):
            return True
        with self._lock:
            if parker in self._parked:
                self._parked.remove(parker)
                return False
        return True

    def _foreign_ports(self) -> list[ForeignLoop]:
        """Return the loop that runs were given to, if it is not one of ours."""
        return [self._port] if isinstance(self._port, ForeignLoop) else []

    def _has_loop(self) -> bool:
        """Return whether there is a loop that runs of coroutines can get on in."""
        return self._port is not None and self._port.get_loop() is not None

    def _look_at_parked(self) -> None:
        """Wake those who wait for the runs, if there are none: in the loop, while it lives."""
        with self._lock:
            if self._in_pool or (self._on_loop and self._has_loop()):
                return
            parked, self._parked = self._parked, []
        for parker in parked:
            parker.release()

    def create_threadsafe(self, target: Callable[..., Any], **job: Any) -> AsyncJob:
        """Make a job and run it from now on, or from the start of the scheduler: any thread.

        Parameters:
            target: a coroutine function, which runs on the aloop, or a plain function,
                which runs in the pool.
            args, kwargs: of the target.
            interval: seconds between two due times, a microsecond or more.
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
            tz: the zone of *cron*, or its name; the machine's, with its rules, when left
                out.
            priority: of a plain function, in the pool.
            name: in logs; that of the target when left out.

        Raises:
            TypeError: the target cannot be called, or a value is of the wrong kind.
            ValueError: a value is out of range, or makes no sense beside another.
            ImportError: *cron* is given and ``cronsim`` is not installed.
        """
        need_stack(32)
        made = AsyncJob(self, target, **job)
        try:
            with self._lock:
                self._jobs[id(made)] = made
                if self._active:
                    made._arm()
        except BaseException:  # one that nobody knows of is not to run
            self._jobs.pop(id(made), None)
            made.cancel()
            raise
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

    def _abandon(self) -> None:
        """Be stopped, and forget the runs: in a forked child."""
        self._lock = threading.RLock()
        self._active = False
        self._port = self._gate = None
        self._on_loop = self._in_pool = 0
        self._threads.clear()
        self._parked.clear()
        for job in self._jobs.values():
            job._abandon()

    # What jobs ask of it.

    def _post(self, callback: Callable[[], object]) -> bool:
        """Have *callback* called in the loop; return False if it does not run."""
        return self._gate is not None and bool(self._gate.post(callback))

    def _loop_clock(self) -> Timing:
        return clock_for(self._gate, self._host.ticker)

    def _leave_loop(self) -> None:
        """Forget what is of a loop that is gone. The lock is held."""
        for job in self._jobs.values():
            job._disarm()
        self._forget_runs()

    def _forget_runs(self) -> None:
        """Forget the runs in a loop that is gone. The lock is held."""
        self._on_loop = 0
        for job in self._jobs.values():
            if job._is_async:
                job._running = 0

    def on_gate_shut(self, gate: LoopGate) -> None:
        """See that nobody waits for what the loop would have done."""
        with self._lock:
            if gate is self._gate:
                self._forget_runs()
        self._look_at_parked()

    def _forget(self, job: AsyncJob) -> None:
        self._jobs.pop(id(job), None)

    def _count_out_of_pool(self) -> None:
        """Account for the end of a plain function's run. The lock is held."""
        self._in_pool -= 1
        if self._parked and not self._in_pool and not self._post(self._look_at_parked):
            self._look_at_parked()
