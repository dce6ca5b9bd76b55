"""The threads of a pool, and what becomes of them when the process ends or forks."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from concurrent.futures.thread import BrokenThreadPool
from contextlib import suppress
from typing import Any, Literal

from ..base.clock import monotonic
from ..base.green import need_threads
from ..base.report import Reporter
from ..base.seconds import is_alive, join_within
from ..core import Dispatcher
from .task import Task

__all__ = ["Crew", "Initializer", "ThreadSet", "is_thread_of"]

logger = Reporter("neotasker")

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


class Begun(threading.Event):
    """What whoever starts a thread waits on until it is there.

    A handler that raises in the standard's own may leave a lock of it taken, on which the
    thread then waits for ever. This has one waiter and nothing to leave taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._gate = allocate_lock()
        self._gate.acquire()

    def set(self) -> None:
        """Let the waiter go on."""
        self._flag = True
        if self._gate.locked():
            self._gate.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set."""
        if not self._flag:
            self._gate.acquire(timeout=-1 if timeout is None else timeout)
        return self._flag


class Initializer:
    """What each thread of a pool calls before its first task.

    The pool holds it. A crew, whose threads may outlive the pool, does not: an initializer
    that is a method of whoever owns the pool would keep both for ever.
    """

    __slots__ = ("__weakref__", "_args", "_fn")

    def __init__(self, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._fn = fn
        self._args = args

    def __call__(self) -> None:
        """Call it."""
        self._fn(*self._args)


class Ticket:
    """Whether a thread that was started may begin: who hires it says so as the last step.

    Before that anything may raise, as a handler of a signal may at any time, also when the
    thread is there already. It goes again then, and has taken no task.

    The first word that was given counts.
    """

    __slots__ = ("gate", "initializer", "words")

    def __init__(self, initializer: Initializer | None) -> None:
        self.initializer = initializer
        self.words: list[bool] = []
        self.gate = allocate_lock()  # released when there is a word
        self.gate.acquire()

    def wait(self) -> bool:
        """Wait for the word; return whether to begin."""
        self.gate.acquire()
        return self.words[0]


class Crew:
    """The threads of one pool: their names, their initializer, and who is alive.

    Guarantees: `threads` holds a thread from before it starts until it has nothing
    more to run; `join` waits also for those that have just left it. A thread that `hire`
    raises for runs no task, unless what raised came after the last step.

    Assumes: `hire` is called by the dispatcher alone, outside its lock.

    No lock is needed, so that `hire` may be interrupted by a handler or destructor that
    submits: each step is one operation on a set or a dictionary, which is atomic. It holds
    no reference to the pool, so that a pool that nobody holds can go.
    """

    def __init__(self, prefix: str, initializer: Initializer | None) -> None:
        self.prefix = prefix
        self.daemon = False
        self.broken: str | Literal[False] = False
        self.threads = ThreadSet()
        self.dispatcher: Dispatcher = Dispatcher(Task, self.hire)
        self._initializer = None if initializer is None else weakref.ref(initializer)
        self._numbers: dict[int, Ticket] = {}  # in use, and by whom
        self._left = ThreadSet()
        _crews.add(self)

    def hire(self) -> None:
        """Start one more thread.

        Raises:
            RuntimeError: the system gives no thread, or the pool is gone.
        """
        need_threads("a thread of the pool")
        initializer = None
        if self._initializer is not None:
            initializer = self._initializer()
            if initializer is None:
                raise RuntimeError("the pool is gone, and so is what initializes its threads")
        ticket = Ticket(initializer)
        outside = sys.exception()
        number = 0
        thread = None
        for gone in self._left:
            if not is_alive(gone):
                self._left.discard(gone)
        try:
            while self._numbers.setdefault(number, ticket) is not ticket:
                number += 1
            thread = threading.Thread(
                target=self._live,
                args=(number, ticket),
                name=f"{self.prefix}_{number}",
                daemon=self.daemon,
            )
            if hasattr(thread, "_started"):
                thread._started = Begun()
            self.threads.add(thread)
            thread.start()
            ticket.words.append(True)
            ticket.gate.release()
        except BaseException as exc:
            # Nothing of Python is called here: it may be the recursion that has gone too deep.
            ticket.words.append(False)
            if ticket.gate.locked():
                ticket.gate.release()
            if not ticket.words[0]:
                if thread is not None:
                    self.threads.discard(thread)
                if self._numbers.get(number) is ticket:
                    self._numbers.pop(number, None)
            reason = exc.__context__
            stumbled = isinstance(exc, (KeyError, RuntimeError))
            if stumbled and reason is not None and reason is not outside:
                # That is what a handler raised in the standard's `start`, which then failed.
                raise reason from None
            raise

    def _live(self, number: int, ticket: Ticket) -> None:
        try:
            if self._begin(ticket):
                self._serve()
        finally:
            thread = threading.current_thread()
            self._left.add(thread)
            self.threads.discard(thread)
            if self._numbers.get(number) is ticket:
                self._numbers.pop(number, None)

    def _begin(self, ticket: Ticket) -> bool:
        """Return whether this thread is to serve; if so, it was initialized."""
        try:
            initializer = None
            if not ticket.wait():
                return False
            initializer, ticket.initializer = ticket.initializer, None
            return initializer is None or self._initialize(initializer)
        except BaseException:  # raised in this thread by another one
            self.dispatcher.lose_thread()
            raise

    def _serve(self) -> None:
        try:
            self.dispatcher.work()
        except BaseException:
            # Somebody raised it in a thread that was in no task. It is not counted any
            # more; others take its part.
            logger.exception("a thread of %s has ended", self.prefix)
            with suppress(BaseException):
                self.dispatcher.engage()

    def _initialize(self, initializer: Initializer) -> bool:
        try:
            initializer()
        except BaseException:
            Reporter("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self.broken = "A thread initializer failed, the thread pool is not usable anymore"
            reason = self.broken
            self.dispatcher.close(lambda: BrokenThreadPool(reason))
            self.dispatcher.lose_thread()
            self.dispatcher.leave()
            for task in self.dispatcher.take_waiting():
                task._end(True, BrokenThreadPool(reason))
            return False
        return True

    def join(self, deadline: float | None = None) -> list[threading.Thread]:
        """Wait for all threads but this one, until *deadline* (monotonic seconds) if given.

        Returns:
            Those that are still alive.
        """
        me = threading.current_thread()
        while True:
            # First those that have not left: one that does meanwhile is in both.
            alive = [t for t in [*self.threads, *self._left] if t is not me and is_alive(t)]
            if not alive:
                return []
            for thread in alive:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return [t for t in alive if is_alive(t)]
                join_within(thread, left)

    def abandon(self) -> None:
        """Forget all threads: in a forked child, which has none of them."""
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
