"""A clock that is turned by hand, for tests that shall not wait.

    clock = VirtualClock()
    supervisor = TaskSupervisor(clock=clock)
    ...
    clock.advance(3600)     # an hour of ticks, workers, jobs and sleeps, in order

Everything that waits for time goes by that clock: the ticker with its intervals, delays
and deadlines, jobs and cron, delayed tasks, and the loops of the aloops, ``asyncio.sleep``
and ``asyncio.timeout`` in them included. What a task does with ``time.sleep`` or
``time.monotonic`` is its own affair, and the launch timeouts measure real waiting.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from ._accel import Dispatcher, TickerCore

__all__ = ["VirtualClock"]


class _Member:
    """A loop that goes by a virtual clock, and what the clock knows of it.

    The clock's condition protects the fields. `idle` and not `stirred` means: the loop
    sleeps, and nothing is on its way to it.
    """

    def __init__(self, clock: VirtualClock, loop: asyncio.AbstractEventLoop) -> None:
        self._changed = clock._changed
        self._clock = clock
        self.loop = loop
        self._selector = loop._selector  # type: ignore[attr-defined]
        self._rouse = loop._write_to_self  # type: ignore[attr-defined]
        self.idle = False
        self.stirred = False
        self.outstanding = 0  # calls that the loop gave to an executor
        self.deadline: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def select(self, timeout: float | None = None) -> Any:
        """Stand in for the selector: sleep without a timeout until the clock is turned."""
        if timeout is not None and timeout <= 0:
            return self._selector.select(0)
        with self._changed:
            awaited = not self.stirred
            self.stirred = False
            if awaited:
                self.idle = True
                self.deadline = None if timeout is None else self._clock.monotonic() + timeout
                self._changed.notify_all()
        events = self._selector.select(None if awaited else 0)
        if awaited:
            with self._changed:
                self.idle = self.stirred = False
        return events

    def stir(self) -> None:
        """Note that something is on its way to the loop."""
        with self._changed:
            self.stirred = True

    def rouse(self) -> None:
        """Wake the loop because its time has come."""
        self.stir()
        self._rouse()

    def lend(self, change: int) -> None:
        """Count a call that an executor has, or had, for the loop."""
        with self._changed:
            self.outstanding += change
            self._changed.notify_all()

    def late(self, now: float) -> bool:
        """Return whether the loop sleeps, and should not. The condition is held."""
        return self.idle and self.deadline is not None and self.deadline <= now

    @property
    def quiet(self) -> bool:
        """Whether the loop has nothing to do until its deadline. The condition is held."""
        return self.idle and not self.stirred and not self.outstanding


class VirtualClock:
    """A clock that stands still until `advance` turns it.

    Guarantees: `advance` fires what falls due in order of due time, each at exactly its
    time, and waits after each moment until all that it set off has settled: pool tasks
    ended, loops asleep, nothing on the way between them. What runs, and when, is so the
    same each time.

    Assumes: `advance` is called from a thread that belongs to no supervisor, one at a
    time, and nothing in the program waits for real time to pass or for a later moment
    of this clock in a way that only it knows (a thread that blocks on an event, say).

    The condition protects the time and what is attached. Callbacks run outside it.
    """

    steady = True

    def __init__(self, start: datetime.datetime | float = 0.0, patience: float = 10.0) -> None:
        """Make a clock.

        Parameters:
            start: what `time` says at first: an aware datetime, or seconds since the epoch.
            patience: real seconds that `advance` waits for one moment to settle.

        Raises:
            ValueError: the datetime is naive, or a number not finite.
        """
        if isinstance(start, datetime.datetime):
            if start.tzinfo is None:
                raise ValueError(f"start must be an aware datetime, not {start!r}")
            start = start.timestamp()
        if not math.isfinite(start):
            raise ValueError(f"start must be finite seconds, not {start!r}")
        self._epoch = float(start)
        self._now = 0.0
        self._patience = patience
        self._changed = threading.Condition()
        self._turning = False
        self._parts: list[tuple[TickerCore, Dispatcher]] = []
        self._members: list[_Member] = []

    def monotonic(self) -> float:
        """Return the seconds by which the clock has been turned."""
        return self._now

    def time(self) -> float:
        """Return the clock's seconds since the epoch."""
        return self._epoch + self._now

    def datetime(self, tz: datetime.tzinfo = datetime.UTC) -> datetime.datetime:
        """Return the clock's date and time."""
        return datetime.datetime.fromtimestamp(self.time(), tz)

    # What a supervisor asks of it.

    def attach(self, ticker: TickerCore, dispatcher: Dispatcher) -> None:
        """Drive a ticker, and wait for the tasks of a dispatcher, until `detach`."""
        with self._changed:
            self._parts.append((ticker, dispatcher))

    def detach(self, ticker: TickerCore) -> None:
        """Let go of a ticker."""
        with self._changed:
            self._parts = [part for part in self._parts if part[0] is not ticker]

    def adopt(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """Make a loop that does not run yet go by this clock; return it.

        Raises:
            TypeError: it is not one of asyncio's selector loops, whose sleep can be
                taken over.
        """
        if not isinstance(loop, asyncio.SelectorEventLoop):
            raise TypeError(f"a virtual clock needs asyncio's selector loop, not {loop!r}")
        member = _Member(self, loop)
        call_soon_threadsafe = loop.call_soon_threadsafe
        run_in_executor = loop.run_in_executor
        close = loop.close

        def call(callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
            member.stir()
            return call_soon_threadsafe(callback, *args, context=context)

        def lend(executor: Any, func: Callable[..., Any], *args: Any) -> Any:
            future = run_in_executor(executor, func, *args)
            member.lend(1)
            future.add_done_callback(lambda _: member.lend(-1))
            return future

        def leave() -> None:
            close()
            with self._changed:
                if member in self._members:
                    self._members.remove(member)

        patches = {
            "_selector": member,
            "time": self.monotonic,
            "close": leave,
            "call_soon_threadsafe": call,
            "run_in_executor": lend,
        }
        for name, value in patches.items():
            setattr(loop, name, value)
        with self._changed:
            self._members.append(member)
        return loop

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a loop that goes by this clock."""
        return self.adopt(asyncio.SelectorEventLoop())

    # Turning it.

    def advance(self, seconds: float) -> None:
        """Turn the clock forward, running all that falls due on the way.

        Parameters:
            seconds: from zero; zero runs what is due now.

        Raises:
            ValueError: *seconds* is negative or not finite.
            RuntimeError: another thread turns the clock already, or what runs did not
                settle within the clock's patience; the message says what it is.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a clock can be turned by seconds from 0, not {seconds!r}")
        with self._changed:
            if self._turning:
                raise RuntimeError("the clock is being turned already, by another thread")
            self._turning = True
        try:
            target = self._now + seconds
            while True:
                self._settle()
                due = self._next_due()
                if due is None or due > target:
                    break
                self._now = max(self._now, due)
                self._fire()
            self._now = target
        finally:
            with self._changed:
                self._turning = False

    def _next_due(self) -> float | None:
        """Return the next moment at which something falls due."""
        with self._changed:
            times = [ticker.next_due for ticker, _ in self._parts]
            times += [member.deadline for member in self._members if member.idle]
        return min((moment for moment in times if moment is not None), default=None)

    def _quiet(self) -> bool:
        """Return whether all loops that run have nothing to do. The condition is held."""
        return all(member.quiet or not member.loop.is_running() for member in self._members)

    def _fire(self) -> None:
        """Run the timers that are due, then wake the loops whose time has come."""
        for ticker, _ in list(self._parts):
            ticker.tick()
        with self._changed:
            late = [member for member in self._members if member.late(self._now)]
        if late:
            self._settle()
        for member in late:
            member.rouse()

    def _settle(self) -> None:
        """Wait until nothing runs, and nothing is on its way from one part to another."""
        give_up = time.monotonic() + self._patience
        while not (self._tasks_ended(give_up) and self._loops_quiet(give_up)):
            if time.monotonic() > give_up:
                raise RuntimeError(self._complaint())

    def _tasks_ended(self, give_up: float) -> bool:
        for _, dispatcher in list(self._parts):
            while not dispatcher.wait_drained(0.02):
                if not dispatcher.engaged:
                    break  # what runs waits for a future, which may be one of a later moment
                if time.monotonic() > give_up:
                    return False
        return True

    def _loops_quiet(self, give_up: float) -> bool:
        """Wait for the loops; return whether they were quiet already and no task began."""
        with self._changed:
            before = self._quiet()
            if not before:
                self._changed.wait_for(self._quiet, max(0.0, give_up - time.monotonic()))
        return before and not any(dispatcher.engaged for _, dispatcher in self._parts)

    def _complaint(self) -> str:
        running = [
            getattr(fn, "__qualname__", repr(fn))
            for _, dispatcher in self._parts
            for _, _, fn in dispatcher.running()
        ]
        busy = [repr(member.loop) for member in list(self._members) if not member.quiet]
        return (
            f"the moment {self._now} did not settle within {self._patience} s: "
            f"running tasks {running}, busy loops {busy}. Does something wait for real time, "
            "or for a later moment of this clock?"
        )
