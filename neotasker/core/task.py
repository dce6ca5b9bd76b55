"""Tasks: one call, its context, and the times at which it was queued, began and ended.

**Guarantees**: see `TaskCore`. **Assumes**: whoever runs a task has begun it.

The compiled twin, ``task.pxi``, keeps what a task has at different times in one place, and
hides it from the garbage collector until it can be part of a cycle.
"""

from __future__ import annotations

from ..base.clock import monotonic
from .future import (
    FINISHED,
    PENDING,
    RUNNING,
    TRIES,
    FutureCore,
    Waiters,
    follow,
    report_callback,
)
from .parking import is_main_thread

__all__ = ["TaskCore"]


def call(fn, args, kwargs):
    """Call a function: in a context, whose own method may have parameters of such names."""
    return fn(*args, **kwargs)


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
        now = monotonic()
        if not self._set_running(now):
            return False
        self._started = now
        return True

    def _wait_again(self):
        """Move from running to pending again; return False if the task has ended."""
        log = self._log
        if log is None or self._call is None:
            return False
        step = (PENDING, False, monotonic())
        log.append(step)
        return follow(log, step) is step

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

        Raises:
            KeyboardInterrupt: the call did, in the main thread, whose code is to hear of it.
        """
        log = self._log
        if log is None:
            return None
        # Where a thread was free already, it is no later than the task came.
        started = monotonic() if now is None else max(now, self._queued)
        step = (RUNNING, False, started)
        log.append(step)
        known = len(log)
        if (
            known != 1
            and not (known == 2 and type(log[0]) is list)  # of those who wait
            and follow(log, step) is not step
        ):
            return None
        self._started = started
        try:
            fn, args, kwargs, context = self._call
            if kwargs:
                value = context.run(call, fn, args, kwargs)
            elif args:
                value = context.run(fn, *args)
            else:
                value = context.run(fn)
        except BaseException as exc:
            fn = args = kwargs = context = self._call = None
            self._finished = monotonic()
            self._end_in_pool(True, exc)
            try:
                if isinstance(exc, KeyboardInterrupt) and is_main_thread():
                    self._seen = True
                    raise
            finally:
                # The traceback would hold the future that holds it.
                self = log = step = None
            return None
        else:
            fn = args = kwargs = context = self._call = None
            self._finished = monotonic()
            if len(log) == 1:
                step = (FINISHED, False, value)
                log.append(step)
                if len(log) == 2:  # there is nobody to be told
                    self._value = value
                    self._phase = FINISHED
                    self._log = None
                    return True
                self._end_in_pool(False, value, step)
            elif len(log) == 2 and (type(log[0]) is list or type(log[1]) is list):
                step = (FINISHED, False, value)
                log.append(step)  # it counts, unless something else has come before it
                self._end_in_pool(False, value, step)
            else:
                self._end_in_pool(False, value)
            return None if _calls_back(log) else True

    def _end_in_pool(self, failed, value, step=None):
        """End the task that this thread has run, which lives on whatever is raised meanwhile.

        What fails for lack of memory is tried again, as those who wait must hear of it.
        """
        log = self._log
        for _ in range(TRIES):
            if log is None:
                return
            try:
                if step is None:
                    step = (FINISHED, failed, value)
                    log.append(step)
                self._settle(FINISHED, failed, value, step)
                return
            except BaseException as exc:
                log = self._log
                if not isinstance(exc, Exception) and is_main_thread():
                    raise  # it was run where it was submitted
                report_callback(self)

    def _withdraw(self):
        """Leave the lane and let go of the call, before the callbacks are called."""
        self._finished = monotonic()
        dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher._forget(self)
        self._call = None

    def cancel(self):
        """Cancel the task unless it runs or has finished; return whether it is cancelled.

        A waiting task leaves its lane, and whoever waits for it is woken at once.
        """
        return FutureCore.cancel(self)


def _calls_back(log):
    """Return whether a log holds callbacks, and not only those who wait."""
    return any(
        type(thing) is list for things in log if type(things) is list for thing in things
    )
