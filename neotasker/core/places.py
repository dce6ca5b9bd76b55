"""Places: the threads of a pool, and whether they serve, step aside or sleep.

**Guarantees**: at most one wake-up is in flight; the thread that it woke passes it on while
there is more to start, so that a burst costs one wake-up and not one per task. A thread that
waits for a task of its own pool gives its place to another one.

**Assumes**: `_serve` is run only by threads that ``start_thread`` made, each once.

The compiled twin, ``places.pxi``, also wakes a thread before the task for it is made, and
without the GIL has one look around for a moment before it sleeps.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from ..base.clock import monotonic
from ..base.report import Reporter
from .lanes import CRITICAL, Lanes
from .parking import contend, make_parker, this_thread

__all__ = ["Place", "Places"]

logger = Reporter("neotasker")


class Place:
    """What a dispatcher knows of one of its threads: where it sleeps and what it runs."""

    __slots__ = ("holds", "ident", "parker", "relieved", "reports", "task", "waits")

    def __init__(self):
        self.parker = make_parker()
        self.ident = threading.get_ident()
        self.task = None
        self.reports = False  # it calls `on_drained`
        self.holds = False  # `_waking`, while it does
        self.relieved = False  # others take its part meanwhile
        self.waits = False  # it stepped aside


class Places(Lanes):
    """The lanes, and the threads that serve them.

    A subclass has ``engage``, which starts or wakes what it takes, and ``_pump``.

    The lock of the lanes protects the fields here, too. ``start_thread`` and ``on_drained``
    are called outside it.
    """

    def __init__(self, start_thread):
        super().__init__()
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

    def _start_for(self, task):
        """Start the thread that a submission was found to need."""
        try:
            self._start_one()
            self.engage()
        except BaseException:
            with self._lock:
                stuck = not self._threads and task._waiting
            if stuck:
                self._forget(task)
                raise
            logger.exception("a pool thread could not be started; %d serve on", self._threads)

    def _start_one(self):
        """Start a thread that is counted already."""
        try:
            self._start_thread()
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _plan(self):
        """Decide on a thread to start (counted here) and one to wake. The lock is held.

        Returns:
            Whether to start one, and the place of the one to wake, or None.
        """
        # Threads that wait for tasks of this pool do not count: others take their part.
        threads = self._threads - self._aside - self._relieved
        free = threads - self._active + len(self._foreign)
        idle = self._idle
        critical = self._count(CRITICAL)
        if (
            # All threads are there, and one is on its way to the lanes or none sleeps.
            threads >= self._max_threads and (self._waking or not idle) and critical <= free
        ):
            return False, None
        wanted = self._startable()
        start = wanted > free and (threads < self._max_threads or critical > free)
        if not start and threads < self._min_threads:
            start = self._refusal is None and not self._leaving
        if start:
            self._threads += 1
        if wanted and idle and not self._waking:
            self._waking = True
            return start, idle.pop()
        return start, None

    def _stir(self):
        """Return the parkers of all idle threads, to make them look. The lock is held."""
        stirred = [place.parker for place in self._idle]
        self._idle.clear()
        return stirred

    def _serve(self):
        """End one task and pick the next in one locked section, for ever."""
        place = this_thread.place = Place()
        task = ended = None
        woken = well = leaving = False
        served = False  # a task, since it last reported
        acquire, release = self._acquire, self._release
        completed, idle = self._completed, self._idle
        with self._lock:
            self._places[id(place)] = place
        while True:
            released = parked = ()
            wake = report = None
            ended, task = task, None
            now = None if ended is None else ended._finished
            if now is None:
                now = monotonic()
            if not acquire(False):
                contend(acquire)
            try:
                if ended is not None:
                    view = ended._view
                    if not well or view is None or view._parked or self._drainers:
                        parked = self._account(ended)
                    else:  # the same, in the usual case
                        self._active -= 1
                        completed[ended._lane] += 1
                        view.outstanding -= 1
                        ended._view = None
                    place.task = None
                if woken:
                    self._waking = woken = False
                    self._wakeups += 1
                if place.reports:
                    self._relieved -= place.relieved
                    place.reports = place.relieved = False
                    self._let_wake(place)
                surplus = (
                    self._threads > self._max_threads
                    and self._threads - self._aside - self._relieved > self._max_threads
                )
                if self._launcher is None and (not surplus or self._count(CRITICAL)):
                    task = self._pick(now)
                if task is not None:
                    place.task = task
                    if self._space:
                        released = self._take_space(1)
                    # After a task of one lane only those of it and below may follow.
                    more = idle and (surplus or self._active < self._limits[task._lane])
                else:
                    more = idle and surplus
                    leaving = surplus or self._leaving or self._launcher is not None
                if more and not self._waking and self._startable():
                    self._waking = True
                    wake = idle.pop()
                if task is None:
                    if ended is None and self._drainers:  # it may have been aside till now
                        parked = self._take_drainers()
                    if leaving:
                        self._threads -= 1
                        del self._places[id(place)]
                    elif ended is not None:
                        pass  # who is idle is counted on, and lets go of nothing
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
            if parked or released:
                for parker in (*parked, *released):
                    parker.release()
            if wake is not None:
                wake.parker.release()
            again = ended is not None
            view = ended = None
            if task is not None:
                served = True
                well = task._run(now)
                if this_thread.dispatcher is not self:
                    return  # in a child that the task forked, where no thread is known
            elif leaving:
                if self._launcher is not None:
                    self._pump()
                return
            elif again:
                continue
            elif report is not None:
                served = False
                try:
                    report()
                except BaseException:  # the thread lives on, or its place would be lost
                    with suppress(BaseException):
                        logger.exception("error in %r", report)
                if this_thread.dispatcher is not self:
                    return
            elif self._sleep(place):
                woken = True
            else:
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
                self._aside += not place.relieved
                self._let_wake(place)
        if ours:
            self._engage_in_place()

    def _engage_in_place(self):
        """See that others serve in place of a thread that waits."""
        try:
            self.engage()
        except BaseException:
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
                self._aside -= not place.relieved

    def _sleep(self, place):
        """Wait to be woken; return False if this thread should go instead."""
        parker = place.parker
        while True:
            timeout = self._idle_timeout
            if parker.acquire() if timeout is None else parker.acquire(timeout=timeout):
                return True
            with self._lock:
                if place in self._idle:
                    if self._threads > self._min_threads or self._leaving:
                        self._idle.remove(place)
                        self._threads -= 1
                        del self._places[id(place)]
                        return False
                    continue
            parker.acquire()  # somebody took it off the stack and is about to release it
            return True
