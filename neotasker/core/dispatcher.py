"""The core in pure Python: the twin of ``_core.pyx``, and its readable definition.

Eight things live here: the future's state machine (`FutureCore`, `TaskCore`), the
dispatcher with its four lanes (`Dispatcher`, `Submitter`), the clockwork
(`TickerCore`, `TimerCore`), the runs of a job (`JobCore`), the runs of a worker
(`SerialCore`, `Tally`), and into an event loop the mailbox (`Mailbox`) and tasks that
begin at once (`EagerStart`).

Locks, in both cores: one for the state of futures, one per dispatcher, one per
ticker, one per mailbox. No two of them are ever held at once, and no code of the
user runs under any of them. A future's ``_condition``, which only the standard
library's ``wait`` and ``as_completed`` bring into being, is taken before the state
lock and never inside another lock.

The locks of this file are reentrant, because the garbage collector and signal
handlers may run foreign code between two instructions of a locked section; each
section keeps its structures consistent before every call that it makes. The
compiled core has no such points.
"""

from __future__ import annotations

import functools
import heapq
import logging
import os
import threading
from _thread import interrupt_main
from asyncio import CancelledError as _TaskCancelled
from asyncio import Task, current_task
from collections import deque
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import count
from threading import get_ident
from time import monotonic, sleep
from types import BuiltinFunctionType, FunctionType

from .errors import QueueFull
from .priority import UNLIMITED

COMPILED = False

logger = logging.getLogger("neotasker")
_standard_logger = logging.getLogger("concurrent.futures")

new = object.__new__

_PENDING, _RUNNING, _CANCELLED, _FINISHED = range(4)
_STATES = ("PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
_WORDS = ("pending", "running", "cancelled", "finished")

_TRIES = 5  # to tell those who wait for a future that it has ended

_CRITICAL = 0  # the index of the lane that nothing holds back
_CO_COROUTINE = 0x80


def _make_state_lock():
    """Make the lock that protects the phase, value and lists of every future."""
    global _state_lock, _state_acquire, _state_release
    _state_lock = threading.RLock()
    # Bound once: the statement `with` costs more than what it guards in the hot path.
    _state_acquire, _state_release = _state_lock.acquire, _state_lock.release


_make_state_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_state_lock)


def _contend(acquire):
    """Take a lock that another thread holds, in the hot path.

    A thread that blocked on it would own the lock before it gets the GIL back, and so
    make the next one block too, and so on for ever: a convoy that costs two switches of
    threads per task. This one asks again when it has the GIL.
    """
    while not acquire(False):
        sleep(0)


def _parker():
    """Return a lock that is held: whoever acquires it sleeps until another releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _check_target(fn):
    """Refuse what a pool thread cannot call."""
    if not callable(fn):
        raise TypeError(f"the target must be callable, not {fn!r}")
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = getattr(inner, "__func__", inner)
    code = getattr(inner, "__code__", None)
    if code is not None and getattr(code, "co_flags", 0) & _CO_COROUTINE:
        raise TypeError(
            f"{fn!r} is a coroutine function, which a pool thread cannot await: "
            "give its coroutine to an aloop (aloop.spawn_coroutine_threadsafe)"
        )


_thread = threading.local()  # .dispatcher: the one that this thread serves; .place: as what


class _PatientEvent(threading.Event):
    """An event on which a pool thread waits without keeping its place."""

    def wait(self, timeout=None):
        dispatcher = getattr(_thread, "dispatcher", None)
        if self.is_set() or dispatcher is None:
            return super().wait(timeout)
        dispatcher._step_aside(True)
        try:
            return super().wait(timeout)
        finally:
            dispatcher._step_back(True)


class _Waiters(list):
    """The waiters of a task; those of its pool's own threads learn to give way."""

    __slots__ = ("owner",)

    def append(self, waiter):
        dispatcher = getattr(_thread, "dispatcher", None)
        if (
            dispatcher is not None
            and dispatcher is self.owner
            and not isinstance(waiter.event, _PatientEvent)
        ):
            waiter.event = _PatientEvent()
        super().append(waiter)


class FutureCore:
    """The state machine of ``concurrent.futures.Future``, without its costs.

    Guarantees: a future ends once; whoever waits for it is woken, and its callbacks
    run once each, in the order in which they were added, in the thread that ended
    it. A lock to wait on exists only while somebody waits, the ``Condition`` of the
    standard only after somebody touched ``_condition``.

    Assumes: a subclass derives from ``concurrent.futures.Future`` too, so that
    ``isinstance`` holds; ``Future.__init__`` is never called.

    A cancelled future goes to ``CANCELLED_AND_NOTIFIED`` at once: the standard's
    ``CANCELLED`` lasts until a pool thread comes across the future, and ``wait``
    sleeps that long.
    """

    # Slots, because the interpreter is quick with them; what is seldom asked for has a
    # default in the class, which an instance shadows when it comes to that.
    __slots__ = ("_callbacks", "_condition_made", "_failed", "_parked", "_phase", "_value")
    _seen = False
    _waiters_made = None

    def __init__(self):
        self._phase = _PENDING
        self._failed = False
        self._value = self._callbacks = self._parked = self._condition_made = None

    # What the standard functions touch.

    @property
    def _state(self):
        return _STATES[self._phase]

    @property
    def _condition(self):
        made = self._condition_made
        if made is None:
            fresh = threading.Condition()
            with _state_lock:
                if self._condition_made is None:
                    self._condition_made = fresh
                made = self._condition_made
        return made

    @property
    def _waiters(self):
        with _state_lock:
            if self._waiters_made is None:
                self._waiters_made = self._make_waiters()
            return self._waiters_made

    def _make_waiters(self):
        return []

    @property
    def _result(self):
        return self._value if self._phase == _FINISHED and not self._failed else None

    @property
    def _exception(self):
        return self._value if self._failed else None

    def _get_snapshot(self):
        """Return ``(done, cancelled, result, exception)`` of one moment."""
        with _state_lock:
            phase, failed, value = self._phase, self._failed, self._value
            if failed:
                self._seen = True
        if phase == _FINISHED:
            return (True, False, None, value) if failed else (True, False, value, None)
        return (phase == _CANCELLED, phase == _CANCELLED, None, None)

    # Asking.

    def cancelled(self):
        """Return whether the future was cancelled."""
        return self._phase == _CANCELLED

    def running(self):
        """Return whether the call is being executed."""
        return self._phase == _RUNNING

    def done(self):
        """Return whether the future was cancelled or has finished."""
        return self._phase >= _CANCELLED

    def _await_done(self, timeout):
        with _state_lock:
            if self._phase >= _CANCELLED:
                return True
            parker = _parker()
            if self._parked is None:
                self._parked = []
            self._parked.append(parker)
        dispatcher = getattr(_thread, "dispatcher", None)
        ours = dispatcher is not None and dispatcher is getattr(self, "_dispatcher", None)
        try:
            if dispatcher is not None:
                dispatcher._step_aside(ours)
            if timeout is None:
                return parker.acquire()
            timeout = min(timeout, threading.TIMEOUT_MAX)
            if parker.acquire(timeout=timeout) if timeout > 0 else parker.acquire(False):
                return True
        finally:
            if dispatcher is not None:
                dispatcher._step_back(ours)
            self._unpark(parker)
        return self._phase >= _CANCELLED

    def _unpark(self, parker):
        with _state_lock:
            parked = self._parked
            if parked is not None and parker in parked:
                self._parked = [p for p in parked if p is not parker]

    def result(self, timeout=None):
        """Return what the call returned, or raise what it raised.

        Parameters:
            timeout: seconds to wait; None waits for ever.

        Raises:
            CancelledError: the future was cancelled.
            TimeoutError: it did not end in time.
        """
        if self._phase < _CANCELLED and not self._await_done(timeout):
            raise TimeoutError()
        if self._phase == _CANCELLED:
            raise CancelledError()
        if self._failed:
            self._seen = True
            try:
                raise self._value
            finally:
                self = None  # the traceback would hold the future that holds it
        return self._value

    def exception(self, timeout=None):
        """Return what the call raised, or None if it returned.

        Parameters:
            timeout: seconds to wait; None waits for ever.

        Raises:
            CancelledError: the future was cancelled.
            TimeoutError: it did not end in time.
        """
        if self._phase < _CANCELLED and not self._await_done(timeout):
            raise TimeoutError()
        if self._phase == _CANCELLED:
            raise CancelledError()
        if self._failed:
            self._seen = True
            return self._value
        return None

    def add_done_callback(self, fn):
        """Call ``fn(future)`` when the future ends; at once if it has."""
        with _state_lock:
            if self._phase < _CANCELLED:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(fn)
                return
        self._call_back(fn)

    # Moving on.

    def _call_back(self, fn):
        try:
            fn(self)
        except BaseException:
            with suppress(BaseException):  # without memory for that, others are to be called
                _standard_logger.exception("exception calling callback for %r", self)

    def _enter(self, phase, failed, value):
        """Take a final phase. The state lock is held; returns False if it is too late."""
        if self._phase >= _CANCELLED or (phase == _CANCELLED and self._phase == _RUNNING):
            return False
        self._failed = failed
        self._value = value
        self._phase = phase
        return True

    def _settle(self, phase, failed, value):
        """End the future, wake those who wait, run the callbacks; False if it is too late."""
        with _state_lock:
            condition = self._condition_made
            if condition is None and not self._enter(phase, failed, value):
                return False
        if condition is not None and not self._settle_watched(condition, phase, failed, value):
            return False
        self._wake()
        return True

    def _wake(self):
        """Wake those who wait for the ended future, and run its callbacks."""
        with _state_lock:
            parked, self._parked = self._parked, None
            callbacks, self._callbacks = self._callbacks, None
        for parker in parked or ():
            parker.release()
        for fn in callbacks or ():
            self._call_back(fn)

    def _settle_watched(self, condition, phase, failed, value):
        """Take a final phase where the standard's functions look on, under the condition.

        What fails meanwhile, as a thread may be out of memory or interrupted at any moment,
        is tried again: those who wait must hear of it.
        """
        interrupted = []
        held = self._firmly(interrupted, condition.acquire)
        with _state_lock:
            entered = self._enter(phase, failed, value)
        if entered:
            for waiter in self._waiters_made or ():
                self._firmly(interrupted, self._tell, waiter)
            self._firmly(interrupted, condition.notify_all)
        if held:
            self._firmly(interrupted, condition.release)
        if interrupted:
            interrupt_main()  # not lost, but only now
        return entered

    def _tell(self, waiter, again=False):
        if again and self in waiter.finished_futures:
            waiter.event.set()
        elif self._phase == _CANCELLED:
            waiter.add_cancelled(self)
        elif self._failed:
            waiter.add_exception(self)
        else:
            waiter.add_result(self)

    def _firmly(self, interrupted, step, *args):
        """Make a step of `_settle_watched`, again if it fails; return whether it succeeded."""
        error = None
        for tries in range(_TRIES):
            try:
                if tries and args:
                    step(*args, again=True)
                else:
                    step(*args)
            except BaseException as exc:
                error = exc
                if isinstance(exc, KeyboardInterrupt):
                    interrupted.append(exc)
            else:
                return True
        with suppress(BaseException):
            logger.error("not everybody could be told of the end of a future", exc_info=error)
        return False

    def cancel(self):
        """Cancel the future unless it runs or has finished; return whether it is cancelled."""
        return self._settle(_CANCELLED, False, None) or self._phase == _CANCELLED

    def set_running_or_notify_cancel(self):
        """Mark the future as running; return False if it was cancelled."""
        with _state_lock:
            if self._phase == _PENDING:
                self._phase = _RUNNING
                return True
            if self._phase == _CANCELLED:
                return False
        _standard_logger.critical("Future %s in unexpected state: %s", id(self), self._state)
        raise InvalidStateError("Future in unexpected state")

    def set_result(self, result):
        """End the future with a result."""
        if not self._settle(_FINISHED, False, result):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception):
        """End the future with an exception."""
        if not self._settle(_FINISHED, True, exception):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _abandon(self, error=None):
        """End the future without a word, cancelled or with *error*: in a forked child.

        Who waits for it is the parent's, and so are the callbacks.
        """
        self._parked = self._callbacks = self._condition_made = self._waiters_made = None
        if self._phase >= _CANCELLED:
            return
        began = self._phase == _RUNNING
        self._seen = True
        self._failed = error is not None
        self._value = error
        self._phase = _CANCELLED if error is None else _FINISHED
        if not began and isinstance(self, TaskCore):
            self._call = None
            self._finished = monotonic()

    def __repr__(self):
        phase, value = self._phase, self._value
        text = f"<{type(self).__name__} at {id(self):#x} state={_WORDS[phase]}"
        if phase == _FINISHED:
            verb = "raised" if self._failed else "returned"
            text += f" {verb} {type(value).__name__}"
        return text + ">"

    def __del__(self):
        if self._failed and not self._seen:
            logger.error(
                "exception of a future was never retrieved: %s at %#x",
                type(self).__name__,
                id(self),
                exc_info=self._value,
            )


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
        waiters = _Waiters()
        waiters.owner = self._dispatcher
        return waiters

    def _get_call(self):
        """Return the target, its arguments and its context, for a foreign executor to run."""
        return self._call or (None, None, None, None)

    def _begin(self):
        """Move to running; return False if the task was cancelled."""
        with _state_lock:
            if self._phase != _PENDING:
                return False
            self._phase = _RUNNING
        self._started = monotonic()
        return True

    def _end(self, failed, value):
        """End the running task and drop what it held."""
        if self._call is not None:
            self._call = None
            self._finished = monotonic()
        self._settle(_FINISHED, failed, value)

    def _run(self, now=None):
        """Run the call in this thread, unless it was cancelled.

        The time is that at which the thread was free for the task, where it is known.

        Returns:
            True if the call returned, None if it raised or did not run.
        """
        if not _state_acquire(False):
            _contend(_state_acquire)
        if self._phase != _PENDING:
            _state_release()
            return None
        self._phase = _RUNNING
        _state_release()
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
            self._settle(_FINISHED, True, exc)
            self = None  # the traceback would hold the future that holds it
            return None
        else:
            fn = args = kwargs = context = self._call = None
            self._finished = monotonic()
            if not _state_acquire(False):
                _contend(_state_acquire)
            if self._condition_made is None and self._phase == _RUNNING:
                self._value = value
                self._phase = _FINISHED
                _state_release()
                if self._parked is not None or self._callbacks is not None:
                    self._wake()
            else:
                _state_release()
                self._settle(_FINISHED, False, value)
            return True

    def cancel(self):
        """Cancel the task unless it runs or has finished; return whether it is cancelled.

        A waiting task leaves its lane, and whoever waits for it is woken at once.
        """
        with _state_lock:
            if self._phase >= _CANCELLED:
                return self._phase == _CANCELLED
        if not self._settle(_CANCELLED, False, None):
            return self._phase == _CANCELLED
        self._finished = monotonic()
        dispatcher = self._dispatcher
        if dispatcher is not None:
            dispatcher._forget(self)
        self._call = None
        return True


class _Place:
    """What a dispatcher knows of one of its threads: where it sleeps and what it runs."""

    __slots__ = ("holds", "ident", "parker", "relieved", "reports", "task", "waits")

    def __init__(self):
        self.parker = _parker()
        self.ident = threading.get_ident()
        self.task = None
        self.reports = False  # it calls `on_drained`
        self.holds = False  # `_waking`, while it does
        self.relieved = False  # others take its part meanwhile
        self.waits = False  # it stepped aside


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
            kind is not FunctionType or fn.__code__.co_flags & _CO_COROUTINE
        ):
            _check_target(fn)
        dispatcher = self._dispatcher
        task = new(dispatcher._task_type)
        # What TaskCore.__init__ does, without the calls.
        task._phase = _PENDING
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
            parker = _parker()
            if self._parked is None:
                self._parked = []
            self._parked.append(parker)
        parker.acquire()


class Dispatcher:
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
        self._task_type = task_type
        self._start_thread = start_thread
        self._make_lock()
        self._lanes = (deque(), deque(), deque(), deque())
        self._dead = [0, 0, 0, 0]  # per lane, tasks that were cancelled and not yet met
        self._limits = (UNLIMITED,) * 4
        self._min_threads = 0
        self._max_threads = 1
        self._idle_timeout = None
        self._queue_size = 0
        self._when_full = "block"
        self._refusal = None  # makes the exception that a submission gets, or None
        self._leaving = False  # threads go when they find nothing to do
        self._launcher = None  # takes a task to a foreign executor, or None
        self._pumping = False
        self._on_drained = None
        self._active = 0  # tasks between start and end
        self._aside = 0  # threads whose task waits for another of this pool
        self._relieved = 0  # threads in `on_drained` whose part others take
        self._resting = 0  # threads whose task waits for any future of ours
        self._threads = 0  # threads that were started or are about to be
        self._foreign = set()  # of the active, those that a foreign executor runs
        self._places = {}  # of the threads, by identity of the place
        self._idle = []  # places of idle threads; the last one in is woken first
        self._waking = False  # a woken thread has not looked at the lanes yet
        self._wakeups = 0  # how often an idle thread was woken
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

    # Settings.

    def configure(self, limits, min_threads, max_threads, idle_timeout, queue_size, when_full):
        """Take new limits; what waits and may now start is started.

        Parameters:
            limits: per lane, how many tasks may run for it to start one more.
            min_threads, max_threads: threads that stay, and the most there are.
            idle_timeout: seconds after which an idle thread goes; None: never.
            queue_size: the most that may wait, CRITICAL aside; 0: no bound.
            when_full: ``'block'``, ``'raise'`` or ``'run'``.
        """
        with self._lock:
            self._limits = tuple(limits)
            self._min_threads = min_threads
            self._max_threads = max_threads
            self._idle_timeout = idle_timeout
            self._queue_size = queue_size
            self._when_full = when_full
            released = self._take_space(len(self._space)) + self._stir()
        for parker in released:
            parker.release()
        self.engage()

    def set_launcher(self, launcher):
        """Hand tasks to ``launcher(task)`` from now on; None: back to own threads."""
        with self._lock:
            self._launcher = launcher
            stirred = self._stir()
        for parker in stirred:
            parker.release()
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
            self._refusal = None
            self._leaving = False
        self.engage()

    def close(self, refusal):
        """Refuse submissions from now on.

        Parameters:
            refusal: called for each submission, returns the exception to raise, or
                None to accept this one all the same.
        """
        with self._lock:
            self._refusal = refusal
            released = self._take_space(len(self._space))
        for parker in released:
            parker.release()

    def end_with_interpreter(self, refusal):
        """Let the threads go, and answer submissions with *refusal* unless refused already."""
        with self._lock:
            if self._refusal is None:
                self._refusal = refusal
        self.leave()

    def lose_thread(self):
        """Note that a thread ended before it came to `work`."""
        with self._lock:
            self._threads -= 1

    def leave(self):
        """Let the threads go as soon as they find nothing to do."""
        with self._lock:
            self._leaving = True
            stirred = self._stir()
        for parker in stirred:
            parker.release()

    # Submission.

    def make(self, fn, args, kwargs, lane):
        """Return a task that is not queued yet, in a copy of the caller's context."""
        task = new(self._task_type)
        TaskCore.__init__(task)
        task._call = (fn, args, kwargs, copy_context())
        task._lane = lane
        task._dispatcher = self
        return task

    def enqueue(self, task, view=None):
        """Queue a task made before, whatever the bound; it was accepted then."""
        task._view = view
        self._enqueue(task, task._lane, True)

    def _enqueue(self, task, lane, forced):
        """Put a task into its lane and see that it is started, or refuse it."""
        task._queued = monotonic()
        if not self._acquire(False):
            _contend(self._acquire)
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
        if task._phase == _CANCELLED:  # a delayed task may be, between the two
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
                    if forced or not bound or lane == _CRITICAL or others < bound:
                        return self._push(task, lane)
                    if policy == "block" and getattr(_thread, "dispatcher", None) is not self:
                        parker = _parker()
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

    def _plan(self):
        """Decide on a thread to start (counted here) and one to wake. The lock is held.

        Returns:
            Whether to start one, and the place of the one to wake, or None.
        """
        # Threads that wait for tasks of this pool do not count: others take their part.
        threads = self._threads - self._aside - self._relieved
        free = threads - self._active + len(self._foreign)
        idle = self._idle
        critical = self._count(_CRITICAL)
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

    def engage(self):
        """Start or wake what it takes to run the tasks that may start."""
        start = True
        while start:
            if self._launcher is not None:
                self._pump()
                return
            with self._lock:
                start, wake = self._plan()
            if wake is not None:
                wake.parker.release()
            if start:
                self._start_one()

    def _stir(self):
        """Return the parkers of all idle threads, to make them look. The lock is held."""
        stirred = [place.parker for place in self._idle]
        self._idle.clear()
        return stirred

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
        if task._phase == _CANCELLED:
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
        if self._active or self.waiting or self._aside:
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

    # The threads.

    def work(self):
        """Run tasks until this thread is no longer needed: the body of a pool thread."""
        _thread.dispatcher = self
        try:
            self._serve()
        finally:
            _thread.dispatcher = None

    def _serve(self):
        """End one task and pick the next in one locked section, for ever."""
        place = _thread.place = _Place()
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
                _contend(acquire)
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
                if self._launcher is None and (not surplus or self._count(_CRITICAL)):
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
                        and not (self._active or self.waiting or self._aside)
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
                if _thread.dispatcher is not self:
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
                if _thread.dispatcher is not self:
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
        place = _thread.place
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
        place = _thread.place
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

    # A foreign executor.

    def _pump(self):
        """Hand what may start to the launcher; one thread at a time does so."""
        error = None
        with self._lock:
            if self._pumping:
                return  # the one that pumps looks again after we changed the lanes
            self._pumping = True
        while True:
            released = ()
            now = monotonic()
            with self._lock:
                launcher = self._launcher
                task = None if launcher is None else self._pick(now)
                if task is None:
                    self._pumping = False
                else:
                    self._foreign.add(task)
                    if self._space:
                        released = self._take_space(1)
            for parker in released:
                parker.release()
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
        with _state_lock:
            if task._phase >= _CANCELLED or task._call is None:
                return False
            task._phase = _PENDING
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
        if task._phase == _CANCELLED:  # between the two
            self._forget(task)
        return True

    def release(self, task):
        """Give back the place of a task that the launcher ran, once."""
        with self._lock:
            if task not in self._foreign:
                return
            parked = self._account(task)
            self._foreign.remove(task)  # last: a fork may come between
        for parker in parked:
            parker.release()
        self.engage()

    # Clearing out.

    def take_waiting(self, view=None):
        """Take the waiting tasks out of their lanes, all or those of one view, in order."""
        parked = []
        taken = []
        with self._lock:
            for lane in range(4):
                tasks = self._lanes[lane]
                mine = [t for t in tasks if t._waiting and (view is None or t._view is view)]
                for task in mine:
                    task._waiting = False
                self._sweep(lane)
                for task in mine:
                    parked.extend(self._leave_view(task))
                self._cancellations[lane] += len(mine)
                taken.extend(mine)
            released = self._take_space(len(self._space))
        for parker in parked:
            parker.release()
        for parker in released:
            parker.release()
        return taken

    def take_one(self):
        """Take the first waiting task out of its lane, or return None: ``_work_queue.get``."""
        parked = ()
        with self._lock:
            for lane in range(4):
                tasks = self._lanes[lane]
                while tasks:
                    task = tasks.popleft()
                    if task._waiting:
                        task._waiting = False
                        parked = self._leave_view(task)
                        break
                    self._dead[lane] -= 1
                else:
                    continue
                break
            else:
                return None
        for parker in parked:
            parker.release()
        return task

    def overdue(self, level, age):
        """Return the tasks that have waited for *age* seconds, each once per *level* (1, 2).

        Returns:
            The tasks, and the time (monotonic seconds) at which the next one may be
            due; None when nothing waits.
        """
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
        with self._lock:
            if not self._active and not self.waiting and not self._aside:
                return True
            parker = _parker()
            self._drainers.append(parker)
        if timeout is None:
            return parker.acquire()
        if parker.acquire(timeout=timeout) if timeout > 0 else parker.acquire(False):
            return True
        with self._lock:
            if parker in self._drainers:
                self._drainers.remove(parker)
                return False
        return True

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
        self._active = self._threads = 0
        self._aside = self._resting = self._relieved = 0
        _thread.dispatcher = None
        self._places = {}
        self._idle.clear()
        self._waking = self._pumping = False
        self._space.clear()
        self._drainers = []
        for task in running:
            if task not in own and task._call is not None:
                task._call = None
                task._finished = monotonic()
        return waiting, running

    # Figures.

    def running(self):
        """Return ``(thread id, task, target)`` of each task that a pool thread runs."""
        with self._lock:
            busy = [(p.ident, p.task) for p in self._places.values() if p.task is not None]
        calls = [(ident, task, task._call) for ident, task in busy]
        return [(ident, task, call and call[0]) for ident, task, call in calls]

    @property
    def active(self):
        """How many tasks run, in all lanes."""
        return self._active

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
        return sum(map(len, self._lanes)) - sum(self._dead)

    def figures(self):
        """Return one consistent set of counters; lists are per lane, CRITICAL first."""
        with self._lock:
            return {
                "active": self._active,
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


_SKIP, _DELAY, _BURST = range(3)
_MISSED = {"skip": _SKIP, "delay": _DELAY, "burst": _BURST}


_MOST_SLACK = 3600


class TimerCore:
    """One timer of a ticker: fires once, or every *interval* seconds until cancelled."""

    __slots__ = (
        "_args",
        "_callback",
        "_entry",
        "_policy",
        "_ticker",
        "_when",
        "interval",
        "missed",
        "runs",
        "slack",
    )

    def __init__(self):
        raise TypeError("timers are made by Ticker.call_at, call_later and call_every")

    @property
    def when(self):
        """When the timer fires next: seconds of the ticker's clock."""
        return self._when

    @property
    def active(self):
        """Whether the timer will fire."""
        return self._ticker is not None

    def cancel(self):
        """Keep the timer from firing again; return False if it had nothing left to do."""
        ticker = self._ticker
        return ticker is not None and ticker._cancel(self)


def _slack(seconds):
    value = float(seconds)
    if not 0 <= value <= _MOST_SLACK:
        raise ValueError(f"slack must be from 0 to {_MOST_SLACK} seconds, not {seconds!r}")
    return value


class TickerCore:
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
        self._now = monotonic if now is None else now
        self._by_hand = now is not None
        self._slack = _slack(slack)
        self._lock = threading.RLock()
        self._heap = []
        self._serial = count()
        self._dead = 0
        self._parker = _parker()
        self._asleep_until = None  # None: awake
        self._stopping = False
        self._fires = 0

    @property
    def slack(self):
        """How many seconds later than due timers may fire that have no slack of their own."""
        return self._slack

    @slack.setter
    def slack(self, value):
        self._slack = _slack(value)

    def _choose_slack(self, own, interval):
        """Return the slack of a timer: its own, or the ticker's."""
        if own is None:
            slack = self._slack if interval is None else min(self._slack, interval / 2)
        else:
            slack = _slack(own)
            if interval is not None and slack and slack >= interval:
                raise ValueError(
                    f"slack must be less than the interval, {interval} s, not {own!r}"
                )
        # A clock that is turned by hand has no wake-ups to share.
        return 0.0 if self._by_hand else slack

    def _add(self, when, interval, policy, callback, args, slack):
        if not callable(callback):
            raise TypeError(f"the callback of a timer must be callable, not {callback!r}")
        if when != when or when in (float("inf"), float("-inf")):
            raise ValueError(f"a timer needs a finite time, not {when!r}")
        timer = object.__new__(self._timer_type)
        timer._callback = callback
        timer._args = args
        timer._when = when
        timer.interval = interval
        timer.slack = self._choose_slack(slack, interval)
        timer._policy = policy
        timer.runs = 0
        timer.missed = 0
        with self._lock:
            timer._ticker = self
            self._push(timer)
            limit = when + timer.slack
            rouse = self._asleep_until is not None and limit < self._asleep_until
            if rouse:
                self._asleep_until = None
        if rouse:
            self._parker.release()
        return timer

    def _push(self, timer):
        entry = timer._entry = [timer._when + timer.slack, next(self._serial), timer]
        heapq.heappush(self._heap, entry)

    def call_at(self, when, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick at *when* (seconds of the ticker's clock).

        Parameters:
            slack: seconds by which it may be later, to share a wake-up with others; the
                ticker's own when left out.

        Returns:
            The `Timer`.

        Raises:
            TypeError: the callback cannot be called.
            ValueError: the time is not finite, or the slack not from 0 to an hour.
        """
        return self._add(float(when), None, _SKIP, callback, args, slack)

    def call_later(self, delay, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick in *delay* seconds; negative: at the next.

        Parameters:
            slack: see `call_at`.

        Returns:
            The `Timer`.

        Raises:
            TypeError: the callback cannot be called.
            ValueError: the delay is not finite, or the slack not from 0 to an hour.
        """
        return self._add(self._now() + delay, None, _SKIP, callback, args, slack)

    def call_every(self, interval, callback, /, *args, missed="skip", first=None, slack=None):
        """Call ``callback(*args)`` on the tick every *interval* seconds, at a fixed rate.

        Parameters:
            interval: seconds, more than zero.
            missed: what follows when the tick comes late by an interval or more:
                ``'skip'`` keeps the phase, ``'delay'`` starts a new one, ``'burst'``
                catches up (the words of tokio's ``MissedTickBehavior``).
            first: seconds until the first call; one interval when left out.
            slack: see `call_at`; less than the interval. Of the ticker's own slack, half
                an interval is used at most. Due times do not drift by it.

        Returns:
            The `Timer`.

        Raises:
            TypeError: the callback cannot be called.
            ValueError: the interval is not positive and finite, *missed* unknown, or the
                slack out of range.
        """
        interval = float(interval)
        if not 0 < interval < float("inf"):
            raise ValueError(f"interval must be positive and finite seconds, not {interval!r}")
        if missed not in _MISSED:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        first = interval if first is None else float(first)
        return self._add(self._now() + first, interval, _MISSED[missed], callback, args, slack)

    def _cancel(self, timer):
        with self._lock:
            if timer._ticker is None:
                return False
            timer._ticker = None
            entry, timer._entry = timer._entry, None
            if entry is not None:
                entry[2] = None
                self._dead += 1
                if self._dead > 64 and self._dead > len(self._heap) // 2:
                    self._heap = [e for e in self._heap if e[2] is not None]
                    heapq.heapify(self._heap)
                    self._dead = 0
            timer._callback = timer._args = None
            return True

    def _pop_due(self, now):
        """Return a timer that is due and its call, or None. The lock is held."""
        heap = self._heap
        while heap:
            timer = heap[0][2]
            if timer is None:
                heapq.heappop(heap)
                self._dead -= 1
                continue
            if timer._when > now:
                return None
            heapq.heappop(heap)
            timer._entry = None
            timer.runs += 1
            call = timer._callback, timer._args
            if timer.interval is None:
                timer._ticker = None
                timer._callback = timer._args = None
            return timer, call
        return None

    def _rearm(self, timer, now):
        """Put a periodic timer back, by its policy. The lock is held."""
        if timer._ticker is None:
            return
        interval = timer.interval
        due = timer._when
        late = int((now - due) / interval) if now > due else 0
        if timer._policy == _BURST:
            timer._when = due + interval
        elif timer._policy == _DELAY and late:
            timer.missed += late
            timer._when = now + interval
        else:
            timer.missed += late
            timer._when = due + (late + 1) * interval
        self._push(timer)

    def tick(self):
        """Fire the timers that are due; return how many did."""
        now = self._now()
        fired = 0
        while not self._stopping:
            with self._lock:
                due = self._pop_due(now)
                if due is not None and due[0].interval is not None:
                    self._rearm(due[0], now)
            if due is None:
                break
            callback, args = due[1]
            fired += 1
            try:
                callback(*args)
            except BaseException:
                logger.exception("exception in timer callback %r", callback)
            due = callback = args = None
        self._fires += fired
        return fired

    def run(self):
        """Fire timers as they fall due until `stop`: the body of the ticker's thread."""
        while True:
            self.tick()
            with self._lock:
                if self._stopping:
                    return
                until = self._next_due()
                pause = None if until is None else until - self._now()
                if pause is not None and pause <= 0:
                    continue
                self._asleep_until = float("inf") if until is None else until
            if pause is None:
                self._parker.acquire()
            elif not self._parker.acquire(timeout=min(pause, threading.TIMEOUT_MAX)):
                with self._lock:
                    roused = self._asleep_until is None
                    self._asleep_until = None
                if roused:
                    self._parker.acquire()

    def stop(self):
        """Make `run` return after the callbacks of this tick."""
        with self._lock:
            self._stopping = True
            rouse = self._asleep_until is not None
            self._asleep_until = None
        if rouse:
            self._parker.release()

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
        self._asleep_until = None
        self._stopping = True
        self.clear()

    def _next_due(self):
        """Return when the first timer is to fire, or None. The lock is held."""
        heap = self._heap
        while heap and heap[0][2] is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

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


class JobCore:
    """A job's own runs, where it is a coroutine on a loop that has nothing but an interval.

    Guarantees: a run is a task of its own, in a copy of the job's context, that begins
    where it is made; what ends at once costs no pass of the loop.

    Assumes: `_fire_coroutine` is called in the thread of the loop whose tasks are made by
    what `_stage` was given. ``_ready`` says that the job is armed; where it is not, there is a
    run on, or tasks cannot begin at once, ``_fire`` of the subclass is asked.
    """

    __slots__ = ("_began", "_lasted", "_ready", "_running", "_staged", "runs")

    def __init__(self):
        self.runs = 0
        self._running = 0
        self._ready = False
        self._began = None  # when the latest run did, by the ticker's clock
        self._lasted = None

    @property
    def last_duration(self):
        """How many seconds the latest run that has ended took, or None."""
        return self._lasted

    @last_duration.setter
    def last_duration(self, value):
        self._lasted = value

    def _stage(self, call, name, context, maker, ticker):
        """Take what a run needs.

        Parameters:
            maker: what makes tasks of one loop that begin to run where they are made, and
                its options; None: there is no such thing.
        """
        make, options = maker or (None, None)
        self._staged = call, name, context, make, options, ticker.now

    def _fire_coroutine(self):
        """Do what `_fire` does where `_stage` was given options: in one piece."""
        call, name, context, make, options, now = self._staged
        if not self._ready or self._running or make is None:
            self._fire()
            return
        self.runs += 1
        self._running = 1
        self._began = began = now()
        task = coro = None
        try:
            coro = call()
            task = make(coro, name=name, context=context.copy(), **options)
            if not task.done():
                self._stays_on(began, task)
                return
            task.result()
        except _TaskCancelled:
            pass
        except BaseException as exc:
            if task is None:
                with suppress(BaseException):  # it may be no coroutine
                    coro.close()
            self._failed(exc)
        self._lasted = now() - began
        self._running = 0


class EagerStart:
    """Makes tasks of a loop that begin to run where they are made.

    What ``Task(eager_start=True)`` does from CPython 3.12 on, for those before it: a new
    task asks its loop to call the first step soon. The loop's ``call_soon`` is another
    one until it does; that takes the step, which is then made at once.

    Guarantees: what cannot begin at once, as a task that is made while another one runs,
    begins in a later pass of the loop. Calls of ``call_soon`` that are not that of the
    new task reach the loop. No step is made twice, and none is lost.

    Assumes: it is called in the thread of its loop, which runs.
    """

    __slots__ = ("_busy", "_coro", "_hook", "_loop", "_names", "_step")

    def __init__(self, loop):
        names = getattr(loop, "__dict__", None)
        self._loop = loop
        self._names = names if type(names) is dict else None
        self._hook = self._call_soon
        self._busy = False  # a finalizer or signal handler may come in between
        self._coro = None  # of the task whose step is awaited
        self._step = None

    def is_possible(self):
        """Return whether the loop is one whose ``call_soon`` may be another for a moment."""
        return self._names is not None and "call_soon" not in self._names

    def make(self, coro, *, name=None, context=None):
        """Return a task of *coro* that has made its first step, in *context*."""
        loop = self._loop
        if self._busy or not self.is_possible():
            return Task(coro, loop=loop, name=name, context=context)
        try:
            self._busy = True
            self._coro = coro
            self._names["call_soon"] = self._hook
            task = Task(coro, loop=loop, name=name, context=context)
            step = self._step
        finally:
            self._restore()
            self._step = None
            self._busy = False
        if step is not None:
            self._make_step(task, *step)
        return task

    def _make_step(self, task, step, context):
        """Make the first step, or have it made soon where it cannot be made now."""
        begun = []
        try:
            context.run(lambda: (begun.append(None), step()))
        except BaseException as exc:
            # The context is in use, or another task of the loop runs.
            if isinstance(exc, RuntimeError) and not (
                begun and current_task(self._loop) is None
            ):
                self._loop.call_soon(step, context=context)
                return
            if task.done() and not task.cancelled():
                task.exception()  # or it would complain that nobody asked for it
            raise

    def _restore(self):
        self._coro = None
        found = self._names.pop("call_soon", None)
        if found is not None and found is not self._hook:
            self._names["call_soon"] = found

    def _call_soon(self, callback, *args, context=None):
        """Be the loop's ``call_soon``, once."""
        coro = self._coro
        self._restore()
        task = getattr(callback, "__self__", None)
        if context is not None and isinstance(task, Task) and task.get_coro() is coro:
            self._step = callback, context
            return None
        return self._loop.call_soon(callback, *args, context=context)


class Mailbox:
    """A queue into another thread's loop that costs one wake-up per burst.

    Guarantees: every item that `post` accepted is handed to *handle* once, in order,
    by `drain`, or is returned by `close`.

    Assumes: ``wake()`` makes the loop call `drain` soon, in its own thread, and may
    be called from any thread.

    The lock protects the items and whether a wake-up is on its way.
    """

    __slots__ = ("_closed", "_handle", "_items", "_lock", "_posted", "_wake")

    def __init__(self, wake, handle):
        self._wake = wake
        self._handle = handle
        self._lock = threading.RLock()
        self._items = []
        self._posted = False
        self._closed = False

    def post(self, item):
        """Hand over an item; return False if the mailbox is closed.

        If the loop cannot be woken the item is taken back, and the exception raised.
        """
        with self._lock:
            if self._closed:
                return False
            self._items.append(item)
            first = not self._posted
            self._posted = True
        if first:
            try:
                self._wake()
            except BaseException:
                if self._take_back(item):
                    raise
                # Somebody else's wake-up has come so far.
        return True

    def _take_back(self, item):
        """Let the next item wake the loop, and take this one out; False if it is gone."""
        with self._lock:
            self._posted = False
            for at, other in enumerate(self._items):
                if other is item:
                    del self._items[at]
                    return True
        return False

    def drain(self):
        """Handle what was posted: called in the loop's thread."""
        with self._lock:
            items, self._items = self._items, []
            self._posted = False
        for item in items:
            try:
                self._handle(item)
            except BaseException:
                logger.exception("exception in the handler of a mailbox")

    def close(self):
        """Refuse further items and return those that were not handled."""
        with self._lock:
            self._closed = True
            items, self._items = self._items, []
        return items

    def abandon(self):
        """Do what `close` does, in a forked child."""
        self._lock = threading.RLock()
        return self.close()

    def __len__(self):
        return len(self._items)


class Tally:
    """The counters of a worker, over all its lives."""

    __slots__ = ("errors", "missed", "runs")

    def __init__(self):
        self.runs = 0
        self.missed = 0
        self.errors = 0


class SerialCore:
    """The tokens that keep runs of a worker one after another, and those in the pool.

    Guarantees: never two runs at once. Who finds the worker busy leaves word of what is
    due, and the run that is on sees to it when it ends.

    Two tokens keep that without a lock. ``idle`` is there while no run is on or claimed;
    who takes it has claimed a run. ``queued`` is there from then on until the run begins;
    who takes it begins the run, or makes it void. Word is left before ``idle`` is looked
    at, and looked for after it was put back; so one of the two sees the other. ``pending``
    is such a word: a run is wanted that begins from now on. Here they are sets, whose
    operations are atomic and ordered; in the compiled core they are bytes that are
    exchanged.

    Assumes: `_stage` was called before there is a run. A life has `want`, `failed`,
    `returned`, `after_run`, `settle`, `enter_at` and `fire_while_busy`, and `on_run` if it
    has no spacing; a subclass has `enter_taken`, and `enter_slowly` for a pool that does
    not take the run as it is.
    ``owed`` is protected by the life's lock.
    """

    __slots__ = (
        "_checks",
        "_idle",
        "_kwargs",
        "_lane",
        "_late",
        "_life",
        "_now",
        "_open",
        "_paces",
        "_pending",
        "_queued",
        "_run",
        "_spacing",
        "_tally",
        "_task",
        "_thread",
        "not_before",
        "owed",
    )

    def __init__(self):
        self._idle = {None}
        self._queued = set()
        self._pending = set()
        self._open = True
        self._late = False
        self._task = None
        self._thread = 0
        self.owed = 0
        self.not_before = 0.0  # by the clock; touched by who has claimed a run

    def _stage(self, life, tally, run, kwargs, lane, clock, *, checks, paces, spacing):
        """Take what runs need.

        Parameters:
            run, kwargs: what is called, and its keywords.
            lane: of the pool that they are made in, or None.
            spacing: least seconds between the beginnings of two prompted runs; None: the
                life sees to what is pending or late as a run begins, in `on_run`.
        """
        self._life = life
        self._tally = tally
        self._run = run
        self._kwargs = kwargs
        self._lane = lane
        self._now = clock.now
        self._checks = checks
        self._paces = paces
        self._spacing = spacing

    @property
    def idle(self):
        """Whether no run is on or claimed."""
        return bool(self._idle)

    @property
    def queued(self):
        """Whether a claimed run has not begun."""
        return bool(self._queued)

    @property
    def pending(self):
        """Whether a run is wanted that begins from now on."""
        return bool(self._pending)

    @pending.setter
    def pending(self, value):
        if value:
            self._pending.add(None)
        else:
            self._pending.clear()

    @property
    def open(self):
        """Whether runs may begin."""
        return self._open

    @open.setter
    def open(self, value):
        self._open = value

    @property
    def late(self):
        """Whether something fell due and did not begin at once."""
        return self._late

    @late.setter
    def late(self, value):
        self._late = value

    @property
    def thread(self):
        """The identifier of the thread that the run is on in, or 0."""
        return self._thread

    @thread.setter
    def thread(self, value):
        self._thread = value

    @property
    def task(self):
        """The latest run, or what makes all of them, or None."""
        return self._task

    @task.setter
    def task(self, value):
        self._task = value

    def take_idle(self):
        """Take what says that no run is on; return False if it was not there."""
        return _take(self._idle)

    def put_idle(self):
        """Put it back."""
        self._idle.add(None)

    def take_queued(self):
        """Begin or make void the claimed run; return False if there is none."""
        return _take(self._queued)

    def put_queued(self):
        """Have a run claimed that is to begin."""
        self._queued.add(None)

    def claim(self):
        """Claim a run, to be entered; return False if one is on its way or on."""
        if not _take(self._idle):
            return False
        self._queued.add(None)
        return True

    def prompt(self, hold=False):
        """Have a run begin that begins from now on, if none is to, or `not_before`.

        Returns:
            Whether one was claimed that is yet to be entered when it is due; with *hold*
            the caller is to do so in any case.
        """
        self._pending.add(None)
        if not self._life.begun and not self._life.want():
            return False
        if not self.claim():
            return False
        # What the run before has set is looked at now that it has ended.
        if hold or (self.not_before and self.not_before > self._now()):
            return True
        self.enter()
        return False

    def trigger(self):
        """Prompt a run, to begin when it is due; return False if none may begin."""
        if not self._open:
            return False
        if self.prompt():
            self._life.enter_at(self.not_before)
        return True

    def answer(self):
        """See to what is pending or late as a run begins that makes up for it."""
        if self._spacing is None:
            self._life.on_run()
            return
        self._pending.clear()
        self._late = False
        if self._spacing:
            self.not_before = self._now() + self._spacing

    def fire(self):
        """Make a run due: on the tick, or in the loop."""
        try:
            self._idle.pop()
        except KeyError:
            self._life.fire_while_busy()
            return
        if self._lane is None:
            self.enter_taken()
        else:
            self._queued.add(None)
            self.enter()

    def enter(self):
        """Hand the claimed run to the pool."""
        lane = self._lane
        if lane is not None and lane._dispatcher._launcher is None:
            dispatcher = lane._dispatcher
            # In an empty context: a run is not to see that of who triggers it.
            task = Context().run(dispatcher.make, self.turn, (), None, lane._lane)
            try:
                dispatcher.enqueue(task)
                self._task = task
                return
            except (RuntimeError, MemoryError):  # runs may yet be let in while workers stop
                task.cancel()
        self.enter_slowly()

    def turn(self):
        """Make the claimed run: in a thread of the pool."""
        try:
            self._queued.pop()
        except KeyError:
            return  # void
        life = self._life
        if self._open:
            if self._pending or self._late:
                self.answer()
            self._tally.runs += 1
            self._thread = get_ident()
            try:
                result = self._run(**self._kwargs)
            except BaseException:
                life.failed()
            else:
                if result is False or self._checks:
                    life.returned(result)
            self._thread = 0
            if self._paces:
                life.after_run()
        self._idle.add(None)
        if self.owed or self._pending or not self._open:
            life.settle()


def _take(tokens):
    """Take the token out of a set; return False if it is empty."""
    try:
        tokens.pop()
    except KeyError:
        return False
    return True


__all__ = [
    "COMPILED",
    "Dispatcher",
    "EagerStart",
    "FutureCore",
    "JobCore",
    "Mailbox",
    "SerialCore",
    "Submitter",
    "Tally",
    "TaskCore",
    "TickerCore",
    "TimerCore",
]
