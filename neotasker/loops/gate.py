"""`LoopGate`: the way into a loop from other threads, and the futures of what runs there."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, InvalidStateError
from contextvars import Context
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from ..base.progress import TT_COROUTINE, Progress
from ..base.report import Reporter
from ..core import EagerStart, FutureCore, Mailbox

__all__ = ["CoroutineFuture", "LoopGate", "TaskMaker"]

T = TypeVar("T")

# What makes a task of a coroutine, and with which keywords beside its name and context.
TaskMaker = tuple[Callable[..., asyncio.Task[Any]], dict[str, Any]]

logger = Reporter("neotasker")


def _eager_maker(loop: asyncio.AbstractEventLoop) -> TaskMaker | None:
    """Return what makes tasks that begin to run where they are made, if anything does."""
    if sys.version_info >= (3, 12):
        return asyncio.Task, {"loop": loop, "eager_start": True}
    start = EagerStart(loop)
    return (start.make, {}) if start.is_possible() else None


class CoroutineFuture(FutureCore, Progress, Future[T]):
    """The future of a coroutine that was handed to a loop in another thread.

    As the standard's ``run_coroutine_threadsafe`` has it: the future is pending until
    the coroutine ends. `cancel` marks it as cancelled at once and cancels the
    coroutine, which may take its time; stopping the aloop waits for that.
    """

    __slots__ = ("_gate", "_task")

    if TYPE_CHECKING:

        def result(self, timeout: float | None = None) -> T:
            """See ``concurrent.futures.Future.result``, which this is."""

    tt = TT_COROUTINE

    _gate: LoopGate
    _task: asyncio.Task[T]  # only while it runs

    def cancel(self) -> bool:
        """Cancel the future and its coroutine; return whether the future is cancelled."""
        if not super().cancel():
            return False
        self._gate.post(self._cancel_task)
        return True

    def _cancel_task(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None:
            task.cancel()

    def _task_ended(self, task: asyncio.Task[T]) -> None:
        del self._task
        self._gate.tasks.pop(task, None)
        self._take(task)

    def _take(self, task: asyncio.Task[T]) -> None:
        """Take over how the task ended."""
        if task.cancelled():
            super().cancel()
            return
        error = task.exception()
        try:
            if error is None:
                self.set_result(task.result())
            else:
                self.set_exception(error)
        except InvalidStateError:  # cancelled before
            if error is not None:
                logger.error("exception of a cancelled coroutine: %r", task, exc_info=error)

    def __await__(self) -> Generator[Any, None, T]:
        return asyncio.wrap_future(self).__await__()


class LoopGate:
    """The way into a loop from other threads, at one wake-up per burst.

    Guarantees: calls and coroutines start in the loop's thread, in the order in which
    they were handed over, each coroutine in the context of who handed it over. Tasks
    are held until they end. Once the gate is shut, everything that came in before has
    started or was cancelled and closed, and everything after is refused.

    Assumes: the loop runs, or will; who runs it shuts the gate when it ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # With the future of each, or since when it runs (seconds of the ticker), if known.
        # Changed by the loop's thread alone.
        self.tasks: dict[asyncio.Task[Any], CoroutineFuture[Any] | float | None] = {}
        # An eager task begins to run where it is made: what ends at once costs no pass.
        self._eager = _eager_maker(loop)
        self._context = Context()
        self._mailbox: Mailbox = Mailbox(self._wake, self._handle)
        # Takes a call, or a future, its coroutine and context; False once it is shut.
        self.post = self._mailbox.post
        self.clock: Any = None  # the timers of the loop, see `neotasker.timing.loopclock`
        # Their `on_gate_shut` is called by whoever shuts the gate.
        self.tenants: weakref.WeakSet[Any] = weakref.WeakSet()

    def _wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._mailbox.drain, context=self._context)
        except RuntimeError:
            if not self.loop.is_closed():
                raise  # it is the caller's: too deep a recursion is one
            self.shut()  # closed by somebody; nobody will come for the mail

    def _handle(self, item: Any) -> None:
        if type(item) is not tuple:
            item()
            return
        future, coro, context = item
        task: Any = None
        try:
            try:
                if future.done():  # cancelled before it came here
                    coro.close()
                    return
                loop = self.loop
                if self._eager is not None and loop.get_task_factory() is None:
                    make, options = self._eager
                    task = make(coro, context=context, **options)
                else:
                    task = loop.create_task(coro, context=context)
                if not task.done():
                    future._task = task
                    self.tasks[task] = future
                    task.add_done_callback(future._task_ended, context=context)
                    return
            except (
                BaseException
            ) as exc:  # of an eager start, a task factory, for lack of memory
                self._fail(future, coro, task, exc)
                return
            try:
                future.set_result(task.result())
            except BaseException:  # the task's, or of a future cancelled right now
                future._take(task)
        finally:
            # What the coroutine has raised knows this frame, which must not lead back to it.
            future = coro = task = item = None

    def _fail(
        self,
        future: CoroutineFuture[Any],
        coro: Coroutine[Any, Any, Any],
        task: asyncio.Task[Any] | None,
        error: BaseException,
    ) -> None:
        """End the future of a coroutine that cannot run, or cannot be looked after."""
        if task is not None:
            self.tasks.pop(task, None)
            task.cancel()
        else:
            coro.close()
        future.set_exception(error)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        since: float | None = None,
    ) -> asyncio.Task[T]:
        """Return a task of the loop, held until it ends: in the loop's thread only."""
        task = self.loop.create_task(coro, name=name, context=context)
        self.hold(task, since)
        return task

    @property
    def eager(self) -> TaskMaker | None:
        """What makes tasks that begin to run where they are made; None: the loop does.

        The options are the caller's own, to change them.
        """
        return _eager_maker(self.loop) if self.loop.get_task_factory() is None else None

    def hold(self, task: asyncio.Task[Any], since: float | None = None) -> None:
        """Hold a task until it ends: in the loop's thread only."""
        if not task.done():
            self.tasks[task] = since
            task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def shut(self) -> None:
        """Refuse what comes, and cancel and close what came and has not started."""
        self._shut_mailbox()
        self._tell()

    def _shut_mailbox(self) -> None:
        for item in self._mailbox.close():
            if type(item) is tuple:
                item[0].cancel()
                item[1].close()

    def _tell(self) -> None:
        for tenant in list(self.tenants):
            tenant.on_gate_shut(self)

    def bury(self) -> None:
        """End the tasks of a loop that will never run again, and shut the gate."""
        self._shut_mailbox()
        while self.tasks:
            task, future = self.tasks.popitem()
            with contextlib.suppress(Exception):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                coro = task.get_coro()
                if coro is not None:
                    coro.close()
            if isinstance(future, CoroutineFuture):
                future.cancel()
        self._tell()

    def abandon(self) -> None:
        """Cancel the futures without a touch on the loop: in a forked child."""
        for future in list(self.tasks.values()):
            if isinstance(future, CoroutineFuture):
                future._abandon()
        for item in self._mailbox.abandon(_drop):
            _drop(item)
        if self.clock is not None:
            self.clock.abandon()
        # A coroutine that has forked in its very first step is not among the tasks yet.
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code is LoopGate._handle.__code__ and frame.f_locals["self"] is self:
                _drop(frame.f_locals["item"])
            frame = frame.f_back


def _drop(item: Any) -> None:
    """End what was handed to the loop of the parent, in a forked child."""
    if type(item) is tuple:
        future, coro, _ = item
        future._abandon()
        with contextlib.suppress(ValueError):  # it runs: it is the one that has forked
            coro.close()
