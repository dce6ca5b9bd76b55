"""Event workers: run when triggered."""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable
from typing import Any

from ..base.seconds import seconds
from ..host import Host
from .call import Call
from .continuous import BackgroundAsyncWorker
from .life import Life, RunsFactory, SerialLife

__all__ = ["BackgroundEventWorker", "TriggerEvent"]


class EventLife(SerialLife):
    """A life whose runs fall due by triggers.

    Guarantees: every trigger is followed by a run that began after it. Triggers that
    come before that run begins share it; one that comes while it is on makes one more.
    """

    __slots__ = ("_debounce", "_quiet_at", "spacing", "trigger")

    trigger: Callable[[], bool]
    """Makes a run due; returns False if the life is closed."""

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        make_runs: RunsFactory,
        spacing: float,
        debounce: float,
    ) -> None:
        self.spacing: float | None = spacing
        super().__init__(worker, host, call, make_runs)
        self._debounce = debounce
        self._quiet_at = 0.0  # when the triggers will have been silent long enough
        self.trigger = self._trigger_when_quiet if debounce else self.driver.trigger

    def _begin(self) -> None:
        super()._begin()
        if self.driver.pending and self.driver.claim():
            self.enter_at(self._due())

    def _trigger_when_quiet(self) -> bool:
        if not self.open:
            return False
        self._quiet_at = self.driver.clock.now() + self._debounce
        if self.driver.prompt(hold=True):
            try:
                self.enter_at(self._due())
            except BaseException:
                self.driver.give_back()
                raise
        return True

    def _due(self) -> float:
        return max(self.driver.not_before, self._quiet_at)

    def _on_due(self) -> None:
        if self._debounce and self._quiet_at > self.driver.clock.now():
            self.enter_at(self._quiet_at)  # triggered again meanwhile
        else:
            self.enter_due()

    def _next(self) -> float | None:
        return self._due() if self.driver.pending else None


class TriggerEvent:
    """The event of a worker, for those who set or look at it."""

    def __init__(self, life: EventLife) -> None:
        self._life = life

    def set(self) -> None:
        """Trigger the worker."""
        try:
            self._life.trigger()
        except BaseException as exc:
            start_new_thread(self._life.trigger_again, ())
            if not isinstance(exc, RecursionError):
                raise

    def is_set(self) -> bool:
        """Return whether a trigger waits for a run."""
        return self._life.driver.pending


class BackgroundEventWorker(BackgroundAsyncWorker):
    """Runs its target when triggered.

    A trigger during a run means one more run; a storm of triggers means few. An idle
    worker answers at once; runs begin at least ``poll_delay`` apart.
    """

    _life: EventLife | None

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it.

        Parameters:
            name, fn, kwargs: see `BackgroundAsyncWorker`.
            throttle: seconds between the beginnings of two runs, in place of
                ``poll_delay``: at most one run in that time, the first one at once.
            debounce: seconds without a trigger that a run waits for: one run when it has
                become quiet.
        """
        super().__init__(name, fn, **kwargs)
        throttle, debounce = kwargs.get("throttle"), kwargs.get("debounce")
        self._throttle = None if throttle is None else seconds("throttle", throttle)
        self._debounce = 0.0 if debounce is None else seconds("debounce", debounce)

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        call = self._make_call(kwargs)
        make_runs = self._make_runs(host, kwargs)
        spacing = self._throttle
        if spacing is None:  # the attribute is anybody's to set
            spacing = seconds("poll_delay", self.poll_delay or 0.0)
        return EventLife(self, host, call, make_runs, spacing, self._debounce)

    def trigger_threadsafe(self, force: bool = False, skip: bool = False) -> bool:
        """Make the target run soon: from any thread.

        Parameters:
            force, skip: nothing; every trigger counts, also during a run.

        Returns:
            False if the worker was stopped.

        Raises:
            WorkerNotStarted: it was never started.
        """
        life = self._life or self._running_life("it is triggered")
        try:
            return life.trigger()
        except BaseException as exc:
            start_new_thread(life.trigger_again, ())
            if not isinstance(exc, RecursionError):
                raise
            return True

    def get_event_obj(self) -> TriggerEvent:
        """Return the worker's event: setting it is a trigger.

        Raises:
            WorkerNotStarted: the worker was never started.
        """
        return TriggerEvent(self._running_life("get_event_obj()"))

    async def trigger(self, force: bool = False, skip: bool = False) -> bool:
        """Make the target run soon, as `trigger_threadsafe` does; from a coroutine."""
        return self.trigger_threadsafe(force, skip)
