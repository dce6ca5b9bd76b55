"""Stopping: the procedure, and the report that it ends with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from ..base.clock import monotonic
from ..base.known_as import also_known_as, known_as
from ..base.latch import Latch
from ..base.report import Reporter
from ..base.seconds import is_alive
from ..loops.aloop import ALoop
from ..pool.pool import TaskPool
from .elsewhere import Elsewhere
from .parts import Door, Parts
from .whereabouts import Stacks, stack_of_task, title_of_task

__all__ = ["Door", "Parts", "StillRunning", "Stop", "StopReport"]

logger = Reporter("neotasker")

_WORKER_PREFIX = "_background_worker_"
_STARTS = 1.0  # seconds to wait for aloops that are just being started
_SETTLES = 1.0  # seconds for what was told to stop on loops of the program to do so
_GRACE = 0.1  # seconds, past the deadline, for a thread that was told to end only then


# Not as a class, whose annotations are text that each import would have to compile.
StillRunning = NamedTuple(  # noqa: UP014
    "StillRunning", [("name", str), ("age", float | None), ("stack", str)]
)
StillRunning.__doc__ = (
    "Something that did not end: its name, its age in seconds if known, and where it is."
)
known_as("neotasker.stop")(StillRunning)


@known_as("neotasker.stop")
class StopReport:
    """How a stop went.

    Attributes:
        duration: seconds that it took.
        cancelled: how many tasks and coroutines were cancelled.
        unprocessed: by name of worker, the items that it held and did not process.
        still_running: what had not ended when the report was made.
    """

    def __init__(
        self,
        duration: float = 0.0,
        cancelled: int = 0,
        unprocessed: dict[str, list[Any]] | None = None,
        still_running: list[StillRunning] | None = None,
    ) -> None:
        self.duration = duration
        self.cancelled = cancelled
        self.unprocessed = unprocessed or {}
        self.still_running = still_running or []

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing runs still."""
        return not (self.cancelled or self.unprocessed or self.still_running)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}(clean={self.clean}, {values})"

    def __str__(self) -> str:
        parts = []
        if self.cancelled:
            parts.append(f"{self.cancelled} cancelled")
        for name, items in self.unprocessed.items():
            parts.append(f"{len(items)} unprocessed by {name}")
        if self.still_running:
            parts.append(f"{len(self.still_running)} still running:")
        lines = [f"stopped in {self.duration:.2f} s, {', '.join(parts) or 'clean'}"]
        for name, age, stack in self.still_running:
            lines.append(f"  {name}" + ("" if age is None else f", for {age:.1f} s"))
            lines += [f"    {line}" for line in stack.splitlines()]
        return "\n".join(lines)


class Stop:
    """One stop of a supervisor, from the request to the last thread.

    Guarantees: takes down in order: new work, schedulers, tasks, aloops, pool, ticker.
    A part that fails to stop is logged and does not keep the next from stopping. When
    `done` is set, `report` is there, and every future that was handed out has ended,
    but for those of tasks that run on past the deadline.

    Assumes: `run` is called once, in a thread that none of the parts waits for.

    The lock protects the count and the flag of what was cancelled.
    """

    def __init__(
        self,
        parts: Parts,
        ended: Callable[[Stop], object],
        *,
        wait: float | None = None,
        signal_only: bool = False,
        stop_schedulers: bool = True,
        cancel: bool = False,
        cancel_coroutines: bool = False,
        drain: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Close the door; the rest is `run`.

        Parameters:
            parts: what to take down.
            ended: called when all is down, before `done` is set.
            wait: seconds after which what waits and coroutines are cancelled; None:
                never.
            signal_only: tell the schedulers first, without waiting for any of them.
            stop_schedulers: stop them.
            cancel: cancel what waits and coroutines at once.
            cancel_coroutines: cancel coroutines once the tasks have ended.
            drain: let queue workers finish what they hold.
            timeout: seconds after which nothing is waited for any more.
        """
        self.done = Latch()
        self.signalled = Latch()
        self.elsewhere = Elsewhere(
            parts.registry, parts.job_schedulers() if stop_schedulers else (), parts.ticker.now
        )
        self.report = StopReport()
        self._parts = parts
        self._ended = ended
        self._begun = monotonic()
        self._soft = None if wait is None else self._begun + wait
        self._hard = None if timeout is None else self._begun + timeout
        self.signal_only = signal_only
        self.bounded = timeout is not None
        self._with_schedulers = stop_schedulers
        self._cancel = cancel
        self._cancel_coroutines = cancel_coroutines
        self._drain = drain
        self._lock = threading.RLock()
        self._cancelled = 0
        self._hurried = False
        self._is_over = False  # what has not ended now will not do so by itself
        self._schedulers: dict[str, Any] = {}
        self._executor = parts.pool.executor
        self._killed: list[str] = []
        self._untold = [None]
        self.told = Latch()
        self.aloops = [aloop for aloop in self._all_aloops() if aloop.active]
        door = parts.door
        door.stopping = True
        door.lets_workers_finish = stop_schedulers
        parts.pool._crew.dispatcher.close(door.refusal)

    # From any thread.

    def hurry(self) -> None:
        """Cancel the tasks that wait and the coroutines, whatever was asked for before."""
        with self._lock:
            if self._hurried:
                return
            self._hurried = True
        self._cancel_waiting()
        for aloop in self._all_aloops():
            aloop.ask_stop(cancel=True)

    def cancel(self) -> None:
        """Do as a stop that was told to cancel tasks: coroutines on other loops, too."""
        self._cancel = True
        self.hurry()
        self._cancel_elsewhere()

    def _cancel_elsewhere(self) -> None:
        if self._with_schedulers:
            cancelled = self.elsewhere.cancel()
            with self._lock:
                self._cancelled += cancelled

    def moment(self) -> StopReport:
        """Return a report of how it stands now."""
        return self._report([StillRunning(n, age, stack()) for n, age, stack in self._found()])

    def _report(self, still_running: list[StillRunning]) -> StopReport:
        unprocessed = {}
        for name, scheduler in self._schedulers.items():
            items = getattr(scheduler, "unprocessed", ())
            if items:
                unprocessed[name.removeprefix(_WORKER_PREFIX)] = list(items)
        with self._lock:
            cancelled = self._cancelled
        return StopReport(
            monotonic() - self._begun,
            cancelled + sum(aloop.cancelled for aloop in self.aloops),
            unprocessed,
            still_running,
        )

    # In its own thread.

    def run(self) -> None:
        """Take everything down."""
        for step in (
            self._stop_what_waits,
            self._stop_schedulers,
            self._finish_tasks,
            self._settle_elsewhere,
            self._stop_aloops,
            self._stop_processes,
            self._stop_pool,
            self._stop_ticker,
        ):
            try:
                step()
            except BaseException:
                logger.exception("%s: error while stopping", self._parts.title)
        self.signalled.set()
        self._is_over = True
        self._tell()
        self._parts.aloops.open()
        self._ended(self)
        self.done.set()

    def _tell(self) -> None:
        """Make the report, and log it: first what was lost, as the process may be ending."""
        title = self._parts.title
        found = list(self._found())
        brief = self._report([StillRunning(name, age, "") for name, age, _ in found])
        self.tell(brief)
        if not found:
            self.report = brief
            return
        # Stacks take their time: lines of source are read for them.
        full = [StillRunning(name, age, stack()) for name, age, stack in found]
        brief.still_running = full
        self.report = brief
        for name, _, stack in full:
            if stack:
                logger.warning("%s: %s is here:\n%s", title, name, stack)

    def tell(self, report: StopReport | None = None) -> None:
        """Log how the stop went, or how it stands if it has not come so far; once."""
        try:
            self._untold.pop()
        except IndexError:
            return
        if report is None:
            report = self._report([StillRunning(n, age, "") for n, age, _ in self._found()])
        level = logging.INFO if report.clean else logging.WARNING
        logger.log(level, "%s %s", self._parts.title, report)
        self.told.set()

    def _left(self, deadline: float | None) -> float | None:
        """Return the seconds until a deadline, the hard one if that comes first."""
        if deadline is None or (self._hard is not None and self._hard < deadline):
            deadline = self._hard
        return None if deadline is None else max(0.0, deadline - monotonic())

    def _all_aloops(self) -> list[ALoop]:
        aloops = self._parts.aloops
        return [*aloops.all().values(), aloops.own]

    def _stop_what_waits(self) -> None:
        parts = self._parts
        parts.watch.disarm()
        delayed = parts.delayed.cancel_all()
        if delayed:
            logger.warning("%s: %d delayed tasks cancelled", parts.title, delayed)
        with self._lock:
            self._cancelled += delayed
        if self._cancel and not self._drain:
            self._cancel_waiting()

    def _cancel_waiting(self) -> None:
        tasks = [
            task for pool in self._pools() for task in pool._crew.dispatcher.take_waiting()
        ]
        cancelled = sum(task.cancel() for task in tasks)
        if cancelled:
            logger.warning("%s: %d waiting tasks cancelled", self._parts.title, cancelled)
        with self._lock:
            self._cancelled += cancelled

    def _stop_schedulers(self) -> None:
        if self._with_schedulers:
            self._schedulers = self._parts.registry.get_schedulers()
            # What is to be cancelled next needs no waiting for, unless it may drain first.
            gentle = self._drain or not self._cancel
            if self.signal_only or not gentle:
                self._tell_schedulers(wait=False)
                self.signalled.set()
            if gentle:
                self._tell_schedulers(wait=True)
        self.signalled.set()
        if self._cancel:
            self.hurry()

    def _tell_schedulers(self, wait: bool) -> None:
        parts = self._parts
        for scheduler in parts.job_schedulers():
            left = self._left(self._soft)
            try:
                scheduler.stop(wait=wait if left is None or not wait else left)
            except BaseException:
                logger.exception("%s: error stopping %r", parts.title, scheduler)
        left = self._left(self._soft)
        deadline = None if left is None else monotonic() + left
        parts.registry.stop_all(wait=wait, drain=self._drain, deadline=deadline)

    def _finish_tasks(self) -> None:
        if not self._drained(self._soft):
            self.hurry()
            self._drained(None)
        self._join(self._parts.threads())
        self._join(self._parts.watch.speakers())
        self._parts.door.lets_workers_finish = False

    def _pools(self) -> list[TaskPool]:
        processes = self._parts.processes
        return [self._parts.pool] if processes is None else [self._parts.pool, processes]

    def _drained(self, deadline: float | None) -> bool:
        """Wait until all tasks have ended; return False if that takes too long."""
        return all(
            pool._crew.dispatcher.wait_drained(self._left(deadline)) for pool in self._pools()
        )

    def _join(self, threads: Iterable[threading.Thread]) -> None:
        for thread in list(threads):
            # One that is about to start belongs to something that is waited for by itself.
            if thread is not threading.current_thread() and thread.ident is not None:
                thread.join(self._left(None))

    def _settle_elsewhere(self) -> None:
        """See that what was told to stop on loops of the program has done so.

        Those loops are not ours: what takes longer is left there, for the report to name.
        """
        if not self._with_schedulers:
            return
        self.elsewhere.settle(self._at_most(_GRACE if self._cancel else _SETTLES))
        if self._cancel:
            self._cancel_elsewhere()
            self.elsewhere.settle(self._at_most(_SETTLES))

    def _at_most(self, seconds: float) -> float:
        """Return the seconds, or what is left of them to a deadline."""
        soft, hard = self._left(self._soft), self._left(None)
        if soft is not None and soft < seconds:
            seconds = max(soft, _GRACE)
        return seconds if hard is None else min(seconds, hard)

    def _stop_aloops(self) -> None:
        left = self._left(None)
        self._parts.aloops.close(_STARTS if left is None else min(_STARTS, left))
        for aloop in self._all_aloops():
            if aloop not in self.aloops and not aloop.join(0):  # started or stopped meanwhile
                self.aloops.append(aloop)
        for aloop in self.aloops:
            aloop.ask_stop(cancel=self._hurried or self._cancel_coroutines)
        late = [aloop for aloop in self.aloops if not aloop.join(self._left(self._soft))]
        if late:
            self.hurry()
        late = [aloop for aloop in self.aloops if not aloop.join(self._left(None))]
        for aloop in late:
            aloop.give_up()
        grace = monotonic() + _GRACE
        for aloop in late:
            aloop.join(max(0.0, grace - monotonic()))

    def _stop_processes(self) -> None:
        pool = self._parts.processes
        if pool is None:
            return
        running = pool.active
        if running:  # past the deadline, and unlike threads they can be ended
            name = f"{running} tasks in {pool.executor!r}, whose processes were killed"
            self._killed.append(name)
            pool.kill()
        pool.shutdown()

    def _stop_pool(self) -> None:
        parts = self._parts
        pool = parts.pool
        executor = pool.executor
        if executor is not None:
            logger.info(
                "%s: %r is shut down, the pool goes back to threads of its own",
                parts.title,
                executor,
            )
            try:
                executor.shutdown(wait=self._left(None) != 0)
            except BaseException:
                logger.exception("%s: error shutting %r down", parts.title, executor)
            pool.use_executor(None)
        if pool._crew.dispatcher.waiting:
            self._cancel_waiting()
        parts.door.stopping = False
        pool.terminate(parts.door.refusal, cancel=False)
        left = self._left(None)
        pool._crew.join(None if left is None else monotonic() + left)

    def _stop_ticker(self) -> None:
        ticker = self._parts.ticker
        left = self._left(None)
        detach = getattr(self._parts.clock, "detach", None)
        if detach is not None:  # before it stops: what does not fire stays due
            detach(ticker)
        ticker.stop_thread(None if left is None else max(left, _GRACE))
        ticker.clear()

    # The report.

    def _found(self) -> Iterator[tuple[str, float | None, Callable[[], str]]]:
        """Give name, age and a function that returns the stack, of what has not ended."""
        parts = self._parts
        for name in self._killed:
            yield name, None, str
        now = monotonic()
        stack_of = Stacks()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        dispatcher = parts.pool._crew.dispatcher
        running = dispatcher.running()
        for ident, task, fn in running:
            name = f"{names.get(ident, ident)}: {getattr(fn, '__qualname__', None) or repr(fn)}"
            began = task.time_started
            yield name, None if began is None else now - began, partial(stack_of, ident)
        elsewhere = dispatcher.active - len(running)
        if elsewhere > 0 and self._executor is not None:
            yield f"{elsewhere} tasks in {self._executor!r}", None, str
        if parts.processes is not None and parts.processes.active:
            name = f"{parts.processes.active} tasks in {parts.processes.executor!r}"
            yield name, None, str
        waiting = sum(pool._crew.dispatcher.waiting for pool in self._pools())
        if waiting:
            yield f"{waiting} tasks that wait to start", None, str
        for thread in parts.threads():
            if is_alive(thread) and thread is not threading.current_thread():
                yield thread.name, None, partial(stack_of, thread.ident)
        for name, since, ident in parts.registry.stopping():
            if ident != threading.get_ident():
                yield f"stop of scheduler {name}", now - since, partial(stack_of, ident)
        if self._with_schedulers:
            yield from self.elsewhere.still_running(stack_of)
        for aloop in self._all_aloops():
            tasks = aloop.tasks()
            for coroutine in tasks:
                name = f"{aloop.name}: {title_of_task(coroutine)}"
                yield name, None, partial(stack_of_task, coroutine)
            if not tasks and self._is_over and not aloop.active and not aloop.join(0):
                assert aloop.thread is not None
                yield aloop.thread.name, None, partial(stack_of, aloop.thread.ident)


also_known_as("neotasker.stop", __name__)
