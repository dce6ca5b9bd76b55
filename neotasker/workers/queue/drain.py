"""The life of a queue worker with the built-in queue: what is put, and what turns fetch."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

from ...base.clock import monotonic
from ...base.seconds import acquire_within
from ...errors import QueueFull
from ...host import Host
from ...loops.port import running_loop
from ..call import Call
from .stores import Fifo, Inbox, Keyed, Store
from .turns import TurnLife

__all__ = ["QueueLife", "QueueOptions"]

_CHUNK = 64  # the most items that a lone turn fetches at once
_KEYED_CHUNK = 8  # the same for the items of one key


class QueueOptions(NamedTuple):
    """How a queue worker takes its items."""

    maxsize: int = 0
    batch: int | None = None
    concurrency: int = 1
    key: Callable[[Any], Hashable] | None = None
    before_get: Callable[[], object] | None = None
    after_get: Callable[[Any], object] | None = None

    @property
    def has_hooks(self) -> bool:
        """Whether there is something to be called around each get."""
        return self.before_get is not None or self.after_get is not None


class QueueLife(TurnLife):
    """A life that works through the items that it is given.

    Guarantees: an item that was accepted is run, or in the rest. Items begin in the order
    in which they came, those of one key one after another. A putter that waits is woken
    when there is room.

    Where there is no bound items are posted to an inbox, which costs next to nothing; a
    turn that fetches sorts them into the store. Where there is one they are put into the
    store under the lock. A turn ends under the lock, after a look into both, so that no
    item is left behind.
    """

    __slots__ = (
        "_after_get",
        "_before_get",
        "_bound",
        "_chunk",
        "_held",
        "_key",
        "_putters",
        "inbox",
        "store",
    )

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        options: QueueOptions,
        port: Any = None,
        executor: Executor | None = None,
    ) -> None:
        """Make a life.

        Parameters:
            worker, host, call, port, executor: see `TurnLife`.
            options: how items are taken.
        """
        super().__init__(worker, host, call, options.concurrency, options.batch, port, executor)
        self.store: Store = Fifo() if options.key is None else Keyed()
        self.inbox = None if options.maxsize else Inbox(self.engage)
        self._bound = options.maxsize
        self._key = options.key
        self._before_get = options.before_get
        self._after_get = options.after_get
        self._putters: deque[Callable[[], object]] = deque()
        self._held: dict[int, list[Any]] = {}  # what turns have fetched, by identity
        if self._bound or options.has_hooks or options.batch is not None:
            self._chunk = 1
        elif options.key is not None:
            self._chunk = _KEYED_CHUNK
        else:
            self._chunk = _CHUNK if options.concurrency == 1 else 1

    def __len__(self) -> int:
        with self.lock:
            waiting = len(self.store) + sum(len(gots) for gots in self._held.values())
            return waiting if self.inbox is None else waiting + len(self.inbox)

    # Putting.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Add an item; wait for room, as `BackgroundQueueWorker.put_threadsafe` says."""
        entry = item if self._key is None else self._with_key(item)
        if self.inbox is not None:
            if not self.inbox.post(entry):
                raise self.closed()
            return
        with self.lock:
            accepted = self._try_put(entry)
            enter = accepted and self._engage()
        if enter:
            self.enter()
        elif not accepted:
            self._put_when_room(entry, timeout)

    def _with_key(self, item: Any) -> tuple[Hashable, Any]:
        assert self._key is not None
        key = self._key(item)
        hash(key)
        return key, item

    def _try_put(self, entry: Any) -> bool:
        """Add an entry if there is room. The lock is held.

        Raises:
            WorkerNotStarted: the life is closed.
        """
        if not self.open:
            raise self.closed()
        if len(self.store) >= self._bound:
            return False
        self.store.append(entry)
        return True

    def _full(self) -> QueueFull:
        return QueueFull(
            f"the queue of worker {self._title} holds {self._bound} items already "
            f"(maxsize={self._bound}): put later, raise maxsize or concurrency, or await put()"
        )

    def _put_when_room(self, entry: Any, timeout: float | None) -> None:
        # Who keeps a loop or a turn of this worker from getting on would wait for himself.
        if running_loop() is not None or self.inside():
            raise self._full()
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            parker = threading.Lock()
            parker.acquire()
            wake = parker.release
            with self.lock:
                accepted = self._try_put(entry)
                enter = accepted and self._engage()
                if not accepted:
                    self._putters.append(wake)
            if accepted:
                if enter:
                    self.enter()
                return
            left = None if deadline is None else deadline - monotonic()
            try:
                woken = acquire_within(parker, left)
            except BaseException:
                self._withdraw(wake)
                raise
            if not woken:
                self._withdraw(wake)
                raise self._full()

    async def put_async(self, item: Any) -> None:
        """Add an item; wait for room without blocking the loop."""
        if self.inbox is not None:
            self.put(item)
            return
        entry = item if self._key is None else self._with_key(item)
        while True:
            loop = asyncio.get_running_loop()
            room = loop.create_future()
            wake = partial(loop.call_soon_threadsafe, _settle, room)
            with self.lock:
                accepted = self._try_put(entry)
                enter = accepted and self._engage()
                if not accepted:
                    self._putters.append(wake)
            if accepted:
                if enter:
                    self.enter()
                return
            try:
                await room
            except BaseException:
                self._withdraw(wake)
                raise

    def _withdraw(self, wake: Callable[[], object]) -> None:
        """Wait no more; pass the wake-up on if it has come already."""
        with self.lock:
            if wake in self._putters:
                self._putters.remove(wake)
                return
            other = self._putters.popleft() if self._putters else None
        if other is not None:
            _call_quietly(other)

    # Fetching.

    def _ready(self) -> bool:
        if self.inbox is not None:
            for entry in self.inbox.take_all():
                self.store.append(entry)
        return self.store.ready()

    def _fetch(self, ticket: Any) -> tuple[Any, list[Any]]:
        if self._before_get is not None:
            self._call_hook(self._before_get)
        with self.lock:
            self._done(ticket)
            if not ((self.open or self.drains) and self._ready()):
                raise IndexError
            line, items = self.store.take(self._batch or self._chunk)
            putters = [self._putters.popleft() for _ in items if self._putters]
            gots = items
            if self._batch is not None:
                gots = [items]
            else:
                gots.reverse()
            self._held[id(gots)] = gots
            enter = self._engage()
        for wake in putters:
            _call_quietly(wake)
        if enter:
            self.enter()
        if self._after_get is not None:
            for item in items:
                self._call_hook(self._after_get, item)
        return (line, gots), gots

    def _done(self, ticket: Any) -> None:
        """Note that what was fetched is processed. The lock is held."""
        if ticket is not None:
            line, gots = ticket
            del self._held[id(gots)]
            self.store.done(line)

    def _give_back(self, ticket: Any, gots: list[Any]) -> None:
        line, held = ticket
        with self.lock:
            del self._held[id(held)]
            if self._batch is not None:
                items = [item for got in gots for item in got]
            else:
                items = gots[::-1]
            self.store.put_back(line, items)
            self.store.done(line)

    # Life.

    def _prepare_close(self, drain: bool) -> None:
        super()._prepare_close(drain)
        if self.inbox is not None:
            self.inbox.close()

    def _on_close(self) -> None:
        with self.lock:
            putters, self._putters = list(self._putters), deque()
        for wake in putters:
            _call_quietly(wake)
        super()._on_close()

    def _rest(self) -> list[Any]:
        with self.lock:
            self._ready()
            return self._interrupted + self.store.rest()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call_quietly(wake: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed, nobody waits any more
        wake()
