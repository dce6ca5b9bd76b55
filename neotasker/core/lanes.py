"""Lanes: what waits, in which order, and who may start. Submission, and views of one lane.

**Guarantees**: of those that may start the highest lane goes first, and inside a lane the
first in. **Assumes**: what says "The lock is held" is called so.

The compiled twin, ``lanes.pxi``, links tasks to lists and takes cancelled ones out of the
middle; here they stay in their queue, marked, until they are met or many.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import copy_context
from types import BuiltinFunctionType, FunctionType

from ..base.clock import monotonic
from ..base.priority import UNLIMITED
from ..base.report import Reporter
from ..base.targets import check_task
from ..errors import QueueFull
from .future import CANCELLED, PENDING
from .parking import contend, make_parker, release_due, this_thread

__all__ = ["CRITICAL", "Lanes", "Submitter", "check_lane"]

logger = Reporter("neotasker")

CRITICAL = 0  # the index of the lane that nothing holds back
LANES = 4
ASYNC = 0x380  # flags of functions whose calls make something to be awaited, or iterated so

_new = object.__new__


def check_lane(lane):
    """Refuse the number of a lane that there is not."""
    if not 0 <= lane < LANES:
        raise ValueError(f"there is no lane {lane}: give 0 (CRITICAL) to {LANES - 1} (LOW)")


class Submitter:
    """A door into one lane of a dispatcher: the part of an executor that is called often.

    ``outstanding`` counts the tasks that came through this door and have not ended;
    it is protected by the dispatcher's lock.
    """

    __slots__ = ("_dispatcher", "_door_shut", "_lane", "_parked", "outstanding")

    def __new__(cls, *args, **kwargs):
        self = _new(cls)
        self._dispatcher = self._parked = None
        self._door_shut = True  # until it is known whose door it is
        self.outstanding = 0
        return self

    def __init__(self, dispatcher, lane):
        if not isinstance(dispatcher, Lanes):
            raise TypeError(f"a dispatcher is wanted, not {dispatcher!r}")
        dispatcher._require_made()
        check_lane(lane)
        if self._dispatcher is not None and self.outstanding:
            raise RuntimeError(f"{type(self).__name__} is in use: it cannot be made anew")
        self._dispatcher = dispatcher
        self._lane = lane
        self._door_shut = False

    def _require_door(self):
        if self._dispatcher is None:
            raise AttributeError(
                f"{type(self).__name__} was not initialized: call its __init__ first"
            )

    def submit(self, fn, /, *args, **kwargs):
        """Queue ``fn(*args, **kwargs)`` and return its `Task`.

        Raises:
            TypeError: *fn* cannot be called, or is a coroutine function.
            RuntimeError: the pool or this view of it was shut down, or does not run.
            QueueFull: the bound on waiting tasks is reached and the pool refuses.
        """
        if self._door_shut:
            self._require_door()
            raise RuntimeError("cannot schedule new futures after shutdown")
        kind = type(fn)
        if kind is not BuiltinFunctionType and (
            kind is not FunctionType or fn.__code__.co_flags & ASYNC or fn.__dict__
        ):
            check_task(fn)
        dispatcher = self._dispatcher
        task = _new(dispatcher._task_type)
        # What TaskCore.__init__ does, without the calls.
        task._phase = PENDING
        task._failed = task._waiting = False
        task._value = None
        task._log = []
        task._queued = task._started = task._finished = None
        task._call = (fn, args, kwargs, copy_context())
        task._lane = lane = self._lane
        task._dispatcher = dispatcher
        task._view = self
        dispatcher._enqueue(task, lane, False)
        return task

    def shut_door(self):
        """Refuse further submissions through this view."""
        self._door_shut = True

    def wait_outstanding(self):
        """Block until every task that came through this view has ended.

        Raises:
            RuntimeError: called by one of these tasks, which would wait for itself.
        """
        self._require_door()
        dispatcher = self._dispatcher
        if dispatcher.runs_here(self):
            raise RuntimeError("cannot join current thread")
        with dispatcher._lock:
            if not self.outstanding:
                return
            parker = make_parker()
            if self._parked is None:
                self._parked = []
            self._parked.append(parker)
        ours = getattr(this_thread, "dispatcher", None) is dispatcher
        try:
            if ours:
                dispatcher._step_aside(True)
            parker.acquire()
        except BaseException:
            with dispatcher._lock:
                if self._parked and parker in self._parked:
                    self._parked.remove(parker)
            raise
        finally:
            if ours:
                dispatcher._step_back(True)


class Lanes:
    """The four lanes of a dispatcher, and the rule of admission.

    A subclass knows of the threads: ``_plan`` decides on one to start or wake, ``_start_for``
    starts it, ``_pump`` hands tasks to an executor of others.

    The lock protects all fields. User code (targets, callbacks, refusals) runs outside it.
    Only handlers of signals, and what the collector lets go of, may run inside, in the same
    thread, after any call. It is reentrant for that, and between two calls each section goes
    from one consistent state to the next. A handler may raise there. So who is to be told of
    something goes into `_due`, from which everybody tells, and who counted on something that
    then failed counts it back.
    """

    _start_thread = None  # until it is initialized

    def __init__(self):
        self._make_lock()
        self._lanes = (deque(), deque(), deque(), deque())
        self._dead = [0, 0, 0, 0]  # per lane, tasks that were cancelled and not yet met
        self._limits = (UNLIMITED,) * 4
        self._queue_size = 0
        self._when_full = "block"
        self._refusal = None  # makes the exception that a submission gets, or None
        self._launcher = None  # takes a task to a foreign executor, or None
        self._active = 0  # tasks between start and end
        self._aside = 0  # threads whose task waits for another of this pool
        self._guests = {}  # what threads of others run: (ident, task, by its submitter)
        self._guests_counted = 0  # of these, tasks that their submitters run
        self._due = deque()  # parkers to be released when the lock is free
        self._space = deque()  # parkers of submitters that wait for room
        self._drainers = []  # parkers of those who wait for the last task to end
        self._submitted = [0, 0, 0, 0]
        self._completed = [0, 0, 0, 0]
        self._failures = [0, 0, 0, 0]
        self._cancellations = [0, 0, 0, 0]
        self._wait_seconds = [0.0, 0.0, 0.0, 0.0]

    def _make_lock(self):
        # Bound once: the statement `with` costs more than what it guards here.
        self._lock = threading.RLock()
        self._acquire = self._lock.acquire
        self._release = self._lock.release

    def _require_made(self):
        if self._start_thread is None:
            raise AttributeError("the dispatcher was not initialized: call its __init__ first")

    def _enqueue(self, task, lane, forced):
        """Put a task into its lane and see that it is started, or refuse it."""
        now = monotonic()
        start = usual = False
        try:
            try:
                if not self._acquire(False):
                    contend(self._acquire)
                usual = (
                    self._refusal is None
                    and not self._queue_size
                    and self._launcher is None
                    and task._queued is None
                    and (
                        # Who needs a thread goes the slow way.
                        self._threads - self._active > len(self._lanes[lane])
                        or self._threads >= self._max_threads
                        or not self._lacks_thread(lane)
                    )
                )
                if usual:
                    task._queued = now
                    self._submitted[lane] += 1
                    if task._view is not None:
                        task._view.outstanding += 1
                    task._waiting = True
                    self._lanes[lane].append(task)
                    # Where the lane is at its limit, or all threads are there and one is on
                    # its way to the lanes or none sleeps, there is nothing to plan.
                    if not forced and (
                        self._active >= self._limits[lane]
                        or (
                            self._threads == self._max_threads
                            and (self._waking or not self._idle)
                            and lane
                        )
                    ):
                        return
                    start = self._plan()
            finally:
                try:  # noqa: SIM105 -- the hot path
                    self._release()
                except RuntimeError:  # a handler raised before we had it
                    pass
            if usual:
                self._carry_out(task, start)
                return
        except BaseException as exc:
            if self._stumble(task, start, exc):
                raise
            return
        self._enqueue_slowly(task, lane, forced)

    def _carry_out(self, task, start):
        """Do what `_plan` has found to be done for a task."""
        if self._due:
            release_due(self._due)
        if task._phase == CANCELLED:  # a delayed task may be, between the two
            self._forget(task)
        if start:
            self._start_thread()
            self.engage()
        elif self._launcher is not None:
            self._pump()

    def _stumble(self, task, start, exc):
        """See to a task that was interrupted on its way in.

        Returns:
            Whether to raise what interrupted it: then it is out, unless it runs already.
        """
        if start:
            self.lose_thread()
        # The system gave no thread; anything else came from outside, as a signal handler.
        failed = isinstance(exc, (RuntimeError, MemoryError))
        if not (failed and self._threads) and (self._forget(task, True) or not failed):
            self._serve_the_others()
            return True
        self._report_thread()
        return False

    def _lacks_thread(self, lane):
        """Return whether one more task that comes would start a thread. The lock is held."""
        threads = self._threads - self._aside - self._relieved
        if (
            threads >= self._max_threads
            or self._launcher is not None
            or self._active >= self._limits[lane]
        ):
            return False
        free = threads - self._active + len(self._foreign) - self._dropping
        return free <= self._startable()

    def _start_before(self):
        """Start a thread, counted already, for a task that is not in its lane yet."""
        try:
            self._start_thread()
        except (RuntimeError, MemoryError):
            if self._threads <= 1:  # who catches it counts that one back
                raise
            self.lose_thread()
            self._report_thread()

    def _serve_the_others(self):
        """See to tasks that relied on a thread which could not be started.

        They were accepted. Where there is no thread at all they end, with what went wrong.
        """
        if not self._waits():
            return
        try:
            self.engage()
        except BaseException as exc:
            if self._threads:
                self._report_thread()
                return
            for task in self.take_waiting():
                task._end(True, exc)

    def _report_thread(self):
        """Say that a thread could not be started, in an ``except``; whatever handlers do."""
        logger.exception("a pool thread could not be started; %d serve on", self._threads)

    def _count(self, lane):
        """Return how many tasks wait in a lane. The lock is held."""
        return len(self._lanes[lane]) - self._dead[lane]

    def _enqueue_slowly(self, task, lane, forced):
        """Queue a task where a bound or a refusal may stand against it.

        Who was told of room and does not take it, as an exception comes between, passes it
        on.
        """
        granted = error = parker = None
        start = tried = first = entered = False
        try:
            while True:
                now = monotonic()
                if first:
                    # First the thread, then the task: until it is there anything may be
                    # raised, and what is refused then must not run meanwhile.
                    self._start_before()
                    first = False
                with self._lock:
                    refusal = self._refusal
                    bound = self._queue_size
                    policy = self._when_full
                    if task._queued is not None:
                        raise ValueError(f"{task!r} was queued already: make another task")
                    if refusal is None or refusal is granted:
                        refusal = parker = None
                        others = self._count(1) + self._count(2) + self._count(3)
                        if forced or not bound or lane == CRITICAL or others < bound:
                            if not tried and self._lacks_thread(lane):
                                tried = first = True
                                self._starting += 1
                                self._threads += 1
                                continue
                            entered = True
                            task._queued = now
                            self._submitted[lane] += 1
                            if task._view is not None:
                                task._view.outstanding += 1
                            task._waiting = True
                            self._lanes[lane].append(task)
                            if self._launcher is None:
                                start = self._plan()
                            break
                        if (
                            policy == "block"
                            and getattr(this_thread, "dispatcher", None) is not self
                        ):
                            parker = make_parker()
                            self._space.append(parker)
                if refusal is not None:
                    error = refusal()
                    if error is not None:
                        raise error
                    granted = refusal
                elif parker is not None:
                    parker.acquire()
                elif policy == "raise":
                    raise QueueFull(
                        f"{bound} tasks wait already (queue_size={bound}): submit later, "
                        "raise queue_size, or choose when_full='block' or 'run'"
                    )
                else:
                    # A thread of the pool that waited for room might wait for itself.
                    self._run_as_guest(task)
                    return
        except BaseException:
            if start or first:
                self.lose_thread()
            with self._lock:
                if parker is not None and parker in self._space:
                    self._space.remove(parker)
                elif parker is not None:
                    self._take_space(1)
            release_due(self._due)
            if entered:
                self._forget(task, True)
            if start or first:
                self._serve_the_others()
            raise
        finally:
            error = None  # its traceback holds this frame
        try:
            self._carry_out(task, start)
        except BaseException as exc:
            if self._stumble(task, start, exc):
                raise

    def _run_as_guest(self, task):
        """Run a task in the thread that submits it: counted and waited for, without a place."""
        lane = task._lane
        note = (threading.get_ident(), task, True)
        with self._lock:
            task._queued = monotonic()
            self._submitted[lane] += 1
            self._guests_counted += 1
            if task._view is not None:
                task._view.outstanding += 1
            self._guests[id(task)] = note
        try:
            task._run()
        finally:
            with self._lock:
                if self._guests.pop(id(task), None) is not None:  # else in a forked child
                    self._guests_counted -= 1
                    self._tally(task)
                    self._leave_view(task)
            release_due(self._due)

    def _startable(self):
        """Return how many of the waiting tasks may start now. The lock is held."""
        if not any(self._lanes):
            return 0
        found = 0
        for lane in range(4):
            waiting = self._count(lane)
            if waiting:
                room = self._limits[lane] - self._active - found
                if room <= 0:
                    break
                found += min(waiting, room)
        return found

    def _take_space(self, most):
        """Have up to *most* submitters told that wait for room. The lock is held."""
        space = self._space
        while most and space:
            parker = space[0]
            del space[0]
            self._due.append(parker)
            most -= 1

    def _pick(self, now, dropped, place=None):
        """Take the task that may start first out of its lane, or None. The lock is held.

        Parameters:
            dropped: takes tasks that were cancelled, to be let go of without the lock.
            place: of the thread that is to run it, if it is one of ours.
        """
        for tasks in self._lanes:
            while tasks:
                task = tasks[0]
                lane = task._lane
                if not task._waiting:  # cancelled
                    del tasks[0]
                    self._dead[lane] -= 1
                    dropped.append(task)
                    continue
                if self._active >= self._limits[lane]:
                    return None
                waited = now - task._queued
                del tasks[0]
                task._waiting = False
                self._active += 1
                if place is not None:
                    place.task = task
                if waited > 0:
                    self._wait_seconds[lane] += waited
                return task
        return None

    def _account(self, task):
        """Count the end of a task that `_pick` gave out. The lock is held."""
        self._active -= 1
        self._tally(task)
        self._leave_view(task)

    def _tally(self, task):
        """Count how a task has ended. The lock is held."""
        lane = task._lane
        if task._phase == CANCELLED:
            self._cancellations[lane] += 1
        elif task._failed:
            self._failures[lane] += 1
        else:
            self._completed[lane] += 1

    def _leave_view(self, task):
        """Have those told who wait for the view of a task that ended. The lock is held."""
        view = task._view
        if view is not None:
            task._view = None
            view.outstanding -= 1
            if not view.outstanding and view._parked:
                parked, view._parked = view._parked, None
                self._due.extend(parked)
        if self._drainers:
            self._take_drainers()

    def _is_drained(self):
        """Return whether no task waits or runs. The lock is held."""
        return not (self._active or self._waits() or self._aside or self._guests_counted)

    def _take_drainers(self):
        """Have those told who wait for the last task, if it is gone. The lock is held."""
        if self._drainers and self._is_drained():
            drainers, self._drainers = self._drainers, []
            self._due.extend(drainers)

    def _forget(self, task, refused=False):
        """Take a task out of its lane, if it is there: it was cancelled, or is *refused*.

        Returns:
            Whether it was there.
        """
        dropped = ()
        with self._lock:
            found = task._waiting
            if found:
                lane = task._lane
                task._waiting = False
                self._dead[lane] += 1
                if refused:  # it has never been here, and may come again
                    task._queued = None
                    self._submitted[lane] -= 1
                else:
                    self._cancellations[lane] += 1
                dead = self._dead[lane]
                if refused or (dead > 64 and dead * 2 > len(self._lanes[lane])):
                    dropped = self._sweep(lane)
                self._leave_view(task)
                self._take_space(1)
        release_due(self._due)
        del dropped  # not under the lock
        return found

    def _sweep(self, lane):
        """Take what left a lane out of order out of its queue. The lock is held.

        Returns:
            What was taken out, to be let go of without the lock.
        """
        tasks = self._lanes[lane]
        dropped = []
        for _ in range(len(tasks)):  # each goes round, so that none is missing meanwhile
            task = tasks[0]
            del tasks[0]
            if task._waiting:
                tasks.append(task)
            else:
                self._dead[lane] -= 1
                dropped.append(task)
        return dropped

    def _waits(self):
        """Return how many tasks wait, in all lanes."""
        return sum(map(len, self._lanes)) - sum(self._dead)
