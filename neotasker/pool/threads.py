"""The threads of a pool, and what becomes of them when the process ends or forks."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import Any, Literal

from ..base.clock import monotonic
from ..base.report import Reporter
from ..base.seconds import join_within
from ..core import Dispatcher
from .task import Task

__all__ = ["Crew", "ThreadSet"]

_AFTER_INTERPRETER = "cannot schedule new futures after interpreter shutdown"

_PATIENCE = 1.0  # seconds for a lock of somebody else's

_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def _refuse_to_main_thread() -> Exception | None:
    # The main thread has ended once this is asked: what it runs still are exit
    # handlers, after which nothing is waited for. Threads that live on are, so
    # their tasks are taken, where the standard pool turns them away.
    if threading.current_thread() is threading.main_thread():
        return RuntimeError(_AFTER_INTERPRETER)
    return None


def _on_main_thread_end() -> None:
    """Let every pool's threads go once its work is done, so that the process can end."""
    for crew in list(_crews):
        crew.dispatcher.end_with_interpreter(_refuse_to_main_thread)


def _after_fork_in_child() -> None:
    """Free the child of threads and tasks that only the parent has."""
    for crew in list(_crews):
        crew.abandon()
        waiting, running = crew.dispatcher.abandon()
        for task in waiting:
            task._abandon()
        for task in running:
            task._abandon(BrokenExecutor("the task runs in the parent of this process"))


# The one hook that runs when the main thread is done and before the others are
# joined; `atexit` comes too late for that. The standard's executors use it too.
threading._register_atexit(_on_main_thread_end)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class ThreadSet(set[threading.Thread]):
    """A set of threads that may be iterated while threads start and end."""

    def __iter__(self) -> Iterator[threading.Thread]:
        return iter(list(frozenset(self)))


class Crew:
    """The threads of one pool: their names, their initializer, and who is alive.

    Guarantees: `threads` holds a thread from before it starts until it has nothing
    more to run; `join` waits also for those that have just left it.

    Assumes: `hire` is called by the dispatcher alone, outside its lock.

    The lock protects `threads`, the numbers in use and the list of those that left.
    It holds no reference to the pool, so that a pool that nobody holds can go.
    """

    def __init__(
        self,
        prefix: str,
        initializer: Callable[..., None] | None,
        initargs: tuple[Any, ...],
    ) -> None:
        self.prefix = prefix
        self.initializer = initializer
        self.initargs = initargs
        self.daemon = False
        self.broken: str | Literal[False] = False
        self.threads = ThreadSet()
        self.dispatcher: Dispatcher = Dispatcher(Task, self.hire)
        self._lock = threading.Lock()
        self._numbers: set[int] = set()
        self._left: list[threading.Thread] = []
        _crews.add(self)

    def hire(self) -> None:
        """Start one more thread."""
        with self._lock:
            number = next(n for n in itertools.count() if n not in self._numbers)
            self._numbers.add(number)
            self._left = [thread for thread in self._left if thread.is_alive()]
            thread = threading.Thread(
                target=self._live,
                args=(number,),
                name=f"{self.prefix}_{number}",
                daemon=self.daemon,
            )
            self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            with self._lock:
                self.threads.discard(thread)
                self._numbers.discard(number)
            raise

    def _live(self, number: int) -> None:
        try:
            if self.initializer is not None and not self._initialize():
                return
            self.dispatcher.work()
        finally:
            thread = threading.current_thread()
            with self._lock:
                self.threads.discard(thread)
                self._numbers.discard(number)
                self._left.append(thread)

    def _initialize(self) -> bool:
        assert self.initializer is not None
        try:
            self.initializer(*self.initargs)
        except BaseException:
            Reporter("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self.broken = "A thread initializer failed, the thread pool is not usable anymore"
            reason = self.broken
            self.dispatcher.close(lambda: BrokenThreadPool(reason))
            self.dispatcher.lose_thread()
            self.dispatcher.leave()
            for task in self.dispatcher.take_waiting():
                task.set_exception(BrokenThreadPool(reason))
            return False
        return True

    def join(self, deadline: float | None = None) -> list[threading.Thread]:
        """Wait for all threads but this one, until *deadline* (monotonic seconds) if given.

        Returns:
            Those that are still alive.
        """
        me = threading.current_thread()
        while True:
            with self._lock:
                alive = [t for t in (*frozenset(self.threads), *self._left) if t is not me]
                self._left = [t for t in self._left if t.is_alive()]
            alive = [t for t in alive if t.is_alive()]
            if not alive:
                return []
            for thread in alive:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return [t for t in alive if t.is_alive()]
                join_within(thread, left)

    def abandon(self) -> None:
        """Forget all threads: in a forked child, which has none of them."""
        self._lock = threading.Lock()
        self.threads.clear()
        self._numbers.clear()
        self._left.clear()


def is_thread_of(thread: threading.Thread, executor: Any) -> bool:
    """Return whether a thread is one of a thread pool of others."""
    # The standard pool adds a thread once it runs, and holds this lock meanwhile. It holds
    # it also as it calls back those whose futures it cancels, and may have called us.
    lock = getattr(executor, "_shutdown_lock", None)
    held = lock is not None and lock.acquire(timeout=_PATIENCE)
    try:
        return thread in getattr(executor, "_threads", ())
    finally:
        if lock is not None and held:
            lock.release()
