"""`ALoop`: an asyncio loop that runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from ..base.known_as import also_known_as, known_as, parted
from ..base.report import Reporter
from ..base.seconds import is_alive, join_within, wait_seconds
from ..base.spare import need_stack
from ..errors import AloopError
from .gate import CoroutineFuture, LoopGate
from .port import LoopPort

__all__ = ["ALoop", "LoopFactory"]

T = TypeVar("T")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

logger = Reporter("neotasker")


class _Run:
    """One life of an aloop: its loop, its thread, and how it ends.

    Guarantees: the thread ends, and every future of the gate with it, once a stop was
    asked for and the coroutines have ended, or once the loop was stopped or closed by
    somebody else.

    The flags are written by any thread, before a call is posted that makes the loop's
    thread look at them.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        title: str,
        helpers: ThreadPoolExecutor,
        closing: Callable[[_Run], object],
    ) -> None:
        self.gate = LoopGate(loop)
        self.title = title
        self.cancelled = 0
        self._helpers = helpers
        self._closing = closing  # told when nothing more may come
        self._stop_wanted = False
        self._cancel_wanted = False
        self._stop_seen = False  # loop's thread only, as are those below
        self._serving = True
        self._told: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._ender: asyncio.Task[None] | None = None
        self._fuse: asyncio.TimerHandle | None = None
        self.abandoned = False  # this is a forked child, and the loop the parent's

    # From any thread.

    def ask_stop(self, cancel: bool, cancel_after: float | None) -> None:
        """End when the coroutines have; cancel them at once, or after so many seconds."""
        self._cancel_wanted = self._cancel_wanted or cancel
        self._stop_wanted = True
        self.gate.post(partial(self._on_stop, cancel_after))

    # In the loop's thread.

    def live(self, started: threading.Event) -> None:
        """Run the loop until it is stopped, then end what it runs and close it."""
        loop = self.gate.loop
        try:
            loop.call_soon(started.set)
            self._serve()
            self._serving = False
            self._closing(self)
            if not self.abandoned and not loop.is_closed():
                self._finish(self._wind_up())
                self._finish(loop.shutdown_asyncgens())
                # It takes a thread to do so, for which there is seldom a reason.
                if (
                    getattr(loop, "_default_executor", None) is not self._helpers
                    or self._helpers._threads
                ):
                    self._finish(loop.shutdown_default_executor())
        finally:
            if not self.abandoned:
                self._end(started)

    def _end(self, started: threading.Event) -> None:
        """Close the loop."""
        loop = self.gate.loop
        try:
            self._serving = False
            self._closing(self)
            self.gate.bury()
            if self._fuse is not None:
                self._fuse.cancel()
            if not loop.is_closed():
                loop.close()
            self._helpers.shutdown(wait=False)
        finally:
            started.set()

    def leave_in_child(self) -> None:
        """Have this thread end once the coroutine that has forked lets go of it.

        The loop is left as it is: it shares what it waits by with that of the parent.
        """
        self.abandoned = True
        loop = self.gate.loop
        ready = getattr(loop, "_ready", None)
        if ready is not None:  # what was to be called next is the parent's
            ready.clear()
        loop.call_soon(_leave)

    def _serve(self) -> None:
        loop = self.gate.loop
        while not self._stop_seen:
            try:
                loop.run_forever()
            except BaseException:
                if self.abandoned:
                    return
                if not loop.is_closed():
                    logger.exception("%s: an exception came out of the loop", self.title)
                    continue
            if not self._stop_wanted:
                logger.error("%s: its loop was stopped or closed by somebody else", self.title)
                self._cancel_wanted = True
            return

    def _finish(self, coro: Coroutine[Any, Any, None]) -> None:
        """Run the loop until *coro* has ended, whoever stops the loop meanwhile."""
        loop = self.gate.loop
        if loop.is_closed() or self.abandoned:
            coro.close()
            return
        task = self._ender = loop.create_task(coro)
        while not task.done() and not loop.is_closed():
            try:
                loop.run_until_complete(task)
            except BaseException:
                if self.abandoned:
                    return
                if not task.done() and not loop.is_closed():
                    logger.exception("%s: an exception came out of the loop", self.title)
        if task.done() and not task.cancelled() and task.exception() is not None:
            logger.error("%s: error while it ended", self.title, exc_info=task.exception())
        if not task.done():
            self.gate.tasks[task] = None

    async def _wind_up(self) -> None:
        while tasks := self._others():
            if self._cancel_wanted:
                self._cancel(tasks)
            await asyncio.wait(tasks)

    def _others(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks(self.gate.loop) - {self._ender}

    def _cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tasks:
            if task not in self._told:
                self._told.add(task)
                self.cancelled += task.cancel()

    def _on_stop(self, cancel_after: float | None) -> None:
        if self._cancel_wanted:
            self._cancel(self._others())
        elif cancel_after is not None:
            self._fuse = self.gate.loop.call_later(cancel_after, self._on_fuse)
        self._stop_seen = True
        if self._serving:
            self.gate.loop.stop()

    def _on_fuse(self) -> None:
        logger.warning("%s: wait timeout, cancelling what still runs", self.title)
        self._cancel_wanted = True
        self._cancel(self._others())


def _leave() -> None:
    raise SystemExit  # the one kind of exception that comes out of a callback of a loop


_aloops: weakref.WeakSet[ALoop] = weakref.WeakSet()
# In a forked child: closing one would take the parent's loop out of the epoll that both share.
_loops_of_parent: list[asyncio.AbstractEventLoop] = []


@known_as("neotasker.aloop")
class ALoop(LoopPort):
    """An asyncio loop that runs in a thread of its own.

    Guarantees: every future that `spawn_coroutine_threadsafe` returned ends, whatever
    becomes of the loop. `stop` returns when the coroutines have ended, cancelled ones
    too, unless it was asked not to wait or is called in the loop's own thread. A
    stopped aloop can be started again.

    The lock protects the change from one run to the next; nothing else is taken, and
    no code of others runs under it.
    """

    def __init__(
        self,
        name: str | None = None,
        supervisor_id: str = "",
        daemon: bool = False,
        loop_factory: LoopFactory | None = None,
        thread_name: str | None = None,
    ) -> None:
        """Make an aloop; `start` runs it.

        Parameters:
            name: its name; a random one when left out.
            supervisor_id: of the supervisor that it belongs to, for messages.
            daemon: whether its thread lets the process end while it runs.
            loop_factory: makes the loop, ``uvloop.new_event_loop`` for one.
            thread_name: ``supervisor_<id>_aloop_<name>`` when left out.

        Raises:
            TypeError: *loop_factory* cannot be called.
        """
        if loop_factory is not None and not callable(loop_factory):
            raise TypeError(f"loop_factory must be callable, not {loop_factory!r}")
        self.name = name if name is not None else str(uuid.uuid4())
        self.supervisor_id = supervisor_id
        self.daemon = daemon
        self.loop_factory = loop_factory
        self.on_end: Callable[[], object] | None = None  # called as its thread ends
        self.owner: weakref.ref[Any] | None = None
        self.thread: threading.Thread | None = None
        self._thread_name = thread_name or f"supervisor_{supervisor_id}_aloop_{self.name}"
        self._title = f"supervisor {supervisor_id} aloop {self.name}"
        self._lock = threading.RLock()
        self._helper = threading.local()
        self._run: _Run | None = None
        self._gate = None
        _aloops.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The asyncio loop, or None while it does not run."""
        return self.get_loop()

    @property
    def supervisor(self) -> Any:
        """The supervisor that has made the aloop; None if there is none, or it is gone."""
        return None if self.owner is None else self.owner()

    # As atasker calls it.

    def is_active(self) -> bool:
        """Return whether the aloop takes coroutines, as `active` says."""
        return self.active

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Do what `run_coroutine_threadsafe` does."""
        return self.run_coroutine_threadsafe(coro)

    def background_task(self, coro: Coroutine[Any, Any, T]) -> CoroutineFuture[T]:
        """Do what `spawn_coroutine_threadsafe` does."""
        return self.spawn_coroutine_threadsafe(coro)

    def _refusal(self) -> AloopError:
        return AloopError(
            f"{self._title} does not run: start it (start(), start_aloop({self.name!r})) "
            "before it is given work"
        )

    def _inner_gate(self) -> LoopGate | None:
        run = self._run
        return None if run is None else run.gate

    def start(self) -> bool:
        """Start the thread and return when the loop runs; False if it does already.

        Raises:
            TypeError: the factory made something else than a loop.
        """
        need_stack()
        if self._gate is not None:
            return False
        loop = (self.loop_factory or asyncio.new_event_loop)()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop_factory must make an asyncio loop, not {loop!r}")
        helpers = ThreadPoolExecutor(
            thread_name_prefix=f"{self._thread_name}_helper", initializer=self._mark_helper
        )
        started = threading.Event()
        try:
            loop.set_default_executor(helpers)
            run = _Run(loop, self._title, helpers, self._leave)
            thread = threading.Thread(
                target=self._live,
                args=(run, started),
                name=self._thread_name,
                daemon=self.daemon,
            )
        except BaseException:  # a subinterpreter may have no daemon threads
            loop.close()
            raise
        with self._lock:
            if self._gate is None:
                self._run, self._gate, self.thread = run, run.gate, thread
        if self._run is not run:
            loop.close()
            return False
        try:
            thread.start()
        except BaseException:
            self._leave(run)
            run.gate.bury()
            loop.close()
            raise
        started.wait()
        logger.info("%s started", self._title)
        return True

    def _live(self, run: _Run, started: threading.Event) -> None:
        try:
            run.live(started)
        finally:
            if not run.abandoned:
                logger.info("%s finished", self._title)
                if self.on_end is not None:
                    self.on_end()

    def _leave(self, run: _Run) -> None:
        """Take no more for that run."""
        with self._lock:
            if self._run is run:
                self._gate = None

    def stop(self, wait: bool | float = True, cancel_tasks: bool = False) -> None:
        """Take no more coroutines, and end when those that run have ended.

        Parameters:
            wait: True waits for the coroutines and the thread, False for nothing; a
                number is seconds after which coroutines that still run are cancelled
                (and waited for). In the aloop's own thread nothing is waited for.
            cancel_tasks: cancel the coroutines at once.

        Raises:
            TypeError: *wait* is neither a bool nor a number.
            ValueError: *wait* is negative.
        """
        seconds = None if wait is False else wait_seconds(wait)
        need_stack()
        if threading.current_thread() is self.thread:
            self.ask_stop(cancel_tasks, seconds)
            return
        self.ask_stop(cancel_tasks)
        if wait is not False and not self.join(seconds):
            logger.warning("%s: wait timeout, cancelling what still runs", self._title)
            self.ask_stop(cancel=True)
            self.join()

    def ask_stop(self, cancel: bool = False, cancel_after: float | None = None) -> None:
        """Do what `stop` does, without waiting; may be called again to ask for more.

        Parameters:
            cancel: cancel the coroutines at once.
            cancel_after: seconds after which those that still run are cancelled.
        """
        with self._lock:
            run = self._run
            self._gate = None
        if run is not None:
            run.ask_stop(cancel, cancel_after)

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the thread of an aloop that was stopped; return whether it has ended.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        thread = self.thread
        if thread is None or thread.ident is None:
            return True
        if thread is not threading.current_thread():
            join_within(thread, timeout)
        return not is_alive(thread)

    def give_up(self) -> None:
        """Cancel the coroutines and end their futures now, whatever the coroutines do."""
        self.ask_stop(cancel=True)
        run = self._run
        if run is not None:
            for future in list(run.gate.tasks.values()):
                if isinstance(future, CoroutineFuture):
                    future.cancel()

    @property
    def cancelled(self) -> int:
        """How many coroutines the stop of the last run cancelled."""
        run = self._run
        return 0 if run is None else run.cancelled

    def waits_for_caller(self) -> bool:
        """Return whether the end of the loop waits for the thread that asks.

        So it does for its own, and for those of its default executor (``to_thread``).
        """
        return threading.current_thread() is self.thread or getattr(self._helper, "mine", False)

    def _mark_helper(self) -> None:
        self._helper.mine = True

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of the loop that have not ended, as far as can be seen from here."""
        run = self._run
        if run is None or self.thread is None or not is_alive(self.thread):
            return []
        with contextlib.suppress(Exception):  # the loop runs on while we look
            return [task for task in run._others() if not task.done()]
        return []

    def _abandon(self) -> None:
        """Forget the run: in a forked child, which has not got its thread."""
        self._lock = threading.RLock()
        run, self._run = self._run, None
        thread, self.thread = self.thread, None
        self._gate = None
        if run is None:
            return
        _loops_of_parent.append(run.gate.loop)
        run.gate.abandon()
        if thread is not None and thread.ident == threading.get_ident():
            run.leave_in_child()

    def __repr__(self) -> str:
        state = "active" if self.active else "inactive"
        return f"<{type(self).__name__} {self.name} of supervisor {self.supervisor_id} {state}>"


def _after_fork_in_child() -> None:
    for aloop in list(_aloops):
        aloop._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


also_known_as("neotasker.aloop", __name__)
parted(__name__, "neotasker.loops.port", "neotasker.loops.gate")
