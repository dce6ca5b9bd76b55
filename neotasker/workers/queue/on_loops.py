"""The life of a queue worker whose items wait in a queue for coroutines, of any class."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ...base.report import Reporter
from ...errors import QueueFull, WorkerNotStarted
from ...host import Host
from ...loops.port import running_loop
from ..call import Call
from ..in_loop import LoopRuns, is_own_cancellation
from .drain import QueueOptions
from .turns import TurnLife

__all__ = ["LoopQueueLife"]

logger = Reporter("neotasker")

_OF_ASYNCIO = (asyncio.Queue, asyncio.PriorityQueue, asyncio.LifoQueue)

_PAUSE = 1.0  # seconds after a get that raised


class _Empty(Exception):
    """There is nothing to get now."""


class LoopQueueLife(TurnLife):
    """A life that takes its items from a queue for coroutines, as ``asyncio.Queue``.

    Guarantees: no accepted item is lost; they begin in the order in which the queue gives
    them. Stopping ends the ``get`` that waits by cancelling it in the queues of asyncio,
    which lose nothing by that. Others get None put in, as older programs expect, if they are
    empty: items need not compare with it.

    The worker's task gets the items. Unless it runs the target itself it hands them to
    turns, as soon as one is free. Fields below ``queue`` belong to the loop's thread.
    """

    __slots__ = (
        "_direct",
        "_getting",
        "_halted",
        "_hooks",
        "_late_puts",
        "_marked",
        "handed",
        "queue",
    )

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        options: QueueOptions,
        queue: Any,
        port: Any,
        executor: Any,
        is_async: bool,
    ) -> None:
        super().__init__(worker, host, call, options.concurrency, options.batch, port, executor)
        self._on_loop = is_async
        self._direct = is_async and options.concurrency == 1
        self._hooks = options.before_get, options.after_get
        self.handed: deque[list[Any]] = deque()  # what is on its way to turns
        self.queue = queue
        self._getting = False  # a get waits for an item
        self._halted = False  # and was cancelled by us
        self._marked = type(queue) in _OF_ASYNCIO  # the stop mark was put, or is not needed
        self._late_puts: set[asyncio.Future[Any]] = set()  # those that wait for room

    # Putting.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Put an item into the queue; wait for room if it is bounded."""
        driver = self._driver()
        if getattr(self.queue, "maxsize", 0) and running_loop() is None and not self.inside():
            self._check_open()
            future = driver.port.spawn_coroutine_threadsafe(self._put(item))
            try:
                future.result(timeout)
            except TimeoutError:
                if future.cancel() or not future.done():
                    raise QueueFull(
                        f"the queue of worker {self._title} is full, {self.queue!r}: put "
                        "later, raise its maxsize, or await put()"
                    ) from None
                future.result()
            finally:
                del future  # this frame is in the traceback of what is raised
            return
        self._begin_put()
        try:
            posted = driver.post(partial(self._accept, item))
        except BaseException:  # there may be no stack left to count it out here
            start_new_thread(self._was_put, ())
            raise
        if not posted:
            self._was_put()
            raise self.closed()

    async def put_async(self, item: Any) -> None:
        """Put an item into the queue; wait for room without blocking the loop."""
        driver = self._driver()
        if running_loop() is driver.loop:
            await self._put(item)
        else:
            future = driver.port.spawn_coroutine_threadsafe(self._put(item))
            await asyncio.wrap_future(future)

    def _driver(self) -> LoopRuns:
        assert self.driver is not None
        return self.driver

    def _check_open(self) -> None:
        if not self.open:
            raise self.closed()

    def _begin_put(self) -> None:
        self._putting.append(None)  # first: who closes looks for it after that
        if not self.open:
            self._was_put()
            raise self.closed()

    def _was_put(self) -> None:
        self._putting.pop()
        if not self.open:
            self._driver().wake_threadsafe()

    async def _put(self, item: Any) -> None:
        self._begin_put()
        try:
            await self._put_when_possible(item)
        finally:
            self._was_put()

    async def _put_when_possible(self, item: Any) -> None:
        outcome = self.queue.put(item)
        if not inspect.isawaitable(outcome):
            return
        late = asyncio.ensure_future(outcome)
        self._late_puts.add(late)
        try:
            await late
        except asyncio.CancelledError:
            if late.cancelled() and not self.open and not is_own_cancellation_now():
                raise self.closed() from None
            raise
        finally:
            self._late_puts.discard(late)

    def _accept(self, item: Any) -> None:
        """Take over an item that was put from another thread: in the loop."""
        if not self._late_puts and type(self.queue).put is asyncio.Queue.put:
            size = self.queue.qsize()
            try:
                self.queue.put_nowait(item)
            except asyncio.QueueFull:
                pass
            except BaseException:
                # A heap has taken the item before it finds that it does not compare.
                self._refuse(item if self.queue.qsize() == size else None)
                self._was_put()
                return
            else:
                self._was_put()
                return
        self._driver().port.create_task(self._accept_late(item))

    async def _accept_late(self, item: Any) -> None:
        try:
            await self._put_when_possible(item)
        except (asyncio.CancelledError, WorkerNotStarted):
            self._interrupted.append(item)
        except BaseException:
            self._refuse(item)
        finally:
            self._was_put()

    def _refuse(self, item: Any) -> None:
        self.failed()
        if item is not None:
            self._interrupted.append(item)

    # Getting, in the worker's task.

    async def serve(self) -> None:
        """Get items and see to them, until the life is closed."""
        driver = self._driver()
        before_get, after_get = self._hooks
        while self.open or (self.drains and (self._putting or not self._is_empty())):
            if not self._free or not (self.open or not self._is_empty()):
                await driver.sleep()
                continue
            if before_get is not None:
                self._call_hook(before_get)
            try:
                item = await self._get()
            except _Empty:
                continue
            if after_get is not None:
                self._call_hook(after_get, item)
            if item is None:  # a stop mark, ours or the program's
                self._marked = True
                self._task_done(1)
                if self.open:
                    self.stop_worker()
                continue
            items = self._fill(item, after_get)
            if self._direct:
                await self._run_here(items)
            else:
                self.handed.append(items)
                self.engage()
        for late in list(self._late_puts):
            late.cancel()
        while True:
            if not self._putting:
                await self._put_mark()
            if self._is_over():
                return
            await driver.sleep()

    async def _get(self) -> Any:
        """Return an item of the queue.

        Raises:
            _Empty: there is none, because the life was closed meanwhile, or because the
                queue's class has failed.
        """
        self._getting = True
        try:
            return await self.queue.get()
        except BaseException as exc:
            if self._halted and isinstance(exc, asyncio.CancelledError):
                self._halted = False
                task = asyncio.current_task()
                assert task is not None
                if task.uncancel() == 0:
                    raise _Empty from None
            if isinstance(exc, GeneratorExit) or is_own_cancellation(exc):
                raise
            self.failed()
        finally:
            self._getting = False
        driver = self._driver()
        self.host.ticker.call_later(_PAUSE, driver.post, driver.wake)
        await driver.sleep()
        raise _Empty

    def _fill(self, item: Any, after_get: Callable[[Any], object] | None) -> list[Any]:
        """Return *item* and those that make up a batch with it, as far as they are there."""
        items = [item]
        while len(items) < (self._batch or 1):
            try:
                item = self._get_now()
            except _Empty:
                break
            if after_get is not None:
                self._call_hook(after_get, item)
            if item is None:
                self._task_done(1)
                self.stop_worker()
                break
            items.append(item)
        return items

    def _get_now(self) -> Any:
        """Return an item that is there, by the queue's own ``get``, without waiting.

        Raises:
            _Empty: there is none, or the class does not say.
        """
        if self._is_empty():
            raise _Empty
        coro = self.queue.get()
        try:
            coro.send(None)
        except StopIteration as got:
            return got.value
        except BaseException:
            self.failed()
            raise _Empty from None
        coro.close()
        raise _Empty

    def _is_empty(self) -> bool:
        empty = getattr(self.queue, "empty", None)
        if empty is None:
            return True
        try:
            return bool(empty())
        except BaseException:
            self.failed()
            return True

    async def _run_here(self, items: list[Any]) -> None:
        got = items if self._batch is not None else items[0]
        self._free.take()
        self._on.append(None)
        self.tally.runs += 1
        run, timeout = self.call.bound, self.call.timeout
        try:
            result = await (run(got) if timeout is None else self._timed(got, timeout))
        except BaseException as exc:
            if isinstance(exc, GeneratorExit) or is_own_cancellation(exc):
                self._interrupted += items
                raise
            self.failed()
        else:
            if result is False:
                self.returned(result)
        finally:
            self._on.pop()
            self._free.put()
        self._task_done(len(items))

    # Turns.

    def _ready(self) -> bool:
        return bool(self.handed)

    def _fetch(self, ticket: Any) -> tuple[Any, list[Any]]:
        if ticket is not None:
            self._done(ticket)
        if not (self.open or self.drains):
            raise IndexError
        items = self.handed.popleft()
        return len(items), items if self._batch is None else [items]

    def _give_back(self, ticket: Any, gots: list[Any]) -> None:
        if gots:
            self.handed.appendleft(gots if self._batch is None else gots[0])
        else:
            self._done(ticket)

    def _done(self, count: int) -> None:
        self._driver().post(partial(self._task_done, count))

    def _task_done(self, count: int) -> None:
        task_done = getattr(self.queue, "task_done", None)
        if task_done is not None:
            for _ in range(count):
                with contextlib.suppress(ValueError):  # it has not counted the item
                    task_done()

    def _leave(self) -> bool:
        left = super()._leave()
        if left:
            self._driver().wake_threadsafe()  # a turn is free
        return left

    # Life.

    def _begin(self) -> None:
        self._driver().begin()  # whose task sees to the rest, without a turn to begin with

    def _on_close(self) -> None:
        driver = self._driver()
        if driver.task is not None:
            driver.post(self._halt)

    def _halt(self) -> None:
        driver = self._driver()
        driver.wake()
        if not self.drains:
            for late in list(self._late_puts):
                late.cancel()
        if self._getting and type(self.queue) in _OF_ASYNCIO:
            self._cancel_get()
        elif self._getting:
            driver.port.create_task(self._end_get())

    def _cancel_get(self) -> None:
        self._halted = True
        self._driver().task.cancel()

    async def _end_get(self) -> None:
        """End a get that waits: by the mark, or else by cancelling it."""
        await self._put_mark()
        for _ in range(3):
            await asyncio.sleep(0)
        if self._getting:
            self._cancel_get()

    async def _put_mark(self) -> None:
        """Put the mark into a queue of the program's own class, if it is empty; once."""
        if self._marked or self._putting or not self._is_empty():
            return
        self._marked = True
        try:
            outcome = self.queue.put(None)
            if not inspect.isawaitable(outcome):
                return
            mark = asyncio.ensure_future(outcome)
            await asyncio.wait([mark], timeout=0)
            if not mark.cancel() and not mark.cancelled():
                mark.exception()  # seen: the classes of items need not compare with None
        except Exception as exc:
            logger.debug("worker %s: no stop mark in its queue: %r", self._title, exc)

    def _rest(self) -> list[Any]:
        rest = self._interrupted + [item for items in self.handed for item in items]
        self.handed.clear()
        while True:
            try:
                item = self._get_now()
            except _Empty:
                return rest
            if item is not None:
                rest.append(item)


def is_own_cancellation_now() -> bool:
    """Return whether the task that runs was told to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
