"""Lanes: what waits, in which order, and who may start. Submission, and views of one lane.

**Guarantees**: of those that may start the highest lane goes first, and inside a lane the
first in. **Assumes**: what says "The lock is held" is called so.

The compiled twin, ``lanes.pxi``, links tasks to lists and takes cancelled ones out of the
middle; here they stay in their queue, marked, until they are met or many.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from contextvars import copy_context
from types import BuiltinFunctionType, FunctionType

from ..base.clock import monotonic
from ..base.priority import UNLIMITED
from ..errors import QueueFull
from .future import CANCELLED, PENDING
from .parking import contend, make_parker, this_thread

__all__ = ["CRITICAL", "Lanes", "Submitter"]

CRITICAL = 0  # the index of the lane that nothing holds back
CO_COROUTINE = 0x80

_new = object.__new__


def check_target(fn):
    """Refuse what a pool thread cannot call."""
    if not callable(fn):
        raise TypeError(f"the target must be callable, not {fn!r}")
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = getattr(inner, "__func__", inner)
    code = getattr(inner, "__code__", None)
    if code is not None and getattr(code, "co_flags", 0) & CO_COROUTINE:
        raise TypeError(
            f"{fn!r} is a coroutine function, which a pool thread cannot await: "
            "give its coroutine to an aloop (aloop.spawn_coroutine_threadsafe)"
        )


class Submitter:
    """A door into one lane of a dispatcher: the part of an executor that is called often.

    ``outstanding`` counts the tasks that came through this door and have not ended;
    it is protected by the dispatcher's lock.
    """

    __slots__ = ("_dispatcher", "_door_shut", "_lane", "_parked", "outstanding")

    def __init__(self, dispatcher, lane):
        self._dispatcher = dispatcher
        self._lane = lane
        self._door_shut = False
        self._parked = None
        self.outstanding = 0

    def submit(self, fn, /, *args, **kwargs):
        """Queue ``fn(*args, **kwargs)`` and return its `Task`.

        Raises:
            TypeError: *fn* cannot be called, or is a coroutine function.
            RuntimeError: the pool or this view of it was shut down, or does not run.
            QueueFull: the bound on waiting tasks is reached and the pool refuses.
        """
        if self._door_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        kind = type(fn)
        if kind is not BuiltinFunctionType and (
            kind is not FunctionType or fn.__code__.co_flags & CO_COROUTINE
        ):
            check_target(fn)
        dispatcher = self._dispatcher
        task = _new(dispatcher._task_type)
        # What TaskCore.__init__ does, without the calls.
        task._phase = PENDING
        task._failed = False
        task._value = task._callbacks = task._parked = task._condition_made = None
        task._started = task._finished = None
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
        """Block until every task that came through this view has ended."""
        dispatcher = self._dispatcher
        with dispatcher._lock:
            if not self.outstanding:
                return
            parker = make_parker()
            if self._parked is None:
                self._parked = []
            self._parked.append(parker)
        parker.acquire()


class Lanes:
    """The four lanes of a dispatcher, and the rule of admission.

    A subclass knows of the threads: ``_plan`` decides on one to start or wake, ``_start_for``
    starts it, ``_pump`` hands tasks to an executor of others.

    The lock protects all fields. User code (targets, callbacks, refusals) runs outside it.
    """

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

    def _enqueue(self, task, lane, forced):
        """Put a task into its lane and see that it is started, or refuse it."""
        task._queued = monotonic()
        if not self._acquire(False):
            contend(self._acquire)
        try:
            usual = self._refusal is None and not self._queue_size and self._launcher is None
            if usual:
                task._waiting = True
                self._lanes[lane].append(task)
                self._submitted[lane] += 1
                if task._view is not None:
                    task._view.outstanding += 1
                # Where the lane is at its limit, or all threads are there and one is on its
                # way to the lanes or none sleeps, there is nothing to plan.
                if not forced and (
                    self._active >= self._limits[lane]
                    or (
                        self._threads == self._max_threads
                        and (self._waking or not self._idle)
                        and lane
                    )
                ):
                    return
                start, wake = self._plan()
        finally:
            self._release()
        if not usual:
            start, wake = self._enqueue_slowly(task, lane, forced)
        if wake is not None:
            wake.parker.release()
        if task._phase == CANCELLED:  # a delayed task may be, between the two
            self._forget(task)
        if start:
            self._start_for(task)
        elif self._launcher is not None:
            self._pump()

    def _push(self, task, lane):
        """Append a task to its lane; return what `_plan` does. The lock is held."""
        task._waiting = True
        self._lanes[lane].append(task)
        self._submitted[lane] += 1
        view = task._view
        if view is not None:
            view.outstanding += 1
        return self._plan() if self._launcher is None else (False, None)

    def _count(self, lane):
        """Return how many tasks wait in a lane. The lock is held."""
        return len(self._lanes[lane]) - self._dead[lane]

    def _enqueue_slowly(self, task, lane, forced):
        """Queue a task where a bound or a refusal may stand against it; return a plan."""
        granted = None
        while True:
            task._queued = monotonic()
            parker = None
            with self._lock:
                refusal = self._refusal
                bound = self._queue_size
                policy = self._when_full
                if refusal is None or refusal is granted:
                    refusal = None
                    others = self._count(1) + self._count(2) + self._count(3)
                    if forced or not bound or lane == CRITICAL or others < bound:
                        return self._push(task, lane)
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
                task._run()
                return False, None

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
        """Return up to *most* parkers of submitters that wait for room. The lock is held."""
        return [self._space.popleft() for _ in range(min(most, len(self._space)))]

    def _pick(self, now):
        """Take the task that may start first out of its lane, or None. The lock is held."""
        for tasks in self._lanes:
            if tasks:
                task = tasks[0]
                while not task._waiting:  # cancelled
                    tasks.popleft()
                    self._dead[task._lane] -= 1
                    if not tasks:
                        break
                    task = tasks[0]
                else:
                    lane = task._lane
                    active = self._active
                    if active >= self._limits[lane]:
                        return None
                    tasks.popleft()
                    task._waiting = False
                    self._active = active + 1
                    self._wait_seconds[lane] += max(now - task._queued, 0.0)
                    return task
        return None

    def _account(self, task):
        """Count the end of a task that `_pick` gave out. The lock is held.

        Returns:
            The parkers to release: of those who wait for the view, and for the last task.
        """
        self._active -= 1
        lane = task._lane
        if task._phase == CANCELLED:
            self._cancellations[lane] += 1
        elif task._failed:
            self._failures[lane] += 1
        else:
            self._completed[lane] += 1
        return self._leave_view(task)

    def _leave_view(self, task):
        """Return the parkers to release now that a task of a view ended. The lock is held."""
        view = task._view
        parked = ()
        if view is not None:
            task._view = None
            view.outstanding -= 1
            if not view.outstanding and view._parked:
                parked, view._parked = view._parked, None
        if self._drainers:
            parked = [*parked, *self._take_drainers()]
        return parked

    def _take_drainers(self):
        """Return the parkers of those who wait for the last task, if it is gone. Lock held."""
        if self._active or self._waits() or self._aside:
            return ()
        drainers, self._drainers = self._drainers, []
        return drainers

    def _forget(self, task):
        """Take a cancelled task out of its lane, if it is still there."""
        released = parked = ()
        with self._lock:
            if task._waiting:
                lane = task._lane
                task._waiting = False
                self._cancellations[lane] += 1
                self._dead[lane] += 1
                tasks = self._lanes[lane]
                if self._dead[lane] > 64 and self._dead[lane] * 2 > len(tasks):
                    self._sweep(lane)
                parked = self._leave_view(task)
                released = self._take_space(1)
        for parker in parked:
            parker.release()
        for parker in released:
            parker.release()

    def _sweep(self, lane):
        """Drop the tasks that left a lane out of order. The lock is held."""
        tasks = self._lanes[lane]
        alive = [task for task in tasks if task._waiting]
        tasks.clear()
        tasks.extend(alive)
        self._dead[lane] = 0

    def _waits(self):
        """Return how many tasks wait, in all lanes."""
        return sum(map(len, self._lanes)) - sum(self._dead)
