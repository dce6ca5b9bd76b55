"""The life of a queue worker whose items wait in a queue for threads, of any class."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from queue import Full
from threading import get_ident
from typing import Any

from ...base.seconds import wait_in_parts
from ...errors import QueueFull
from ...host import Host
from ...loops.port import running_loop
from ...pool.launcher import keeps_threads
from ..call import Call
from .drain import QueueOptions
from .turns import TurnLife

__all__ = ["ThreadQueueLife"]


class _Empty(Exception):
    """There is nothing to get now."""


class ThreadQueueLife(TurnLife):
    """A life that takes its items from a queue for threads, as of the module ``queue``.

    Guarantees: no accepted item is lost. What is put into the queue itself is noticed if
    its class puts by a method ``_put``, as the standard ones do. A put in the middle of a
    call of the queue, by a finalizer or signal handler of the same thread, goes round the
    queue, as the locks of the standard ones would wait for themselves; such items are
    processed when the queue is empty.

    The queue is called without a lock of ours. By ``_put`` it calls us with its own held.
    """

    __slots__ = ("_after_get", "_aside", "_before_get", "_in_queue", "queue")

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        options: QueueOptions,
        queue: Any,
        port: Any = None,
        executor: Any = None,
    ) -> None:
        super().__init__(worker, host, call, options.concurrency, options.batch, port, executor)
        self.queue = queue
        self._before_get = options.before_get
        self._after_get = options.after_get
        self._aside: deque[Any] = deque()  # items that go round the queue
        self._in_queue: list[int] = []  # threads that call the queue for us
        put = getattr(queue, "_put", None)
        if put is not None:
            queue._put = partial(self._on_put, put)

    def _on_put(self, put: Callable[[Any], object], item: Any) -> None:
        put(item)
        if get_ident() in self._in_queue:
            return  # one of our own puts, which looks when the queue's lock is free
        if keeps_threads(self._executor or self.host.thread_pool.executor):
            self.engage()
        elif self._free:  # the turn begins where it is engaged, and would wait for that lock
            self.host.ticker.call_later(0, self.engage)

    @contextlib.contextmanager
    def _calling(self) -> Iterator[None]:
        """Mark the caller as one that calls the queue."""
        ident = get_ident()
        self._in_queue.append(ident)
        try:
            yield
        finally:
            self._in_queue.remove(ident)

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Put an item into the queue; wait for room if it is bounded."""
        # Who keeps a loop or a turn of this worker from getting on would wait for himself.
        may_wait = running_loop() is None and not self.inside()
        self._put(item, timeout, may_wait)

    def _put(self, item: Any, timeout: float | None, may_wait: bool) -> None:
        self._putting.append(None)
        try:
            if not self.open:
                raise self.closed()
            if get_ident() in self._in_queue:
                self._aside.append(item)
            else:
                self._put_into_queue(item, timeout, may_wait)
        finally:
            self._putting.pop()
            # Whoever looked meanwhile has left the rest to us.
            self.engage()
            self._look_over()

    def _put_into_queue(self, item: Any, timeout: float | None, may_wait: bool) -> None:
        queue = self.queue
        try:
            with self._calling():
                if not may_wait and hasattr(queue, "put_nowait"):
                    queue.put_nowait(item)
                elif timeout is not None:
                    self._put_within(item, timeout)
                else:
                    queue.put(item)
        except Full:
            raise QueueFull(
                f"the queue of worker {self._title} is full, {queue!r}: put later, raise its "
                "maxsize, or await put()"
            ) from None

    async def put_async(self, item: Any) -> None:
        """Put an item into the queue; wait for room in a thread if it is bounded."""
        try:
            self._put(item, None, False)
        except QueueFull:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, self._put, item, None, True)

    def _put_within(self, item: Any, timeout: float) -> None:
        """Put an item within that many seconds, which may be more than a lock can wait."""

        def try_to_put(part: float) -> bool:
            try:
                self.queue.put(item, timeout=part)
            except Full:
                return False
            return True

        if not wait_in_parts(try_to_put, timeout):
            raise Full

    def _ready(self) -> bool:
        if self._aside:
            return True
        if get_ident() in self._in_queue:
            return False  # the call that this one is in the middle of is followed by a look
        try:
            with self._calling():
                return not self.queue.empty()
        except Exception:
            self.failed()
            return False

    def _fetch(self, ticket: Any) -> tuple[Any, list[Any]]:
        if ticket is not None:
            self._done(ticket)
        if not (self.open or self.drains):
            raise IndexError
        if self._before_get is not None:
            self._call_hook(self._before_get)
        items: list[Any] = []
        try:
            while len(items) < (self._batch or 1):
                item = self._get()
                if self._after_get is not None:
                    self._call_hook(self._after_get, item)
                if item is None:  # the mark by which older programs stop a worker
                    self._done(1)
                    self.stop_worker()
                    break
                items.append(item)
        except _Empty:
            pass
        if not items:
            raise IndexError
        return len(items), items if self._batch is None else [items]

    def _get(self) -> Any:
        queue = self.queue
        try:
            with self._calling():
                if hasattr(queue, "get_nowait"):
                    return queue.get_nowait()
                return queue.get(block=False)
        except Exception as exc:
            if type(exc).__name__ not in ("Empty", "QueueEmpty"):
                self.failed()
        try:
            return self._aside.popleft()
        except IndexError:
            raise _Empty from None

    def _done(self, count: int) -> None:
        task_done = getattr(self.queue, "task_done", None)
        if task_done is not None:
            for _ in range(count):
                # It has not counted the item, or counts it in a queue that went round it.
                with contextlib.suppress(ValueError), self._calling():
                    task_done()

    def _give_back(self, ticket: Any, gots: list[Any]) -> None:
        for got in gots:
            self._interrupted += got if self._batch is not None else [got]
        self._done(ticket)

    def _rest(self) -> list[Any]:
        rest = list(self._interrupted)
        while True:
            try:
                item = self._get()
            except _Empty:
                return rest
            if item is not None:
                rest.append(item)
