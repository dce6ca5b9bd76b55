"""`LoopRuns`: how the runs of a worker are made in a task of an asyncio loop.

The driver of a ``SerialLife``: it knows how to run, and the life knows when.
"""

from __future__ import annotations

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Generator
from threading import get_ident
from typing import Any

from ..base.report import Reporter
from ..core import SerialCore
from ..loops.port import running_loop
from ..timing.loopclock import Timing, clock_for

__all__ = ["LoopRuns", "is_own_cancellation", "timed"]

logger = Reporter("neotasker")

_IDLE: Any = object()  # what the inner coroutine of `LoopRuns` yields between runs
_NOTHING: Any = object()


class LoopRuns(SerialCore):
    """Makes the runs of a life in one asyncio task.

    Guarantees: every run is part of that task: it is what ``asyncio.current_task()``
    returns in the target, and cancelling it cancels the run.

    A task that sleeps on a future costs a pass of the loop with each wake-up, most of it
    in Python. So the runs are made by an inner coroutine, `_work`. A run that falls due
    steps it at once, in the task's name (by ``_enter_task``, which asyncio provides for
    that); when the target does not wait for anything, that is all. What it does wait for
    is handed to the task, which sees to the rest of the run, `_bridge`.

    Fields below ``loop`` belong to the loop's thread.
    """

    __slots__ = (
        "_context",
        "_held",
        "_step",
        "_waiter",
        "_work_coro",
        "clock",
        "life",
        "loop",
        "main",
        "port",
        "post",
        "woken",
    )

    def __init__(self, port: Any, main: Callable[[Any], Any], life: Any) -> None:
        """Make a driver.

        Parameters:
            port: the way into the loop: an aloop, or a ``ForeignLoop``.
            main: makes the coroutine of the task, which calls `serve`.
            life: whose runs they are.
        """
        super().__init__()
        self.life = life
        self.port = port
        self.post = port._gate.post
        self.clock: Timing = clock_for(port._gate, life.host.ticker)
        self.main = main
        self.loop: asyncio.AbstractEventLoop = port.get_loop()
        self.woken = False
        call = life.call
        self._stage(
            life,
            life.tally,
            call.run,
            call.kwargs,
            None,
            self.clock,
            checks=False,
            paces=False,
            spacing=life.spacing,
        )
        self._context = call.context
        self._held: Any = _NOTHING  # what a run waits for, on its way to the task
        self._waiter: asyncio.Future[None] | None = None
        self._work_coro: Any = None
        self._step: Any = None

    def begin(self) -> None:
        """Make the task.

        Raises:
            AloopError: the loop does not run.
        """
        self.port.call_soon(self._start)

    def _start(self) -> None:
        life = self.life
        if not life.over:
            coro = self.main(life)
            name, context = life.worker._name, self._context
            now = life.host.ticker.now()
            task = self.port.create_task(coro, name=name, context=context, since=now)
            task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[Any]) -> None:
        if not self.life.over:  # it was cancelled before its first step
            self.life.finish()

    def attach(self) -> bool:
        """Take the task that runs for its own; return False if the life is over."""
        with self.life.lock:
            self.task = asyncio.current_task()
            self.thread = get_ident()
            return not self.life.over

    def enter(self) -> None:
        """Have the claimed run begin, in the next pass of the loop."""
        try:
            if get_ident() == self.thread:
                self.loop.call_soon(self.enter_due)
            else:
                self.post(self.enter_due)
        except BaseException:
            self.give_back()
            raise

    def enter_due(self) -> None:
        """Begin the claimed run: in the loop, outside of tasks."""
        self._step_inner(False)

    def enter_taken(self) -> None:
        """Begin a run now that idle was taken, without queueing it."""
        self._step_inner(True)

    def _step_inner(self, taken: bool) -> None:
        step = self._step
        if step is None:  # the task has not come so far yet
            if taken:
                self.put_queued()
            self.wake()
            return
        task, loop = self.task, self.loop
        _enter_task(loop, task)
        try:
            got = self._context.run(step, taken)
        except asyncio.CancelledError:  # the task was cancelled by its own target
            self._step = None
            return
        finally:
            _leave_task(loop, task)
        if got is not _IDLE:
            self._held = got
            self._step = None
            self.wake()

    def wake(self) -> None:
        """Wake the task: in the loop."""
        waiter = self._waiter
        if waiter is None:
            self.woken = True
        elif not waiter.done():
            waiter.set_result(None)

    def wake_threadsafe(self) -> None:
        """Wake the task: from any thread."""
        if get_ident() == self.thread:
            self.wake()
        else:
            self.post(self.wake)

    async def sleep(self) -> None:
        """Wait until woken: in the task."""
        if self.woken:
            self.woken = False
            return
        waiter = self._waiter = self.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    async def serve(self) -> None:
        """See to the runs until the life is closed: in the task."""
        work = self._work_coro = self._work()
        try:
            await self._bridge()
        finally:
            self._step = None
            work.close()

    @types.coroutine
    def _bridge(self) -> Generator[Any, Any, None]:
        """Wait for what runs wait for, in the task."""
        life, work = self.life, self._work_coro
        work.send(None)  # to its first pause
        while True:
            if self.queued and self.woken:  # claimed before the task came here
                self.woken = False
                got = work.send(None)
            else:
                self._step = work.send
                thrown: BaseException | None = None
                try:
                    yield from self.sleep()
                except BaseException as exc:
                    if self._held is _NOTHING:
                        raise
                    # What the run waits for is to be cancelled, not the pause of the task.
                    if not isinstance(exc, asyncio.CancelledError) or not _cancel(self._held):
                        thrown = exc
                got, self._held = self._held, _NOTHING
                if thrown is not None:
                    got = work.throw(thrown)
                elif got is _NOTHING:
                    if life.open or self.queued:
                        continue
                    return
            while got is not _IDLE:
                try:
                    sent = yield got
                except BaseException as exc:
                    got = work.throw(exc)
                else:
                    got = work.send(sent)
            if not life.open:
                return

    @types.coroutine
    def _work(self) -> Generator[Any, Any, None]:
        """Make a run each time it is resumed."""
        life = self.life
        run, timeout, tally = life.call.bound, life.call.timeout, life.tally
        while True:
            if not (yield _IDLE) and not self.take_queued():
                continue  # void
            if life.open:
                try:
                    if self.pending or self.late:
                        self.answer()
                    tally.runs += 1
                    coro = run()
                    if timeout is not None:
                        coro = timed(coro, timeout, self.clock)
                    elif type(coro) is not types.CoroutineType:
                        coro = _awaited(coro)
                    result = yield from coro
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    if is_own_cancellation(exc):
                        raise
                    life.failed()
                else:
                    if result is False:
                        life.returned(result)
                self._end_run()
            else:
                self.put_idle()
                life.settle()

    def _end_run(self) -> None:
        """Let another run begin, and see to what was left to this one."""
        life = self.life
        try:
            try:
                if life.paces:
                    life.after_run()
            finally:
                self.put_idle()
                if self.owed or self.pending or not life.open:
                    life.settle()
        except BaseException:  # for lack of memory
            logger.exception("worker %s: error at the end of a run", life.worker._title)

    def is_loose(self) -> bool:
        """Return whether there is no task yet, or it cannot get on."""
        return self.task is None or not self.loop.is_running()

    def conclude(self) -> None:
        """Let the task end, and with it the life; end the life if there is no task."""
        with self.life.lock:
            loose = self.is_loose()
        if loose:
            self.life.end()
        else:
            self.wake_threadsafe()

    def inside(self) -> bool:
        """Return whether waiting would keep the loop from getting on, or it rests anyway."""
        running = running_loop()
        if running is None:
            return not self.loop.is_running()
        return running is self.loop


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


def _cancel(awaited: Any) -> bool:
    """Cancel what a coroutine has yielded to its task; return whether that can be done."""
    cancel = getattr(awaited, "cancel", None)
    if cancel is None:
        return False
    cancel()
    return True


def is_own_cancellation(exc: BaseException) -> bool:
    """Return whether *exc* cancels the task that runs, and not something that it awaits."""
    if not isinstance(exc, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def timed(coro: Any, timeout: float, clock: Timing) -> Any:
    """Await *coro* for at most *timeout* seconds of the loop's clock.

    Raises:
        TimeoutError: it took longer, and was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None
    expired = False
    done = False

    def expire() -> None:
        nonlocal expired
        if not done:
            expired = True
            task.cancel()

    timer = clock.call_later(timeout, expire)
    try:
        return await coro
    except asyncio.CancelledError:
        if expired:
            expired = False
            if task.uncancel() == 0:
                raise TimeoutError(
                    f"the run took longer than its timeout of {timeout:g} s"
                ) from None
        raise
    finally:
        done = True
        timer.cancel()
        if expired:  # it has ended in spite of that
            task.uncancel()
