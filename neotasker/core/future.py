"""Futures: the state machine of the standard's future, without its costs.

**Guarantees**, **assumes**: see `FutureCore`.

There is no lock, so that a signal handler or finalizer, which may run between any two
instructions of Python, never waits for its own thread. What happens to a future is a list of
steps, its log. Nothing is taken out of it. An operation appends its step, which is one atomic
operation, also without the GIL, and reads then what has come of it: `follow` tells the same to
everybody, since the steps lie in one order. An outcome is in the log as a whole or not at all;
whoever meets it there notes it in the future, and that is the same for all.

What is to be done at the end, waking and calling, lies in a second list, the first one that
the log has. Who adds to it looks at the log again afterwards; who ends the future appends the
outcome first and then copies the list. Each is one operation under the list's own lock, if
there is no GIL: so one of the two sees the other, and both may. A callback lies in a cell,
out of which only one of them can take it.

The compiled twin, ``future.pxi``, has a mutex of one byte for each future, under which nothing
else runs.
"""

from __future__ import annotations

import threading
from _thread import interrupt_main
from collections import deque
from concurrent.futures import CancelledError, InvalidStateError

from ..base.clock import monotonic
from ..base.for_asyncio import told_to
from ..base.green import need_threads
from ..base.report import Reporter
from ..errors import UnexpectedState
from .parking import is_main_thread, make_parker, this_thread, wait_limit

__all__ = [
    "CANCELLED",
    "FINISHED",
    "PENDING",
    "RUNNING",
    "TRIES",
    "FutureCore",
    "Waiters",
    "follow",
    "report_callback",
]

logger = Reporter("neotasker")
_standard_logger = Reporter("concurrent.futures")

PENDING, RUNNING, CANCELLED, FINISHED = range(4)
_STATES = ("PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
_WORDS = ("pending", "running", "cancelled", "finished")

# A step of a log is a tuple of phase, whether it failed, and value; with one more item it was
# made under the condition of the standard. Here is which phases may follow which.
_FOLLOWERS = ((RUNNING, CANCELLED, FINISHED), (PENDING, FINISHED), (), ())
_START = (PENDING, False, None)

TRIES = 5  # to tell those who wait for a future that it has ended
_DEEPEST = 32  # callbacks that end other futures, one within the other


class _Callbacks(threading.local):
    """How deep this thread is in callbacks, and what it has put off."""

    depth = 0
    put_off: deque | None = None


_callbacks = _Callbacks()


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


class Standard:
    """What the standard's ``wait`` and ``as_completed`` poke at, once they did."""

    __slots__ = ("condition", "waiters")

    def __init__(self, waiters):
        self.condition = threading.Condition()
        self.waiters = waiters


def follow(log, mine=None):
    """Return the step that a future is at: by its whole log, or by what comes up to *mine*.

    What may not follow is void. So is an outcome that was not made under the condition of
    the standard, where that lies before it.
    """
    now = _START
    watched = False
    for step in log:
        if type(step) is tuple:
            phase = step[0]
            if phase in _FOLLOWERS[now[0]] and (
                not watched or phase < CANCELLED or len(step) > 3
            ):
                now = step
            if step is mine:
                break
        elif type(step) is Standard:
            watched = True
    return now


def _survey(log):
    """Return the phase that a future is in, and what the standard's functions look at, or None.

    It calls as deep as what is to be done at the end does, down to a callback: so where the
    limit of recursion is near, it is met before anything was done.
    """
    _go_deep(3)
    if len(log) == 1 and type(log[0]) is list:
        return PENDING, None
    now = follow(log)
    for step in log:
        if type(step) is Standard:
            return now[0], step
    return now[0], None


def _go_deep(levels):
    if levels:
        _go_deep(levels - 1)


def _add(log, thing):
    """Have a callback, in a cell, or who waits seen to at the end.

    Returns:
        The list that it lies in, and whether it is sure that the future has not ended before.
    """
    known = len(log)
    mine = None
    if not known or (known == 1 and type(log[0]) is tuple and log[0][0] == RUNNING):
        mine = [thing]
        log.append(mine)
        if len(log) == known + 1:
            return mine, True
    while True:
        for things in log:
            if type(things) is list:
                if things is not mine:
                    things.append(thing)
                return things, False
        log.append([])  # somebody else's may be before it


def report_callback(future):
    """Report the exception of a callback; without memory for that, others are to be called."""
    try:  # noqa: SIM105 - `suppress` is a call more, for which there may be no depth left
        _standard_logger.exception("exception calling callback for %r", future)
    except BaseException:
        pass


def _call_back(future, cell, raised):
    """Call what is in a cell, unless it was called; note what is to be raised."""
    try:
        fn = cell.pop()
    except IndexError:
        return
    try:
        if future._failed and isinstance(future._value, StopIteration):
            fn(told_to(fn, future, future._value))
        else:
            fn(future)
    except Exception:
        report_callback(future)
    except BaseException as exc:
        if raised or not is_main_thread():  # one can be raised
            report_callback(future)
        else:
            raised.append(exc)


def _call_all(future, cells):
    """Call the callbacks of an ended future, in order.

    A callback may end another future, whose callbacks end the next one, and so on. Beyond a
    certain depth they are put off until the callback that ended the future has returned, so
    that no chain is too long.

    What they raise is logged. In the main thread what is no `Exception`, as Ctrl+C, is raised
    when all have been called; in any other it would end the thread.

    Raises:
        BaseException: the first of these.
    """
    mine = _callbacks
    depth = mine.depth
    put_off = mine.put_off
    if put_off is None:
        put_off = mine.put_off = deque()
    if depth >= _DEEPEST:
        put_off.extend([(future, cell) for cell in cells])
        return
    mine.depth = depth + 1
    work = iter(cells)
    raised = []
    try:
        while True:
            try:
                for cell in work:
                    _call_back(future, cell, raised)
                    while put_off:
                        _call_back(*put_off.popleft(), raised)
                while put_off:
                    _call_back(*put_off.popleft(), raised)
                break
            except BaseException as exc:  # of a signal handler, between two of them
                raised.append(exc)
        if raised:
            raise raised[0]
    finally:
        mine.depth = depth
        raised = None  # the traceback would hold the frame that holds it


class FutureCore:
    """The state machine of ``concurrent.futures.Future``, without its costs.

    Guarantees: a future ends once; whoever waits for it is woken, and its callbacks
    run once each, in the order in which they were added, in the thread that ended
    it. A lock to wait on exists only while somebody waits, the ``Condition`` of the
    standard only after somebody touched ``_condition``. No chain of futures that end one
    another in their callbacks is too long: see `_call_all`. What a callback raises
    is logged; in the main thread what is no `Exception`, as Ctrl+C, is raised to whoever ended
    the future, when all others have been called.

    Assumes: a subclass derives from ``concurrent.futures.Future`` too, so that
    ``isinstance`` holds; ``Future.__init__`` is never called.

    A cancelled future goes to ``CANCELLED_AND_NOTIFIED`` at once: the standard's
    ``CANCELLED`` lasts until a pool thread comes across the future, and ``wait``
    sleeps that long.
    """

    # Slots, because the interpreter is quick with them; what is seldom asked for has a
    # default in the class, which an instance shadows when it comes to that.
    __slots__ = (
        "__dict__",
        "_failed",  # these two are there before the phase is
        "_log",  # until it has ended
        "_phase",  # PENDING until it has ended: whether it runs is in the log
        "_value",
    )
    _seen = False
    _standard = None

    def __init__(self):
        self._phase = PENDING
        self._failed = False
        self._value = None
        self._log = []

    # What the standard functions touch.

    @property
    def _state(self):
        return _STATES[self._look()]

    @property
    def _condition(self):
        return self._watch().condition

    @property
    def _waiters(self):
        return self._watch().waiters

    def _watch(self):
        """Return what the standard's functions look at; an end is told there from now on."""
        standard = self._standard
        if standard is None:
            standard = self.__dict__.setdefault("_standard", Standard(self._make_waiters()))
        log = self._log
        if log is not None and _survey(log)[1] is None:
            log.append(standard)
        return standard

    def _make_waiters(self):
        return []

    @property
    def _result(self):
        return self._value if self._look() == FINISHED and not self._failed else None

    @property
    def _exception(self):
        return self._value if self._look() == FINISHED and self._failed else None

    def _get_snapshot(self):
        """Return ``(done, cancelled, result, exception)`` of one moment."""
        phase = self._look()
        if phase != FINISHED:
            return (phase == CANCELLED, phase == CANCELLED, None, None)
        if self._failed:
            self._seen = True
            return (True, False, None, self._value)
        return (True, False, self._value, None)

    # Asking.

    def _look(self):
        """Return the phase, by the log if the end was not noted yet."""
        log = self._log
        if self._phase < CANCELLED and log is not None:
            step = follow(log)
            if step[0] < CANCELLED:
                return step[0]
            self._note(step)
        return self._phase

    def _note(self, step):
        """Note the outcome, for those who do not look at the log."""
        phase, self._failed, self._value = step[:3]
        self._phase = phase

    def cancelled(self):
        """Return whether the future was cancelled."""
        return self._phase == CANCELLED

    def running(self):
        """Return whether the call is being executed."""
        return self._look() == RUNNING

    def done(self):
        """Return whether the future was cancelled or has finished."""
        return self._phase >= CANCELLED

    def _await_done(self, timeout):
        limit = -1 if timeout is None else wait_limit(timeout)
        log = self._log
        if not limit or log is None:
            return self._look() >= CANCELLED
        need_threads()
        if self._standard is not None and self._condition._is_owned():
            # By a function of the standard that a signal handler has interrupted: who ends
            # the future has to have it.
            if self._look() < CANCELLED:
                self._condition.wait(None if limit < 0 else limit)
            return self._look() >= CANCELLED
        parker = make_parker()
        things, sure = _add(log, parker)
        woken = aside = ours = False
        dispatcher = getattr(this_thread, "dispatcher", None)
        try:
            if not sure and self._look() >= CANCELLED:
                return True
            if dispatcher is not None:
                ours = dispatcher is getattr(self, "_dispatcher", None)
                aside = True
                dispatcher._step_aside(ours)
            woken = parker.acquire(True, limit)
        finally:
            if aside:
                dispatcher._step_back(ours)
            if not woken:
                things.remove(parker)
        return woken or self._look() >= CANCELLED

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
        cell = [fn]
        log = self._log
        if self._phase < CANCELLED and log is not None:
            _, sure = _add(log, cell)
            if sure or self._look() < CANCELLED:
                return
        _call_all(self, [cell])

    # Moving on.

    def _settle(self, phase, failed, value, step=None):
        """End the future, wake those who wait, run the callbacks; False if it is too late.

        Parameters:
            step: what the log may have of it already.
        """
        log = self._log
        if log is None:
            return False
        try:
            if step is None:
                step = (phase, failed, value)
                if not log:
                    log.append(step)
                    if len(log) == 1:  # there is nobody to be told
                        self._failed = failed
                        self._value = value
                        self._phase = phase
                        self._log = None
                        if phase == CANCELLED:
                            self._withdraw()
                        return True
                else:
                    now, standard = _survey(log)
                    if phase not in _FOLLOWERS[now]:
                        self._look()
                        return False
                    if standard is None:
                        log.append(step)
            if self._conclude(log, step):
                return True
            now, standard = _survey(log)
            if standard is not None and phase in _FOLLOWERS[now]:
                step = (phase, failed, value, True)
                self._enter_watched(standard, log, step)
                if self._conclude(log, step):
                    return True
        except BaseException:  # of a callback, or of a signal handler: the rest is to be told
            if step is not None:
                self._conclude(log, step)
            raise
        self._look()
        return False

    def _conclude(self, log, step):
        """Tell who waits and run the callbacks, if it is by that step that the future ended.

        Returns:
            Whether it is.
        """
        if len(log) == 2 and type(log[0]) is list and log[1] is step:
            pass  # somebody is to be told, and nothing else has happened
        elif follow(log, step) is not step:
            return False
        self._failed = step[1]
        self._value = step[2]
        self._phase = step[0]
        self._log = None
        error = None
        if step[0] == CANCELLED:
            try:
                self._withdraw()
            except BaseException as exc:  # those who wait are to be told first
                error = exc
        for things in log:
            if type(things) is list:
                cells = None
                for thing in things.copy():
                    if type(thing) is list:
                        if cells is None:
                            cells = []
                        cells.append(thing)
                    else:
                        try:  # noqa: SIM105
                            thing.release()
                        except RuntimeError:  # it was, before a signal handler came between
                            pass
                if cells is not None:
                    _call_all(self, cells)
                break
        if error is not None:
            try:
                raise error
            finally:
                error = None  # the traceback would hold the frame that holds it
        return True

    def _withdraw(self):
        """Do what is to be done when the future was cancelled, before anybody is told."""

    def _enter_watched(self, standard, log, step):
        """Take a final phase where the standard's functions look on, under the condition.

        What fails meanwhile, as a thread may be out of memory or interrupted at any moment,
        is tried again: those who wait must hear of it.
        """
        interrupted = []
        held = self._firmly(interrupted, standard.condition.acquire)
        try:
            log.append(step)
            if follow(log, step) is step:
                self._note(step)
                for waiter in standard.waiters:
                    self._firmly(interrupted, self._tell, waiter)
                self._firmly(interrupted, standard.condition.notify_all)
        finally:
            if held:
                self._firmly(interrupted, standard.condition.release)
        if interrupted:
            interrupt_main()  # not lost, but only now

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
        """Make a step of `_enter_watched`, again if it fails; return whether it succeeded."""
        error = None
        for tries in range(TRIES):
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
        try:  # noqa: SIM105
            logger.error("not everybody could be told of the end of a future", exc_info=error)
        except BaseException:
            pass
        return False

    def cancel(self):
        """Cancel the future unless it runs or has finished; return whether it is cancelled."""
        return self._settle(CANCELLED, False, None) or self._phase == CANCELLED

    def set_running_or_notify_cancel(self):
        """Mark the future as running; return False if it was cancelled."""
        if self._set_running(monotonic()):
            return True
        if self._phase == CANCELLED:
            return False
        _standard_logger.critical("Future %s in unexpected state: %s", id(self), self._state)
        raise UnexpectedState("Future in unexpected state")

    def _set_running(self, now):
        """Move from pending to running; return False if that cannot be."""
        log = self._log
        if log is None or self._look() != PENDING:
            return False
        step = (RUNNING, False, now)  # the time makes it another one each time
        log.append(step)
        if follow(log, step) is step:
            return True
        self._look()
        return False

    def set_result(self, result):
        """End the future with a result."""
        if not self._settle(FINISHED, False, result):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception):
        """End the future with an exception; None is a result.

        Raises:
            TypeError: it is no exception.
        """
        failed = exception is not None
        if failed and not isinstance(exception, BaseException):
            check_exception(exception)
        if not self._settle(FINISHED, failed, exception):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _abandon(self, error=None):
        """End the future without a word, cancelled or with *error*: in a forked child.

        Who waits for it is the parent's, and so are the callbacks.
        """
        self.__dict__.pop("_standard", None)
        log = self._log
        if log is None or self._look() >= CANCELLED:
            self._log = None
            return
        began = self._look() == RUNNING
        self._seen = True
        phase = CANCELLED if error is None else FINISHED
        step = (phase, error is not None, error, True)
        log[:] = [step, step]  # whoever is about to end it in this thread comes too late
        self._note(step)
        self._log = None
        if not began:
            self._let_go()

    def _let_go(self):
        """Let go of what is called: that of a task which never will be."""

    def __repr__(self):
        phase = self._look()
        text = f"<{type(self).__name__} at {id(self):#x} state={_WORDS[phase]}"
        if phase == FINISHED:
            verb = "raised" if self._failed else "returned"
            text += f" {verb} {type(self._value).__name__}"
        return text + ">"

    def __del__(self):
        try:
            missed = self._failed and not self._seen
        except AttributeError:  # it was never initialised
            return
        if missed:
            logger.error(
                "exception of a future was never retrieved: %s at %#x",
                type(self).__name__,
                id(self),
                exc_info=self._value,
            )


def check_exception(exception):
    """Refuse what cannot be raised."""
    if not (isinstance(exception, type) and issubclass(exception, BaseException)):
        raise TypeError(f"an exception is needed, or None, not {exception!r}")
