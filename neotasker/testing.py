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

from .core import Dispatcher, TickerCore
from .timing.advance import Turn
from .timing.virtual import Works

__all__ = ["VirtualClock"]


class VirtualClock:
    """A clock that stands still until `advance` turns it.

    Guarantees: `advance` fires what falls due in order of due time, each at exactly its
    time, and waits after each moment until all that it set off has settled: pool tasks
    ended, loops asleep, nothing on the way between them. What runs, and when, is so the
    same each time. Timers fire in a context of their own, as on the ticker's thread; in
    which thread is not said.

    Assumes: `advance` is called from a thread that belongs to no supervisor, one at a
    time, and nothing in the program waits for real time to pass or for a later moment
    of this clock in a way that only it knows (a thread that blocks on an event, say).
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
        self._works = Works(patience)

    def monotonic(self) -> float:
        """Return the seconds by which the clock has been turned."""
        return self._works.now

    def time(self) -> float:
        """Return the clock's seconds since the epoch."""
        return self._epoch + self._works.now

    def datetime(self, tz: datetime.tzinfo = datetime.UTC) -> datetime.datetime:
        """Return the clock's date and time."""
        return datetime.datetime.fromtimestamp(self.time(), tz)

    # What a supervisor asks of it.

    def attach(self, ticker: TickerCore, dispatcher: Dispatcher) -> None:
        """Drive a ticker, and wait for the tasks of a dispatcher, until `detach`."""
        self._works.attach(ticker, dispatcher)

    def detach(self, ticker: TickerCore) -> None:
        """Let go of a ticker."""
        self._works.detach(ticker)

    def adopt(self, loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
        """Make a loop that does not run yet go by this clock; return it.

        Raises:
            TypeError: it is not one of asyncio's selector loops, whose sleep can be
                taken over.
        """
        if not isinstance(loop, asyncio.SelectorEventLoop):
            raise TypeError(f"a virtual clock needs asyncio's selector loop, not {loop!r}")
        self._works.adopt(loop)
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
        works = self._works
        with works.lock:
            if works.turn is not None:
                raise RuntimeError("the clock is being turned already, by another thread")
            turn = works.turn = Turn(works, seconds)
        try:
            turn.run()
        finally:
            works.turn = None
