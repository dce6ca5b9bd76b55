"""Interval workers: at a fixed rate, or with a pause after or before each run."""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ..base.report import Reporter
from ..base.seconds import interval_seconds, seconds
from ..core import TimerCore
from ..host import Host
from .call import Call
from .continuous import BackgroundAsyncWorker
from .life import Life, RunsFactory, SerialLife

if not TYPE_CHECKING:
    from .figure import Figure

__all__ = ["BackgroundIntervalWorker"]

logger = Reporter("neotasker")

_POLICIES = ("skip", "delay", "burst")

_DEFAULT_DELAY = 1.0
_MOST_SLACK = 3600.0  # the ticker's


class _IntervalLife(SerialLife):
    """What fixed rate and fixed delay have in common: a timer that makes runs due.

    The lock protects which timer it is.
    """

    __slots__ = ("_jitter", "_slack", "timer")

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        make_runs: RunsFactory,
        jitter: float,
        slack: float | None,
    ) -> None:
        super().__init__(worker, host, call, make_runs)
        self._slack = slack  # seconds by which a timer may be late; None: the ticker's
        self._jitter = jitter  # at most so many seconds are added to each due time
        self.timer: TimerCore | None = None

    def _first(self) -> float | None:
        """Return the seconds until the first run; None: it begins at once."""
        raise NotImplementedError

    def _begin(self) -> None:
        super()._begin()
        first = None if self.driver.pending else self._first()
        if first is not None:
            self._arm(first)
        elif self.driver.claim():
            self._on_start()
            self.enter()

    def _on_start(self) -> None:
        """Set the timer where the first run begins at once."""

    def _make_timer(self, first: float) -> TimerCore:
        """Return a timer that makes a run due in *first* seconds."""
        raise NotImplementedError

    def _arm(self, first: float) -> None:
        """Set the timer anew, to make a run due in *first* seconds."""
        with self.lock:
            if self.open:
                self._drop_timer()
                self.timer = self._make_timer(first)

    def _drop_timer(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
            self.tally.missed += timer.missed

    def _on_close(self) -> None:
        with self.lock:
            self._drop_timer()

    def call_off(self) -> None:
        """Be over, as the start has failed."""
        super().call_off()
        self._on_close()

    def trigger(self) -> bool:
        """Make a run due now, from which the next regular one is counted.

        Returns:
            False if the life is closed.
        """
        if not self.open:
            return False
        self.driver.prompt()
        return True

    def skip(self) -> bool:
        """Count the next regular run from now; return False if the life is closed."""
        raise NotImplementedError


class RateLife(_IntervalLife):
    """A life at a fixed rate.

    Guarantees: due times do not drift. A run that is late because of the one before it
    begins when that has ended; what else fell due meanwhile follows the policy.

    The lock protects what is owed and missed.
    """

    __slots__ = ("_interval", "_offset", "_policy")

    spacing = None

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        make_runs: RunsFactory,
        jitter: float,
        slack: float | None,
        interval: float,
        offset: float | None,
        policy: Literal["skip", "delay", "burst"],
    ) -> None:
        super().__init__(worker, host, call, make_runs, jitter, slack)
        self._interval = interval
        self._offset = offset
        self._policy = policy

    def _first(self) -> float | None:
        # With jitter the tick makes the first run due, too, which then may be later.
        return 0.0 if self._offset is None and self._jitter else self._offset

    def _on_start(self) -> None:
        self._arm(self._interval)

    def _make_timer(self, first: float) -> TimerCore:
        # The timer that this one follows may be about to fire: that does no harm.
        fire = self._fire_later if self._jitter else self.driver.fire
        return self.driver.clock.call_every(
            self._interval, fire, missed=self._policy, first=first, slack=self._slack
        )

    def _fire_later(self) -> None:
        driver = self.driver
        driver.clock.call_later(_random() * self._jitter, driver.fire, slack=self._slack)

    def fire_while_busy(self) -> None:
        """Note that a run is owed, or missed."""
        driver = self.driver
        with self.lock:
            driver.late = True
            if self._policy != "burst" and (driver.queued or driver.owed):
                self.tally.missed += 1
                return
            driver.owed += 1
        self.settle()  # the run may have ended before that was written down

    def on_run(self) -> None:
        """Begin a new phase if a trigger or the policy wants it."""
        driver = self.driver
        triggered, driver.pending = driver.pending, False
        late, driver.late = driver.late, False
        if triggered or (late and self._policy == "delay"):
            self._arm(self._interval)

    def _next(self) -> float | None:
        with self.lock:
            if self.driver.pending:
                self._forgive()
            elif self.driver.owed:
                self.driver.owed -= 1
            else:
                return None
            return 0.0

    def _forgive(self) -> None:
        """Count what is owed as missed. The lock is held."""
        if self._policy != "burst":
            self.tally.missed += self.driver.owed
            self.driver.owed = 0

    def skip(self) -> bool:
        """Begin a new phase; return False if the life is closed."""
        with self.lock:
            self._forgive()
            self._arm(self._interval)
            return self.open


class DelayLife(_IntervalLife):
    """A life with a pause after each run, or before it."""

    __slots__ = ("_before",)

    paces = True

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        make_runs: RunsFactory,
        jitter: float,
        slack: float | None,
        before: float | None,
    ) -> None:
        super().__init__(worker, host, call, make_runs, jitter, slack)
        self._before = before

    def _first(self) -> float | None:
        return self._before

    def _make_timer(self, first: float) -> TimerCore:
        if self._jitter:
            first += _random() * self._jitter
        return self.driver.clock.call_later(first, self._fire, slack=self._slack)

    def _fire(self) -> None:
        """Make a run due, unless this comes from a timer that was replaced."""
        timer = self.timer
        if timer is not None and not timer.active and self.driver.claim():
            self.enter_due()

    def _pause(self) -> float:
        worker: Any = self.worker
        try:
            return seconds("delay", worker._pause_between_runs())
        except Exception as exc:  # the attribute is anybody's to set
            logger.error("worker %s: %s; taken as %s s", worker._title, exc, _DEFAULT_DELAY)
            return _DEFAULT_DELAY

    def after_run(self) -> None:
        """Begin the pause."""
        try:
            self._arm(self._pause())
        except BaseException:  # there is no memory for a timer: rather at once than never
            self.driver.pending = True
            raise

    def skip(self) -> bool:
        """Begin the pause anew; return False if the life is closed."""
        if self.driver.idle:
            self._arm(self._pause())
        return self.open


class BackgroundIntervalWorker(BackgroundAsyncWorker):
    """Runs its target at a fixed rate, or with a pause after or before each run.

    A plain target runs in the pool, an async one on the worker's loop.
    """

    keep_interval = False
    """Whether the worker keeps to a fixed rate; else it pauses after each run."""

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it.

        Parameters:
            name, fn, kwargs: see `BackgroundAsyncWorker`.
            interval: seconds between the due times of two runs, a microsecond or more: a
                fixed rate. The first run begins at once.
            delay: seconds between the end of a run and the beginning of the next, 1 if
                nothing else is given. The first run begins at once. With 0 runs are
                ``poll_delay`` apart. Also as ``delay_after``.
            delay_before: seconds before each run, the first one too. With *interval*,
                seconds before the first run.
            missed: what follows when a fixed rate cannot be kept, because a run takes
                longer: one late run begins when it has ended, then ``'skip'`` keeps to
                the phase, ``'delay'`` begins a new one; ``'burst'`` makes up for all.
            jitter: up to so many seconds, by chance, are added to each due time.
            slack: seconds by which a run may begin later than due, so that fires that fall
                due within that time share a wake-up; less than the interval. Due times do
                not drift by it. The supervisor's own when left out.

        Raises:
            TypeError: a time is no number.
            ValueError: a time is out of range, *interval* and *delay* are both given, or
                *missed* is unknown.
        """
        super().__init__(name, fn, **kwargs)
        interval = _first_of(kwargs, "interval", "i")
        delay = _first_of(kwargs, "delay", "delay_after")
        if interval is not None and delay is not None:
            raise ValueError(
                f"both interval ({interval!r}) and delay ({delay!r}) are given: choose "
                "interval for a fixed rate, delay for a pause after each run"
            )
        before = kwargs.get("delay_before")
        self.delay_before = None if before is None else seconds("delay_before", before)
        self._chosen = interval is not None or delay is not None
        self.delay: float = _DEFAULT_DELAY if self.delay_before is None else 0.0
        if interval is not None:
            self._set_interval(interval)
        elif delay is not None:
            self._set_delay(delay)
        missed = kwargs.get("missed", "skip")
        if missed not in _POLICIES:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        self._missed_policy = missed
        self._jitter = seconds("jitter", kwargs.get("jitter") or 0.0)
        self._slack = _check_slack(kwargs.get("slack"), self.delay, self.keep_interval)

    if not TYPE_CHECKING:
        missed = Figure(lambda worker: worker._count_missed())

    def _count_missed(self) -> int:
        life = self._life
        timer = life.timer if isinstance(life, _IntervalLife) else None
        return self._tally.missed + (0 if timer is None else timer.missed)

    def _set_interval(self, interval: Any) -> None:
        self.delay = interval_seconds("interval", interval)
        self.keep_interval = self._chosen = True

    def _set_delay(self, delay: Any) -> None:
        self.delay = seconds("delay", delay)
        self.keep_interval, self._chosen = False, True

    def _pause_between_runs(self) -> float:
        return (self.delay + (self.delay_before or 0.0)) or self.poll_delay

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        interval = kwargs.get("_interval")
        delay = _first_of(kwargs, "_delay", "_delay_after")
        if interval is not None and delay is not None:
            raise ValueError(
                f"both _interval ({interval!r}) and _delay ({delay!r}) are given: choose one"
            )
        call = self._make_call(kwargs)
        if kwargs.get("_delay_before") is not None:
            self.delay_before = seconds("_delay_before", kwargs["_delay_before"])
            if not self._chosen:
                self.delay = 0.0
        if interval is not None:
            self._set_interval(interval)
        elif delay is not None:
            self._set_delay(delay)
        _check_slack(self._slack, self.delay, self.keep_interval)
        make_runs = self._make_runs(host, kwargs)
        if not self.keep_interval:
            return DelayLife(
                self, host, call, make_runs, self._jitter, self._slack, self.delay_before
            )
        return RateLife(
            self,
            host,
            call,
            make_runs,
            self._jitter,
            self._slack,
            interval_seconds("interval", self.delay),
            self.delay_before,
            self._missed_policy,
        )

    def trigger_threadsafe(self, force: bool = False, skip: bool = False) -> bool:
        """Make the target run now, and count the next regular run from there: any thread.

        A trigger during a run means one more run.

        Parameters:
            force: nothing; every trigger counts, also during a run.
            skip: begin a new phase without a run.

        Returns:
            False if the worker was stopped.

        Raises:
            WorkerNotStarted: it was never started.
        """
        life: _IntervalLife = self._running_life("it is triggered")
        if skip:
            return life.skip()
        try:
            return life.trigger()
        except BaseException as exc:
            start_new_thread(life.trigger_again, ())
            if not isinstance(exc, RecursionError):
                raise
            return True

    async def trigger(self, force: bool = False, skip: bool = False) -> bool:
        """Make the target run now, as `trigger_threadsafe` does; from a coroutine."""
        return self.trigger_threadsafe(force, skip)


def _first_of(kwargs: dict[str, Any], *names: str) -> Any:
    return next((kwargs[name] for name in names if kwargs.get(name) is not None), None)


def _check_slack(slack: Any, interval: float, keeps_interval: bool) -> float | None:
    if slack is None:
        return None
    number = seconds("slack", slack)
    if number > _MOST_SLACK:
        raise ValueError(f"slack must be at most {_MOST_SLACK:g} seconds, not {slack!r}")
    if keeps_interval and number and number >= interval:
        raise ValueError(f"slack must be less than the interval, {interval:g} s, not {slack!r}")
    return number


def _random() -> float:
    """Return a number from 0 to 1; the module is only loaded where there is jitter."""
    from random import random

    return random()
