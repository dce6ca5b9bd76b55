"""`LoopClock`: timers that fire in the thread of an asyncio loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident
from typing import Any, Literal, Protocol

from ..core import TickerCore, TimerCore

__all__ = ["LoopClock", "Timing", "clock_for"]


class Timing(Protocol):
    """Where timers are set whose callbacks are called in one certain place."""

    def now(self) -> float:
        """Return the time, in seconds."""

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore: ...

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore: ...

    def call_every(
        self,
        interval: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        missed: Literal["skip", "delay", "burst"] = "skip",
        first: float | None = None,
        slack: float | None = None,
    ) -> TimerCore: ...


class LoopClock:
    """The core's clockwork, ticked by a loop instead of a thread of its own.

    Guarantees: as those of the ticker, save that a timer may be late by as much as the
    loop's own timers are, a millisecond as a rule. All that is due is fired in one pass
    of the loop, so that thousands of timers cost it one wake-up.

    Assumes: ``post`` hands a call over to the loop, until that has ended.

    The lock protects for when the loop is armed. In its own thread the loop may look at
    that without it. The core's lock may be taken inside it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        post: Callable[[Callable[[], object]], object],
        ticker: TickerCore,
    ) -> None:
        """Make a clock of *loop*; the slack of its timers is that of *ticker*."""
        self._loop = loop
        self._ticker = ticker
        kind = type(loop)
        self._whole_milliseconds = kind.__module__.partition(".")[0] == "uvloop"
        own_time = getattr(kind, "time", None) is not asyncio.BaseEventLoop.time
        self._core = TickerCore()
        self._early = 0.0  # how much the next look at the clock is ahead of it
        if "time" in getattr(loop, "__dict__", ()) or (
            own_time and not self._whole_milliseconds
        ):
            self._core = TickerCore(self._read)
        self._lock = threading.RLock()
        self._post = post
        self._thread = 0
        self._armed_for = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self.now = self._core.now

    def _read(self) -> float:
        early, self._early = self._early, 0.0
        return self._loop.time() + early

    def _core_now(self) -> TickerCore:
        """Return the core, with the slack that the ticker has by now."""
        core, ticker = self._core, self._ticker
        if core.slack != ticker.slack:
            core.slack = ticker.slack
        return core

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore:
        """Call ``callback(*args)`` in the loop at *when* (seconds of its clock)."""
        return self._added(self._core_now().call_at(when, callback, *args, slack=slack))

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore:
        """Call ``callback(*args)`` in the loop in *delay* seconds."""
        return self._added(self._core_now().call_later(delay, callback, *args, slack=slack))

    def call_every(
        self,
        interval: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        missed: Literal["skip", "delay", "burst"] = "skip",
        first: float | None = None,
        slack: float | None = None,
    ) -> TimerCore:
        """Call ``callback(*args)`` in the loop every *interval* seconds, at a fixed rate."""
        return self._added(
            self._core_now().call_every(
                interval, callback, *args, missed=missed, first=first, slack=slack
            )
        )

    def _added(self, timer: TimerCore) -> TimerCore:
        try:
            if get_ident() == self._thread:
                if timer.when < self._armed_for:
                    self._arm()
                return timer
            with self._lock:
                sooner = timer.when < self._armed_for
                if sooner:
                    self._armed_for = timer.when
            if sooner:
                self._post(self._arm)
        except BaseException:
            self._armed_for = math.inf  # whoever comes next arms it
            timer.cancel()
            # Somebody may have come meanwhile, and rely on this.
            with suppress(BaseException):
                self._ticker._do_later(partial(self._post, self._arm))
            raise
        return timer

    def _arm(self) -> None:
        """Have the loop call when the first timer is due."""
        self._thread = get_ident()
        try:
            with self._lock:
                due = self._core.next_due
                self._armed_for = math.inf if due is None else due
            before, self._handle = self._handle, None
            if before is not None:
                before.cancel()
            if due is None:
                return
            if self._whole_milliseconds:  # it would round, and come too early
                pause = math.ceil((due - self._core.now()) * 1000) / 1000
                self._handle = self._loop.call_later(max(0.0, pause), self._tick)
            else:
                self._handle = self._loop.call_at(due, self._tick)
        except BaseException:
            self._armed_for = math.inf  # whoever comes next arms it
            raise

    def abandon(self) -> None:
        """Forget all timers: in a forked child, which has not got the loop's thread."""
        self._lock = threading.RLock()
        self._armed_for = math.inf
        self._core.abandon()

    def _tick(self) -> None:
        self._handle = None
        with self._lock:
            self._armed_for = -math.inf  # what is added now is seen to below
        # asyncio takes for due what is so but for its resolution. So must we, where the
        # clock is turned by hand and would not move on.
        self._early = getattr(self._loop, "_clock_resolution", 0.0)
        try:
            self._core.tick()
        finally:
            self._arm()


class _ThroughTicker:
    """A ticker whose callbacks are called in a loop that goes by another clock."""

    def __init__(self, ticker: TickerCore, post: Callable[..., object]) -> None:
        self._ticker = ticker
        self._post = post
        self.now = ticker.now

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore:
        return self._ticker.call_at(when, self._hand_over, callback, args, slack=slack)

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        slack: float | None = None,
    ) -> TimerCore:
        return self._ticker.call_later(delay, self._hand_over, callback, args, slack=slack)

    def call_every(
        self,
        interval: float,
        callback: Callable[..., object],
        /,
        *args: Any,
        missed: Literal["skip", "delay", "burst"] = "skip",
        first: float | None = None,
        slack: float | None = None,
    ) -> TimerCore:
        return self._ticker.call_every(
            interval, self._hand_over, callback, args, missed=missed, first=first, slack=slack
        )

    def _hand_over(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._post((lambda: callback(*args)) if args else callback)


def clock_for(gate: Any, ticker: TickerCore) -> Timing:
    """Return the timing whose callbacks are called in the loop behind *gate*.

    Parameters:
        gate: the way into the loop, which keeps its clock.
        ticker: the host's, which a loop with another clock than that is driven by.
    """
    if abs(gate.loop.time() - ticker.now()) > 1.0:
        return _ThroughTicker(ticker, gate.post)
    clock: LoopClock | None = gate.clock
    if clock is None:
        clock = gate.clock = LoopClock(gate.loop, gate.post, ticker)
    return clock
