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
from .tokens import Tokens
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

    Items are posted to an inbox, which costs next to nothing and has no part of the rest:
    a put takes nothing that a turn might wait for. A turn that fetches sorts the inbox into
    the store. Where there is a bound a put first takes a token of the room that there is,
    and the fetch puts it back, then looks for putters; these note that they wait, then try
    once more.

    One turn at a time sorts and takes from the store: the one that has the sorter's token.
    Others do not wait for it. They leave word of what they have processed or give back, and
    end if they find nothing; who has the token looks for word when it has put that back,
    and then engages a turn if there is something to fetch.
    """

    __slots__ = (
        "_after_get",
        "_before_get",
        "_chunk",
        "_errands",
        "_held",
        "_key",
        "_most",
        "_putters",
        "_room",
        "_sorter",
        "inbox",
        "post",
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
        self.inbox = Inbox(self.engage, self.store.append)
        self._room = Tokens(options.maxsize) if options.maxsize else None
        self.post = None if options.maxsize or options.key else self.inbox.post
        self._sorter = Tokens(1)
        self._errands: deque[tuple[Any, list[Any] | None]] = deque()
        self._key = options.key
        self._before_get = options.before_get
        self._after_get = options.after_get
        self._putters: deque[Callable[[], object]] = deque()
        self._held: dict[int, list[Any]] = {}  # what turns have fetched, by identity
        if self._room is not None or options.has_hooks or options.batch is not None:
            self._chunk = 1
        elif options.key is not None:
            self._chunk = _KEYED_CHUNK
        else:
            self._chunk = _CHUNK if options.concurrency == 1 else 1
        self._most = self._batch or self._chunk

    def __len__(self) -> int:
        held = list(self._held.values())
        return len(self.inbox) + len(self.store) + sum(map(len, held))

    # Putting.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Add an item; wait for room, as `BackgroundQueueWorker.put_threadsafe` says."""
        entry = item if self._key is None else self._with_key(item)
        if self._room is None:
            if not self.inbox.post(entry):
                raise self.closed()
        elif not self._try_put(self._room, entry):
            self._put_when_room(self._room, entry, timeout)

    async def put_async(self, item: Any) -> None:
        """Add an item; wait for room without blocking the loop."""
        if self._room is None:
            self.put(item)
            return
        entry = item if self._key is None else self._with_key(item)
        while not self._try_put(self._room, entry):
            room = asyncio.get_running_loop().create_future()
            wake = partial(room.get_loop().call_soon_threadsafe, _settle, room)
            self._putters.append(wake)
            woken = False
            try:
                if self._try_put(self._room, entry):  # there may be some since the last look
                    return
                await room
                woken = True
            finally:
                if not woken:
                    self._withdraw(wake)

    def _try_put(self, room: Tokens, entry: Any) -> bool:
        """Add an entry if there is room.

        Raises:
            WorkerNotStarted: the life is closed.
        """
        if not room.take():
            if self.open:
                return False
            raise self.closed()
        accepted = False
        try:
            accepted = self.inbox.post(entry)
        finally:
            if not accepted:
                room.put()
                self._wake_putters(1)
        if not accepted:
            raise self.closed()
        return True

    def _with_key(self, item: Any) -> tuple[Hashable, Any]:
        assert self._key is not None
        key = self._key(item)
        hash(key)
        return key, item

    def _full(self) -> QueueFull:
        assert self._room is not None
        return QueueFull(
            f"the queue of worker {self._title} holds {self._room.count} items already "
            f"(maxsize={self._room.count}): put later, raise maxsize or concurrency, or "
            "await put()"
        )

    def _put_when_room(self, room: Tokens, entry: Any, timeout: float | None) -> None:
        # Who keeps a loop or a turn of this worker from getting on would wait for himself.
        if running_loop() is not None or self.inside():
            raise self._full()
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            parker = threading.Lock()
            parker.acquire()
            wake = parker.release
            self._putters.append(wake)
            woken = False
            try:
                if self._try_put(room, entry):  # there may be some since the last look
                    return
                left = None if deadline is None else deadline - monotonic()
                woken = acquire_within(parker, left)
                if not woken:
                    raise self._full()
            finally:
                if not woken:
                    self._withdraw(wake)
            if self._try_put(room, entry):
                return

    def _withdraw(self, wake: Callable[[], object]) -> None:
        """Wait no more; pass the wake-up on if it has come already."""
        try:
            self._putters.remove(wake)
        except ValueError:
            self._wake_putters(1)

    def _make_room(self, count: int) -> None:
        """Put back the places of so many items."""
        if self._room is not None:
            for _ in range(count):
                self._room.put()
            self._wake_putters(count)

    def _wake_putters(self, most: int) -> None:
        for _ in range(most):
            try:
                wake = self._putters.popleft()
            except IndexError:
                return
            with contextlib.suppress(RuntimeError):  # its loop is closed, nobody waits
                wake()

    # Fetching.

    def _ready(self) -> bool:
        if not self._sorter:
            return False  # who has it will look
        return bool(self._errands or self.inbox.due or len(self.inbox) or self.store.ready())

    def _fetch(self, ticket: Any) -> tuple[Any, list[Any]]:
        if self._before_get is not None:
            self._call_hook(self._before_get)
        if ticket is not None:
            line, held = ticket
            del self._held[id(held)]
            if line is not None:
                self._errands.append((line, None))
        taken: tuple[Any, list[Any]] | None = None
        while self._sorter.take():
            try:
                self._sort()
                if taken is None and (self.open or self.drains) and self.store.ready():
                    taken = self.store.take(self._most)
            finally:
                self._sorter.put()
            if not self._errands:
                break
        if taken is None:
            raise IndexError
        line, items = taken
        gots = items
        if self._batch is not None:
            gots = [items]
        elif len(gots) > 1:
            gots.reverse()
        self._held[id(gots)] = gots
        if self._room is not None:
            self._make_room(len(items))
        if self._width > 1:
            self._engage_if_ready()
        if self._after_get is not None:
            for item in items:
                self._call_hook(self._after_get, item)
        return (line, gots), gots

    def _sort(self) -> None:
        """See to what others have left word of. The sorter's token was taken."""
        while self._errands:
            line, items = self._errands.popleft()
            if items is not None:
                self.store.put_back(line, items)
            self.store.done(line)
        self.inbox.sort()

    def _give_back(self, ticket: Any, gots: list[Any]) -> None:
        line, held = ticket
        del self._held[id(held)]
        if self._batch is not None:
            items = [item for got in gots for item in got]
        else:
            items = gots[::-1]
        if items or line is not None:
            self._errands.append((line, items))
        while self._errands and self._sorter.take():
            try:
                self._sort()
            finally:
                self._sorter.put()

    # Life.

    def _prepare_close(self, drain: bool) -> None:
        super()._prepare_close(drain)
        self.inbox.close()

    def _on_close(self) -> None:
        self._wake_putters(len(self._putters))
        super()._on_close()

    def _rest(self) -> list[Any]:
        self._sort()
        return self._interrupted + self.store.rest()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
