"""What goes by a virtual clock: tickers, pools and loops, and whether they rest."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from ..base.clock import monotonic
from ..core import Dispatcher, TickerCore

GLANCE = 0.02  # seconds after which who waits looks around

_all: weakref.WeakSet[Works] = weakref.WeakSet()


class Leader(Protocol):
    """What a pool thread that has ended the last task goes on with."""

    def lead(self, dispatcher: Dispatcher) -> None: ...


class Member:
    """A loop that goes by a virtual clock, and what is known of it.

    The lock of the works protects the fields. `idle` and not `stirred` means: the loop
    sleeps, and nothing is on its way to it.
    """

    def __init__(self, works: Works, loop: asyncio.AbstractEventLoop) -> None:
        self._works = works
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
        with self._works.lock:
            awaited = not self.stirred
            self.stirred = False
            if awaited:
                self._works.events += 1
                self.idle = True
                self.deadline = None if timeout is None else self._works.now + timeout
                self._works.ring()
        events = self._selector.select(None if awaited else 0)
        if awaited:
            with self._works.lock:
                self.idle = self.stirred = False
        return events

    def stir(self) -> None:
        """Note that something is on its way to the loop."""
        with self._works.lock:
            self._works.events += 1
            self.stirred = True

    def rouse(self) -> None:
        """Wake the loop because its time has come."""
        self.stir()
        self._rouse()

    def remind(self) -> None:
        """Wake the loop once more, if who stirred it was interrupted before it did."""
        with self._works.lock:
            asleep = self.idle and self.stirred
        if asleep:
            self._rouse()

    def lend(self, change: int) -> None:
        """Count a call that an executor has, or had, for the loop."""
        with self._works.lock:
            self._works.events += 1
            self.outstanding += change
            self._works.ring()

    def late(self, now: float) -> bool:
        """Return whether the loop sleeps, and should not. The lock is held."""
        return self.idle and self.deadline is not None and self.deadline <= now

    @property
    def quiet(self) -> bool:
        """Whether the loop has nothing to do until its deadline. The lock is held."""
        return self.idle and not self.stirred and not self.outstanding


class Works:
    """The tickers, pools and loops of one virtual clock, and the time that they go by.

    Guarantees: when `settle` or `rests` returns True, nothing runs and nothing is on its way
    from one part to another; what still runs then waits for a future.

    Assumes: `step` is called by one thread at a time, the one that has set `stepping`, when
    all has settled.

    The lock protects all fields but the time, which only `step` changes; whoever changes what
    the one thread that turns the clock may wait for rings. Callbacks run outside the lock. An
    interrupt may strike between its taking and the block that it guards; `let_go` is for that.
    A forked child has a new lock and bell, since the parent may have held the old.
    """

    def __init__(self, patience: float) -> None:
        self.now = 0.0
        self.patience = patience  # real seconds for one moment
        self.renew()
        self.turn: Leader | None = None  # while the clock is being turned
        self.stepping = False
        self.events = 0  # how often something happened to a loop
        self._parts: list[tuple[TickerCore, Dispatcher]] = []  # replaced, never changed
        self._members: list[Member] = []
        self._late: list[Member] = []  # to be woken in the next step
        _all.add(self)

    def renew(self) -> None:
        """Take a new lock and a new bell."""
        self.lock = threading.RLock()
        self._bell = threading.Lock()
        self._bell.acquire()

    def let_go(self) -> None:
        """Give back the lock, if an interrupt has left it taken: for who should not hold it."""
        with suppress(RuntimeError):  # not held, as a rule
            while True:
                self.lock.release()

    def ring(self) -> None:
        """Have the thread that waits look again. The lock is held."""
        if self._bell.locked():
            self._bell.release()

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Wait for a glance at most until a condition holds, which is asked under the lock.

        Returns:
            Whether it holds.
        """
        until = monotonic() + GLANCE
        while True:
            with self.lock:
                if condition():
                    return True
            left = until - monotonic()
            if left <= 0:
                return False
            self._bell.acquire(timeout=left)

    def attach(self, ticker: TickerCore, dispatcher: Dispatcher) -> None:
        """Add a ticker, and the dispatcher that runs what it fires."""
        with self.lock:
            self._parts = [*self._parts, (ticker, dispatcher)]
        dispatcher.set_on_drained(partial(self._drained, dispatcher))

    def detach(self, ticker: TickerCore) -> None:
        """Let go of a ticker, and of the dispatcher that came with it."""
        with self.lock:
            gone = [dispatcher for owner, dispatcher in self._parts if owner is ticker]
            self._parts = [part for part in self._parts if part[0] is not ticker]
        for dispatcher in gone:
            dispatcher.set_on_drained(None)

    def _drained(self, dispatcher: Dispatcher) -> None:
        """Go on with the turn: a pool thread has ended the last task."""
        turn = self.turn
        if turn is not None:
            turn.lead(dispatcher)

    def adopt(self, loop: asyncio.SelectorEventLoop) -> None:
        """Take over the sleep of a loop that does not run yet, until it is closed."""
        member = Member(self, loop)
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
            with self.lock:
                if member in self._members:
                    self._members.remove(member)

        patches = {
            "_selector": member,
            "time": lambda: self.now,
            "close": leave,
            "call_soon_threadsafe": call,
            "run_in_executor": lend,
        }
        for name, value in patches.items():
            setattr(loop, name, value)
        with self.lock:
            self._members.append(member)

    def step(self, target: float) -> bool:
        """Fire what falls due next, or wake the loops that it is time for.

        Returns:
            False if nothing is due until *target*.
        """
        late, self._late = self._late, []
        if late:
            for member in late:
                member.rouse()
            return True
        due = self._next_due()
        if due is None or due > target:
            return False
        self.now = max(self.now, due)
        for ticker, _ in self._parts:
            ticker.tick()
        with self.lock:
            self._late = [member for member in self._members if member.late(self.now)]
        return True

    def _next_due(self) -> float | None:
        """Return the next moment at which something falls due."""
        with self.lock:
            times = [ticker.next_due for ticker, _ in self._parts]
            times += [member.deadline for member in self._members if member.idle]
        return min((moment for moment in times if moment is not None), default=None)

    def rests(self) -> bool:
        """Return whether nothing runs, and nothing is on its way, as `settle` waits for."""
        return (
            all(
                not dispatcher.engaged and dispatcher.wait_drained(0)
                for _, dispatcher in self._parts
            )
            and self._loops_rest()
        )

    def has_tasks(self) -> bool:
        """Return whether there are tasks for pool threads."""
        return any(dispatcher.threads and dispatcher.engaged for _, dispatcher in self._parts)

    def relieve(self) -> None:
        """Let others serve in place of the pool thread whose step takes long."""
        for _, dispatcher in self._parts:
            dispatcher.relieve()

    def settle(self, called_off: Callable[[], bool]) -> bool:
        """Wait until nothing runs, and nothing is on its way from one part to another.

        Parameters:
            called_off: tells that it need not be waited for any more; it is asked after the
                first look, when somebody rings, and every `GLANCE`.

        Returns:
            False if it was called off.
        """
        while True:
            # A thread that was given up may still be in its step.
            while not self.wait(lambda: (not self.stepping and self._quiet()) or called_off()):
                for member in list(self._members):
                    member.remind()
            if self._tasks_ended(called_off) and self._loops_rest() and not self.stepping:
                return True
            if called_off():
                return False

    def _tasks_ended(self, called_off: Callable[[], bool]) -> bool:
        """Wait for the tasks, those apart that wait for a future; False: called off."""
        for _, dispatcher in self._parts:
            while not dispatcher.wait_drained(GLANCE):
                if not dispatcher.engaged:
                    break  # the future may be one of a later moment
                if called_off():
                    return False
        return True

    def _quiet(self) -> bool:
        """Return whether all loops that run have nothing to do. The lock is held."""
        return all(member.quiet or not member.loop.is_running() for member in self._members)

    def _loops_rest(self) -> bool:
        """Return whether the loops have nothing to do, and no task began that may change it."""
        with self.lock:
            if not self._quiet():
                return False
            events = self.events
        if any(dispatcher.engaged for _, dispatcher in self._parts):
            return False
        with self.lock:
            return events == self.events

    def complaint(self) -> str:
        """Return what to say of a moment that does not settle."""
        running = [
            getattr(fn, "__qualname__", repr(fn))
            for _, dispatcher in self._parts
            for _, _, fn in dispatcher.running()
        ]
        if self.stepping:
            running.append("a timer's callback")
        busy = [repr(member.loop) for member in list(self._members) if not member.quiet]
        return (
            f"the moment {self.now} did not settle within {self.patience} s: "
            f"running tasks {running}, busy loops {busy}. Does something wait for real time, "
            "or for a later moment of this clock?"
        )


def _start_anew() -> None:
    """Let a forked child turn the clocks that threads of the parent may have been turning."""
    for works in list(_all):
        works.renew()
        works.turn = None
        works.stepping = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
