"""The lives of workers: what a worker is between one start and the end of its last run.

`Life` is what all have in common. `SerialLife` is that of workers whose runs come one
after another because something fell due; how a run is made is left to its driver:
`PoolRuns` hand it to a pool, `LoopRuns` make it on an asyncio loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from queue import Full
from threading import get_ident
from typing import Any, Protocol

from .errors import SupervisorNotStarted
from .host import Host
from .priority import TASK_NORMAL, lane_of

__all__ = [
    "Call",
    "Life",
    "LoopRuns",
    "PoolRuns",
    "Runs",
    "SerialLife",
    "Tally",
    "hand_over",
    "is_own_cancellation",
    "timed",
]

logger = logging.getLogger("neotasker")

_RETRY = 1.0  # seconds until a run that the pool would not take is handed to it again


class Tally:
    """The counters of a worker, over all its lives."""

    __slots__ = ("errors", "missed", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.missed = 0
        self.errors = 0


class Owner(Protocol):
    """What a life asks of its worker."""

    _name: str
    _tally: Tally

    def stop(self, wait: bool = True) -> None:
        """Stop the worker."""

    def error(self) -> None:
        """Report the exception that is being handled."""

    def process_result(self, result: Any) -> Any:
        """Look at what a run returned."""

    def _on_life_end(self, life: Any, rest: list[Any]) -> None: ...


class Call:
    """What a worker runs in one life: target, keywords, context, and how.

    Runs see the context variables of who started the worker.
    """

    __slots__ = ("bound", "checks_result", "context", "kwargs", "priority", "run", "timeout")

    def __init__(
        self,
        run: Callable[..., Any],
        kwargs: dict[str, Any],
        priority: int,
        positional: int = 0,
        checks_result: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.run = run
        self.kwargs = kwargs
        self.priority = priority
        self.checks_result = checks_result  # whether process_result was overridden
        self.timeout = timeout
        self.context = contextvars.copy_context()
        self.bound = _bind(run, kwargs, positional)
        """The target with its keywords."""

    @property
    def kwargs_elsewhere(self) -> dict[str, Any]:
        """The keywords for a run in another process, where the worker cannot follow."""
        return {name: value for name, value in self.kwargs.items() if name != "_worker"}


def _bind(run: Callable[..., Any], kwargs: dict[str, Any], positional: int) -> Any:
    """Return *run* with its keywords; the usual ones spelled out, which is twice as fast."""
    if not kwargs:
        return run
    if kwargs.keys() != {"_worker", "_name", "o"}:
        return partial(run, **kwargs)
    worker, name, o = kwargs["_worker"], kwargs["_name"], kwargs["o"]
    if positional:
        return lambda item: run(item, _worker=worker, _name=name, o=o)
    return lambda: run(_worker=worker, _name=name, o=o)


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

    def __init__(self, worker: Owner, host: Host, call: Call) -> None:
        self.worker = worker
        self.host = host
        self.call = call
        self.tally = worker._tally
        self.lock = threading.RLock()
        self.open = True  # runs may begin
        self.begun = False
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

    # From birth to death.

    def begin(self) -> None:
        """Set out, unless the worker was stopped before it came to that."""
        with self.lock:
            if not self.open:
                return
            self.begun = True
        self._begin()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        with self.lock:
            if not self.open:
                return
            self._prepare_close(drain)  # first, as both are looked at without the lock
            self.open = False
            idle = self._is_idle()
        self._on_close()
        if idle:
            self.end()

    def _prepare_close(self, drain: bool) -> None:
        """Note whether what was accepted is still to be processed. The lock is held."""

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
        parker = threading.Lock()
        parker.acquire()
        with self.lock:
            if self.ended:
                return True
            self._parked.append(parker)
        seconds = -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        if parker.acquire(timeout=seconds):
            return True
        with self.lock:
            if parker in self._parked:
                self._parked.remove(parker)
            return self.ended

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
            logger.exception("error in on_error of worker %s", self.worker._name)

    def returned(self, result: Any) -> None:
        """Look at what a run returned: False means that there is to be no other."""
        if self.call.checks_result:
            try:
                if self.worker.process_result(result) is False:
                    result = False
            except BaseException:
                self.failed()
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
            logger.exception("error in stop of worker %s", self.worker._name)
        self.close()


class Runs(Protocol):
    """How runs are made: the driver of a `SerialLife`."""

    task: Any
    """The latest run, for those who want to look."""

    def begin(self) -> None:
        """Be ready for runs."""

    def enter(self) -> None:
        """Have a run begin soon, one that was claimed: from any thread."""

    def conclude(self) -> None:
        """End the life, which is closed, and no run is on: from any thread."""

    def timer(self, callback: Callable[[], object]) -> tuple[Callable[..., object], ...]:
        """Return what a timer is to call to have *callback* called where runs begin."""

    def inside(self) -> bool:
        """Return whether the caller is in a run."""

    async def serve(self) -> None:
        """Make the runs in the task that calls this."""


class SerialLife(Life):
    """A life whose runs come one after another.

    Guarantees: never two runs at once. Who finds the worker busy leaves word of what is
    due, and the run that is on sees to it when it ends.

    Two tokens, in deques, keep that without a lock, since a deque's operations are atomic
    and ordered. ``idle`` holds one while no run is on or claimed; who takes it has claimed
    a run. ``queued`` holds one from then on until the run begins; who takes it begins the
    run, or makes it void. Word is left before ``idle`` is looked at, and looked for after
    the token was put back, so one of the two sees the other. ``pending`` is such a word:
    a run is wanted that begins from now on.
    """

    __slots__ = ("driver", "enter", "idle", "late", "owed", "pending", "queued")

    paces = False
    """Whether runs are followed by something: `after_run`."""

    def __init__(self, worker: Owner, host: Host, call: Call, make_runs: RunsFactory) -> None:
        super().__init__(worker, host, call)
        self.idle: deque[None] = deque((None,))
        self.queued: deque[None] = deque()
        self.pending: deque[None] = deque(maxlen=1)
        self.owed = 0  # runs that fell due during a run and are to be made up for
        self.late = False  # something fell due and did not begin at once
        self.driver: Runs = make_runs(self)
        self.enter = self.driver.enter

    # For the kinds to fill in.

    def on_run(self) -> None:
        """See to what is pending or late as a run begins that makes up for it."""
        self.pending.clear()
        self.late = False

    def after_run(self) -> None:
        """See to what each run is followed by, before the next can begin."""

    def _next(self) -> float | None:
        """Return when another run is due (0: now), None if none is; idle was taken."""
        return 0.0 if self.pending else None

    def _wants_more(self) -> bool:
        """Return whether word was left of something that is due."""
        return bool(self.pending or self.owed)

    # Claiming runs.

    def want(self) -> bool:
        """Leave word that a run is wanted; return False if nobody would see it now."""
        self.pending.append(None)
        if not self.begun:
            with self.lock:  # `begin` looks at what is pending after that
                return self.begun
        return True

    def claim(self) -> bool:
        """Claim a run, to be entered; return False if one is on its way or on."""
        try:
            self.idle.pop()
        except IndexError:
            return False
        self.queued.append(None)
        return True

    def settle(self) -> None:
        """See to what was left to a run that has ended: idle was put back."""
        while True:
            try:
                self.idle.pop()
            except IndexError:
                return  # who has taken it sees to it
            if not self.open:
                self.driver.conclude()
                return
            due = self._next()
            if due is not None:
                self.queued.append(None)
                self.enter_at(due)
                return
            self.idle.append(None)
            if self.open and not self._wants_more():
                return

    def enter_at(self, due: float) -> None:
        """Enter the claimed run when it is due: seconds of the ticker's clock."""
        ticker = self.host.ticker
        if due and due > ticker.now():
            ticker.call_at(due, *self.driver.timer(self._on_due))
        else:
            self.enter()

    def _on_due(self) -> None:
        self.enter()

    # Life.

    def _begin(self) -> None:
        self.driver.begin()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        with self.lock:
            if not self.open:
                return
            self.open = False
        self._on_close()
        if self._is_void():
            self.driver.conclude()

    def _is_void(self) -> bool:
        """Make void what has not begun; return whether no run is on."""
        for tokens in (self.idle, self.queued):
            try:
                tokens.pop()
            except IndexError:
                continue
            return True
        return False

    def current_task(self) -> Any:
        """Return the run that is on or about to be, or None."""
        return None if self.idle else self.driver.task

    def inside(self) -> bool:
        """Return whether the caller must not wait for the end, as the end waits for it."""
        return self.driver.inside()

    def serve(self) -> Any:
        """Return what the worker's task is to await."""
        return self.driver.serve()

    def finish(self) -> None:
        """End with the worker's task."""
        if self.open:  # nobody has stopped the worker: the task was cancelled
            logger.warning("worker %s: its task was cancelled", self.worker._name)
            self.stop_worker()
        self.end()


RunsFactory = Callable[[Any], Runs]


def hand_over(
    executor: Executor, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Submit to an executor; to a pool of ours without waiting for room in its queue.

    The tick, and whoever triggers, must not be blocked, and there is only one run per
    worker to wait for its turn.
    """
    pool = getattr(executor, "pool", executor)
    crew = getattr(pool, "_crew", None)
    if crew is None:
        return executor.submit(fn, *args, **kwargs)
    lane = lane_of(getattr(executor, "priority", TASK_NORMAL))
    task = crew.dispatcher.make(fn, args, kwargs, lane)
    crew.dispatcher.enqueue(task)
    return task


class _Pool:
    """An executor in the place of a host's pool."""

    queue_size = None

    def __init__(self, executor: Executor) -> None:
        self.executor = executor


class PoolRuns:
    """Makes the runs of a life in a pool: the host's, or an executor of the user's.

    An executor that is no thread pool gets the bare target, without ``_worker``: it may
    send it to another process, where neither would arrive.

    A run that the pool would not take while the host is active is handed to it again
    after a second, with a line in the log.
    """

    __slots__ = (
        "_begin_token",
        "_checks",
        "_end_token",
        "_pool",
        "_run",
        "_submit_turn",
        "_turn",
        "life",
        "task",
        "thread",
    )

    def __init__(self, executor: Executor | None, life: SerialLife) -> None:
        self.life = life
        self.task: Any = None
        self.thread = 0  # that of the run
        self._pool = life.host.thread_pool if executor is None else _Pool(executor)
        # Bound once, as this is what each fire of an interval worker goes through.
        self._begin_token = life.queued.pop
        self._end_token = life.idle.append
        self._turn = self.turn
        call = life.call
        self._checks = call.checks_result
        self._submit_turn = life.host.lane(call.priority).submit
        self._run: Callable[[], Any] = call.bound
        if len(call.context):
            self._run = lambda: call.context.run(call.bound)

    def begin(self) -> None:
        """Be ready: nothing is needed."""

    def enter(self) -> None:
        """Hand a run to the pool."""
        pool = self._pool
        if pool.executor is None and pool.queue_size is None:
            try:
                self.task = self._submit_turn(self._turn)
                return
            except RuntimeError:  # but runs may be let in until all workers have stopped
                pass
        self._enter_slowly()

    def _enter_slowly(self) -> None:
        executor = self._pool.executor
        try:
            if executor is None or isinstance(executor, ThreadPoolExecutor):
                self.task = self._submit(self._turn, {})
            elif self._takes_off():
                self._send()
        except (RuntimeError, Full) as exc:  # it takes nothing now, or has no thread
            life = self.life
            if life.open and life.host.active:
                logger.error("worker %s: its run was refused: %s", life.worker._name, exc)
                life.host.ticker.call_later(_RETRY, self.enter)

    def _submit(self, fn: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        if isinstance(self._pool, _Pool):
            return hand_over(self._pool.executor, fn, (), kwargs)
        return self.life.host.enqueue(fn, (), kwargs, self.life.call.priority)

    def turn(self) -> None:
        """Run the target: in a thread of the pool."""
        life = self.life
        try:
            self._begin_token()
        except IndexError:
            return  # void
        if life.open:
            if life.pending or life.late:
                life.on_run()
            life.tally.runs += 1
            self.thread = get_ident()
            try:
                result = self._run()
            except BaseException:
                life.failed()
            else:
                if result is False or self._checks:
                    life.returned(result)
            self.thread = 0
            if life.paces:
                life.after_run()
        self._end_token(None)
        if life.owed or life.pending or not life.open:
            life.settle()

    # The same in two parts, where the run is elsewhere.

    def _takes_off(self) -> bool:
        """Begin the run; return False if it is void."""
        life = self.life
        try:
            self._begin_token()
        except IndexError:
            return False
        if not life.open:
            self._land()
            return False
        if life.pending or life.late:
            life.on_run()
        life.tally.runs += 1
        return True

    def _land(self) -> None:
        """End the run."""
        life = self.life
        if life.paces:
            life.after_run()
        self._end_token(None)
        if life.owed or life.pending or not life.open:
            life.settle()

    def _send(self) -> None:
        call = self.life.call
        try:
            self.task = self._submit(call.run, call.kwargs_elsewhere)
        except BaseException:
            self.life.tally.runs -= 1
            self.life.queued.append(None)
            raise
        self.task.add_done_callback(self._came_back)

    def _came_back(self, task: Future[Any]) -> None:
        if not task.cancelled():
            try:
                result = task.result()
            except BaseException:
                self.life.failed()
            else:
                self.life.returned(result)
        self._land()

    def conclude(self) -> None:
        """End the life."""
        self.life.end()

    def timer(self, callback: Callable[[], object]) -> tuple[Callable[..., object], ...]:
        """Return *callback*: the tick may call it."""
        return (callback,)

    def inside(self) -> bool:
        """Return whether the caller is the run."""
        return self.thread == get_ident()

    async def serve(self) -> None:
        """Do nothing: there is no task."""


class LoopRuns:
    """Makes the runs of a life in one asyncio task.

    The task sleeps on a future between runs; `enter` wakes it from any thread, at one
    wake-up of the loop per burst. Fields below ``waiter`` belong to the loop's thread.
    """

    __slots__ = ("life", "loop", "main", "port", "post", "task", "thread", "waiter", "woken")

    def __init__(self, port: Any, main: Callable[[Any], Any], life: Life) -> None:
        """Make a driver.

        Parameters:
            port: the way into the loop: an aloop, or a ``ForeignLoop``.
            main: makes the coroutine of the task, which calls `serve`.
            life: whose runs they are.
        """
        self.life = life
        self.port = port
        self.loop: asyncio.AbstractEventLoop = port.get_loop()
        self.post = port._gate.post
        self.main = main
        self.task: Any = None
        self.thread = 0
        self.waiter: asyncio.Future[None] | None = None
        self.woken = False

    def begin(self) -> None:
        """Make the task.

        Raises:
            AloopError: the loop does not run.
        """
        self.port.call_soon(self._start)

    def _start(self) -> None:
        life = self.life
        if not life.over:
            make = partial(self.port.create_task, self.main(life), name=life.worker._name)
            life.call.context.run(make).add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        life: Any = self.life
        if not life.over:  # it was cancelled before its first step
            life.finish()

    def attach(self) -> bool:
        """Take the task that runs as the one to wake; return False if the life is over."""
        with self.life.lock:
            self.task = asyncio.current_task()
            self.thread = get_ident()
            return not self.life.over

    def enter(self) -> None:
        """Wake the task."""
        if get_ident() == self.thread:
            self._wake()
        else:
            self.post(self._wake)

    def _wake(self) -> None:
        waiter = self.waiter
        if waiter is None:
            self.woken = True
        elif not waiter.done():
            waiter.set_result(None)

    async def sleep(self) -> None:
        """Wait until woken."""
        if self.woken:
            self.woken = False
            return
        waiter = self.waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            self.waiter = None

    async def serve(self) -> None:
        """Run the target as it falls due, until the life is closed."""
        life: Any = self.life
        run, timeout, tally = life.call.bound, life.call.timeout, life.tally
        create_future, queued, idle, pending = (
            self.loop.create_future,
            life.queued,
            life.idle,
            life.pending,
        )
        while True:
            if self.woken:
                self.woken = False
                await asyncio.sleep(0)  # due again at once: others have a turn
            elif life.open:
                waiter = self.waiter = create_future()
                try:
                    await waiter
                finally:
                    self.waiter = None
            else:
                return
            try:
                queued.pop()
            except IndexError:
                continue
            if life.open:
                if pending or life.late:
                    life.on_run()
                tally.runs += 1
                try:
                    if timeout is None:
                        result = await run()
                    else:
                        result = await timed(run(), timeout, life.host, self.post)
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    if is_own_cancellation(exc):
                        raise
                    life.failed()
                else:
                    if result is False:
                        life.returned(result)
                if life.paces:
                    life.after_run()
            idle.append(None)
            if life.owed or pending or not life.open:
                life.settle()

    def is_loose(self) -> bool:
        """Return whether there is no task yet, or it cannot get on."""
        return self.task is None or not self.loop.is_running()

    def conclude(self) -> None:
        """Let the task end, and with it the life; end the life if there is no task."""
        with self.life.lock:
            loose = self.is_loose()
        if loose:
            self.life.end()
        else:
            self.enter()

    def timer(self, callback: Callable[[], object]) -> tuple[Callable[..., object], ...]:
        """Return a call that the tick makes to have *callback* called in the loop."""
        return (self.post, callback)

    def inside(self) -> bool:
        """Return whether waiting would keep the loop from getting on, or it rests anyway."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return not self.loop.is_running()


def is_own_cancellation(exc: BaseException) -> bool:
    """Return whether *exc* cancels the task that runs, and not something that it awaits."""
    if not isinstance(exc, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def timed(
    coro: Any, timeout: float, host: Host, post: Callable[[Callable[[], object]], object]
) -> Any:
    """Await *coro* for at most *timeout* seconds of the ticker's clock.

    Raises:
        TimeoutError: it took longer, and was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    expired = False
    done = False

    def expire() -> None:
        nonlocal expired
        if not done:
            expired = True
            task.cancel()

    timer = host.ticker.call_later(timeout, post, expire)
    try:
        return await coro
    except asyncio.CancelledError:
        if expired:
            expired = False
            if task.uncancel() == 0:
                raise TimeoutError(
                    f"the run took longer than its timeout of {timeout:g} s"
                ) from None
        raise
    finally:
        done = True
        timer.cancel()
        if expired:  # it has ended in spite of that
            task.uncancel()
