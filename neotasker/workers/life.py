"""The lives of workers: what a worker is between one start and the end of its last run.

`Life` is what all have in common. `SerialLife` is that of workers whose runs come one
after another because something fell due; how a run is made is left to its driver, see
`neotasker.workers.in_pool` and `in_loop`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..base.report import Reporter
from ..base.seconds import acquire_within
from ..base.targets import INERT, see_to_result
from ..core import Tally
from ..host import Host
from ..loops.port import LoopPort, wait_on
from .call import Call
from .driver import Runs, RunsFactory

__all__ = [
    "Life",
    "Runs",
    "RunsFactory",
    "SerialLife",
    "Tally",
]

logger = Reporter("neotasker")


class Owner(Protocol):
    """What a life asks of its worker."""

    _name: str
    _tally: Tally

    @property
    def _title(self) -> str:
        """The name for people to read."""

    def stop(self, wait: bool = True) -> None:
        """Stop the worker."""

    def error(self) -> None:
        """Report the exception that is being handled."""

    def process_result(self, result: Any) -> Any:
        """Look at what a run returned."""

    def _on_life_end(self, life: Any, rest: list[Any]) -> None:
        """Take note that a life is over, and what it left."""


class Life:
    """One life of a worker.

    Guarantees: once `close` was called no run begins, but for what is drained. When
    the last run has ended the worker is told, then those who `join` are woken, then
    what `when_ended` was given is called; each once.

    Assumes: `begin` is called once.

    The lock protects all fields. It is reentrant, as signal handlers and finalizers may
    put and trigger; between a test and the change that depends on it nothing is called.
    Locks of the core may be taken inside it; no code of the user runs under it.
    """

    __slots__ = (
        "_parked",
        "_then",
        "after",
        "after_stop_due",
        "begun",
        "call",
        "ended",
        "host",
        "lock",
        "open",
        "over",
        "stopping",
        "tally",
        "worker",
    )

    paces = False
    """Whether runs are followed by something: `after_run`."""

    spacing: float | None = 0.0
    """Least seconds between prompted runs; None: `on_run` sees to what begins a run."""

    def __init__(self, worker: Owner, host: Host, call: Call) -> None:
        self.worker = worker
        self.host = host
        self.call = call
        self.tally = worker._tally
        self.lock = threading.RLock()
        self.open = True  # runs may begin
        self.begun = False
        self.after: Life | None = None  # the life before, while that is not over
        self.over = False  # the last run has ended
        self.ended = False  # and everybody was told
        self.stopping = False  # the worker's stop has begun; belongs to the worker
        self.after_stop_due = True  # belongs to the worker
        self._parked: list[threading.Lock] = []
        self._then: Callable[[], object] | None = None

    # For the kinds to fill in.

    def _begin(self) -> None:
        """Set out."""
        raise NotImplementedError

    def _is_idle(self) -> bool:
        """Return whether no run is on or to be drained. The lock is held."""
        raise NotImplementedError

    def _on_close(self) -> None:
        """Take back what would make runs begin."""

    def _rest(self) -> list[Any]:
        """Return what was accepted and not processed, in order."""
        return []

    def inside(self) -> bool:
        """Return whether the caller must not wait for the end, as the end waits for it."""
        raise NotImplementedError

    def holds_caller(self) -> bool:
        """Return whether the caller is in a run of this life, or of one before."""
        life: Life | None = self
        while life is not None:
            if life.inside():
                return True
            life = life.after
        return False

    # From birth to death.

    def begin(self) -> None:
        """Set out, or end if the worker was stopped before it came to that."""
        with self.lock:
            self.after = None
            if self._is_wanted():
                self.begun = True
        if self.begun:
            self._begin()
        else:
            self.end()

    def _is_wanted(self) -> bool:
        """Return whether there is anything to be done. The lock is held."""
        return self.open

    def follow(self, before: Life) -> None:
        """Set out when the life before has ended, which may be now."""
        self.after = before
        before.when_ended(self._take_over)

    def _take_over(self) -> None:
        try:
            self.begin()
        except BaseException:
            logger.exception("worker %s could not be started again", self.worker._title)
            self.stop_worker()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        with self.lock:
            if not self.open:
                return
            self._prepare_close(drain)  # first, as both are looked at without the lock
            self.open = False
            idle = self.after is None and self._is_idle()
        self._on_close()
        if idle:
            self.end()

    def _prepare_close(self, drain: bool) -> None:
        """Note whether what was accepted is still to be processed. The lock is held."""

    def hurry(self) -> None:
        """Drain no more, if it is closed and does."""

    def end(self) -> None:
        """Tell everybody that the last run has ended."""
        with self.lock:
            if self.over:
                return
            self.over = True
            self.open = False
        try:
            self.worker._on_life_end(self, self._rest())
        finally:
            with self.lock:
                self.ended = True
                parked, self._parked = self._parked, []
                then, self._then = self._then, None
            for parker in parked:
                parker.release()
            if then is not None:
                then()

    def when_ended(self, then: Callable[[], object]) -> None:
        """Call *then* when the life has ended, which may be now."""
        with self.lock:
            if not self.ended:
                self._then = then
                return
        then()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; return whether it has come.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        return wait_on(self.port, self._join, timeout)

    @property
    def port(self) -> LoopPort | None:
        """The way into the loop that runs are made in, if they are."""
        return getattr(getattr(self, "driver", None), "port", None)

    def _join(self, timeout: float | None) -> bool:
        parker = threading.Lock()
        parker.acquire()
        with self.lock:
            if self.ended:
                return True
            self._parked.append(parker)
        try:
            if acquire_within(parker, timeout):
                return True
        finally:
            with self.lock:
                if parker in self._parked:
                    self._parked.remove(parker)
        return self.ended

    def call_off(self) -> None:
        """Be over, as the start has failed."""
        self.abandon()

    def abandon(self) -> None:
        """Be over, without a word to anybody: in a forked child."""
        self.lock = threading.RLock()
        self.open = False
        self.over = self.ended = True
        self._parked.clear()
        self._then = None

    # What runs come to.

    def failed(self) -> None:
        """Count and report the exception that is being handled."""
        with self.lock:
            self.tally.errors += 1
        try:
            self.worker.error()
        except BaseException:
            logger.exception("error in on_error of worker %s", self.worker._title)

    def returned(self, result: Any) -> None:
        """Look at what a run returned: False means that there is to be no other."""
        if self.call.checks_result:
            try:
                if self.worker.process_result(result) is False:
                    result = False
            except BaseException:
                self.failed()
        elif type(result) not in INERT:
            worker = self.worker
            see_to_result(worker, f"worker {worker._title}", self.call.run, result, logger)
        if result is False:
            self.finished()

    def finished(self) -> None:
        """Do what follows when the target has asked for no other run."""
        self.stop_worker()

    def current_task(self) -> Any:
        """Return the run that is on or about to be, or None."""
        return None

    def stop_worker(self) -> None:
        """Stop the worker, from inside."""
        try:
            self.worker.stop(wait=False)
        except BaseException:
            logger.exception("error in stop of worker %s", self.worker._title)
        self.close()


class SerialLife(Life):
    """A life whose runs come one after another.

    Guarantees: never two runs at once. Who finds the worker busy leaves word of what is
    due, and the run that is on sees to it when it ends. The driver, a ``SerialCore``, says
    how that is kept.
    """

    __slots__ = ("driver", "enter", "enter_due")

    def __init__(self, worker: Owner, host: Host, call: Call, make_runs: RunsFactory) -> None:
        super().__init__(worker, host, call)
        self.driver: Runs = make_runs(self)
        self.enter = self.driver.enter
        self.enter_due = self.driver.enter_due

    # For the kinds to fill in.

    def on_run(self) -> None:
        """See to what is pending or late as a run begins that makes up for it."""
        raise NotImplementedError

    def after_run(self) -> None:
        """See to what each run is followed by, before the next can begin."""

    def fire_while_busy(self) -> None:
        """See to what fell due on the tick while a run is on or claimed."""

    def _next(self) -> float | None:
        """Return when another run is due (0: now), None if none is; idle was taken."""
        return 0.0 if self.driver.pending else None

    def _wants_more(self) -> bool:
        """Return whether word was left of something that is due."""
        return bool(self.driver.pending or self.driver.owed)

    # Claiming runs.

    def trigger_again(self) -> None:
        """Do what a trigger may have left half done that failed, for lack of stack for one.

        It may enter a run that was entered already, which then is void.
        """
        self.driver.trigger()
        if self.driver.queued:
            self.enter()

    def want(self) -> bool:
        """Leave word that a run is wanted; return False if nobody would see it now."""
        self.driver.pending = True
        if not self.begun:
            with self.lock:  # `begin` looks at what is pending after that
                return self.begun
        return True

    def settle(self) -> None:
        """See to what was left to a run that has ended: idle was put back."""
        driver = self.driver
        while driver.take_idle():  # or who has taken it sees to it
            owed = driver.owed
            try:
                if not self.open:
                    driver.conclude()
                    return
                due = self._next()
                if due is not None:
                    driver.put_queued()
                    self.enter_at(due)
                    return
            except BaseException:
                driver.owed = max(owed, driver.owed)
                self._lose_claim()
                raise
            driver.put_idle()
            if self.open and not self._wants_more():
                return

    def _lose_claim(self) -> None:
        """Give back a claim with which something has failed, to be tried again soon."""
        self.driver.put_queued()  # whether it was there or not
        self.driver.give_back()

    def enter_at(self, due: float) -> None:
        """Enter the claimed run when it is due: seconds of the driver's clock."""
        clock = self.driver.clock
        if due and due > clock.now():
            clock.call_at(due, self._on_due)
        else:
            self.enter()

    def _on_due(self) -> None:
        self.enter_due()

    # Life.

    def _begin(self) -> None:
        self.driver.begin()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        with self.lock:
            if not self.open:
                return
            self.open = self.driver.open = False
            begins_later = self.after is not None  # and then sees that it is closed
        try:
            self._on_close()
        finally:
            if not begins_later and self._is_void():
                try:
                    self.driver.conclude()
                except BaseException:
                    self._lose_claim()
                    raise

    def _is_void(self) -> bool:
        """Make void what has not begun; return whether no run is on."""
        return self.driver.take_idle() or self.driver.take_queued()

    def end(self) -> None:
        """Tell everybody that the last run has ended."""
        self.driver.open = False
        super().end()

    def abandon(self) -> None:
        """Be over, without a word to anybody: in a forked child."""
        super().abandon()
        self.driver.open = False

    def current_task(self) -> Any:
        """Return the run that is on or about to be, or None."""
        return None if self.driver.idle else self.driver.task

    def inside(self) -> bool:
        """Return whether the caller must not wait for the end, as the end waits for it."""
        return self.driver.inside()

    def serve(self) -> Any:
        """Return what the worker's task is to await."""
        return self.driver.serve()

    def finish(self) -> None:
        """End with the worker's task."""
        if self.open:  # nobody has stopped the worker: the task was cancelled
            logger.warning("worker %s: its task was cancelled", self.worker._title)
            self.stop_worker()
        self.end()
