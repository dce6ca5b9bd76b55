"""The registry: which schedulers run, and how they are stopped together."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import TYPE_CHECKING, Any

from ..base.clock import monotonic
from ..base.report import Reporter
from ..base.signatures import parameters_of
from ..base.spare import need_stack, run_apart
from ..errors import AloopError
from ..host import Host
from ..loops.port import ForeignLoop, LoopPort, running_loop, wait_on

if TYPE_CHECKING:
    import asyncio

    from ..base.restarts import RestartMode, Restarts

__all__ = ["Host", "Registry"]

logger = Reporter("neotasker")


class _Entry:
    """A registered scheduler; of an asynchronous one also how its ``loop()`` is run."""

    __slots__ = (
        "born",
        "context",
        "is_worker",
        "name",
        "on_give_up",
        "port",
        "restarts",
        "scheduler",
    )

    def __init__(self, scheduler: Any) -> None:
        name = getattr(scheduler, "_name", None) or getattr(scheduler, "name", None)
        self.scheduler = scheduler
        self.name = name if isinstance(name, str) else f"{type(scheduler).__name__}"
        self.port: LoopPort | None = None  # of an asynchronous one
        self.restarts: Restarts | None = None  # likewise
        self.on_give_up: Callable[[], object] | None = None
        self.context: contextvars.Context | None = None
        self.born = 0.0
        # Whether it is one of ours, which can be told to stop and waited for apart.
        self.is_worker = getattr(scheduler, "_ask_stop", None) is not None


class _StopCall:
    """One call of the ``stop`` of a scheduler."""

    def __init__(self, entry: _Entry, wait: bool | float, drain: bool) -> None:
        self.entry = entry
        self.wait = wait
        self.drain = drain
        self.since = monotonic()
        self.ident = 0  # of its thread
        self.ended = threading.Event()


class Registry:
    """Which schedulers run, each once, and their end.

    Guarantees: a scheduler that was registered is stopped by `stop_all`, unless it was
    unregistered before. What it raises is logged and concerns no other one. ``loop()``
    of an asynchronous scheduler is one asyncio task at a time.

    Assumes: the host is inactive when `stop_all` is called, so that nothing is
    registered any more.

    The lock protects the table. No code of schedulers runs under it.
    """

    def __init__(self, host: Host, on_change: Callable[[], object] | None = None) -> None:
        """Make an empty registry.

        Parameters:
            host: what the schedulers run on.
            on_change: called when a scheduler is no longer registered.
        """
        self._host = host
        self._on_change = on_change or (lambda: None)
        self._lock = threading.RLock()
        self._entries: dict[int, _Entry] = {}  # by identity: names need not be unique
        self._calls: dict[int, _StopCall] = {}  # that are on; touched without the lock

    def register_scheduler(
        self,
        scheduler: Any,
        *,
        restart: RestartMode = "never",
        max_restarts: int | None = None,
        period: float = 60.0,
        on_give_up: Callable[[], object] | None = None,
    ) -> bool:
        """Run ``scheduler.loop()`` as an asyncio task, and stop the scheduler with the host.

        Parameters:
            scheduler: an object with ``stop()`` and ``async loop()``. Its attribute
                ``worker_loop`` names the loop: an aloop, the name of one, or an asyncio
                loop; the default one when there is none.
            restart: what follows when ``loop()`` ends: ``'never'``, ``'on_error'`` or
                ``'always'`` starts it again, after a pause that doubles to one second.
            max_restarts: the most restarts within *period*, after which it is given up;
                None: no limit.
            period: seconds.
            on_give_up: called when it is given up; the scheduler's own method of that
                name when left out.

        Returns:
            False if it is registered already.

        Raises:
            TypeError: it lacks one of the methods.
            ValueError: the policy is out of range.
            SupervisorNotStarted: the host does not run.
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """
        from ..base.restarts import Restarts  # workers come without

        need_stack()
        _check(scheduler, "loop", "stop")
        entry = _Entry(scheduler)
        entry.restarts = Restarts(restart, max_restarts, period, self._host.poll_delay)
        entry.on_give_up = on_give_up or getattr(scheduler, "on_give_up", None)
        entry.context = contextvars.copy_context()
        self._host.require_started(f"scheduler {entry.name}")
        loop = self._host.resolve_aloop(getattr(scheduler, "worker_loop", None))
        port = loop if isinstance(loop, LoopPort) else ForeignLoop(loop)
        entry.port = port
        if not self._add(entry):
            return False
        try:
            port.call_soon(self._run, entry)
        except BaseException:
            self._remove(entry)
            raise
        return True

    def register_sync_scheduler(self, scheduler: Any) -> bool:
        """Stop *scheduler* with the host.

        Returns:
            False if it is registered already.

        Raises:
            TypeError: it has no method ``stop``.
            SupervisorNotStarted: the host does not run.
        """
        need_stack()
        _check(scheduler, "stop")
        return self._add(_Entry(scheduler))

    def unregister_scheduler(self, scheduler: Any) -> bool:
        """Forget *scheduler*, whose ``loop()`` goes on; return False if it is unknown."""
        with self._lock:
            entry = self._entries.pop(id(scheduler), None)
        self._on_change()
        return entry is not None

    unregister_sync_scheduler = unregister_scheduler

    def get_schedulers(self) -> dict[str, Any]:
        """Return the registered schedulers by name; a namesake gets a number."""
        with self._lock:
            entries = list(self._entries.values())
        found: dict[str, Any] = {}
        for entry in entries:
            name, number = entry.name, 1
            while name in found:
                number += 1
                name = f"{entry.name}_{number}"
            found[name] = entry.scheduler
        return found

    def _add(self, entry: _Entry) -> bool:
        with self._lock:
            # Under the lock: the host turns inactive before it looks who is registered.
            self._host.require_started(f"scheduler {entry.name}")
            return self._entries.setdefault(id(entry.scheduler), entry) is entry

    def _remove(self, entry: _Entry) -> bool:
        with self._lock:
            if self._entries.get(id(entry.scheduler)) is not entry:
                return False
            del self._entries[id(entry.scheduler)]
        self._on_change()
        return True

    def _has(self, entry: _Entry) -> bool:
        with self._lock:
            return self._entries.get(id(entry.scheduler)) is entry

    # Asynchronous schedulers, in the thread of their loop.

    def _run(self, entry: _Entry) -> None:
        if not self._has(entry):
            return
        assert entry.port is not None and entry.context is not None
        entry.born = self._host.ticker.now()
        try:
            task = entry.context.run(self._create_task, entry)
        except BaseException:
            logger.exception("scheduler %s cannot be run and is unregistered", entry.name)
            self._remove(entry)
            return
        task.add_done_callback(partial(self._on_end, entry))

    def _create_task(self, entry: _Entry) -> asyncio.Task[Any]:
        assert entry.port is not None
        loop = entry.scheduler.loop()
        # As it is, where it can be: tools look for the scheduler in the task's frame.
        coro = loop if inspect.iscoroutine(loop) else _wait_for(loop)
        return entry.port.create_task(coro, name=entry.name)

    def _on_end(self, entry: _Entry, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._remove(entry)
            return
        error = task.exception()
        if error is not None:
            logger.error(
                "the loop of scheduler %s ended with an exception", entry.name, exc_info=error
            )
        if not self._has(entry):
            return
        restarts = entry.restarts
        assert restarts is not None
        if not restarts.restarts_after(error is not None):
            if error is not None:
                self._remove(entry)
            return
        now = self._host.ticker.now()
        restarts.lived(now - entry.born)
        pause = restarts.next_pause(now)
        if pause is None:
            self._give_up(entry)
        else:
            self._host.ticker.call_later(pause, self._run_again, entry)

    def _run_again(self, entry: _Entry) -> None:
        assert entry.port is not None
        try:
            entry.port.call_soon(self._run, entry)
        except AloopError as exc:
            if self._remove(entry):
                logger.error("scheduler %s cannot be restarted: %s", entry.name, exc)

    def _give_up(self, entry: _Entry) -> None:
        if not self._remove(entry):
            return
        assert entry.restarts is not None
        logger.critical(
            "scheduler %s is given up: %s", entry.name, entry.restarts.describe_limit()
        )
        if entry.on_give_up is not None:
            try:
                entry.on_give_up()
            except BaseException:
                logger.exception("error in on_give_up of scheduler %s", entry.name)

    # Stopping.

    def stop_all(
        self, wait: bool = True, drain: bool = False, deadline: float | None = None
    ) -> dict[str, Any]:
        """Stop every scheduler: all are told before any is waited for.

        Where runs are waited for, queue workers come last: what runs elsewhere until then
        may hand them its last items.

        Parameters:
            wait: return only when the runs of the workers have ended.
            drain: queue workers finish what they hold.
            deadline: monotonic seconds after which nothing is waited for any more, and
                queue workers leave what they have not come to.

        Returns:
            The workers that have not ended, by name.
        """
        with self._lock:
            entries = list(self._entries.values())
        workers = [entry for entry in entries if entry.is_worker]
        waves = [entries]
        if wait:
            takers = [entry for entry in workers if hasattr(entry.scheduler, "put_threadsafe")]
            waves = [[entry for entry in entries if entry not in takers], takers]
        for wave in waves:
            if wait:
                for entry in wave:
                    if entry.is_worker:
                        with self._logging(entry):
                            entry.scheduler._ask_stop(drain)
            for entry in wave:
                if not entry.is_worker:
                    self._remove(entry)  # it has no second stop to be called
                with self._logging(entry):
                    self._stop(entry, wait, drain, deadline)
        if wait and drain and deadline is not None:
            for entry in workers:
                entry.scheduler._hurry()
        return {
            name: scheduler
            for name, scheduler in self.get_schedulers().items()
            if any(entry.scheduler is scheduler for entry in workers)
        }

    @contextlib.contextmanager
    def _logging(self, entry: _Entry) -> Iterator[None]:
        try:
            yield
        except BaseException:
            logger.exception("error while stopping scheduler %s", entry.name)

    def _stop(self, entry: _Entry, wait: bool, drain: bool, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        in_time = entry.is_worker and entry.scheduler._stops_in_time()
        call = _StopCall(entry, left if wait and in_time and left is not None else wait, drain)
        if not in_time:
            self._calls[id(call)] = call
        if left is None or in_time:
            self._make_call(call)
        else:  # anybody's code cannot be interrupted: a thread is left to it
            run_apart(f"stop {entry.name}", partial(self._make_call, call))
            call.ended.wait(left)

    def _make_call(self, call: _StopCall) -> None:
        call.ident = threading.get_ident()
        try:
            with self._logging(call.entry):
                _call_stop(call.entry, call.wait, call.drain)
        finally:
            self._calls.pop(id(call), None)
            call.ended.set()

    def stopping(self) -> list[tuple[str, float, int]]:
        """Return name, beginning (monotonic seconds) and thread of each ``stop`` that is on.

        Not of those of workers, whose runs tell more.
        """
        return [(c.entry.name, c.since, c.ident) for c in self._calls.copy().values()]

    def foreign_ports(self) -> list[ForeignLoop]:
        """Return the loops, not ours, that workers and asynchronous schedulers run on."""
        with self._lock:
            entries = list(self._entries.values())
        ports = [entry.port for entry in entries if isinstance(entry.port, ForeignLoop)]
        for entry in entries:
            if entry.is_worker:
                ports += entry.scheduler._foreign_ports()
        return ports

    def abandon(self) -> None:
        """Forget all, and mark the workers as not running: in a forked child."""
        self._lock = threading.RLock()
        entries = list(self._entries.values())
        self._entries.clear()
        self._calls.clear()
        for entry in entries:
            if entry.is_worker:
                entry.scheduler._abandon()


def _check(scheduler: Any, *methods: str) -> None:
    for method in methods:
        if not callable(getattr(scheduler, method, None)):
            raise TypeError(f"a scheduler needs a method {method}, which {scheduler!r} has not")


async def _wait_for(awaitable: Any) -> None:
    await awaitable


def _call_stop(entry: _Entry, wait: bool | float, drain: bool) -> None:
    """Call ``stop`` with what its signature takes; await it if it is asynchronous."""
    stop = entry.scheduler.stop
    given: dict[str, Any] = {"wait": wait}
    if entry.is_worker:
        given["drain"] = drain
    outcome = stop(**{name: given[name] for name in _accepted(stop, given)})
    if not inspect.iscoroutine(outcome):
        return
    if entry.port is None:
        outcome.close()
        raise TypeError(
            f"the stop of scheduler {entry.name} is a coroutine function, which only a "
            "scheduler with a loop may have: use register_scheduler"
        )
    future = entry.port.spawn_coroutine_threadsafe(outcome)
    if not wait or entry.port.get_loop() is running_loop():
        return
    try:
        if wait_on(entry.port, partial(_wait_for_end, future)):
            future.result()
    finally:
        del future  # the frame is in the traceback of what the coroutine has raised


def _wait_for_end(future: Future[Any], timeout: float | None) -> bool:
    return bool(wait_for([future], timeout).done)


def _accepted(stop: Callable[..., Any], names: dict[str, Any]) -> list[str]:
    parameters = parameters_of(stop)
    if parameters is None:
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return list(names)
    by_name = {
        p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    return [name for name in names if name in by_name]
