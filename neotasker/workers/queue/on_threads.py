"""The life of a queue worker whose items wait in a queue for threads, of any class."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from queue import Full
from typing import Any

from ...base.seconds import wait_in_parts
from ...errors import QueueFull
from ...host import Host
from ...loops.port import running_loop
from ..call import Call
from .drain import QueueOptions
from .turns import TurnLife

__all__ = ["ThreadQueueLife"]


class _Empty(Exception):
    """There is nothing to get now."""


class ThreadQueueLife(TurnLife):
    """A life that takes its items from a queue for threads, as of the module ``queue``.

    Guarantees: no accepted item is lost. What is put into the queue itself is noticed if
    its class puts by a method ``_put``, as the standard ones do.

    The queue is called without the lock held, but for ``_put``, by which it calls us with
    its own lock held: so the order is the queue's lock before ours.
    """

    __slots__ = ("_after_get", "_before_get", "queue")

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
        put = getattr(queue, "_put", None)
        if put is not None:
            queue._put = partial(self._on_put, put)

    def _on_put(self, put: Callable[[Any], object], item: Any) -> None:
        put(item)
        self.engage()

    def _ready(self) -> bool:
        return True  # it cannot be asked under the lock; a turn will see

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Put an item into the queue; wait for room if it is bounded."""
        # Who keeps a loop or a turn of this worker from getting on would wait for himself.
        may_wait = running_loop() is None and not self.inside()
        self._put(partial(self._put_item, item, timeout, may_wait))

    def _put_item(self, item: Any, timeout: float | None, may_wait: bool) -> None:
        queue = self.queue
        try:
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

    def _put(self, put: Callable[[], object]) -> None:
        with self.lock:
            if not self.open:
                raise self.closed()
            self.putting += 1
        try:
            put()
        finally:
            with self.lock:
                self.putting -= 1
                enter = (self.open or self.drains) and self._engage()
                over = self._is_over()
        if enter:
            self.enter()
        elif over:
            self._all_left()

    async def put_async(self, item: Any) -> None:
        """Put an item into the queue; wait for room in a thread if it is bounded."""
        try:
            self._put(partial(self._put_item, item, None, False))
        except QueueFull:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(
                None, self._put, partial(self._put_item, item, None, True)
            )

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
            return (
                queue.get_nowait() if hasattr(queue, "get_nowait") else queue.get(block=False)
            )
        except Exception as exc:
            if type(exc).__name__ not in ("Empty", "QueueEmpty"):
                self.failed()
            raise _Empty from None

    def _done(self, count: int) -> None:
        task_done = getattr(self.queue, "task_done", None)
        if task_done is not None:
            for _ in range(count):
                with contextlib.suppress(ValueError):  # it has not counted the item
                    task_done()

    def _leave(self) -> bool:
        with self.lock:
            self.turns -= 1
            look = self.open or self.drains
        # A put that came before the turn was counted out has left its item to us.
        more = look and not self._is_empty()
        with self.lock:
            if more and self._engage():
                return False
            self.on -= 1
            over = self._is_over()
        if over:
            self._all_left()
        return True

    def _is_empty(self) -> bool:
        try:
            return bool(self.queue.empty())
        except Exception:
            self.failed()
            return True

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
