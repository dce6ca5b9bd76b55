"""What all workers have in common: names, hooks, start and stop, counters."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import host
from ..base.known_as import parted
from ..base.priority import TASK_NORMAL, lane_of
from ..base.report import Reporter
from ..base.seconds import seconds, wait_seconds
from ..base.spare import need_stack
from ..base.targets import check_called
from ..errors import AloopError, NeotaskerError, WorkerNotStarted
from ..host import Host
from ..loops.port import ForeignLoop, LoopPort
from ..pool.pool import check_executor
from .call import Call, call_with_item, check_arguments, check_callable, keywords_of
from .in_loop import LoopRuns
from .in_pool import PoolRuns
from .life import Life, RunsFactory, Tally

if not TYPE_CHECKING:
    from .figure import Figure

__all__ = ["Worker"]

logger = Reporter("neotasker")

_PREFIX = "_background_worker_"

# Keywords of `start` that are for the worker and not for its target.
_OWN_KEYWORDS = frozenset(
    ("_delay", "_delay_after", "_delay_before", "_interval", "_loop", "_priority")
)
_OFFERED = ("_worker", "_name", "o")  # what a target gets if it takes it


class Worker:
    """Something that runs one target again and again: the common part of all kinds.

    Guarantees: never two runs of one worker at once (unless its kind is told so), also
    across a stop that did not wait and the start that followed; each start has one end,
    before which the supervisor knows the worker. Hooks run in the thread that starts or
    stops the worker, `before_start` first and `after_stop` last.

    ``start_stop_lock`` keeps starts, stops and their hooks apart. It is never held while
    a run is waited for, so a target may take it. ``_guard`` protects which life is the
    present one, and whether the supervisor knows of it; the registry's lock may be taken
    inside it.
    """

    _is_worker = True
    _target_is_async = False
    _told_of_result = False  # that a run has returned what nobody will run

    # Override these.

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Be the target; override it, assign it, or give ``fn``."""
        raise NotImplementedError(f"worker {self._title} has no target")

    def before_start(self) -> None:
        """Hook: called before the worker starts."""

    def after_start(self) -> None:
        """Hook: called when the worker has started."""

    def before_stop(self) -> None:
        """Hook: called before the worker stops."""

    def send_stop_events(self) -> None:
        """Hook: called to wake what the target may be waiting for, as it shall end."""

    def after_stop(self) -> None:
        """Hook: called at the end of `stop`."""

    def process_result(self, result: Any) -> Any:
        """Hook: called with what each plain run returned; False stops the worker."""

    on_error: Callable[..., object] | None = None
    """Called with ``on_error_kwargs`` inside the ``except`` of a run that raised."""

    o: Any = None
    """Anything; the target gets it under this name."""

    if TYPE_CHECKING:
        name: Any
        supervisor: Host
        poll_delay: float
        runs: int
        missed: int
        errors: int
        unprocessed: list[Any]
        _current_task: Any
    else:

        @Figure
        def supervisor(self):
            """The supervisor that hosts the worker."""
            if host.default is None:
                raise NeotaskerError(
                    f"worker {self._title} has no supervisor: give supervisor=, or import "
                    "the package neotasker, which has a default one"
                )
            return host.default()

        @Figure
        def poll_delay(self):
            """Seconds that keep apart what would otherwise spin."""
            return self.supervisor.poll_delay

        @Figure
        def runs(self):
            """How many runs have begun."""
            return self._tally.runs

        @Figure
        def missed(self):
            """How many times a run fell due and there was none."""
            return self._tally.missed

        @Figure
        def errors(self):
            """How many runs have raised."""
            return self._tally.errors

        @Figure
        def unprocessed(self):
            """What the last stop left unprocessed, in order."""
            return list(self._unprocessed)

        @Figure
        def name(self):
            """The name, as `_name` has it."""
            return self._name

        @Figure
        def _current_task(self):
            """The run that is on or about to be, or None."""
            life = self._life
            return None if life is None else life.current_task()

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it. The supervisor need not run yet.

        Parameters:
            name: in logs and threads; a random one when left out.
            fn: the target; also as ``func``. Or override or assign `run`.
            o: anything, for the target.
            on_error: called with *on_error_kwargs* when the target raises, inside the
                ``except``; the exception is logged when left out.
            on_error_kwargs: its keywords.
            supervisor: the host; the default supervisor when left out.
            priority: of the runs of a plain target in the pool.
            poll_delay: seconds; the supervisor's when left out.
            pool: an executor for the runs of a plain target; the supervisor's pool when
                left out.
            kwargs: those of the kind. Others do no harm, and are kept from the target.

        Raises:
            TypeError: the target or *on_error* cannot be called, *pool* is no executor.
            ValueError: there is no such priority, or a number is out of range.
        """
        for target in (fn, kwargs.get("func"), kwargs.get("executor_func")):
            if target is not None:
                check_callable("the target", target)
                self.run = target  # type: ignore[method-assign]
                break
        if kwargs.get("o") is not None:
            self.o = kwargs["o"]
        if kwargs.get("on_error") is not None:
            check_callable("on_error", kwargs["on_error"])
            self.on_error = kwargs["on_error"]
        self.on_error_kwargs: dict[str, Any] = kwargs.get("on_error_kwargs") or {}
        if kwargs.get("supervisor") is not None:
            self.supervisor = kwargs["supervisor"]
        if kwargs.get("poll_delay") is not None:
            self.poll_delay = seconds("poll_delay", kwargs["poll_delay"])
        self.priority = kwargs.get("priority", TASK_NORMAL)
        lane_of(self.priority)
        executor = kwargs.get("pool")
        if executor is not None:
            check_executor(executor)
        self._executor = executor
        self._timeout = kwargs.get("timeout")
        self._life: Life | None = None
        self._tally = Tally()
        self._unprocessed: list[Any] = []
        self._start_args: tuple[Any, ...] = ()
        self._active = False
        self.start_stop_lock = threading.RLock()
        self._guard = threading.RLock()
        self.set_name(name)

    def set_name(self, name: Any = None) -> None:
        """Set the name; a random one when left out."""
        self._name = f"{_PREFIX}{name if name is not None else uuid.uuid4()}"

    @property
    def _title(self) -> str:
        return self._name.removeprefix(_PREFIX)

    def __repr__(self) -> str:
        state = "active" if self.is_active() else "inactive"
        return f"<{type(self).__name__} {self._title} {state}>"

    # Asking.

    def is_active(self) -> bool:
        """Return whether the worker was started and not told to stop."""
        return self._active

    def is_started(self) -> bool:
        """Return whether the worker runs, or a run that was begun is not over."""
        life = self._life
        return life is not None and life.begun and not life.ended

    def is_stopped(self) -> bool:
        """Return whether the worker has run, and nothing of it runs any more."""
        life = self._life
        return life is not None and life.ended

    # Starting.

    def start(self, /, *args: Any, **kwargs: Any) -> bool:
        """Start the worker.

        If runs of a start before are still on, which a stop did not wait for, the first
        run waits for them.

        Parameters:
            args: for the target; the item of a queue comes before them.
            kwargs: for the target, but for those which are for the worker (``_priority``
                and those of its kind).

        Returns:
            False if it runs already.

        Raises:
            SupervisorNotStarted: the supervisor does not run.
            TypeError: there is no target, or one that this kind cannot run.
            ValueError: a keyword for the worker is out of range.
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
        """
        need_stack()
        host = self.supervisor
        host.require_started(f"worker {self._title}")
        with self.start_stop_lock:
            if self._active:
                return False
            self.before_start()
            if "_priority" in kwargs:
                lane_of(kwargs["_priority"])
                self.priority = kwargs["_priority"]
            self._start_args = args
            life = self._make_life(host, kwargs)
            with self._guard:
                before = self._life
                known = host.register_sync_scheduler(self)
                self._life = life
                self._active = True
            self._unprocessed = []
            try:
                if before is None or before.ended:
                    life.begin()
                else:
                    life.follow(before)
            except BaseException:
                with self._guard:
                    self._active = False
                    self._life = before
                try:
                    life.call_off()
                finally:
                    if known:
                        host.unregister_sync_scheduler(self)
                raise
            logger.debug("worker %s started", self._title)
            self.after_start()
            return True

    def restart(self, /, *args: Any, **kwargs: Any) -> bool:
        """Stop the worker, wait for its runs unless called by one, and start it again.

        Parameters:
            args, kwargs: as for `start`.
        """
        self.stop(wait=True)
        return self.start(*args, **kwargs)

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        """Return the life that a start begins, which has done nothing yet."""
        raise NotImplementedError

    def _target(self) -> Callable[..., Any]:
        """Return the target, and note whether it is async.

        Raises:
            TypeError: there is none, or it cannot be called.
        """
        run = self.run
        if getattr(run, "__func__", None) is Worker.run:
            raise TypeError(
                f"worker {self._title} has no target: give fn=, assign its attribute run, "
                "or override run in a subclass"
            )
        kind = check_called(f"the target of worker {self._title}", run)
        self._target_is_async = kind in ("async", "awaitable")
        return run

    def _make_call(self, kwargs: dict[str, Any], positional: int = 0) -> Call:
        """Return what each run calls.

        A target that takes no ``**kwargs`` gets only those of ``_worker``, ``_name`` and
        ``o`` which it names.

        Parameters:
            kwargs: those of `start`.
            positional: how many positional arguments a run gets besides.
        """
        run = self._target()
        args = self._start_args
        given = {name: kwargs[name] for name in kwargs if name not in _OWN_KEYWORDS}
        offered = {"_name": self._name, "o": self.o} | given
        offered["_worker"] = self
        taken = keywords_of(run, positional + len(args))
        if taken is not None:
            for name in _OFFERED:
                if name not in taken and (name == "_worker" or name not in given):
                    del offered[name]
        check_arguments(self._title, run, (None,) * positional + args, offered)
        timeout = None
        if self._timeout is not None and self._target_is_async:
            timeout = seconds("timeout", self._timeout, above=True)
        if args:
            run = partial(call_with_item, run, args) if positional else partial(run, *args)
        checks = not self._target_is_async and self._overrides("process_result", Worker)
        return Call(run, offered, self.priority, positional, checks, timeout)

    def _overrides(self, hook: str, base: type) -> bool:
        """Return whether a hook is another than that of *base*, which does nothing."""
        return getattr(getattr(self, hook), "__func__", None) is not getattr(base, hook)

    def _runs_factory(self, loop: Any, main: Callable[[Any], Any]) -> RunsFactory:
        """Return what makes the driver of a life: a loop's for async targets, or a pool's."""
        if self._target_is_async:
            return partial(LoopRuns, self._port(loop), main)
        return partial(PoolRuns, self._executor)

    def _port(self, loop: Any) -> LoopPort:
        """Return the way into a loop.

        Raises:
            AloopError: it does not run.
        """
        port = loop if isinstance(loop, LoopPort) else ForeignLoop(loop)
        if not port.active:
            raise AloopError(f"worker {self._title}: {port.name} does not run")
        return port

    # Stopping.

    def stop(self, wait: bool | float = True, *, drain: bool = False) -> None:
        """Stop the worker.

        Parameters:
            wait: True waits for the run that is on, a number at most so many seconds,
                False not at all. Nothing is waited for in a run of the worker itself, or
                in the thread of its loop.
            drain: a queue worker processes first what it holds.

        Raises:
            TypeError: *wait* is neither a bool nor a number.
            ValueError: *wait* is negative, or not finite.
        """
        limit = wait_seconds(wait) if wait else None
        life = self._ask_stop(drain)
        if life is None:
            return
        with self.start_stop_lock:
            last, life.after_stop_due = life.after_stop_due, False
        if wait and not life.holds_caller():
            life.join(limit)
        if last:
            with self.start_stop_lock:
                self._call_hook(self.after_stop)

    def _ask_stop(self, drain: bool = False) -> Life | None:
        """Begin to stop, without waiting; return the life that is about to end, if any."""
        need_stack()
        with self.start_stop_lock:
            life = self._life
            if life is None:
                return None
            if self._active and not life.stopping:
                life.stopping = True
                self._call_hook(self.before_stop)
                self._active = False
                self._call_hook(self.send_stop_events)
        life.close(drain)
        return life

    def _hurry(self) -> None:
        """Drain no more, if it does: its time is over."""
        life = self._life
        if life is not None:
            life.hurry()

    def _stops_in_time(self) -> bool:
        """Return whether `stop` keeps to its *wait*: an override may do what it likes."""
        return type(self).stop is Worker.stop

    def _foreign_ports(self) -> list[ForeignLoop]:
        """Return the loops, not ours, in which runs are made or on."""
        ports = []
        life = self._life
        while life is not None:
            if not life.ended and isinstance(life.port, ForeignLoop):
                ports.append(life.port)
            life = life.after
        return ports

    def _call_hook(self, hook: Callable[[], object]) -> None:
        try:
            hook()
        except BaseException:
            logger.exception("error in a hook of worker %s", self._title)

    def wait_until_stop(self, timeout: float | None = None) -> bool:
        """Wait for the end of the runs of a stopped worker; return whether it has come.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        life = self._life
        return life is None or life.join(timeout)

    def _on_life_end(self, life: Life, rest: list[Any]) -> None:
        with self._guard:
            if self._life is life:
                self._active = False
                life.host.unregister_sync_scheduler(self)
            if rest:
                self._unprocessed = self._unprocessed + rest
        if rest:
            logger.warning(
                "worker %s stopped with %d items unprocessed", self._title, len(rest)
            )
        logger.debug("worker %s stopped", self._title)

    def _abandon(self) -> None:
        """Be a worker that does not run: in a forked child."""
        self.start_stop_lock = threading.RLock()
        self._guard = threading.RLock()
        self._active = False
        life, self._life = self._life, None
        if life is not None:
            life.abandon()

    # Errors.

    def error(self) -> None:
        """Report the exception that is being handled: to `on_error`, or to the log."""
        if self.on_error is not None:
            self.on_error(**self.on_error_kwargs)
        else:
            logger.exception("exception in worker %s", self._title)

    def _running_life(self, what: str) -> Any:
        """Return the present life.

        Raises:
            WorkerNotStarted: there has been no start yet.
        """
        life = self._life
        if life is None:
            raise WorkerNotStarted(
                f"worker {self._title} was not started: call start() before {what}"
            )
        return life


parted(__name__, "neotasker.workers.call", "neotasker.loops.port")
