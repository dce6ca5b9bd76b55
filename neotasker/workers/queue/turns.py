"""Turns: how the life of a queue worker works through what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from queue import Full
from threading import get_ident
from typing import Any

from ...base.report import Reporter
from ...errors import WorkerNotStarted
from ...host import Host
from ...pool.launcher import keeps_threads
from ..call import Call
from ..in_loop import LoopRuns, is_own_cancellation, timed
from ..in_pool import hand_over
from ..life import Life
from .pace import Pace

__all__ = ["TurnLife"]

logger = Reporter("neotasker")

_RETRY = 1.0  # seconds until a turn that the pool would not take is handed to it again


class TurnLife(Life):
    """A life that works through items in turns.

    Guarantees: at most *width* runs at once; what was fetched is run, or given back when
    the life is closed. The life ends when the last turn has, whatever waits to begin: a
    turn that has not begun is void, unless the life drains.

    A *turn* fetches items until there is none, or its quantum is over: in a thread of the
    pool, or on the loop. ``turns`` counts those that are on or about to be, ``on`` those
    that have begun.
    """

    __slots__ = (
        "_batch",
        "_executor",
        "_interrupted",
        "_main_done",
        "_on_loop",
        "_threads",
        "_width",
        "drains",
        "driver",
        "on",
        "putting",
        "turns",
    )

    inbox: Any = None
    """Where items may be posted without more ado, if that is all there is to do."""

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
        self.turns = 0
        self.on = 0
        self.drains = False  # closed, and to process what it holds
        self.putting = 0  # puts that are under way outside the lock
        self._width = width
        self._batch = batch
        self._executor = executor
        self._interrupted: list[Any] = []  # items whose run was cancelled
        self._threads: set[int] = set()  # those of the turns in the pool
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
        """Return whether there is something to fetch. The lock is held."""
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

    def _engage(self) -> bool:
        """Count one more turn, to be entered, if that makes sense. The lock is held."""
        if self.turns >= self._width or not self.begun or not self._ready():
            return False
        self.turns += 1
        return True

    def engage(self) -> None:
        """See that a turn fetches what there is."""
        with self.lock:
            enter = (self.open or self.drains) and self._engage()
        if enter:
            self.enter()

    def enter(self) -> None:
        """Make a turn, which is counted already, begin soon: from any thread."""
        if self._on_loop:
            assert self.driver is not None
            if self._width == 1:
                self.driver.wake_threadsafe()
            else:
                self.driver.post(self._spawn)
            return
        executor = self._executor or self.host.thread_pool.executor
        try:
            if keeps_threads(executor):
                self._submit(self._turn, (), {}).add_done_callback(self._on_turn_done)
                return
        except (RuntimeError, MemoryError, Full) as exc:
            self._lose_turn(exc)
            return
        if self._begin_turn():
            self._send(None, [])

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._executor is None:
            return self.host.enqueue(fn, args, kwargs, self.call.priority)
        return hand_over(self._executor, fn, args, kwargs)

    def _on_turn_done(self, task: Any) -> None:
        if task.cancelled():
            self._lose_turn(None)
        elif (error := task.exception()) is not None:  # an executor would not run it
            self._lose_turn(error)

    def _lose_turn(self, exc: BaseException | None) -> None:
        """Account for a turn that has not begun, and will not."""
        with self.lock:
            self.turns -= 1
            over = self._is_over()
            again = self.open and self.host.active
        if over:
            self._all_left()
        elif again:
            if exc is not None:
                logger.error("worker %s: its run was refused: %s", self._title, exc)
            self.host.ticker.call_later(_RETRY, self.engage)

    def _begin_turn(self) -> bool:
        """Mark a turn as begun; return False if it is void, as the life is closed."""
        with self.lock:
            if self.open or self.drains:
                self.on += 1
                return True
            self.turns -= 1
            return False

    def _pause_turn(self) -> bool:
        """Mark a turn as one that is to begin again; return False if it is not to."""
        with self.lock:
            self.on -= 1
            if self.open or self.drains:
                return True
            self.turns -= 1
            over = self._is_over()
        if over:
            self._all_left()
        return False

    def _leave(self) -> bool:
        """End a turn; return False if there is more for it to do."""
        with self.lock:
            if (self.open or self.drains) and self._ready():
                return False
            self.on -= 1
            self.turns -= 1
            over = self._is_over()
        if over:
            self._all_left()
        return True

    def _is_over(self) -> bool:
        """Return whether nothing more will be processed. The lock is held."""
        if self.open or self.putting:
            return False
        return not (self.turns if self.drains else self.on)

    def _all_left(self) -> None:
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
        context = self.call.context.copy()
        ident = get_ident()
        while True:
            self._threads.add(ident)
            more = context.run(self._drain)
            self._threads.discard(ident)
            if more:
                if self._pause_turn():
                    self.enter()
                return
            if self._leave():
                return

    def _drain(self) -> bool:
        """Run what there is; return whether the quantum was over before that."""
        run, checks, tally = self.call.bound, self.call.checks_result, self.tally
        single = self._width == 1
        pace = Pace()
        ticket: Any = None
        gots: list[Any] = []
        while True:
            if not gots:
                try:
                    ticket, gots = self._fetch(ticket)
                except IndexError:
                    return False
            if not (self.open or self.drains):
                self._give_back(ticket, gots)
                return False
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
                if result is False or checks:
                    self.returned(result)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                self._give_back(ticket, gots)
                return True

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
            if self._width == 1 and self.turns:
                await self._turn_on_loop([])
            with self.lock:
                if self._is_over():
                    return

    def _spawn(self) -> None:
        assert self.driver is not None
        begun: list[bool] = []
        task = self.driver.port.create_task(
            self._turn_on_loop(begun),
            name=f"{self.worker._name} turn",
            context=self.call.context.copy(),
            since=self.host.ticker.now(),
        )
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
        with self.lock:
            self.drains = False
            self._main_done = True
            over = self._is_over()
        if over:
            self.end()

    # Life.

    def _begin(self) -> None:
        if self.driver is not None:
            self.driver.begin()
        with self.lock:  # items may have come, if this life follows another
            enter = self._engage() or (self.drains and not self.turns)
            if enter:
                self.turns = max(1, self.turns)
        if enter:
            self.enter()

    def _is_wanted(self) -> bool:
        return self.open or self.drains

    def _prepare_close(self, drain: bool) -> None:
        self.drains = drain and (self.begun or self.after is not None)

    def _is_idle(self) -> bool:
        if self.driver is not None and not self.driver.is_loose():
            return False
        return not self.drains and self._is_over()

    def _on_close(self) -> None:
        with self.lock:
            enter = self.drains and self.begun and not self.turns
            if enter:
                self.turns += 1
        if enter:
            self.enter()
        elif self.driver is not None and self.driver.task is not None:
            self.driver.wake_threadsafe()

    def hurry(self) -> None:
        """Drain no more."""
        with self.lock:
            if self.open or not self.drains:
                return
            self.drains = False
            over = self._is_over()
        if over:
            self._all_left()

    def current_task(self) -> Any:
        """Return something true while a turn is on or about to be, else None."""
        return self if self.turns else None

    def inside(self) -> bool:
        """Return whether the caller is a turn, or in the loop."""
        if get_ident() in self._threads:
            return True
        return self.driver is not None and self.driver.inside()
