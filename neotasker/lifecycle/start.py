"""The life of a supervisor: its parts, how they start and stop, and what they ask of it."""

from __future__ import annotations

import asyncio
import threading
import uuid
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from ..base.clock import Clock, SystemClock
from ..base.green import need_threads
from ..base.latch import Latch
from ..base.priority import default_width, lane_of
from ..base.report import Reporter
from ..base.seconds import check_delay
from ..base.spare import need_stack
from ..errors import SupervisorNotStarted
from ..host import Host
from ..jobs.table import JobSchedulerTable
from ..loops.aloop import ALoop
from ..loops.port import running_loop
from ..loops.table import AloopTable
from ..observe.watch import LaunchWatch
from ..pool.by_id import TaskTable
from ..pool.pool import SupervisedPool
from ..pool.task import Task
from ..pool.views import Lane
from ..timing.delays import DelayedTasks
from ..timing.ticker import Ticker
from . import exit as process_exit
from .leave import Leaving, check_bounds
from .parts import Door, Parts
from .registry import Registry
from .stop import Stop, StopReport

if TYPE_CHECKING:
    from ..pool.processes import ProcessPool

__all__ = ["SupervisorLife"]

T = TypeVar("T")

logger = Reporter("neotasker")


class SupervisorLife(Leaving):
    """What a supervisor is made of, from its making over start and stop to the end.

    Guarantees: `stop` may be called from any thread, at any time, more than once; a
    stopped supervisor can be started again. When a stop has ended, so has every thread
    that was started, unless the report says otherwise.

    The lock protects the state: active, starting, the stop under way. Locks of the
    parts may be taken inside it, never the other way round; no code of others runs
    under it.
    """

    daemon = False
    """Whether `start` makes daemon threads when it is not told."""

    timeout_warning_func: Callable[[Task[Any]], object] | None = None
    """Called with a task that has waited for `timeout_warning` seconds to start."""

    timeout_critical_func: Callable[[Task[Any]], object] | None = None
    """Called with a task that has waited for `timeout_critical` seconds to start."""

    def __init__(
        self,
        id: str | None = None,
        *,
        supervisor_id: str | None = None,
        clock: Clock | None = None,
        slack: float = 0.0,
    ) -> None:
        """Make a supervisor; `start` runs it.

        Parameters:
            id: its name in thread names and messages; a random UUID when left out.
            supervisor_id: the same, as older programs call it.
            clock: what its timers go by; the machine's when left out.
            slack: seconds by which timers, interval workers and jobs may be late that
                have no slack of their own: those that fall due within that time of one
                another share a wake-up. Also ``ticker.slack``, at any time.

        Raises:
            TypeError: both *id* and *supervisor_id* were given.
            ValueError: the slack is not from 0 to an hour.
        """
        if id is not None and supervisor_id is not None:
            raise TypeError("id and supervisor_id mean the same: give one of them")
        self.id = id or supervisor_id or str(uuid.uuid4())
        self.poll_delay = 0.01
        self.clock = clock or SystemClock()
        self._title = f"supervisor {self.id}"
        self._lock = threading.RLock()
        self._active = False
        self._starter: int | None = None  # the thread that is in `start`
        self._stop_after_start = False
        self._daemonic = False
        self._stop: Stop | None = None
        self._stopper: threading.Thread | None = None
        self._last_report = StopReport()
        self._ended = Latch()
        self._ended.set()
        self._workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._asleep: list[ALoop] = []  # stopped with the supervisor, to be started with it
        self._sized = False
        self._door = Door(self.id)
        self._pool = SupervisedPool(
            thread_name_prefix=f"supervisor_{self.id}_pool", pool_size=default_width()
        )
        self._pool.terminate(self._door.refusal, cancel=False)
        self._dispatcher = self._pool._crew.dispatcher
        self._processes: ProcessPool | None = None
        self._tasks = TaskTable()
        self._aloops = AloopTable(self.id, self.clock, process_exit.stir)
        self._watch = LaunchWatch(self._title, self._pool, self._on_launch_timeout)
        self._make_clockwork(slack)
        host = cast(Host, self)  # complete in `TaskSupervisor`
        self._registry = Registry(host, process_exit.stir)
        self._jobs = JobSchedulerTable(host)
        process_exit.watch(self)

    def _make_clockwork(self, slack: float) -> None:
        now = None if isinstance(self.clock, SystemClock) else self.clock.monotonic
        self._ticker = Ticker(now, slack)
        self._delayed = DelayedTasks(self._ticker, self._dispatcher)

    # What schedulers ask of their host.

    def require_started(self, what: str) -> None:
        """Raise `SupervisorNotStarted`, with the words to fix it, unless it runs."""
        if not self._active:
            raise self._door.error(what)

    def enqueue(
        self,
        fn: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None,
        priority: int,
    ) -> Task[T]:
        """Queue a run that was accepted before: never blocks, ignores the queue's bound.

        Raises:
            SupervisorNotStarted: the supervisor does not run.
        """
        task: Task[T] = self._dispatcher.make(fn, args, kwargs, lane_of(priority))
        try:
            self._dispatcher.enqueue(task)
        except SupervisorNotStarted:
            if not self._door.lets_workers_finish:
                raise
            with self._door.admit():
                self._dispatcher.enqueue(task)
        return task

    def resolve_aloop(
        self, loop: ALoop | str | asyncio.AbstractEventLoop | None
    ) -> ALoop | asyncio.AbstractEventLoop:
        """Return the aloop or loop that is meant; None: the default one, else our own.

        Raises:
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
            TypeError: it is neither an aloop, a name nor a loop.
        """
        if loop is None and self._aloops.get(None) is None:
            self.require_started("a coroutine")
        return self._aloops.resolve(loop)

    def start_thread(self, name: str, target: Callable[[], object]) -> threading.Thread:
        """Start a thread ``supervisor_<id>_worker_<name>``, waited for at the stop."""
        thread = threading.Thread(
            target=target, name=f"supervisor_{self.id}_worker_{name}", daemon=self._daemonic
        )
        self._workers.add(thread)
        try:
            thread.start()
        except BaseException:
            self._workers.discard(thread)
            raise
        return thread

    def lane(self, priority: int) -> Lane:
        """Return a view of one lane, which can be given to anything that takes an executor.

        Raises:
            ValueError: there is no such priority.
        """
        return self._pool.lane(priority)

    @property
    def ticker(self) -> Ticker:
        """The ticker: its timers run inline on the tick, for code that takes microseconds."""
        return self._ticker

    def _on_launch_timeout(self, level: int, task: Task[Any]) -> None:
        hook = self.timeout_warning_func if level == 1 else self.timeout_critical_func
        if hook is not None:
            hook(task)

    # Life.

    @property
    def active(self) -> bool:
        """Whether the supervisor takes work: from `start` until `stop` is called."""
        return self._active

    def start(self, daemon: bool | None = None) -> bool:
        """Start the ticker, the supervisor's own loop and the pool.

        A stop that is under way is waited for. Aloops that were stopped together with
        the supervisor are started again.

        Parameters:
            daemon: whether the threads let the process end while they run; the
                attribute ``daemon`` (False) when left out.

        Returns:
            False if it runs already.

        Raises:
            SupervisorNotStarted: called by a task, worker or aloop of the supervisor
                while it stops, which waits for the caller.
            RuntimeError: the main thread of the process has ended, or threads have become
                green (gevent, eventlet) after the package was imported.
        """
        need_threads("start()")
        need_stack(200)  # each part of it needs some, down to loops and logs
        while True:
            stop = self._stop
            if stop is not None:
                if self._is_own_thread():
                    raise self._door.error("start() in a thread of its own")
                if running_loop() in stop.elsewhere:
                    raise self._door.error("start() in a loop that the stop waits for")
                stop.done.wait()
            with self._lock:
                if self._stop is not None:
                    continue
                if self._active or self._starter is not None:
                    return False
                if process_exit.is_over():
                    raise RuntimeError(
                        f"{self._title} cannot start: the main thread of the process has "
                        "ended, and with it what would stop the supervisor; start it before "
                        "that, or have the main thread wait (block(), or join() of a thread)"
                    )
                self._starter = threading.get_ident()
                self._daemonic = self.daemon if daemon is None else daemon
                self._ended = Latch()
                break
        try:
            self._start_parts()
        except BaseException:
            with self._lock:
                self._starter = None
                self._stop_after_start = False
                stop = self._begin_stop()
            self._run(stop)
            stop.done.wait()
            raise
        with self._lock:
            self._starter = None
            self._active = True
            stop_at_once, self._stop_after_start = self._stop_after_start, False
            stop_at_once = stop_at_once or process_exit.is_over()
        logger.info("%s started, %r", self._title, self._pool)
        if stop_at_once:
            self.stop()
        return True

    def run(
        self,
        for_: float | None = None,
        *,
        signals: bool = True,
        wait: bool | float = 10.0,
        timeout: float | None = 30.0,
    ) -> StopReport:
        """Start, run until a signal or a stop, stop gracefully, and return the report.

        For the main thread of a program, as its last line. One that runs already goes on.
        Workers end, and queue workers finish what they hold first.

        Parameters:
            for_: seconds after which it stops by itself; None: no limit.
            signals: stop on SIGINT and SIGTERM; a second one ends the process at once,
                with 128 and its number. Else Ctrl+C gets through, after the stop.
            wait: as for `stop`: seconds that tasks that have not begun, and coroutines, get.
            timeout: as for `stop`: seconds after which the call returns all the same.

        Returns:
            The report of the stop.

        Raises:
            RuntimeError: it would block the event loop of the caller; signals are to be
                handled outside the main thread; or it cannot be started, as for `start`.
            TypeError: a number of seconds is not a number.
            ValueError: one is negative.
        """
        check_bounds(wait, timeout)
        seconds = None if for_ is None else check_delay(for_)
        if running_loop() is not None:
            raise RuntimeError(
                "run() would block the event loop that calls it: use 'async with' in a "
                "coroutine, or start() and await astop()"
            )
        if not signals:
            return self._run_for(self.block, seconds, wait, timeout)
        from .signals import Signals  # not every program has them handled

        with Signals(self) as handled:
            return self._run_for(handled.wait, seconds, wait, timeout)

    def _run_for(
        self,
        block: Callable[[float | None], object],
        seconds: float | None,
        wait: bool | float,
        timeout: float | None,
    ) -> StopReport:
        self.start()
        try:
            block(seconds)
        finally:
            report = self.stop(wait, drain=True, timeout=timeout)
        return report

    def __enter__(self) -> Self:
        """Start; the end of the block stops, and waits.

        Raises:
            RuntimeError: it runs already, and would be stopped for others; or it cannot be
                started, as for `start`.
        """
        if not self.start():
            raise RuntimeError(
                f"{self._title} runs already, and the end of the block would stop it for all: "
                "use it without 'with', or make a TaskSupervisor of your own"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop: queue workers finish what they hold; after an exception all is cancelled."""
        self.stop(drain=error is None, cancel_tasks=error is not None)

    async def __aenter__(self) -> Self:
        """Start, as ``with`` does; the end of the block awaits the stop."""
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop as ``with`` does, and await the end: the loop goes on meanwhile."""
        await self.astop(drain=error is None, cancel_tasks=error is not None)

    def _start_parts(self) -> None:
        drive = getattr(self.clock, "attach", None)
        if drive is not None:  # a clock that is turned by hand, and fires what is due itself
            self._ticker.reset()
            drive(self._ticker, self._dispatcher)
        else:
            self._ticker.start(f"supervisor_{self.id}_ticker", self._daemonic)
        self._aloops.own.daemon = self._daemonic
        self._aloops.own.start()
        self._pool._crew.daemon = self._daemonic
        self._dispatcher.open()
        self._delayed.open()
        if self._processes is not None:
            self._processes = self._processes.renewed()
        self._watch.arm(self._ticker)
        asleep, self._asleep = self._asleep, []
        for aloop in asleep:
            try:
                aloop.start()
            except Exception:
                logger.exception("%s: aloop %s could not be started", self._title, aloop.name)

    def _parts(self) -> Parts:
        return Parts(
            title=self._title,
            door=self._door,
            pool=self._pool,
            processes=self._processes,
            ticker=self._ticker,
            clock=self.clock,
            delayed=self._delayed,
            watch=self._watch,
            aloops=self._aloops,
            registry=self._registry,
            job_schedulers=lambda: self._jobs.all().values(),
            threads=lambda: list(self._workers),
        )

    def __repr__(self) -> str:
        state = "active" if self._active else "stopping" if self._stop else "stopped"
        return f"<{type(self).__name__} {self.id} {state}>"

    # The end of the process, and forks of it.

    def keeps_process(self) -> bool:
        """Return whether the process must not end: workers or aloops run, not as daemons."""
        if self._stop is not None or self._daemonic:
            return False
        if any(not aloop.daemon for aloop in self._aloops.running()):
            return True
        if not self._active:
            return False
        jobs = self._jobs.all().values()
        return bool(self._registry.get_schedulers()) or any(s.active for s in jobs)

    def after_fork_in_child(self) -> None:
        """Become a stopped supervisor: threads and loops stayed in the parent."""
        self._lock = threading.RLock()
        self._active = False
        self._stop = self._stopper = self._starter = None
        self._stop_after_start = False
        self._ended = Latch()
        self._ended.set()
        self._workers = weakref.WeakSet()
        self._asleep = []
        self._door.stopping = self._door.lets_workers_finish = False
        self._dispatcher.close(self._door.refusal)
        self._pool.use_executor(None)
        if self._processes is not None:
            self._processes.abandon()
        self._tasks.abandon()
        self._aloops.abandon()
        self._watch.abandon()
        self._delayed.abandon()
        self._ticker.abandon()
        self._make_clockwork(self._ticker.slack)
        self._registry.abandon()
        self._jobs.abandon()
