"""Turns: how the life of a queue worker works through what it is given."""

from __future__ import annotations

import asyncio
from _thread import start_new_thread
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from functools import partial
from queue import Full
from threading import get_ident
from typing import Any

from ...base.report import Reporter
from ...errors import WorkerNotStarted
from ...host import Host
from ...pool.launcher import keeps_threads
from ..call import INERT, Call
from ..in_loop import LoopRuns, is_own_cancellation, timed
from ..in_pool import hand_over
from ..life import Life
from .pace import Pace
from .tokens import Tokens

__all__ = ["TurnLife"]

logger = Reporter("neotasker")

_RETRY = 1.0  # seconds until a turn that the pool would not take is handed to it again


def _take(tokens: list[None]) -> bool:
    """Take a token out of a list; return False if it is empty."""
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


class _Drain:
    """How far a turn in the pool has come, from one context to the next."""

    __slots__ = ("ended", "gots", "more", "pace", "ticket")

    def __init__(self) -> None:
        self.pace = Pace()
        self.ticket: Any = None
        self.gots: list[Any] = []
        self.ended = False
        self.more = False  # the quantum was over before there was nothing left


class TurnLife(Life):
    """A life that works through items in turns.

    A *turn* fetches items until there is none, or its quantum is over: in a thread of the
    pool, or on the loop.

    Guarantees: at most *width* runs at once; what was fetched is run, or given back when
    the life is closed. The life ends when the last turn has, whatever waits to begin: a
    turn that has not begun is void, unless the life drains. All this holds whatever a
    finalizer, signal handler or another thread does between any two steps.

    No lock is needed for that, and none would do: a reentrant one does not keep out the
    thread that has it. Two rules take its place. A turn needs one of *width* tokens, which
    goes from hand to hand by one operation each: free, queued while the turn is about to be,
    taken from there by who begins it. And who changes something leaves word
    first, then looks: a put adds its item, then tries for a token; a turn puts its token
    back, then looks for items; a turn notes that it has begun, then looks whether the life
    is closed; a close says that it is, then looks for turns that have begun. Of two that
    meet one sees the other, and if both do no harm is done: what follows, a turn that finds
    nothing or the end of a life that has ended, may come twice.

    Assumes: ``append`` and ``pop`` of lists are atomic, and order what is before and after.
    """

    __slots__ = (
        "_batch",
        "_executor",
        "_free",
        "_interrupted",
        "_main_done",
        "_on",
        "_on_loop",
        "_putting",
        "_queued",
        "_threads",
        "_unclosed",
        "_unended",
        "_width",
        "drains",
        "driver",
    )

    post: Any = None
    """Adds an item and returns False if that is too late, where this is all of a put."""

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        width: int,
        batch: int | None,
        port: Any,
        executor: Executor | None,
    ) -> None:
        """Make a life.

        Parameters:
            worker, host, call: see `Life`.
            width: how many turns there may be at once.
            batch: the most items that a run gets, as a list; None: one, as it is.
            port: the way into the loop, for an async target.
            executor: in place of the host's pool, for a plain one.
        """
        super().__init__(worker, host, call)
        self.drains = False  # closed, and to process what it holds
        self._free = Tokens(width)  # a turn that is on or about to be has taken one
        self._queued: list[None] = []  # one for each turn that is about to be
        self._on: list[None] = []  # one for each turn that has begun
        self._putting: list[None] = []  # one for each put that is under way
        self._unclosed = Tokens(1)
        self._unended = Tokens(1)
        self._width = width
        self._batch = batch
        self._executor = executor
        self._interrupted: list[Any] = []  # items whose run was cancelled
        self._threads: list[int] = []  # those of the turns in the pool
        self._main_done = False  # the worker's task has ended
        self._on_loop = port is not None  # where the turns are
        self.driver: LoopRuns | None = None
        if port is not None:
            self.driver = LoopRuns(port, worker.loop, self)

    # For the kinds to fill in.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Accept an item: from any thread."""
        raise NotImplementedError

    async def put_async(self, item: Any) -> None:
        """Accept an item, without blocking the loop."""
        raise NotImplementedError

    def _ready(self) -> bool:
        """Return whether there is something to fetch that nobody is fetching."""
        raise NotImplementedError

    def _fetch(self, ticket: Any) -> tuple[Any, list[Any]]:
        """Fetch what the next runs get.

        Parameters:
            ticket: that of the fetch before, all of which has been run.

        Returns:
            A ticket, and what the runs get, the last one first.

        Raises:
            IndexError: there is nothing, or the life is closed.
        """
        raise NotImplementedError

    def _give_back(self, ticket: Any, gots: list[Any]) -> None:
        """Take back what was fetched and not run."""
        raise NotImplementedError

    # Words.

    @property
    def _title(self) -> str:
        return self.worker._title

    def closed(self) -> WorkerNotStarted:
        """Return the exception for a put that comes too late."""
        return WorkerNotStarted(
            f"worker {self._title} was stopped and takes no items: start it before it is "
            "given any"
        )

    def _call_hook(self, hook: Callable[..., object], *args: Any) -> None:
        try:
            hook(*args)
        except BaseException:
            self.failed()

    # Turns begin and end.

    def engage(self) -> None:
        """See that a turn fetches what there is."""
        if self.begun and (self.open or self.drains) and self._free.move(self._queued):
            try:
                self.enter()
            except BaseException:  # whatever has come of that; it needs a fresh stack
                start_new_thread(self._enter_again, ())
                raise

    def _enter_again(self) -> None:
        """Do what may be half done. A turn that is entered twice begins once."""
        try:
            self.enter()
        except BaseException as exc:
            self._lose_turn(exc)

    def _engage_if_ready(self) -> None:
        """See that a turn fetches what there is, if there is anything."""
        if self._ready():
            self.engage()

    def enter(self) -> None:
        """Make a turn that is queued begin soon: from any thread."""
        if self._on_loop:
            assert self.driver is not None
            if self._width == 1:
                self.driver.wake_threadsafe()
            elif not self.driver.post(self._spawn):
                self._lose_turn(None)
            return
        executor = self._executor or self.host.thread_pool.executor
        if not keeps_threads(executor):
            if self._begin_turn():
                self._send(None, [])
            return
        try:
            # In an empty context: a turn is not to see that of who puts.
            task = Context().run(self._submit, self._turn, (), {})
        except RecursionError:
            raise
        except (RuntimeError, MemoryError, Full) as exc:
            self._lose_turn(exc)
        else:
            task.add_done_callback(self._on_turn_done)

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._executor is None:
            return self.host.enqueue(fn, args, kwargs, self.call.priority)
        return hand_over(self._executor, fn, args, kwargs)

    def _on_turn_done(self, task: Any) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:  # an executor would not run it
            self._lose_turn(error)

    def _lose_turn(self, exc: BaseException | None) -> None:
        """Account for a turn that has not begun, and will not."""
        if not _take(self._queued):
            return
        self._free.put()
        if self.open:
            if self.host.active:
                if exc is not None:
                    logger.error("worker %s: its run was refused: %s", self._title, exc)
                self.host.ticker.call_later(_RETRY, self.engage)
        elif self._free.all_back():
            self.drains = False  # there is nobody to do it
        self._look_over()

    def _begin_turn(self) -> bool:
        """Mark a turn as begun; return False if it is void, as the life is closed."""
        if not _take(self._queued):
            return False  # it was entered twice
        self._on.append(None)
        if self.open or self.drains:
            return True
        self._on.pop()
        self._free.put()
        self._look_over()
        return False

    def _pause_turn(self) -> bool:
        """Queue a turn that is on once more; return False if it is not to begin again."""
        self._on.pop()
        if self.open or self.drains:
            self._queued.append(None)
            return True
        self._free.put()
        self._look_over()
        return False

    def _leave(self) -> bool:
        """End a turn; return False if there is more for it to do."""
        self._on.pop()
        self._free.put()
        # Who comes from now on finds the token; who came before has left word.
        if (self.open or self.drains) and self._ready() and self._free.take():
            self._on.append(None)
            return False
        self._look_over()
        return True

    def _is_over(self) -> bool:
        """Return whether nothing more will be processed."""
        if self.open or self._putting or self._on:
            return False
        return not self.drains or (self._free.all_back() and not self._ready())

    def _look_over(self) -> None:
        """End the life if it is over: after each step that may be the last."""
        if not self._is_over():
            return
        if self.driver is None or self._main_done or self.driver.is_loose():
            self.end()
        else:
            self.driver.wake_threadsafe()

    def _count_run(self) -> None:
        if self._width == 1:
            self.tally.runs += 1
        else:
            with self.lock:
                self.tally.runs += 1

    # In a thread of the pool.

    def _turn(self) -> None:
        if not self._begin_turn():
            return
        ident = get_ident()
        while True:
            self._threads.append(ident)
            try:
                more = self._work()
            except BaseException:
                self._on.pop()
                raise
            finally:
                self._threads.remove(ident)
            if more:
                if self._pause_turn():
                    self.enter()
                return
            if self._leave():
                return

    def _work(self) -> bool:
        """Run what there is; return whether the quantum was over before that.

        Each run has a copy of its own of the context of who started the worker. Where that
        is empty one serves as long as it stays so, which costs next to nothing.
        """
        starter = self.call.context
        drain = _Drain()
        while not drain.ended:
            context = starter.copy()
            context.run(self._drain, drain, None if len(starter) else context)
        return drain.more

    def _drain(self, drain: _Drain, context: Context | None) -> None:
        """Run what there is, as long as *context*, in which it is done, is empty."""
        run, checks, tally = self.call.bound, self.call.checks_result, self.tally
        single = self._width == 1
        pace = drain.pace
        ticket, gots = drain.ticket, drain.gots
        while True:
            if not gots:
                try:
                    ticket, gots = self._fetch(ticket)
                except IndexError:
                    break
            if not (self.open or self.drains):
                self._give_back(ticket, gots)
                break
            got = gots.pop()
            if single:
                tally.runs += 1
            else:
                self._count_run()
            try:
                result = run(got)
            except BaseException:
                self.failed()
            else:
                if result is False or checks or type(result) not in INERT:
                    self.returned(result)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                self._give_back(ticket, gots)
                drain.more = True
                break
            if context is None or len(context):
                drain.ticket, drain.gots = ticket, gots
                return
        drain.ended = True

    # In an executor elsewhere.

    def _send(self, ticket: Any, gots: list[Any]) -> None:
        """Hand the next run to an executor that may be another process."""
        while True:
            try:
                if not gots:
                    ticket, gots = self._fetch(ticket)
                elif not (self.open or self.drains):
                    self._give_back(ticket, gots)
                    raise IndexError
            except IndexError:
                ticket, gots = None, []
                if self._leave():
                    return
                continue
            got = gots.pop()
            try:
                task = self._submit(self.call.run, (got,), self.call.kwargs_elsewhere)
            except (RuntimeError, MemoryError, Full) as exc:
                self._give_back(ticket, [*gots, got])
                if self._pause_turn():
                    self._lose_turn(exc)
                return
            self._count_run()
            if not task.done():
                task.add_done_callback(partial(self._came_back, ticket, gots))
                return
            self._look_at(task)

    def _came_back(self, ticket: Any, gots: list[Any], task: Any) -> None:
        self._look_at(task)
        self._send(ticket, gots)

    def _look_at(self, task: Any) -> None:
        if not task.cancelled():
            try:
                result = task.result()
            except BaseException:
                self.failed()
            else:
                self.returned(result)

    # On a loop.

    async def serve(self) -> None:
        """See to what comes, until the life is closed: in the worker's task."""
        driver = self.driver
        assert driver is not None
        while True:
            await driver.sleep()
            if self._width == 1 and self._queued:
                await self._turn_on_loop([])
            if self._is_over():
                return

    def _spawn(self) -> None:
        assert self.driver is not None
        begun: list[bool] = []
        coro = self._turn_on_loop(begun)
        try:
            task = self.driver.port.create_task(
                coro,
                name=f"{self.worker._name} turn",
                context=self.call.context.copy(),
                since=self.host.ticker.now(),
            )
        except BaseException as exc:  # the loop has a task factory of the user's
            coro.close()
            self._lose_turn(exc)
            return
        task.add_done_callback(partial(self._on_child_done, begun))

    def _on_child_done(self, begun: list[bool], task: asyncio.Task[Any]) -> None:
        if not begun:  # it was cancelled before its first step
            self._lose_turn(None)

    async def _turn_on_loop(self, begun: list[bool]) -> None:
        begun.append(True)
        if not self._begin_turn():
            return
        left = False
        try:
            while not left:
                await self._drain_on_loop()
                left = self._leave()
        finally:
            if not left and self._pause_turn():
                self._lose_turn(None)

    async def _drain_on_loop(self) -> None:
        """Run what there is."""
        run, timeout, tally = self.call.bound, self.call.timeout, self.tally
        pace = Pace()
        ticket: Any = None
        gots: list[Any] = []
        while True:
            if not gots:
                try:
                    ticket, gots = self._fetch(ticket)
                except IndexError:
                    return
            if not (self.open or self.drains):
                self._give_back(ticket, gots)
                return
            got = gots.pop()
            tally.runs += 1
            try:
                result = await (run(got) if timeout is None else self._timed(got, timeout))
            except BaseException as exc:
                if isinstance(exc, GeneratorExit) or is_own_cancellation(exc):
                    self._interrupted += got if self._batch is not None else [got]
                    self._give_back(ticket, gots)
                    raise
                self.failed()
            else:
                if result is False:
                    self.returned(result)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                try:
                    await asyncio.sleep(0)
                except BaseException:
                    self._give_back(ticket, gots)
                    raise
                pace = Pace()

    async def _timed(self, got: Any, timeout: float) -> Any:
        assert self.driver is not None
        return await timed(self.call.bound(got), timeout, self.driver.clock)

    def finish(self) -> None:
        """End with the worker's task: in the loop."""
        if self.open:
            logger.warning("worker %s: its task was cancelled", self._title)
            self.stop_worker()
        self.drains = False
        self._main_done = True
        if self._is_over():
            self.end()

    # Life.

    @property
    def turns(self) -> int:
        """How many turns are on or about to be."""
        return self._free.taken

    @property
    def on(self) -> int:
        """How many turns have begun."""
        return len(self._on)

    def begin(self) -> None:
        """Set out, or end if the worker was stopped before it came to that."""
        self.begun = True  # first: who closes asks whether there will be anybody to drain
        self.after = None
        if self.open or self.drains:
            self._begin()
        else:
            self.end()

    def _begin(self) -> None:
        if self.driver is not None:
            self.driver.begin()
        if self.drains or self._ready():  # items may have come, if this life follows another
            self.engage()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        if not self.open or not self._unclosed.take():
            return
        self._prepare_close(drain)  # first, as it is asked for when the life is not open
        self.open = False
        self._on_close()
        if self.after is None and self._is_idle():
            self.end()

    def _prepare_close(self, drain: bool) -> None:
        self.drains = drain and (self.begun or self.after is not None)

    def _is_idle(self) -> bool:
        if self.driver is not None and not self.driver.is_loose():
            return False
        return not self.drains and self._is_over()

    def _on_close(self) -> None:
        if self.drains and self.begun and self._free.move(self._queued):
            self.enter()
        elif self.driver is not None and self.driver.task is not None:
            self.driver.wake_threadsafe()

    def hurry(self) -> None:
        """Drain no more."""
        if self.open or not self.drains:
            return
        self.drains = False
        self._look_over()

    def end(self) -> None:
        """Tell everybody that the last run has ended."""
        if self._unended.take():
            super().end()

    def current_task(self) -> Any:
        """Return something true while a turn is on or about to be, else None."""
        return None if self._free.all_back() else self

    def inside(self) -> bool:
        """Return whether the caller is a turn, or in the loop."""
        if get_ident() in self._threads:
            return True
        return self.driver is not None and self.driver.inside()
