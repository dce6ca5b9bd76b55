"""Futures: the state machine of the standard's future, without its costs.

**Guarantees**, **assumes**: see `FutureCore`.

One lock protects the phase, value and lists of every future. It is reentrant, because the
garbage collector and signal handlers may run foreign code between two instructions of a
locked section; each section keeps its structures consistent before every call that it makes.
A future's ``_condition``, which only the standard library's ``wait`` and ``as_completed``
bring into being, is taken before that lock and never inside another one.

The compiled twin, ``future.pxi``, has a mutex of one byte for each future, and no such points.
"""

from __future__ import annotations

import os
import threading
from _thread import interrupt_main
from concurrent.futures import CancelledError, InvalidStateError
from contextlib import suppress

from ..base.report import Reporter
from .parking import make_parker, this_thread

__all__ = [
    "CANCELLED",
    "FINISHED",
    "PENDING",
    "RUNNING",
    "FutureCore",
    "Waiters",
    "state_acquire",
    "state_lock",
    "state_release",
]

logger = Reporter("neotasker")
_standard_logger = Reporter("concurrent.futures")

PENDING, RUNNING, CANCELLED, FINISHED = range(4)
_STATES = ("PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
_WORDS = ("pending", "running", "cancelled", "finished")

_TRIES = 5  # to tell those who wait for a future that it has ended

state_lock = threading.RLock()
# Bound once: the statement `with` costs more than what it guards in the hot path.
state_acquire, state_release = state_lock.acquire, state_lock.release


def _free_in_child():
    """Free the lock from threads that are not in the child; one of this thread goes on."""
    if not state_lock._is_owned():
        state_lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_in_child)


class PatientEvent(threading.Event):
    """An event on which a pool thread waits without keeping its place."""

    def wait(self, timeout=None):
        dispatcher = getattr(this_thread, "dispatcher", None)
        if self.is_set() or dispatcher is None:
            return super().wait(timeout)
        dispatcher._step_aside(True)
        try:
            return super().wait(timeout)
        finally:
            dispatcher._step_back(True)


class Waiters(list):
    """The waiters of a task; those of its pool's own threads learn to give way."""

    __slots__ = ("owner",)

    def append(self, waiter):
        dispatcher = getattr(this_thread, "dispatcher", None)
        if (
            dispatcher is not None
            and dispatcher is self.owner
            and not isinstance(waiter.event, PatientEvent)
        ):
            waiter.event = PatientEvent()
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
        self._phase = PENDING
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
            with state_lock:
                if self._condition_made is None:
                    self._condition_made = fresh
                made = self._condition_made
        return made

    @property
    def _waiters(self):
        with state_lock:
            if self._waiters_made is None:
                self._waiters_made = self._make_waiters()
            return self._waiters_made

    def _make_waiters(self):
        return []

    @property
    def _result(self):
        return self._value if self._phase == FINISHED and not self._failed else None

    @property
    def _exception(self):
        return self._value if self._failed else None

    def _get_snapshot(self):
        """Return ``(done, cancelled, result, exception)`` of one moment."""
        with state_lock:
            phase, failed, value = self._phase, self._failed, self._value
            if failed:
                self._seen = True
        if phase == FINISHED:
            return (True, False, None, value) if failed else (True, False, value, None)
        return (phase == CANCELLED, phase == CANCELLED, None, None)

    # Asking.

    def cancelled(self):
        """Return whether the future was cancelled."""
        return self._phase == CANCELLED

    def running(self):
        """Return whether the call is being executed."""
        return self._phase == RUNNING

    def done(self):
        """Return whether the future was cancelled or has finished."""
        return self._phase >= CANCELLED

    def _await_done(self, timeout):
        with state_lock:
            if self._phase >= CANCELLED:
                return True
            parker = make_parker()
            if self._parked is None:
                self._parked = []
            self._parked.append(parker)
        dispatcher = getattr(this_thread, "dispatcher", None)
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
        return self._phase >= CANCELLED

    def _unpark(self, parker):
        with state_lock:
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
        if self._phase < CANCELLED and not self._await_done(timeout):
            raise TimeoutError()
        if self._phase == CANCELLED:
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
        if self._phase < CANCELLED and not self._await_done(timeout):
            raise TimeoutError()
        if self._phase == CANCELLED:
            raise CancelledError()
        if self._failed:
            self._seen = True
            return self._value
        return None

    def add_done_callback(self, fn):
        """Call ``fn(future)`` when the future ends; at once if it has."""
        with state_lock:
            if self._phase < CANCELLED:
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
        if self._phase >= CANCELLED or (phase == CANCELLED and self._phase == RUNNING):
            return False
        self._failed = failed
        self._value = value
        self._phase = phase
        return True

    def _settle(self, phase, failed, value):
        """End the future, wake those who wait, run the callbacks; False if it is too late."""
        with state_lock:
            condition = self._condition_made
            if condition is None and not self._enter(phase, failed, value):
                return False
        if condition is not None and not self._settle_watched(condition, phase, failed, value):
            return False
        if phase == CANCELLED:
            self._withdraw()
        self._wake()
        return True

    def _wake(self):
        """Wake those who wait for the ended future, and run its callbacks."""
        with state_lock:
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
        with state_lock:
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
        elif self._phase == CANCELLED:
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
        return self._settle(CANCELLED, False, None) or self._phase == CANCELLED

    def set_running_or_notify_cancel(self):
        """Mark the future as running; return False if it was cancelled."""
        with state_lock:
            if self._phase == PENDING:
                self._phase = RUNNING
                return True
            if self._phase == CANCELLED:
                return False
        _standard_logger.critical("Future %s in unexpected state: %s", id(self), self._state)
        raise InvalidStateError("Future in unexpected state")

    def set_result(self, result):
        """End the future with a result."""
        if not self._settle(FINISHED, False, result):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception):
        """End the future with an exception."""
        if not self._settle(FINISHED, True, exception):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _abandon(self, error=None):
        """End the future without a word, cancelled or with *error*: in a forked child.

        Who waits for it is the parent's, and so are the callbacks.
        """
        self._parked = self._callbacks = self._condition_made = self._waiters_made = None
        if self._phase >= CANCELLED:
            return
        began = self._phase == RUNNING
        self._seen = True
        self._failed = error is not None
        self._value = error
        self._phase = CANCELLED if error is None else FINISHED
        if not began:
            self._let_go()

    def _withdraw(self):
        """Leave what a cancelled future waits in, before its callbacks are called."""

    def _let_go(self):
        """Let go of what is called: that of a task which never will be."""

    def __repr__(self):
        phase, value = self._phase, self._value
        text = f"<{type(self).__name__} at {id(self):#x} state={_WORDS[phase]}"
        if phase == FINISHED:
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
