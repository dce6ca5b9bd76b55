"""The ticker: the loop that fires what is due.

**Guarantees**, **assumes**: see `TickerCore`.

The compiled twin is ``ticker.pxi``; neither leaves anything out.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType

from ..base.clock import monotonic
from ..base.report import Reporter
from ..base.seconds import SHORTEST, real_seconds, too_short
from ..base.targets import NOT_PLAIN, check_callback
from .heap import Heap
from .parking import make_parker
from .timer import FAR, POLICIES, SKIP, TimerCore, finite, slack_of

__all__ = ["TickerCore"]

ERRAND = 0.05  # seconds until that is tried which somebody has failed to do

logger = Reporter("neotasker")


class TickerCore(Heap):
    """The clockwork: a heap of timers, and the loop that fires those that are due.

    Guarantees: timers fire in order of due time, those of one due time in the order
    in which they were set, each once per due time, and never early by the ticker's
    clock. A timer with slack may fire later by that, so that those which fall due
    meanwhile share its wake-up; of two with different slack the order is that of the
    latest times. A cancelled timer does not fire once ``cancel`` has returned True, save for
    a call that is on its way already. An exception in a callback is logged and
    concerns no other timer.

    Assumes: one thread at a time calls ``run`` or ``tick``. Callbacks take
    microseconds; what takes longer belongs in the pool.

    The lock protects the heap and the fields of its timers.
    """

    _timer_type = TimerCore

    def __init__(self, now=None, slack=0.0):
        super().__init__()
        self._now = monotonic if now is None else partial(_read, now)
        self._by_hand = now is not None
        self._slack = slack_of(slack)
        self._parker = make_parker()
        self._asleep_until = None  # None: awake
        self._stopping = False
        self._fires = 0
        self._errands = deque()

    @property
    def slack(self):
        """How many seconds later than due timers may fire that have no slack of their own."""
        return self._slack

    @slack.setter
    def slack(self, value):
        self._slack = slack_of(value)

    def _choose_slack(self, own, interval):
        """Return the slack of a timer: its own, or the ticker's."""
        if own is None:
            slack = self._slack
            if slack and interval is not None:
                slack = min(slack, int(interval * 1e9 + 0.5) // 2000 / 1e6)
        else:
            slack = slack_of(own)
            if interval is not None and slack and slack >= interval:
                raise ValueError(
                    f"slack must be less than the interval, {interval} s, not {own!r}"
                )
        # A clock that is turned by hand has no wake-ups to share.
        return 0.0 if self._by_hand else slack

    def _add(self, when, interval, policy, callback, args, slack):
        kind = type(callback)
        if kind is not BuiltinFunctionType and (
            kind is not FunctionType
            or callback.__code__.co_flags & NOT_PLAIN
            or callback.__dict__
        ):
            check_callback(callback)
        timer = object.__new__(self._timer_type)
        timer._callback = callback
        timer._args = args
        timer._when = when
        timer._interval = interval
        timer._slack = slack = self._choose_slack(slack, interval)
        timer._policy = policy
        timer._runs = timer._missed = timer._caught_up = timer._tick = 0
        limit = when + slack
        try:
            with self._lock:
                timer._ticker = self
                # First, as it may be in vain, but must not be left out.
                if self._asleep_until is not None and limit < self._asleep_until:
                    self._rouse()
                self._push(timer, limit)
        except BaseException:
            self._withdraw(timer)
            raise
        return timer

    def _rouse(self):
        """Wake the thread, or have it not fall asleep. The lock is held."""
        with suppress(RuntimeError):  # it was roused already
            self._parker.release()
        self._asleep_until = None

    def call_at(self, when, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick at *when* (seconds of the ticker's clock).

        Parameters:
            slack: seconds by which it may be later, to share a wake-up with others; the
                ticker's own when left out.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the time is not finite, or the slack not from 0 to an hour.
        """
        return self._add(finite("when", when), None, SKIP, callback, args, slack)

    def call_later(self, delay, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick in *delay* seconds; negative: at the next.

        Parameters:
            slack: see `call_at`.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the delay is not finite, or the slack not from 0 to an hour.
        """
        pause = finite("delay", delay)
        return self._add(self._now() + pause, None, SKIP, callback, args, slack)

    def call_every(self, interval, callback, /, *args, missed="skip", first=None, slack=None):
        """Call ``callback(*args)`` on the tick every *interval* seconds, at a fixed rate.

        Parameters:
            interval: seconds, a microsecond or more.
            missed: what follows when the tick comes late by an interval or more:
                ``'skip'`` keeps the phase, ``'delay'`` starts a new one, ``'burst'``
                catches up (the words of tokio's ``MissedTickBehavior``).
            first: seconds until the first call; one interval when left out.
            slack: see `call_at`; less than the interval. Of the ticker's own slack, half
                an interval is used at most. Due times do not drift by it.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the interval is less than a microsecond or not finite, *missed*
                unknown, or the slack out of range.
        """
        number = real_seconds("interval", interval)
        if not SHORTEST <= number < float("inf"):
            raise ValueError(too_short("interval", interval))
        if missed not in POLICIES:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        number = int(min(number, FAR) * 1e9 + 0.5) / 1e9
        start = number if first is None else finite("first", first)
        policy = POLICIES.index(missed)
        return self._add(self._now() + start, number, policy, callback, args, slack)

    def _do_later(self, errand):
        """Have the ticker call *errand* soon, for who has failed to do it."""
        self._errands.append(errand)
        with suppress(RuntimeError):  # it is awake
            self._parker.release()

    def tick(self):
        """Fire the timers that are due; return how many did."""
        now = self._now()
        fired = 0
        self._ticks += 1
        while self._errands:
            self._add(now + ERRAND, None, SKIP, self._errands.popleft(), (), 0.0)
        lock = self._lock
        while not self._stopping:
            entry = callback = state = None
            begun = False
            try:
                with lock:
                    entry = self._first_due(now)
                    if entry is None:
                        break
                    timer = entry[2]
                    if timer is None:  # a handler has cancelled it
                        continue
                    callback, args = timer._callback, timer._args
                    state = timer._when, timer._runs, timer._missed
                    if not self._take(entry, timer, now):
                        continue
                    self._fires += 1
                fired += 1
                # In one line: nothing comes between the note and the call.
                (begun := True) and callback(*args)
            except BaseException:
                if not begun:  # a signal's handler has raised
                    if state is not None:
                        self._put_back(entry, timer, (callback, args), state)
                    raise
                logger.exception("exception in timer callback %r", callback)
            timer = args = None
        return fired

    def run(self):
        """Fire timers as they fall due until `stop`: the body of the ticker's thread."""
        while not self._stopping:
            self.tick()
            now = self._now()
            with self._lock:
                if self._stopping:
                    return
                until = self._next_due()
                if self._errands or (until is not None and until <= now):
                    continue
                self._asleep_until = float("inf") if until is None else until
            # Who rouses does so while it reads that somebody sleeps. If that is not true any
            # more, the next sleep is a short one.
            if until is None:
                self._parker.acquire()
            else:
                self._parker.acquire(timeout=min(until - now, threading.TIMEOUT_MAX))
            self._asleep_until = None

    def stop(self):
        """Make `run` return after the callbacks of this tick."""
        with self._lock:
            self._stopping = True
            self._rouse()

    def reset(self):
        """Make the ticker ready for another `run`."""
        with self._lock:
            self._stopping = False

    def clear(self):
        """Cancel every timer; return how many there were."""
        with self._lock:
            timers = [e[2] for e in self._heap if e[2] is not None]
        return sum(timer.cancel() for timer in timers)

    def abandon(self):
        """Forget all timers: in a forked child, which has not got the ticker's thread."""
        self._lock = threading.RLock()
        self._parker = make_parker()
        self._asleep_until = None
        self._stopping = True
        self.clear()

    @property
    def next_due(self):
        """When the next timer is to fire, its slack used: seconds of the clock, or None."""
        with self._lock:
            return self._next_due()

    @property
    def fires(self):
        """How many timers have fired."""
        return self._fires

    def now(self):
        """Return the time of the ticker's clock, in seconds."""
        return self._now()

    def __len__(self):
        return len(self._heap) - self._dead


def _read(clock):
    """Return what a clock of the user's says."""
    return finite("the time of the clock", clock())
