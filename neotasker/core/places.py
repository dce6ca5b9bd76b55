"""Places: the threads of a pool, and whether they serve, step aside or sleep.

**Guarantees**: at most one wake-up is in flight; the thread that it woke passes it on while
there is more to start, so that a burst costs one wake-up and not one per task. A thread that
waits for a task of its own pool gives its place to another one.

**Assumes**: `_serve` is run only by threads that ``start_thread`` made, each once.

The compiled twin, ``places.pxi``, also wakes a thread before the task for it is made, and
without the GIL has one look around for a moment before it sleeps.
"""

from __future__ import annotations

import sys
import threading
from contextlib import suppress

from ..base.clock import monotonic
from ..base.report import Reporter
from .future import CANCELLED
from .lanes import CRITICAL, Lanes
from .parking import contend, make_parker, release_due, this_thread

__all__ = ["Place", "Places"]

logger = Reporter("neotasker")

# How often something is referred to that only the caller and this function hold; where nobody
# counts, the collector lets go of things, some day and anywhere.
_count_of = getattr(sys, "getrefcount", lambda thing: 1 << 30)
_LAST = 2
# Of what is of these types exactly nothing of the user's runs when it goes.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Place:
    """What a dispatcher knows of one of its threads: where it sleeps and what it runs."""

    __slots__ = (
        "drops",
        "holds",
        "ident",
        "parker",
        "relieved",
        "reports",
        "task",
        "told",
        "waits",
    )

    def __init__(self):
        self.parker = make_parker()
        self.ident = threading.get_ident()
        self.task = None
        self.reports = False  # it calls `on_drained`
        self.holds = False  # `_waking`, while it does
        self.relieved = False  # others take its part meanwhile
        self.waits = False  # it stepped aside
        self.told = False  # it was woken, and has not looked yet
        self.drops = False  # it lets go of what has ended, and counts as busy meanwhile


class Places(Lanes):
    """The lanes, and the threads that serve them.

    A subclass has ``engage``, which starts or wakes what it takes, and ``_pump``.

    The lock of the lanes protects the fields here, too. ``start_thread`` and ``on_drained``
    are called outside it.
    """

    def __init__(self, start_thread):
        super().__init__()
        self._starting = 0  # threads that are counted and have not come to `work`
        self._dropping = 0  # threads that let go of what has ended
        self._start_thread = start_thread
        self._min_threads = 0
        self._max_threads = 1
        self._idle_timeout = None
        self._leaving = False  # threads go when they find nothing to do
        self._on_drained = None
        self._relieved = 0  # threads in `on_drained` whose part others take
        self._resting = 0  # threads whose task waits for any future of ours
        self._threads = 0  # threads that were started or are about to be
        self._foreign = set()  # of the active, those that a foreign executor runs
        self._places = {}  # of the threads, by identity of the place
        self._idle = []  # places of idle threads; the last one in is woken first
        self._waking = False  # a woken thread has not looked at the lanes yet
        self._wakeups = 0  # how often an idle thread was woken

    def _start_one(self):
        """Start a thread that is counted already."""
        try:
            self._start_thread()
        except BaseException:
            self.lose_thread()
            raise

    def _plan(self):
        """Decide on a thread to start (counted here) and one to wake. The lock is held.

        Returns:
            Whether to start one; that is decided last, so that nothing comes between.
        """
        # Threads that wait for tasks of this pool do not count: others take their part.
        threads = self._threads - self._aside - self._relieved
        free = threads - self._active + len(self._foreign) - self._dropping
        idle = self._idle
        critical = self._count(CRITICAL)
        if (
            # All threads are there, and one is on its way to the lanes or none sleeps.
            threads >= self._max_threads and (self._waking or not idle) and critical <= free
        ):
            return False
        wanted = self._startable()
        if wanted and idle and not self._waking:
            self._wake_one()
        if wanted > free and (threads < self._max_threads or critical > free):
            start = True
        else:
            start = threads < self._min_threads and self._refusal is None and not self._leaving
        if start:
            self._starting += 1
            self._threads += 1
        return start

    def _wake_one(self):
        """Have the thread woken that fell asleep last. The lock is held."""
        place = self._idle[-1]
        del self._idle[-1]
        place.told = self._waking = True
        self._due.append(place.parker)

    def _stir(self):
        """Have all idle threads look. The lock is held."""
        while self._idle:
            place = self._idle[-1]
            del self._idle[-1]
            self._due.append(place.parker)

    def _serve(self, place):
        """Run tasks until this thread is no longer needed."""
        try:
            self._enroll(place)
            self._serve_from(place)
        except BaseException as exc:  # raised in this thread by another one
            self._strike_off(place, exc)
            raise

    def _enroll(self, place):
        """Give a thread its place; it need not be one that was expected."""
        with self._lock:
            if self._starting:
                self._starting -= 1
            else:
                self._threads += 1
            self._places[id(place)] = place

    def _strike_off(self, place, exc):
        """Count a thread no more that ends in the middle; what it was in ends with *exc*."""
        ended = None
        with self._lock:
            if this_thread.dispatcher is not self:
                pass  # it has left, or is in a forked child
            elif self._places.pop(id(place), None) is not None:
                self._threads -= 1
                ended, place.task = place.task, None
                if ended is not None:
                    self._account(ended)
                if place in self._idle:
                    self._idle.remove(place)
                if place.told:
                    place.told = self._waking = False
                if place.drops:
                    place.drops = False
                    self._dropping -= 1
                self._relieved -= place.relieved
                place.reports = place.relieved = False
                self._let_wake(place)
                self._take_drainers()
            elif self._starting:
                self._starting -= 1
                self._threads -= 1
        release_due(self._due)
        if ended is not None and ended._phase < CANCELLED:
            ended._end(True, exc)

    def _lets_go(self, ended, view):
        """Return whether code of the user's may run as what has ended is let go of.

        It may wait for the task that would be taken here, so none is. The lock is held.
        """
        value = ended._value
        if value is not None and type(value) not in _PLAIN and _count_of(ended) <= _LAST + 1:
            return True
        return view is not None and not view.outstanding and _count_of(view) <= _LAST + 1

    def _serve_from(self, place):
        """End one task and pick the next in one locked section, for ever."""
        task = ended = view = None
        well = leaving = False
        served = False  # a task, since it last reported
        dropped = []  # tasks that were cancelled
        acquire, release = self._acquire, self._release
        completed, idle, due = self._completed, self._idle, self._due
        while True:
            report = None
            ended, task = task, None
            # Where others were called as it ended, that took time.
            now = ended._finished if well and ended is not None else None
            if now is None:
                now = monotonic()
            if not acquire(False):
                contend(acquire)
            try:
                if ended is not None:
                    view = ended._view
                    if not well or view is None or view._parked or self._drainers:
                        self._account(ended)
                    else:  # the same, in the usual case
                        self._active -= 1
                        completed[ended._lane] += 1
                        view.outstanding -= 1
                        ended._view = None
                    place.task = None
                if place.told:
                    self._waking = place.told = False
                    self._wakeups += 1
                if place.drops:
                    place.drops = False
                    self._dropping -= 1
                if place.reports:
                    self._relieved -= place.relieved
                    place.reports = place.relieved = False
                    self._let_wake(place)
                surplus = (
                    self._threads > self._max_threads
                    and self._threads - self._aside - self._relieved > self._max_threads
                )
                if (
                    self._launcher is None
                    and (not surplus or self._count(CRITICAL))
                    and (ended is None or not self._lets_go(ended, view))
                ):
                    task = self._pick(now, dropped, place)
                if task is not None:
                    if self._space:
                        self._take_space(1)
                    # After a task of one lane only those of it and below may follow.
                    more = idle and (surplus or self._active < self._limits[task._lane])
                else:
                    more = idle and surplus
                if more and not self._waking and self._startable():
                    self._wake_one()
                if task is None:
                    if ended is None and self._drainers:  # it may have been aside till now
                        self._take_drainers()
                    leaving = surplus or self._leaving or self._launcher is not None
                    if ended is not None or dropped:
                        # Who is idle is counted on, and lets go of nothing.
                        place.drops = True
                        self._dropping += 1
                        leaving = False
                    elif leaving:
                        self._threads -= 1
                        del self._places[id(place)]
                        this_thread.dispatcher = None
                    elif (
                        served
                        and self._on_drained is not None
                        and not (self._active or self._waits() or self._aside)
                    ):
                        report = self._on_drained
                        place.reports = True
                        place.holds = not self._waking
                        self._waking = True
                    else:
                        idle.append(place)
            finally:
                release()
            if due:
                release_due(due)
            if dropped:
                dropped.clear()
            if ended is not None:
                view = ended = None
                if this_thread.dispatcher is not self:
                    return  # in a child that somebody's destructor forked
            if task is not None:
                served = True
                well = task._run(now)
                if this_thread.dispatcher is not self:
                    return  # in a child that the task forked, where no thread is known
            elif place.drops:
                continue
            elif leaving:
                if self._launcher is not None:
                    self._pump()
                return
            elif report is not None:
                served = False
                try:
                    report()
                except BaseException:  # the thread lives on, or its place would be lost
                    with suppress(BaseException):
                        logger.exception("error in %r", report)
                report = None
                if this_thread.dispatcher is not self:
                    return
            elif not self._sleep(place):
                return

    def _let_wake(self, place):
        """Let others be woken again, if it was a place that stood against it. Lock held."""
        if place.holds:
            place.holds = self._waking = False

    def _step_aside(self, ours):
        """Note that a pool thread waits for a future; for a task of its pool it gives way.

        Without that, tasks that wait for tasks of their own pool would fill it, and wait
        for ever (what Java calls a managed blocker).
        """
        place = this_thread.place
        busy = place.task is not None  # or it lets go of one that has ended
        with self._lock:
            self._resting += busy or (ours and not place.relieved)
            if ours:
                place.waits = True
                self._active -= busy
                self._dropping -= place.drops
                self._aside += not place.relieved
                self._let_wake(place)
        if ours:
            self._engage_in_place()

    def _engage_in_place(self):
        """See that others serve in place of a thread that waits."""
        try:
            self.engage()
        except BaseException:
            with suppress(BaseException):
                logger.exception("no thread could be started in place of one that waits")

    def _step_back(self, ours):
        """Take the place again, at once: for a while more may run than the limits say."""
        place = this_thread.place
        busy = place.task is not None
        with self._lock:
            self._resting -= busy or (ours and not place.relieved)
            if ours:
                place.waits = False
                self._active += busy
                self._dropping += place.drops
                self._aside -= not place.relieved

    def _sleep(self, place):
        """Wait to be woken; return False if this thread should go instead."""
        parker = place.parker
        while True:
            timeout = self._idle_timeout
            if parker.acquire() if timeout is None else parker.acquire(timeout=timeout):
                return True
            with self._lock:
                if place in self._idle:  # then nobody is about to wake it
                    if self._threads > self._min_threads or self._leaving:
                        self._idle.remove(place)
                        self._threads -= 1
                        del self._places[id(place)]
                        this_thread.dispatcher = None
                        return False
                    continue
            parker.acquire()  # somebody took it off the stack and is about to release it
            return True
