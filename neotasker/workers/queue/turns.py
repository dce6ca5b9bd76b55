"""Turns: how the life of a queue worker works through what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from queue import Full
from threading import get_ident
from typing import Any

from ...errors import WorkerNotStarted
from ...pool.launcher import keeps_threads
from ..call import INERT
from ..in_loop import is_own_cancellation, timed
from ..in_pool import hand_over
from .counted import CountedLife
from .pace import Pace

__all__ = ["TurnLife"]


class _Drain:
    """How far a turn in the pool has come, from one context to the next."""

    __slots__ = ("ended", "gots", "more", "pace", "ticket")

    def __init__(self) -> None:
        self.pace = Pace()
        self.ticket: Any = None
        self.gots: list[Any] = []
        self.ended = False
        self.more = False  # the quantum was over before there was nothing left


class TurnLife(CountedLife):
    """A life that works through items in turns.

    Guarantees: those of `CountedLife`; what was fetched is run, or given back when the life
    is closed.
    """

    __slots__ = ()

    post: Any = None
    """Adds an item and returns False if that is too late, where this is all of a put."""

    # For the kinds to fill in.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Accept an item: from any thread."""
        raise NotImplementedError

    async def put_async(self, item: Any) -> None:
        """Accept an item, without blocking the loop."""
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

    # Turns begin.

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

    def inside(self) -> bool:
        """Return whether the caller is a turn, or in the loop."""
        if get_ident() in self._threads:
            return True
        return self.driver is not None and self.driver.inside()
