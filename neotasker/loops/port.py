"""`LoopPort`: what aloops and foreign loops have in common; `ForeignLoop`, one of others."""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

from ..base.clock import monotonic
from ..base.targets import is_async
from ..errors import AloopError
from .gate import CoroutineFuture, LoopGate

__all__ = ["ForeignLoop", "LoopPort", "running_loop", "wait_on"]

T = TypeVar("T")

_GLANCE = 0.1  # seconds between two looks whether somebody runs a loop that is waited for


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    return _get_running_loop()


class LoopPort:
    """What aloops and foreign loops have in common: a name, a loop, and the way into it."""

    name: str
    _gate: LoopGate | None

    @property
    def active(self) -> bool:
        """Whether the loop takes coroutines."""
        return self._gate is not None

    def get_loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the asyncio loop, or None while it does not run."""
        gate = self._gate
        return None if gate is None else gate.loop

    def _refusal(self) -> AloopError:
        return AloopError(f"{self.name} does not run")

    def spawn_coroutine_threadsafe(self, coro: Coroutine[Any, Any, T]) -> CoroutineFuture[T]:
        """Run a coroutine in the loop, from any thread; return its future.

        Raises:
            TypeError: *coro* is not a coroutine.
            AloopError: the loop does not run; the coroutine was closed.
        """
        if type(coro) is not CoroutineType and not asyncio.iscoroutine(coro):
            hint = ": call it first" if is_async(coro) else ""
            raise TypeError(f"a coroutine is needed, not {coro!r}{hint}")
        gate = self._gate
        if gate is not None:
            try:
                future: CoroutineFuture[T] = CoroutineFuture()
                future._gate = gate
                if gate.post((future, coro, copy_context())):
                    return future
            except BaseException:
                coro.close()
                raise
        coro.close()
        raise self._refusal()

    def run_coroutine_threadsafe(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and return its result, blocking the caller.

        Raises:
            TypeError: *coro* is not a coroutine.
            AloopError: the loop does not run, or this is its own thread, which would
                wait for itself; the coroutine was closed.
        """
        if self._is_own_thread():
            if asyncio.iscoroutine(coro):
                coro.close()
            raise AloopError(
                f"{self.name}: run_coroutine_threadsafe called in the loop's own thread would "
                "wait for itself: await the coroutine there, or use spawn_coroutine_threadsafe"
            )
        try:
            future = self.spawn_coroutine_threadsafe(coro)
        except BaseException:
            if asyncio.iscoroutine(coro):
                coro.close()
            raise
        try:
            return future.result()
        finally:
            del future  # this frame is in the traceback of what the coroutine has raised

    def _is_own_thread(self) -> bool:
        running = running_loop()
        return running is not None and running is self.get_loop()

    def _inner_gate(self) -> LoopGate | None:
        """Return the gate for what belongs to those that run in the loop already."""
        return self._gate

    def call_soon(self, fn: Callable[..., object], /, *args: Any) -> None:
        """Call ``fn(*args)`` in the loop's thread soon, from any thread.

        A loop that was told to stop does so as long as coroutines run in it.

        Raises:
            AloopError: the loop does not run.
        """
        gate = self._inner_gate()
        if gate is None or not gate.post(partial(fn, *args)):
            raise self._refusal()

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        since: float | None = None,
    ) -> asyncio.Task[T]:
        """Return a task of the loop, held until it ends: in the loop's thread only.

        Parameters:
            coro, name, context: of the task.
            since: when it began, for reports, in seconds of the ticker.

        Raises:
            AloopError: the loop does not run; the coroutine was closed.
        """
        gate = self._inner_gate()
        if gate is None:
            coro.close()
            raise self._refusal()
        return gate.create_task(coro, name=name, context=context, since=since)


class ForeignLoop(LoopPort):
    """A loop that somebody else runs, with the face of an aloop.

    Coroutines handed over while it rests start when it runs (again). One that is
    closed is not active.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put a gate before *loop*.

        Raises:
            TypeError: it is not an asyncio loop.
        """
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"an asyncio loop is needed, not {loop!r}")
        self.loop = loop
        self.name = f"<{type(loop).__name__}>"
        self._open = LoopGate(loop)

    @property
    def rests(self) -> bool:
        """Whether nobody runs the loop now."""
        return not self.loop.is_running()

    def tasks(self) -> dict[asyncio.Task[Any], CoroutineFuture[Any] | float | None]:
        """Return the tasks that are held here, with what is known of each: from any thread."""
        return self._open.tasks.copy()

    def post(self, call: Callable[[], object]) -> bool:
        """Have *call* called in the loop; return False if that is closed."""
        gate = self._gate
        return gate is not None and bool(gate.post(call))

    @property
    def _gate(self) -> LoopGate | None:  # type: ignore[override]
        if self.loop.is_closed():
            self._open.bury()
            return None
        return self._open

    def _refusal(self) -> AloopError:
        return AloopError(f"the loop {self.loop!r} is closed")


def wait_on(
    port: LoopPort | None, wait: Callable[[float | None], bool], timeout: float | None = None
) -> bool:
    """Wait for what is to happen in a loop, unless nobody runs that loop any more.

    Parameters:
        port: the way into the loop. An aloop runs until all in it has ended; what others
            run may stop at any moment.
        wait: waits at most so many seconds (None: for ever); returns whether it has happened.
        timeout: seconds; None waits for ever.

    Returns:
        Whether it has happened.
    """
    if not isinstance(port, ForeignLoop):
        return wait(timeout)
    deadline = None if timeout is None else monotonic() + timeout
    while True:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        last = port.rests or (left is not None and left <= _GLANCE)
        if wait(_GLANCE if left is None else min(left, _GLANCE)):
            return True
        if last:
            # If it was closed, this look ends what it had.
            return not port.active and wait(0)
