"""Tasks: one call, its context, and the times at which it was queued, began and ended.

**Guarantees**: see `TaskCore`. **Assumes**: whoever runs a task has begun it.

The compiled twin, ``task.pxi``, keeps what a task has at different times in one place, and
hides it from the garbage collector until it can be part of a cycle.
"""

from __future__ import annotations

from ..base.clock import monotonic
from .future import (
    CANCELLED,
    FINISHED,
    PENDING,
    RUNNING,
    FutureCore,
    Waiters,
    state_acquire,
    state_lock,
    state_release,
)
from .parking import contend

__all__ = ["TaskCore"]


class TaskCore(FutureCore):
    """One call: what to run, in which lane, and when it was queued, started and ended.

    The references to target, arguments and context are dropped when the call has
    run, before its result is seen, or when it is cancelled.
    """

    __slots__ = (
        "_call",  # target, arguments and context
        "_dispatcher",
        "_finished",
        "_lane",
        "_queued",
        "_started",
        "_view",
        "_waiting",  # in a lane; protected by the dispatcher's lock
    )
    _warned = 0

    def __init__(self):
        FutureCore.__init__(self)
        self._call = self._dispatcher = self._view = None
        self._lane = 2
        self._waiting = False
        self._queued = self._started = self._finished = None

    @property
    def lane(self):
        """The index of the task's lane: 0 is CRITICAL, 3 is LOW."""
        return self._lane

    @property
    def time_queued(self):
        """When the task entered its lane: seconds of the monotonic clock, or None."""
        return self._queued

    @property
    def time_started(self):
        """When the task began to run: seconds of the monotonic clock, or None."""
        return self._started

    @property
    def time_finished(self):
        """When the task ended: seconds of the monotonic clock, or None."""
        return self._finished

    def _make_waiters(self):
        waiters = Waiters()
        waiters.owner = self._dispatcher
        return waiters

    def _get_call(self):
        """Return the target, its arguments and its context, for a foreign executor to run."""
        return self._call or (None, None, None, None)

    def _let_go(self):
        self._call = None
        self._finished = monotonic()

    def _begin(self):
        """Move to running; return False if the task was cancelled."""
        with state_lock:
            if self._phase != PENDING:
                return False
            self._phase = RUNNING
        self._started = monotonic()
        return True

    def _end(self, failed, value):
        """End the running task and drop what it held."""
        if self._call is not None:
            self._call = None
            self._finished = monotonic()
        self._settle(FINISHED, failed, value)

    def _run(self, now=None):
        """Run the call in this thread, unless it was cancelled.

        The time is that at which the thread was free for the task, where it is known.

        Returns:
            True if the call returned and nobody was called back, else None.
        """
        if not state_acquire(False):
            contend(state_acquire)
        if self._phase != PENDING:
            state_release()
            return None
        self._phase = RUNNING
        state_release()
        # Where a thread was free already, it is no later than the task came.
        self._started = monotonic() if now is None else max(now, self._queued)
        fn, args, kwargs, context = self._call
        try:
            if kwargs:
                value = context.run(fn, *args, **kwargs)
            elif args:
                value = context.run(fn, *args)
            else:
                value = context.run(fn)
        except BaseException as exc:
            fn = args = kwargs = context = self._call = None
            self._finished = monotonic()
            self._settle(FINISHED, True, exc)
            self = None  # the traceback would hold the future that holds it
            return None
        else:
            fn = args = kwargs = context = self._call = None
            self._finished = monotonic()
            if not state_acquire(False):
                contend(state_acquire)
            if self._condition_made is None and self._phase == RUNNING:
                self._value = value
                self._phase = FINISHED
                state_release()
                if self._parked is not None or self._callbacks is not None:
                    if self._callbacks is not None:
                        self._wake()
                        return None
                    self._wake()
            else:
                state_release()
                self._settle(FINISHED, False, value)
                return None
            return True

    def cancel(self):
        """Cancel the task unless it runs or has finished; return whether it is cancelled.

        A waiting task leaves its lane, and whoever waits for it is woken at once.
        """
        with state_lock:
            if self._phase >= CANCELLED:
                return self._phase == CANCELLED
        return self._settle(CANCELLED, False, None) or self._phase == CANCELLED

    def _withdraw(self):
        """Leave the lane and let go of the call, before the callbacks are called."""
        self._finished = monotonic()
        dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher._forget(self)
        self._call = None
