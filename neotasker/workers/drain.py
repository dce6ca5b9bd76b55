"""The life of a queue worker: items come in at one end, turns take them out at the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from queue import Full
from threading import get_ident
from time import monotonic
from typing import Any, NamedTuple

from ..errors import QueueFull, WorkerNotStarted
from ..host import Host
from ..lives import Call, Life
from ..runs import LoopRuns, hand_over, is_own_cancellation, timed
from .base import running_loop
from .stores import Fifo, Inbox, Keyed, Store

__all__ = ["QueueLife", "QueueOptions"]

logger = logging.getLogger("neotasker")

_QUANTUM = 0.005  # seconds after which a turn lets others have the thread, or the loop
_SHORT = 0.0002  # seconds between two looks at the clock that make the next one come later
_RETRY = 1.0  # seconds until a turn that the pool would not take is handed to it again


class QueueOptions(NamedTuple):
    """How a queue worker takes its items."""

    maxsize: int = 0
    batch: int | None = None
    concurrency: int = 1
    key: Callable[[Any], Hashable] | None = None
    before_get: Callable[[], object] | None = None
    after_get: Callable[[Any], object] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether items are just taken one by one."""
        return self == QueueOptions()


class QueueLife(Life):
    """A life that works through the items it is given.

    Guarantees: an item that was accepted is processed, or in the rest. Items begin in
    the order in which they came, those of one key one after another; at most
    *concurrency* are processed at once. A putter that waits is woken when there is room.

    A *turn* takes items until there is none left, or its quantum is over: in a thread of
    the pool, or on the loop. ``turns`` counts those that are on or about to be, ``on``
    those that have begun. A turn ends by `_leave`, under the same lock under which a put
    adds its item and looks whether a turn is on, so that no item is left behind.
    """

    __slots__ = (
        "_after_get",
        "_batch",
        "_before_get",
        "_bound",
        "_executor",
        "_interrupted",
        "_key",
        "_main_done",
        "_on_loop",
        "_putters",
        "_threads",
        "_width",
        "drains",
        "driver",
        "inbox",
        "on",
        "putting",
        "store",
        "turns",
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
            worker, host, call: see `Life`.
            options: how items are taken.
            port: the way into the loop, for an async target.
            executor: in place of the host's pool, for a plain one.
        """
        super().__init__(worker, host, call)
        self.inbox: Inbox | None = None
        if options.is_plain and type(self) is QueueLife:
            self.inbox = Inbox(self._on_mail)
        self.store: Store = Fifo() if options.key is None else Keyed()
        self.turns = 0
        self.on = 0
        self.drains = False  # closed, and to process what it holds
        self.putting = 0  # puts that are under way outside the lock
        self._width = options.concurrency
        self._bound = options.maxsize
        self._batch = options.batch
        self._key = options.key
        self._before_get = options.before_get
        self._after_get = options.after_get
        self._executor = executor
        self._putters: deque[Callable[[], object]] = deque()
        self._interrupted: list[Any] = []
        self._threads: set[int] = set()  # those of the turns in the pool
        self._main_done = False  # the worker's task has ended
        self._on_loop = port is not None  # where the turns are
        self.driver: LoopRuns | None = None
        if port is not None:
            self.driver = LoopRuns(port, worker.loop, self)

    # Putting.

    def put(self, item: Any, timeout: float | None = None) -> None:
        """Add an item; wait for room, as `BackgroundQueueWorker.put_threadsafe` says."""
        if self.inbox is not None:
            if not self.inbox.post(item):
                raise self.closed()
            return
        entry = item if self._key is None else self._with_key(item)
        with self.lock:
            accepted = self._try_put(entry)
            enter = accepted and self._engage()
        if enter:
            self.enter()
        elif not accepted:
            self._put_when_room(entry, timeout)

    def _on_mail(self) -> None:
        """See that a turn takes what is in the inbox."""
        with self.lock:
            enter = self._engage()
        if enter:
            self.enter()

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
        if self._bound and len(self.store) >= self._bound:
            return False
        self.store.append(entry)
        return True

    def _engage(self) -> bool:
        """Count one more turn, to be entered, if that makes sense. The lock is held."""
        if self.turns >= self._width or not self.begun or not self._ready():
            return False
        self.turns += 1
        return True

    def _ready(self) -> bool:
        """Return whether there is an item to take. The lock is held."""
        return self.store.ready() if self.inbox is None else self.inbox.ready()

    def __len__(self) -> int:
        return len(self.store) if self.inbox is None else len(self.inbox)

    def closed(self) -> WorkerNotStarted:
        return WorkerNotStarted(
            f"worker {self._title} was stopped and takes no items: start it before it is "
            "given any"
        )

    @property
    def _title(self) -> str:
        return self.worker._title

    def _full(self) -> QueueFull:
        return QueueFull(
            f"the queue of worker {self._title} holds {self._bound} items already "
            f"(maxsize={self._bound}): put later, raise maxsize or concurrency, or await put()"
        )

    def _may_wait(self) -> bool:
        # Who keeps a loop or a turn of this worker from getting on would wait for himself.
        return running_loop() is None and not self.inside()

    def _put_when_room(self, entry: Any, timeout: float | None) -> None:
        if not self._may_wait():
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
            left = -1.0 if deadline is None else max(0.0, deadline - monotonic())
            try:
                woken = parker.acquire(timeout=left)
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

    # Turns.

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
            if executor is None or isinstance(executor, ThreadPoolExecutor):
                self._submit(self.turn, (), {}).add_done_callback(self._on_turn_done)
                return
        except (RuntimeError, Full) as exc:
            self._lose_turn(exc)
            return
        if self._begin_turn():
            self._send()

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._executor is None:
            return self.host.enqueue(fn, args, kwargs, self.call.priority)
        return hand_over(self._executor, fn, args, kwargs)

    def _on_turn_done(self, task: Any) -> None:
        if task.cancelled():
            self._lose_turn(None)

    def _lose_turn(self, exc: Exception | None) -> None:
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
            self.host.ticker.call_later(_RETRY, self._reenter)

    def _reenter(self) -> None:
        with self.lock:
            enter = (self.open or self.drains) and self._engage()
        if enter:
            self.enter()

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

    def _take(self) -> tuple[Any, Any]:
        """Take what the next run gets, with what `_done` is to be given.

        Raises:
            IndexError: there is nothing to take.
        """
        if self._before_get is not None:
            self._call_hook(self._before_get)
        with self.lock:
            if self.inbox is not None:
                if not self.inbox.refill():
                    raise IndexError
                return None, self.inbox.take_item()
            line, items = self.store.take(self._batch or 1)
            putters = [self._putters.popleft() for _ in items if self._putters]
        for wake in putters:
            _call_quietly(wake)
        if self._after_get is not None:
            for item in items:
                self._call_hook(self._after_get, item)
        return line, items if self._batch is not None else items[0]

    def _put_back(self, line: Any, got: Any) -> None:
        """Put back what was taken and not processed."""
        with self.lock:
            self.store.put_back(line, got if self._batch is not None else [got])
            self.store.done(line)

    def _done(self, line: Any) -> None:
        """Note that what was taken is processed."""
        with self.lock:
            try:
                self.store.done(line)
            except BaseException:  # of a key's hash
                logger.exception("worker %s: error in a key", self._title)

    def _call_hook(self, hook: Callable[..., object], *args: Any) -> None:
        try:
            hook(*args)
        except BaseException:
            self.failed()

    def _count_run(self) -> None:
        if self._width == 1:
            self.tally.runs += 1
        else:
            with self.lock:
                self.tally.runs += 1

    # In a thread of the pool.

    def turn(self) -> None:
        """Take one turn."""
        if not self._begin_turn():
            return
        context = self.call.context.copy()
        drain = self._drain if self.inbox is None else self._drain_inbox
        ident = get_ident()
        while True:
            self._threads.add(ident)
            more = context.run(drain)
            self._threads.discard(ident)
            if more:
                if self._pause_turn():
                    self.enter()
                return
            if self._leave():
                return

    def _drain_inbox(self) -> bool:
        """Process items one by one; return whether the quantum was over before the last."""
        inbox, tally, run = self.inbox, self.tally, self.call.bound
        assert inbox is not None
        take, checks = inbox.take_item, self.call.checks_result
        pace = _Pace()
        while self.open or self.drains:
            try:
                item = take()
            except IndexError:
                if inbox.refill():
                    continue
                return False
            tally.runs += 1
            try:
                result = run(item)
            except BaseException:
                self.failed()
            else:
                if result is False or checks:
                    self.returned(result)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                return True
        return False

    def _drain(self) -> bool:
        """Process items; return whether the quantum was over before there was none left."""
        run, checks = self.call.bound, self.call.checks_result
        pace = _Pace()
        while self.open or self.drains:
            try:
                line, item = self._take()
            except IndexError:
                return False
            self._count_run()
            try:
                result = run(item)
            except BaseException:
                self.failed()
            else:
                if result is False or checks:
                    self.returned(result)
            self._done(line)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                return True
        return False

    # In an executor elsewhere.

    def _send(self) -> None:
        """Hand the next item to an executor that may be another process."""
        while True:
            try:
                if not (self.open or self.drains):
                    raise IndexError
                line, item = self._take()
            except IndexError:
                if self._leave():
                    return
                continue
            try:
                task = self._submit(self.call.run, (item,), self.call.kwargs_elsewhere)
            except (RuntimeError, Full) as exc:
                self._put_back(line, item)
                if self._pause_turn():
                    self._lose_turn(exc)
                return
            self._count_run()
            if not task.done():
                task.add_done_callback(partial(self._came_back, line))
                return
            self._look_at(line, task)

    def _came_back(self, line: Any, task: Any) -> None:
        self._look_at(line, task)
        self._send()

    def _look_at(self, line: Any, task: Any) -> None:
        if not task.cancelled():
            try:
                result = task.result()
            except BaseException:
                self.failed()
            else:
                self.returned(result)
        self._done(line)

    # On a loop.

    async def serve(self) -> None:
        """Process items as they come, until the life is closed: in the worker's task."""
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
        create_task = partial(
            self.driver.port.create_task,
            self._turn_on_loop(begun),
            name=f"{self.worker._name} turn",
        )
        task = self.call.context.copy().run(create_task)
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
            await self._drain_on_loop()
            left = True
        finally:
            if not left and self._pause_turn():
                self._lose_turn(None)

    async def _drain_on_loop(self) -> None:
        inbox, tally, run = self.inbox, self.tally, self.call.bound
        take, timeout = None if inbox is None else inbox.take_item, self.call.timeout
        line = None
        pace = _Pace()
        while True:
            try:
                if not (self.open or self.drains):
                    raise IndexError
                if take is not None:
                    item = take()
                else:
                    line, item = self._take()
            except IndexError:
                if inbox is not None and (self.open or self.drains) and inbox.refill():
                    continue
                if self._leave():
                    return
                continue
            tally.runs += 1
            try:
                result = await (run(item) if timeout is None else self._timed(item, timeout))
            except BaseException as exc:
                if isinstance(exc, GeneratorExit) or is_own_cancellation(exc):
                    self._interrupted += item if self._batch is not None else [item]
                    raise
                self.failed()
            else:
                if result is False:
                    self.returned(result)
            if take is None:
                self._done(line)
            pace.count += 1
            if pace.count >= pace.every and pace.is_over():
                await asyncio.sleep(0)
                pace = _Pace()

    async def _timed(self, item: Any, timeout: float) -> Any:
        assert self.driver is not None
        return await timed(self.call.bound(item), timeout, self.driver.clock)

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
        if self.inbox is not None:
            self.inbox.close()

    def _is_idle(self) -> bool:
        if self.driver is not None and not self.driver.is_loose():
            return False
        return not self.drains and self._is_over()

    def _on_close(self) -> None:
        with self.lock:
            putters, self._putters = list(self._putters), deque()
            enter = self.drains and self.begun and not self.turns
            if enter:
                self.turns += 1
        for wake in putters:
            _call_quietly(wake)
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

    def _rest(self) -> list[Any]:
        with self.lock:
            waiting = self.store.rest() if self.inbox is None else self.inbox.rest()
            return self._interrupted + waiting

    def current_task(self) -> Any:
        """Return something true while a turn is on or about to be, else None."""
        return self if self.turns else None

    def inside(self) -> bool:
        """Return whether the caller is a turn, or in the loop."""
        if get_ident() in self._threads:
            return True
        return self.driver is not None and self.driver.inside()


class _Pace:
    """Says when a turn has had its quantum, looking at the clock as often as it must."""

    __slots__ = ("_last", "_until", "count", "every")

    def __init__(self) -> None:
        self._last = monotonic()
        self._until = self._last + _QUANTUM
        self.count = 0  # runs since the last look
        self.every = 1  # runs until the next

    def is_over(self) -> bool:
        """Look at the clock."""
        now = monotonic()
        self.count = 0
        self.every = min(2 * self.every, 16) if now - self._last < _SHORT else 1
        self._last = now
        return now >= self._until


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call_quietly(wake: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # its loop is closed, nobody waits any more
        wake()
