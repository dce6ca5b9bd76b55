"""The dispatcher's face: settings, launchers, what waits and runs, and the figures.

**Guarantees**, **assumes**: see `Dispatcher`.

The compiled twin is ``dispatcher.pxi``; neither leaves anything out.
"""

from __future__ import annotations

import threading
from contextvars import copy_context

from ..base.clock import monotonic
from .future import CANCELLED, FINISHED, RUNNING
from .lanes import LANES, check_lane
from .parking import is_main_thread, make_parker, release_due, this_thread, wait_limit
from .places import Place, Places
from .task import TaskCore

__all__ = ["Dispatcher"]

_new = object.__new__
_POLICIES = ("block", "raise", "run")


class Dispatcher(Places):
    """Four lanes, the reserves between them, and the threads or executor that serve them.

    Guarantees: a task starts as soon as the admission rule and a thread allow it; of
    those that may start the highest lane goes first, and inside a lane the first in.
    Every task that was accepted runs, or is cancelled, or fails with the reason.
    At most one wake-up is in flight; the thread that it woke passes it on while
    there is more to start, so that a burst costs one wake-up and not one per task.

    Assumes: ``work`` is run only by threads that ``start_thread`` made, each once.

    The lock protects all fields below. User code (targets, callbacks,
    ``start_thread``, the launcher, ``on_drained``) runs outside it.
    """

    def __init__(self, task_type, start_thread):
        if not isinstance(task_type, type) or not issubclass(task_type, TaskCore):
            raise TypeError(f"the type of tasks must derive from TaskCore, not {task_type!r}")
        if not callable(start_thread):
            raise TypeError(f"what starts a thread must be callable, not {start_thread!r}")
        super().__init__(start_thread)
        self._task_type = task_type
        self._pumping = False

    def configure(self, limits, min_threads, max_threads, idle_timeout, queue_size, when_full):
        """Take new limits; what waits and may now start is started.

        Parameters:
            limits: per lane, how many tasks may run for it to start one more.
            min_threads, max_threads: threads that stay, and the most there are.
            idle_timeout: seconds after which an idle thread goes; None: never.
            queue_size: the most that may wait, CRITICAL aside; 0: no bound.
            when_full: ``'block'``, ``'raise'`` or ``'run'``.
        """
        self._require_made()
        if when_full not in _POLICIES:
            raise ValueError(f"when_full must be 'block', 'raise' or 'run', not {when_full!r}")
        if len(limits) != LANES:
            raise ValueError(f"limits must be {LANES} numbers, one per lane, not {limits!r}")
        limits = tuple(limits)
        with self._lock:
            self._limits = limits
            self._min_threads = min_threads
            self._max_threads = max_threads
            self._idle_timeout = idle_timeout
            self._queue_size = queue_size
            self._when_full = when_full
            self._take_space(len(self._space))
            self._stir()
        release_due(self._due)
        self.engage()

    def set_launcher(self, launcher):
        """Hand tasks to ``launcher(task)`` from now on; None: back to own threads."""
        self._require_made()
        with self._lock:
            old, self._launcher = self._launcher, launcher
            self._stir()
        release_due(self._due)
        del old  # not under the lock
        self.engage()

    def set_on_drained(self, on_drained):
        """Have pool threads call this when they have ended the last task, before they sleep.

        Parameters:
            on_drained: called without arguments, by two threads at once, too; None: no
                more. The thread counts as on its way to the lanes meanwhile, so that what
                is submitted in it wakes no other; where it blocks, `relieve` helps.
        """
        with self._lock:
            old, self._on_drained = self._on_drained, on_drained
        del old  # not under the lock

    def relieve(self):
        """Let others take the part of threads that are in what `set_on_drained` set."""
        with self._lock:
            for place in self._places.values():
                if place.reports and not (place.relieved or place.waits):
                    place.relieved = True
                    self._relieved += 1
                    self._let_wake(place)
        self._engage_in_place()

    def open(self):
        """Accept submissions."""
        with self._lock:
            old, self._refusal = self._refusal, None
            self._leaving = False
        del old  # not under the lock
        self.engage()

    def close(self, refusal):
        """Refuse submissions from now on.

        Parameters:
            refusal: called for each submission, returns the exception to raise, or
                None to accept this one all the same.
        """
        with self._lock:
            old, self._refusal = self._refusal, refusal
            self._take_space(len(self._space))
        release_due(self._due)
        del old  # not under the lock

    def end_with_interpreter(self, refusal):
        """Let the threads go, and answer submissions with *refusal* unless refused already."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
        self.leave()

    def lose_thread(self):
        """Note that a thread ended before it came to `work`."""
        with self._lock:
            if self._starting:  # else it is there nevertheless
                self._starting -= 1
                self._threads -= 1

    def leave(self):
        """Let the threads go as soon as they find nothing to do."""
        with self._lock:
            self._leaving = True
            self._stir()
        release_due(self._due)

    def make(self, fn, args, kwargs, lane):
        """Return a task that is not queued yet, in a copy of the caller's context."""
        self._require_made()
        check_lane(lane)
        task = _new(self._task_type)
        TaskCore.__init__(task)
        task._call = (fn, args, kwargs, copy_context())
        task._lane = lane
        task._dispatcher = self
        return task

    def enqueue(self, task, view=None):
        """Queue a task made before, whatever the bound; it was accepted then.

        Raises:
            ValueError: it was made by another dispatcher, was queued before, or has run.
        """
        self._require_made()
        if task._dispatcher is not self:
            raise ValueError(f"{task!r} was not made by this dispatcher")
        if task._look() in (RUNNING, FINISHED):
            raise ValueError(f"{task!r} was run already: make another task")
        if task._queued is not None:
            raise ValueError(f"{task!r} was queued already: make another task")
        if view is not None and view._dispatcher is not self:
            raise ValueError(f"{view!r} is no view of this dispatcher")
        task._view = view
        self._enqueue(task, task._lane, True)

    def run_elsewhere(self, task, call, /, *args, **kwargs):
        """Make a call that runs a task in a thread of others, which is in that task then."""
        self._guests[id(task)] = (threading.get_ident(), task, False)
        try:
            return call(*args, **kwargs)
        finally:
            self._guests.pop(id(task), None)

    def runs_here(self, view=None):
        """Return whether this thread is in a task of the dispatcher, or in one of a view."""
        self._require_made()
        if getattr(this_thread, "dispatcher", None) is self:
            task = this_thread.place.task
            if view is None or (task is not None and task._view is view):
                return True
        mine = threading.get_ident()
        return any(
            ident == mine and (view is None or task._view is view)
            for ident, task, _ in list(self._guests.values())
        )

    def engage(self):
        """Start or wake what it takes to run the tasks that may start."""
        self._require_made()
        start = True
        while start:
            if self._launcher is not None:
                self._pump()
                return
            start = False
            try:
                with self._lock:
                    start = self._plan()
                if self._due:
                    release_due(self._due)
                if start:
                    self._start_thread()
            except BaseException:
                if start:
                    self.lose_thread()
                raise

    def work(self):
        """Run tasks until this thread is no longer needed: the body of a pool thread.

        However it ends, the thread is counted no more then.

        Raises:
            RuntimeError: this thread serves the dispatcher already.
        """
        self._require_made()
        came = False
        try:
            outer = getattr(this_thread, "dispatcher", None)
            outer_place = getattr(this_thread, "place", None)
            if outer is self:
                came = True
                raise RuntimeError("this thread serves the pool already")
            place = Place()
            this_thread.dispatcher, this_thread.place = self, place
            came = True
        finally:
            if not came:
                self.lose_thread()
        try:
            self._serve(place)
        finally:
            this_thread.dispatcher, this_thread.place = outer, outer_place

    def _pump(self):
        """Hand what may start to the launcher; one thread at a time does so."""
        mine = False
        try:
            with self._lock:
                if self._pumping:
                    return  # the one that pumps looks again after we changed the lanes
                mine = self._pumping = True
            self._pump_all()
        except BaseException:
            if mine:
                self._pumping = False  # it may have been interrupted anywhere
            raise

    def _pump_all(self):
        error = None
        dropped = []
        while True:
            now = monotonic()
            with self._lock:
                launcher = self._launcher
                task = None if launcher is None else self._pick(now, dropped)
                if task is None:
                    self._pumping = False
                else:
                    self._foreign.add(task)
                    if self._space:
                        self._take_space(1)
            release_due(self._due)
            dropped.clear()
            if task is None:
                break
            try:
                launcher(task)
            except BaseException as exc:
                try:
                    if not isinstance(exc, RuntimeError) or not self._put_back(
                        task, launcher, now
                    ):
                        launcher.fail(task, exc)
                        if isinstance(exc, KeyboardInterrupt) and is_main_thread():
                            error = exc  # the task has ended with it, and its code is to hear
                except BaseException as failure:  # but others rely on who pumps
                    if error is None:
                        error = failure
        if launcher is None:
            self.engage()
        if error is not None:
            try:
                raise error
            finally:
                error = None  # its traceback holds this frame

    def _put_back(self, task, launcher, picked):
        """Let a task wait again that a launcher could not hand over.

        Returns:
            False if that launcher is still ours: the task would meet the same once more; and
            if the task has ended.
        """
        with self._lock:
            if self._launcher is launcher:
                return False
        if not task._wait_again():
            return False
        lane = task._lane
        with self._lock:
            if task not in self._foreign:  # it has just ended, and its place is given back
                return True
            task._waiting = True
            self._lanes[lane].appendleft(task)
            self._wait_seconds[lane] -= max(picked - task._queued, 0.0)
            task._started = None  # it waits again
            self._active -= 1
            self._foreign.remove(task)  # last: a fork may come between any two of these
        if task._phase == CANCELLED:  # between the two
            self._forget(task)
        return True

    def release(self, task):
        """Give back the place of a task that the launcher ran, once."""
        with self._lock:
            if task not in self._foreign:
                return
            self._account(task)
            self._foreign.remove(task)  # last: a fork may come between
        release_due(self._due)
        self.engage()

    def take_waiting(self, view=None):
        """Take the waiting tasks out of their lanes, all or those of one view, in order."""
        taken = []
        dropped = []
        with self._lock:
            for lane in range(LANES):
                for task in list(self._lanes[lane]):
                    if task._waiting and (view is None or task._view is view):
                        taken.append(task)
                        task._waiting = False
                        self._dead[lane] += 1
                        self._cancellations[lane] += 1
                        self._leave_view(task)
                dropped += self._sweep(lane)
            self._take_space(len(self._space))
        release_due(self._due)
        del dropped  # not under the lock
        return taken

    def take_one(self):
        """Take the first waiting task out of its lane, or return None: ``_work_queue.get``."""
        dropped = []
        with self._lock:
            found = self._take_first(dropped)
        release_due(self._due)
        del dropped  # not under the lock
        return found

    def _take_first(self, dropped):
        for tasks in self._lanes:
            while tasks:
                task = tasks[0]
                del tasks[0]
                if task._waiting:
                    task._waiting = False
                    task._queued = None  # it may be queued again
                    self._leave_view(task)
                    self._take_space(1)
                    return task
                self._dead[task._lane] -= 1
                dropped.append(task)
        return None

    def overdue(self, level, age):
        """Return the tasks that have waited for *age* seconds, each once per *level* (1, 2).

        Returns:
            The tasks, and the time (monotonic seconds) at which the next one may be
            due; None when nothing waits.
        """
        if not 1 <= level <= 2:
            raise ValueError(f"level must be 1 or 2, not {level}")
        now = monotonic()
        found = []
        soonest = None
        with self._lock:
            for tasks in self._lanes:
                for task in tasks:
                    if not task._waiting or task._warned >= level:
                        continue
                    if task._queued + age > now:
                        if soonest is None or task._queued + age < soonest:
                            soonest = task._queued + age
                        break
                    task._warned = level
                    found.append(task)
        return found, soonest

    def wait_drained(self, timeout=None):
        """Block until no task waits or runs; return False if that took too long.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        limit = wait_limit(timeout)
        with self._lock:
            if self._is_drained():
                return True
            parker = make_parker()
            self._drainers.append(parker)
        try:
            if parker.acquire(True, limit):
                return True
        except BaseException:
            self._retract(parker)
            raise
        return not self._retract(parker)

    def _retract(self, parker):
        """Take a parker out of those who wait for the last task; return if it was there."""
        with self._lock:
            there = parker in self._drainers
            if there:
                self._drainers.remove(parker)
        return there

    def abandon(self):
        """Forget all threads and tasks: for a forked child, which has none of the threads.

        Returns:
            The tasks that waited, and those that ran.
        """
        self._make_lock()
        waiting = [task for tasks in self._lanes for task in tasks if task._waiting]
        mine = threading.get_ident()
        busy = [p for p in self._places.values() if p.task is not None]
        own = [p.task for p in busy if p.ident == mine]  # that this thread is in
        running = [p.task for p in busy] + list(self._foreign)
        for ident, task, submitted in list(self._guests.values()):
            if submitted:
                running.append(task)
            if ident == mine:
                own.append(task)
        self._guests = {}
        self._guests_counted = 0
        for tasks in self._lanes:
            tasks.clear()
        for task in waiting + running:
            task._waiting = False
            view, task._view = task._view, None
            if view is not None:  # all of its tasks are among these
                view.outstanding = 0
                view._parked = None
        self._dead = [0, 0, 0, 0]
        self._foreign = set()
        self._active = self._threads = self._starting = self._dropping = 0
        self._aside = self._resting = self._relieved = 0
        this_thread.dispatcher = None
        self._places = {}
        self._idle.clear()
        self._waking = self._pumping = False
        self._space.clear()
        self._due.clear()
        self._drainers = []
        for task in running:
            if task not in own and task._call is not None:
                task._call = None
                task._finished = monotonic()
        return waiting, running

    def running(self):
        """Return ``(thread id, task, target)`` of each task that a pool thread runs."""
        with self._lock:
            busy = [(p.ident, p.task) for p in self._places.values() if p.task is not None]
        busy += [(i, task) for i, task, submitted in list(self._guests.values()) if submitted]
        calls = [(ident, task, task._call) for ident, task in busy]
        return [(ident, task, call and call[0]) for ident, task, call in calls]

    @property
    def active(self):
        """How many tasks run, in all lanes."""
        return self._active + self._guests_counted

    @property
    def resting(self):
        """How many pool threads wait for a future of ours within their task."""
        return self._resting

    @property
    def engaged(self):
        """How many tasks run, or may start; those apart that wait for a future of ours."""
        with self._lock:
            return self._active - (self._resting - self._aside) + self._startable()

    @property
    def leaving(self):
        """Whether threads go that find nothing to do."""
        return self._leaving

    @property
    def threads(self):
        """How many threads there are, the ones about to start included."""
        return self._threads

    @property
    def idle(self):
        """How many threads sleep."""
        return len(self._idle)

    @property
    def waiting(self):
        """How many tasks wait, in all lanes."""
        return self._waits()

    def figures(self):
        """Return one consistent set of counters; lists are per lane, CRITICAL first."""
        with self._lock:
            return {
                "active": self._active + self._guests_counted,
                "threads": self._threads,
                "idle": len(self._idle),
                "wakeups": self._wakeups,
                "waiting": [self._count(lane) for lane in range(4)],
                "submitted": list(self._submitted),
                "completed": list(self._completed),
                "failed": list(self._failures),
                "cancelled": list(self._cancellations),
                "wait_seconds": list(self._wait_seconds),
            }
