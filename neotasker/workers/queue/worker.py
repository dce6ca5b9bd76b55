"""Queue workers: run for each item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...base.known_as import known_as
from ...base.targets import is_async
from ...host import Host
from ..continuous import BackgroundAsyncWorker
from ..life import Life
from .drain import QueueLife, QueueOptions
from .on_loops import LoopQueueLife
from .on_threads import ThreadQueueLife
from .turns import TurnLife

__all__ = ["BackgroundQueueWorker", "ItemQueue"]


class ItemQueue:
    """The queue of a worker that was given no class for it, as others may look at it."""

    def __init__(self, life: QueueLife, maxsize: int) -> None:
        self._life = life
        self.maxsize = maxsize

    def qsize(self) -> int:
        """Return how many items wait."""
        return len(self._life)

    def empty(self) -> bool:
        """Return whether no item waits."""
        return not self.qsize()

    def full(self) -> bool:
        """Return whether there is no room for another item."""
        return 0 < self.maxsize <= self.qsize()

    def put_nowait(self, item: Any) -> None:
        """Put an item: from any thread.

        Raises:
            QueueFull: there is no room.
            WorkerNotStarted: the worker was stopped.
        """
        self._life.put(item, 0)

    async def put(self, item: Any) -> None:
        """Put an item, and wait for room.

        Raises:
            WorkerNotStarted: the worker was stopped.
        """
        await self._life.put_async(item)


@known_as("neotasker.workers.queue")
class BackgroundQueueWorker(BackgroundAsyncWorker):
    """Runs its target for each item that is put, in order.

    A plain target runs in the pool, an async one on the worker's loop. The item is the
    first, positional argument.
    """

    def __init__(self, name: Any = None, fn: Callable[..., Any] | None = None, **kwargs: Any):
        """Make a worker; `start` runs it.

        Parameters:
            name, fn, kwargs: see `BackgroundAsyncWorker`.
            q: a class of queues to be used in place of the built-in one: those of the
                modules ``queue`` and ``asyncio``, or one with the same methods. Also as
                ``queue``.
            maxsize: the most items that may wait; 0: no limit.
            batch: the target gets a list of up to so many items, those that are there.
            concurrency: how many items may be processed at once.
            key: returns the key of an item. Items of one key are processed one after
                another, in order, those of different keys side by side.

        Raises:
            TypeError: a number is not whole, *key* cannot be called.
            ValueError: a number is out of range, or *key* comes with a queue class.
        """
        super().__init__(name, fn, **kwargs)
        given = kwargs.get("q") or kwargs.get("queue")
        self._queue_class = None if given is None or isinstance(given, bool) else given
        if self._queue_class is not None and not callable(self._queue_class):
            raise TypeError(f"q must be True or a class of queues, not {given!r}")
        key = kwargs.get("key")
        if key is not None and not callable(key):
            raise TypeError(f"key must be callable, not {key!r}")
        if key is not None and self._queue_class is not None:
            raise ValueError(
                f"key= needs the built-in queue, and q={given!r} is given: leave one out"
            )
        batch = kwargs.get("batch")
        self._maxsize = _whole("maxsize", kwargs.get("maxsize") or 0, 0)
        self._batch = None if batch is None else _whole("batch", batch, 1)
        self._concurrency = _whole("concurrency", kwargs.get("concurrency") or 1, 1)
        self._key = key
        self._queue: Any = None

    def before_queue_get(self) -> None:
        """Hook: called before an item is taken."""

    def after_queue_get(self, task: Any) -> None:
        """Hook: called with each item that was taken, before the target."""

    def _make_life(self, host: Host, kwargs: dict[str, Any]) -> Life:
        call = self._make_call(kwargs, positional=1)
        loop = self._find_loop(host, kwargs)
        options = QueueOptions(
            self._maxsize,
            self._batch,
            self._concurrency,
            self._key,
            self._hook_if_overridden("before_queue_get"),
            self._hook_if_overridden("after_queue_get"),
        )
        if self._queue_class is None:
            port = self._port(loop) if self._target_is_async else None
            life = QueueLife(self, host, call, options, port, self._executor)
            self._queue = ItemQueue(life, self._maxsize)
            return life
        queue = self._queue = _make_queue(self._queue_class, self._maxsize)
        if not is_async(queue.get):
            port = self._port(loop) if self._target_is_async else None
            return ThreadQueueLife(self, host, call, options, queue, port, self._executor)
        if loop is None:
            loop = host.resolve_aloop(None)
        port = self._port(loop)
        return LoopQueueLife(
            self, host, call, options, queue, port, self._executor, self._target_is_async
        )

    def _hook_if_overridden(self, name: str) -> Any:
        overridden = self._overrides(name, BackgroundQueueWorker)
        return getattr(self, name) if overridden else None

    def put_threadsafe(self, item: Any, timeout: float | None = None) -> None:
        """Put an item: from any thread.

        None stops the worker when all that was put before is processed; in a queue of the
        program's class it is put like an item, and stops the worker when it is taken.

        Parameters:
            item: for the target.
            timeout: seconds to wait for room in a bounded queue; None waits for ever. In
                a thread that runs an event loop, and in a run of this worker, nothing is
                waited for.

        Raises:
            WorkerNotStarted: the worker does not run.
            QueueFull: there was no room in time.
        """
        life: Any = self._life
        if life is None:
            self._running_life("put_threadsafe()")
        elif item is not None and life.post is not None:
            if not life.post(item):
                raise life.closed()
        elif item is None and self._queue_class is None:
            self.stop(wait=False, drain=True)
        elif item is not None or life.open:
            life.put(item, timeout)

    async def put(self, item: Any) -> None:
        """Put an item; wait for room in a bounded queue without blocking the loop.

        Parameters:
            item: for the target; None as in `put_threadsafe`.

        Raises:
            WorkerNotStarted: the worker does not run.
        """
        life: TurnLife = self._running_life("put()")
        if item is None and self._queue_class is None:
            self.stop(wait=False, drain=True)
        elif item is not None or life.open:
            await life.put_async(item)

    def get_queue_obj(self) -> Any:
        """Return the queue: of the class that was given, else an `ItemQueue`.

        Raises:
            WorkerNotStarted: the worker was never started.
        """
        self._running_life("get_queue_obj()")
        return self._queue


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return value


def _make_queue(cls: Callable[..., Any], maxsize: int) -> Any:
    queue = cls(maxsize=maxsize) if maxsize else cls()
    for method in ("put", "get"):
        if not callable(getattr(queue, method, None)):
            raise TypeError(f"a queue needs a method {method}, which {queue!r} has not")
    return queue
