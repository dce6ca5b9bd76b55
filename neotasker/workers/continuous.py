"""Continuous workers: in a thread of their own, or on a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any

from ..base.report import Reporter
from ..base.restarts import Restarts
from ..errors import NeotaskerError
from ..host import Host
from ..loops.aloop import ALoop
from .base import Worker
from .call import INERT, Call
from .life import Life, RunsFactory, SerialLife

__all__ = ["BackgroundAsyncWorker", "BackgroundWorker"]

logger = Reporter("neotasker")


class BackgroundWorker(Worker):
    """Runs its target again and again in a thread of its own, which takes no pool place.

    A run that raises is followed by a pause, which doubles from ``poll_delay`` to one
    second; a stop ends the pause.
    """

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it.

        Parameters:
            name, fn, kwargs: see `Worker`.
            restart: which ends of a run are followed by another one: ``'on_error'`` (the
                default; a target that returns False ends the worker), ``'never'`` (an
                exception ends it too), ``'always'`` (nothing but a stop ends it).
            max_restarts: the most such restarts within *period*, after which the worker
                is given up; None: no limit.
            period: seconds; 60 when left out.
            on_give_up: called, inside the ``except``, when it is given up.
        """
        super().__init__(name, fn, **kwargs)
        given = kwargs.get("restart"), kwargs.get("max_restarts"), kwargs.get("period")
        self._restart_policy: tuple[Any, Any, Any] = (
            "on_error" if given[0] is None else given[0],
            given[1],
            60.0 if given[2] is None else given[2],
        )
        self._make_restarts(0.01)
        hook = kwargs.get("on_give_up")
        if hook is not None:
            if not callable(hook):
                raise TypeError(f"on_give_up must be callable, not {hook!r}")
            self.on_give_up = hook  # type: ignore[method-assign]

    def on_give_up(self) -> None:
        """Hook: called when the worker is given up, after too many restarts."""

    def _make_restarts(self, first: float) -> Restarts:
        mode, most, period = self._restart_policy
        return Restarts(mode, most, period, first)

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        call = self._make_call(kwargs)
        if self._target_is_async:
            raise TypeError(
                f"worker {self._title}: {call.run!r} is a coroutine function, which a thread "
                "cannot await: use BackgroundAsyncWorker"
            )
        return ThreadLife(self, host, call, self._make_restarts(self.poll_delay))


class _Restarting:
    """What lives have in common that are to go on when a run has failed."""

    __slots__ = ()

    restarts: Restarts
    host: Host
    worker: Any

    def pause_before_restart(self, failed: bool) -> float | None:
        """Return the seconds until the next run, or None: it was given up."""
        restarts = self.restarts
        if restarts.restarts_after(failed):
            pause = restarts.next_pause(self.host.ticker.now())
            if pause is not None:
                return pause
        worker = self.worker
        logger.critical("worker %s is given up: %s", worker._title, restarts.describe_limit())
        try:
            worker.on_give_up()
        except BaseException:
            logger.exception("error in on_give_up of worker %s", worker._title)
        self.stop_worker()
        return None

    def stop_worker(self) -> None:
        raise NotImplementedError


class ThreadLife(Life, _Restarting):
    """A life in a thread of its own."""

    __slots__ = ("_bell", "_pause", "ident", "restarts", "thread")

    def __init__(self, worker: Any, host: Host, call: Call, restarts: Restarts) -> None:
        super().__init__(worker, host, call)
        self.restarts = restarts
        self.thread: threading.Thread | None = None
        self.ident = 0
        self._bell = threading.Event()  # ends a pause
        self._pause: float | None = None

    def _begin(self) -> None:
        self.thread = self.host.start_thread(self.worker._title, self._live)

    def _live(self) -> None:
        self.ident = get_ident()
        try:
            self.call.context.run(self._serve)
        finally:
            self.end()

    def _serve(self) -> None:
        call, tally = self.call, self.tally
        copy, run = call.context.copy, call.bound
        while self.open:
            tally.runs += 1
            try:
                result = copy().run(run)
            except BaseException:
                self.failed()
            else:
                if result is False or call.checks_result or type(result) not in INERT:
                    self.returned(result)
            pause, self._pause = self._pause, None
            if pause is None:
                self.restarts.succeeded()
            else:
                self._wait(pause)

    def _wait(self, pause: float) -> None:
        self._bell.clear()
        if self.open:  # a close sets the bell after that
            timer = self.host.ticker.call_later(pause, self._bell.set)
            self._bell.wait()
            timer.cancel()

    def failed(self) -> None:
        """Report the exception that is being handled, and pause."""
        super().failed()
        self._pause = self.pause_before_restart(True)

    def finished(self) -> None:
        """End, unless the worker is always to go on."""
        if self.restarts.restarts_after(False):
            self._pause = self.pause_before_restart(False)
        else:
            self.stop_worker()

    def _is_idle(self) -> bool:
        return not self.begun

    def _on_close(self) -> None:
        self._bell.set()

    def inside(self) -> bool:
        """Return whether the caller is the thread."""
        return self.ident == get_ident()


class AgainLife(SerialLife, _Restarting):
    """A life on a loop, or in the pool: each run makes the next one due a little later."""

    __slots__ = ("_delay", "_pause", "restarts")

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        make_runs: RunsFactory,
        delay: float,
        restarts: Restarts,
    ) -> None:
        super().__init__(worker, host, call, make_runs)
        self.restarts = restarts
        self._delay = delay
        self._pause: float | None = None
        self.driver.owed = 1  # there is always another run due

    def _begin(self) -> None:
        super()._begin()
        if self.driver.claim():
            self.enter()

    def _next(self) -> float | None:
        pause, self._pause = self._pause, None
        if pause is None:
            self.restarts.succeeded()
            pause = self._delay
        return self.driver.clock.now() + pause if pause else 0.0

    def failed(self) -> None:
        """Report the exception that is being handled, and pause."""
        super().failed()
        self._pause = self.pause_before_restart(True)

    def finished(self) -> None:
        """End, unless the worker is always to go on."""
        if self.restarts.restarts_after(False):
            self._pause = self.pause_before_restart(False)
        else:
            self.stop_worker()


class BackgroundAsyncWorker(BackgroundWorker):
    """Runs its target again and again on its loop, ``poll_delay`` apart.

    The worker is one asyncio task. A plain target runs in the pool instead.
    """

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it.

        Parameters:
            name, fn, kwargs: see `BackgroundWorker`.
            loop: an aloop, the name of one, or an asyncio loop; it is looked up at the
                start. The default aloop when left out, else the supervisor's own loop.
            timeout: seconds after which a run of an async target is cancelled, and
                counted as an error; it may take as long as it likes when left out.
        """
        super().__init__(name, fn, **kwargs)
        self.worker_loop: Any = kwargs.get("loop")
        self.aloop: ALoop | None = None
        self._given_loop: Any = self.worker_loop
        self._found_loop: Any = None

    async def loop(self, life: Any) -> None:
        """Be the worker's task on its loop: called by the library."""
        try:
            if life.driver.attach():
                await life.serve()
        finally:
            life.finish()

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        call = self._make_call(kwargs)
        make_runs = self._make_runs(host, kwargs)
        poll_delay = self.poll_delay
        restarts = self._make_restarts(poll_delay)
        return AgainLife(self, host, call, make_runs, poll_delay, restarts)

    def _make_runs(self, host: Host, kwargs: dict[str, Any]) -> RunsFactory:
        return self._runs_factory(self._find_loop(host, kwargs), self.loop)

    def _find_loop(self, host: Host, kwargs: dict[str, Any]) -> Any:
        """Return the aloop or loop for this start; a plain target may go without.

        Raises:
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """
        if "_loop" in kwargs:
            self._given_loop = kwargs["_loop"]
        elif self.worker_loop is not self._found_loop:
            self._given_loop = self.worker_loop
        try:
            found = host.resolve_aloop(self._given_loop)
        except NeotaskerError:
            if self._target_is_async or self._given_loop is not None:
                raise
            found = None
        self.aloop = found if isinstance(found, ALoop) else None
        self._found_loop = found if self.aloop is None else self.aloop.get_loop()
        self.worker_loop = self._found_loop
        return found
