"""The ways to stop a supervisor: who may ask for it, and how long the caller waits."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..base.green import need_threads
from ..base.latch import Latch
from ..base.seconds import check_delay, wait_seconds
from ..base.spare import need_stack, run_apart
from ..loops.aloop import ALoop
from ..loops.port import running_loop
from ..loops.table import AloopTable
from ..observe.watch import LaunchWatch
from ..pool.pool import SupervisedPool
from ..pool.threads import is_thread_of
from ..timing.ticker import Ticker
from . import exit as process_exit
from .parts import Parts
from .stop import Stop, StopReport

if TYPE_CHECKING:
    import weakref

__all__ = ["Leaving", "check_bounds"]

logger = logging.getLogger("neotasker")

_LAST_WORDS = 0.5  # seconds for a line in the log that is being written as the process ends


class Leaving:
    """The half of a supervisor's life that ends it; `SupervisorLife` is the other.

    A stop is carried out in a thread of its own. Who asks for it waits, unless the stop
    waits for the caller: then it is told how things stand, and the stop goes on.
    """

    id: str
    _title: str
    _lock: threading.RLock
    _active: bool
    _starter: int | None
    _stop_after_start: bool
    _daemonic: bool
    _stop: Stop | None
    _stopper: threading.Thread | None
    _last_report: StopReport
    _ended: Latch
    _workers: weakref.WeakSet[threading.Thread]
    _asleep: list[ALoop]
    _pool: SupervisedPool
    _aloops: AloopTable
    _ticker: Ticker
    _watch: LaunchWatch
    _hinted = False  # that there is `astop`

    def _parts(self) -> Parts:
        raise NotImplementedError

    def block(self, timeout: float | None = None, *, signals: bool = False) -> bool:
        """Block the caller until the supervisor has stopped; Ctrl+C gets through.

        Parameters:
            timeout: seconds; None waits for ever.
            signals: stop on SIGINT or SIGTERM, as `run` does, and return; a second
                signal ends the process.

        Returns:
            Whether it has stopped.

        Raises:
            RuntimeError: threads have become green (gevent, eventlet) after the package
                was imported; or signals are to be handled outside the main thread.
        """
        need_threads("block()")
        if signals:
            from .signals import GRACE, LIMIT, Signals  # not every program has them handled

            with Signals(self) as handled:
                handled.wait(timeout)
                if handled.count:
                    self.stop(GRACE, drain=True, timeout=LIMIT)
            return self._ended.is_set()
        ended = self._ended.wait(timeout)
        if ended:
            self._join_stopper()
        return ended

    def stop(
        self,
        wait: bool | float = True,
        stop_schedulers: bool = True,
        cancel_tasks: bool = False,
        *,
        drain: bool = False,
        timeout: float | None = None,
    ) -> StopReport:
        """Stop: refuse new work, then take down schedulers, tasks, aloops, pool, ticker.

        May be called from any thread. A second call while a stop is under way waits for
        it and returns its report; what it asks for beyond the first (cancelling) is
        done. Where the stop waits for the caller the call returns at once, with a report
        of that moment, and the stop goes on by itself: in a thread of the supervisor (a
        task, a worker, an aloop), and in a loop of the program that workers, jobs or
        schedulers run on. There `astop` waits.

        Parameters:
            wait: True waits for all; False for nothing, the stop goes on by itself; a
                number is seconds after which tasks that have not begun and coroutines
                are cancelled. Threads that run are waited for, as they cannot be killed.
            stop_schedulers: stop workers, job schedulers and other schedulers.
            cancel_tasks: cancel at once tasks that have not begun, and coroutines.
            drain: queue workers finish what they hold first.
            timeout: seconds after which the call returns and reports what still runs.

        Returns:
            The report.

        Raises:
            TypeError: *wait* or *timeout* is not a number.
            ValueError: *wait* or *timeout* is negative.
            RecursionError: there is too little stack left to begin.
        """
        seconds, bound = check_bounds(wait, timeout)
        need_stack()
        inside = self._is_own_thread()
        if self._starter is not None and (ended := self._stop_from_start()) is not None:
            if wait is not False and self._starter != threading.get_ident():
                ended.wait()
            return self._last_report
        stop, first = self._ask(wait, seconds, stop_schedulers, cancel_tasks, drain, bound)
        if stop is None:
            return self._last_report
        if not inside and running_loop() in stop.elsewhere:
            inside = True
            self._hint()
        if inside:
            return stop.moment()
        if wait is False:
            stop.signalled.wait(bound)
            return stop.moment()
        if not first and seconds is not None and not stop.done.wait(seconds):
            stop.hurry()
        if not stop.done.wait(bound):
            return stop.moment()
        self._join_stopper()
        return stop.report

    async def astop(
        self,
        wait: bool | float = True,
        stop_schedulers: bool = True,
        cancel_tasks: bool = False,
        *,
        drain: bool = False,
        timeout: float | None = None,
    ) -> StopReport:
        """Stop as `stop` does, and await the end: the loop goes on meanwhile.

        The way to stop from a coroutine, on a loop of the program or any other. A
        coroutine that the stop waits for (one on an aloop, the run of a worker or a job)
        gets a report of the moment. If who awaits is cancelled the stop goes on.

        Parameters:
            wait, stop_schedulers, cancel_tasks, drain, timeout: as for `stop`.

        Returns:
            The report.

        Raises:
            TypeError: *wait* or *timeout* is not a number.
            ValueError: *wait* or *timeout* is negative.
            RecursionError: there is too little stack left to begin.
        """
        seconds, bound = check_bounds(wait, timeout)
        need_stack()
        inside = self._is_own_thread()
        if self._starter is not None and (ended := self._stop_from_start()) is not None:
            if wait is not False:
                await _until(ended, None)
            return self._last_report
        stop, first = self._ask(wait, seconds, stop_schedulers, cancel_tasks, drain, bound)
        if stop is None:
            return self._last_report
        await asyncio.sleep(0)  # a task that ran at once is known to its loop after that
        if inside or stop.elsewhere.has_caller():
            return stop.moment()
        if wait is False:
            await _until(stop.signalled, bound)
            return stop.moment()
        if not first and seconds is not None and not await _until(stop.done, seconds):
            stop.hurry()
        return stop.report if await _until(stop.done, bound) else stop.moment()

    def _ask(
        self,
        wait: bool | float,
        seconds: float | None,
        stop_schedulers: bool,
        cancel_tasks: bool,
        drain: bool,
        timeout: float | None,
    ) -> tuple[Stop | None, bool]:
        """Begin a stop, or ask more of the one that is under way.

        Returns:
            The stop, None if there is nothing to stop, and whether it is a new one.
        """
        with self._lock:
            first = self._stop is None
            if first and not self._active and not self._aloops.running():
                return None, True
            stop = self._stop or self._begin_stop(
                wait=None if wait is False else seconds,
                signal_only=wait is False,
                stop_schedulers=stop_schedulers,
                cancel=cancel_tasks,
                drain=drain,
                timeout=timeout,
            )
        if first:
            self._run(stop)
        elif cancel_tasks:
            stop.cancel()
        elif wait is not False and seconds == 0:
            stop.hurry()
        return stop, first

    def _hint(self) -> None:
        if not self._hinted:
            self._hinted = True
            logger.info(
                "%s: stop() was called in a loop that it would wait for, and returns while it "
                "goes on; await astop() to wait for its end",
                self._title,
            )

    def _stop_from_start(self) -> Latch | None:
        """Have `start`, which is under way, stop again at its end; None if it is too late.

        Returns:
            What is set when it has stopped.
        """
        with self._lock:
            if self._starter is None:
                return None
            self._stop_after_start = True
            return self._ended

    def _begin_stop(self, **how: Any) -> Stop:
        """Close the door. The lock is held; `_run` does the rest when it is not."""
        self._active = False
        if self._ended.is_set():
            self._ended = Latch()
        self._stop = Stop(self._parts(), self._on_stopped, **how)
        return self._stop

    def _run(self, stop: Stop) -> None:
        """Have a thread carry out a stop, which then may wait for the caller's."""
        run_apart(f"supervisor_{self.id}_stop", stop.run, self._daemonic or stop.bounded)

    def _join_stopper(self) -> None:
        """Wait for the thread that has carried out the last stop, which is all but gone."""
        stopper = self._stopper
        if stopper is not None and stopper is not threading.current_thread():
            stopper.join(1.0)

    def _on_stopped(self, stop: Stop) -> None:
        me = threading.current_thread()
        with self._lock:
            self._asleep = [aloop for aloop in stop.aloops if aloop is not self._aloops.own]
            self._last_report = stop.report
            # One without a name, for lack of better, cannot be joined.
            self._stopper = None if isinstance(me, threading._DummyThread) else me
            self._stop = None
        self._ended.set()
        process_exit.stir()

    def _is_own_thread(self) -> bool:
        """Return whether a stop waits for the thread that asks."""
        me = threading.current_thread()
        pool = self._pool
        return (
            me is self._ticker.thread
            or me in pool._threads
            or is_thread_of(me, pool.executor)
            or me in self._workers
            or me in self._watch.speakers()
            or any(
                a.waits_for_caller() for a in (self._aloops.own, *self._aloops.all().values())
            )
        )

    # The end of the process.

    def end_with_process(self, again: bool) -> None:
        """Stop because the main thread has ended; *again*: without waiting any more.

        Tasks are finished, coroutines are not: those that may keep the process have
        kept it until here.
        """
        self._aloops.end()
        if self._starter is not None and (ended := self._stop_from_start()) is not None:
            if not again:
                ended.wait(1.0 if self._daemonic else None)
            return
        with self._lock:
            stop = self._stop
            begin = stop is None
            if stop is None:
                if not self._active and not self._aloops.running():
                    return
                if self._daemonic:
                    stop = self._begin_stop(cancel=True, timeout=0.5)
                else:
                    stop = self._begin_stop(cancel_coroutines=True)
        if begin:
            self._run(stop)
        elif again or stop.signal_only:
            stop.hurry()
        if not again and not stop.done.wait(1.0 if stop.bounded or self._daemonic else None):
            stop.tell()  # its thread, and what it would have said, ends with the process
            stop.told.wait(_LAST_WORDS)


def check_bounds(
    wait: bool | float, timeout: float | None
) -> tuple[float | None, float | None]:
    """Return what *wait* and *timeout* allow, in seconds."""
    return wait_seconds(wait), None if timeout is None else check_delay(timeout)


async def _until(latch: Latch, timeout: float | None) -> bool:
    """Wait until a latch is set; return whether it is, after so many seconds if given."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    forget = latch.call_when_set(partial(_wake, loop, partial(_settle, waiter)))
    try:
        await asyncio.wait([waiter], timeout=timeout)
    finally:
        forget()
        waiter.cancel()
    return latch.is_set()


def _wake(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        if not loop.is_closed():  # else there is nobody left to be woken
            raise


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
