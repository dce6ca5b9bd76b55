# cython: language_level=3, freethreading_compatible=True, binding=True, embedsignature=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: unraisable_tracebacks=False
"""The compiled core. What it does is defined, and said at length, in ``_core_py.py``.

This file says how: which structures are C, what protects them, and why that holds
without the GIL.

- Every future, dispatcher, ticker, mailbox carries a mutex of one byte. No two are
  held at once, but for that of a pool thread's place, which is taken inside the
  dispatcher's. Between lock and unlock nothing is created, nothing is let go whose end
  could run user code, and the interpreter is not left; references that leave a structure
  under a lock are moved to a local and dropped after the unlock.
- A future's phase is an atomic byte, stored with release after the value and loaded
  with acquire before it, so that ``done()`` and a finished ``result()`` take no lock.
- Whoever sleeps does so on a `Parker`, a lock of the interpreter's that is held while
  it is in nobody's hands. Parkers are kept and reused, never freed while a late
  release might still touch them.
- A task is hidden from the garbage collector until it can be part of a cycle: while it
  waits or runs the dispatcher owns it, and a result that holds no references makes no
  cycle. So is its copy of the context, which nobody else holds; of an empty one there is
  no copy, the task runs in a new one. A long queue so costs the collector nothing. Without
  the GIL nothing is hidden: that collector looks at all the memory each time, and does so
  the less often the more it knows of.
- A job that an interval makes due is looked at by the thread of its loop alone.
- The runs of a worker are kept apart by two bytes that are exchanged; see `SerialCore`.
- Timers of one interval wait in a line, and only the first of each line is in the heap.
- Lanes are lists linked through the tasks themselves: queueing allocates nothing, and
  a task that is cancelled is taken out of the middle.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_Clear, PyErr_SetInterrupt
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_REFCNT, Py_XDECREF
from libc.math cimport NAN, isnan
from libc.string cimport memset

import contextvars
import functools
import logging
import os
import threading
from asyncio import CancelledError as _TaskCancelled
from asyncio import Task, current_task
from concurrent.futures import CancelledError, InvalidStateError

from .errors import QueueFull
from .priority import UNLIMITED

cdef extern from "_platform.h":
    ctypedef struct nt_mutex:
        pass
    void nt_lock(nt_mutex *m)
    void nt_unlock(nt_mutex *m)
    unsigned char nt_load(unsigned char *p) nogil
    void nt_store(unsigned char *p, unsigned char v) nogil
    unsigned char nt_swap(unsigned char *p, unsigned char v) nogil
    long long nt_now() nogil
    void nt_pause() nogil
    const bint FREE_THREADED "NT_FREE_THREADED"
    unsigned int nt_load32(unsigned int *p) nogil
    void nt_store32(unsigned int *p, unsigned int v) nogil
    void nt_prefetch(const void *address) nogil
    void nt_prefetch_owner(object callback) nogil
    void nt_prefetch_write(const void *address) nogil
    void *nt_array(
        size_t size, size_t offset, const void *old, size_t used, void **block) nogil
    void *nt_get_place() nogil
    void nt_set_place(void *place) nogil
    PyObject *nt_take_exception()
    void nt_hide(PyObject *op)
    void nt_lend(PyObject *op)
    void nt_hand_over(PyObject *op)
    bint nt_is_coroutine_function(object fn)
    object nt_new(object type, object no_args)
    object nt_call_named(object fn, tuple names, tuple values)
    PyObject *nt_copy_context() except? NULL
    bint nt_is_untouched(PyObject *context)

cdef extern from "pythread.h":
    ctypedef void *PyThread_type_lock
    ctypedef long long PY_TIMEOUT_T
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PY_TIMEOUT_T PY_TIMEOUT_MAX
    PyThread_type_lock PyThread_allocate_lock() nogil
    void PyThread_free_lock(PyThread_type_lock lock) nogil
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, PY_TIMEOUT_T microseconds, int intr_flag) nogil
    void PyThread_release_lock(PyThread_type_lock lock) nogil
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "Python.h":
    PyObject *PyContext_New()
    int PyContext_Enter(PyObject *context)
    int PyContext_Exit(PyObject *context)
    int enter_context "PyContext_Enter" (object context) except -1
    int exit_context "PyContext_Exit" (object context) except -1
    PyObject *raw_call "PyObject_Call" (PyObject *fn, PyObject *args, PyObject *kwargs)
    PyObject *borrow_item "PyList_GET_ITEM" (object of_list, Py_ssize_t index)
    int PyCallable_Check(object fn)
    int PyObject_IS_GC(object op)
    int PyObject_GC_IsTracked(object op)
    void PyObject_GC_Track(PyObject *op)
    object PyMethod_New(object fn, object owner)
    object PyContext_Copy(object context)
    object PyObject_Call(object fn, tuple args, dict kwargs)
    int PyObject_GenericSetAttr(object op, object name, object value) except -1

COMPILED = True

logger = logging.getLogger("neotasker")
cdef object _standard_logger = logging.getLogger("concurrent.futures")
cdef object _Task = Task
cdef object _current_task = current_task
cdef object _partial = functools.partial
cdef object _Condition = threading.Condition
cdef object _Context = contextvars.Context
cdef tuple _NO_ARGS = ()

cdef enum:
    PENDING = 0
    RUNNING = 1
    CANCELLED = 2
    FINISHED = 3

# The steps of `settle_standard`, and how often each is tried.
cdef enum:
    ACQUIRE = 0
    TELL = 1
    NOTIFY = 2
    RELEASE = 3
    TRIES = 5

cdef enum:
    LANES = 4
    CRITICAL = 0

# In `TaskCore.warned`, above the levels of `overdue`: a launcher has a place for the task.
cdef enum:
    HANDED_OUT = 4

cdef enum:
    WHEN_FULL_BLOCK = 0
    WHEN_FULL_RAISE = 1
    WHEN_FULL_RUN = 2

cdef tuple _STATES = ("PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
cdef tuple _WORDS = ("pending", "running", "cancelled", "finished")
cdef tuple _POLICIES = ("block", "raise", "run")


# Threads.

cdef enum:
    SLICE = 1000000  # nanoseconds: a fifth of the interpreter's usual switch interval
    PATIENCE = 5000  # nanoseconds: what it takes to put a thread to sleep and to wake it

# What a function of Python does when it begins: it lets a thread have the interpreter that
# has waited for a switch interval, runs the handlers of signals, and collects garbage.
cdef object _breathe = eval("lambda: None")


cdef inline int let_others_run(long long *since, long long now) except -1:
    """Do once per slice what a function of Python does when it begins; it may raise.

    A loop that calls only what is written in C would keep all other threads from running.
    To let the interpreter go without being asked would not help: whoever waits for it would
    find it taken again, and begin to wait anew.
    """
    if now - since[0] > SLICE:
        since[0] = now
        _breathe()
    return 0


cdef inline void let_others_run_in_pool(long long *since, long long now) noexcept:
    """The same in a thread of a pool, which no exception may end: it is reported."""
    let_others_run(since, now)


cdef struct Parker:
    PyThread_type_lock lock
    Parker *next

cdef enum:
    SPARE_PARKERS = 64

cdef nt_mutex _spare_mutex  # protects the two below
cdef Parker *_spare = NULL
cdef int _spares = 0


cdef Parker *parker_get() except NULL:
    """Return a parker whose lock is held."""
    global _spare, _spares
    cdef Parker *parker
    nt_lock(&_spare_mutex)
    parker = _spare
    if parker is not NULL:
        _spare = parker.next
        _spares -= 1
    nt_unlock(&_spare_mutex)
    if parker is NULL:
        parker = <Parker *>PyMem_RawMalloc(sizeof(Parker))
        if parker is NULL:
            raise MemoryError()
        parker.lock = PyThread_allocate_lock()
        if parker.lock is NULL:
            PyMem_RawFree(parker)
            raise MemoryError()
        PyThread_acquire_lock_timed(parker.lock, -1, 0)
    parker.next = NULL
    return parker


cdef void parker_put(Parker *parker) noexcept:
    """Keep a parker, whose lock is held again, for the next who sleeps."""
    global _spare, _spares
    nt_lock(&_spare_mutex)
    if _spares < SPARE_PARKERS:
        parker.next = _spare
        _spare = parker
        _spares += 1
        parker = NULL
    nt_unlock(&_spare_mutex)
    if parker is not NULL:
        PyThread_release_lock(parker.lock)
        PyThread_free_lock(parker.lock)
        PyMem_RawFree(parker)


def _after_fork_in_child():
    """Free what a thread of the parent may have held."""
    memset(&_spare_mutex, 0, sizeof(nt_mutex))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


cdef void release_all(Parker *parker) noexcept nogil:
    cdef Parker *following
    while parker is not NULL:
        following = parker.next  # once released, it may be in other hands
        PyThread_release_lock(parker.lock)
        parker = following


cdef void push(Parker **head, Parker *parker) noexcept nogil:
    """Append a parker to a list: first in, first out."""
    while head[0] is not NULL:
        head = &head[0].next
    parker.next = NULL
    head[0] = parker


cdef bint unlink_parker(Parker **head, Parker *parker) noexcept nogil:
    """Take a parker out of a list; return whether it was there."""
    while head[0] is not NULL:
        if head[0] is parker:
            head[0] = parker.next
            return True
        head = &head[0].next
    return False


cdef long long microseconds(object timeout) except? -2:
    """Return a timeout in the unit of the interpreter's locks; None waits for ever: -1."""
    cdef double seconds
    if timeout is None:
        return -1
    seconds = timeout
    if seconds <= 0:
        return 0
    if seconds >= <double>PY_TIMEOUT_MAX * 1e-6:
        return PY_TIMEOUT_MAX
    return <long long>(seconds * 1e6 + 0.999)


cdef bint park(Parker *parker, long long timeout) except -1:
    """Sleep until the parker is released; return False if *timeout* microseconds passed.

    Signal handlers run meanwhile, and may raise.
    """
    cdef long long deadline = 0
    cdef PyLockStatus status
    if timeout > 0:
        deadline = 9000000000000000000
        if timeout < 9000000000000000:
            deadline = nt_now() + timeout * 1000
    while True:
        with nogil:
            status = PyThread_acquire_lock_timed(parker.lock, timeout, 1)
        if status == PY_LOCK_ACQUIRED:
            return True
        if status == PY_LOCK_FAILURE:
            return False
        PyErr_CheckSignals()
        if timeout > 0:
            timeout = (deadline - nt_now()) // 1000
            if timeout < 0:
                timeout = 0


# Futures.

@cython.final
cdef class _Standard:
    """What the standard's ``wait`` and ``as_completed`` poke at, once they did."""
    cdef object condition
    cdef object waiters


class _PatientEvent(threading.Event):
    """An event on which a pool thread waits without keeping its place."""

    def wait(self, timeout=None):
        cdef Place *place = <Place *>nt_get_place()
        if self.is_set() or place is NULL:
            return super().wait(timeout)
        step_aside(place, True)
        try:
            return super().wait(timeout)
        finally:
            step_back(place, True)


class _Waiters(list):
    """The waiters of a task; those of its pool's own threads learn to give way."""

    __slots__ = ("owner",)

    def append(self, waiter):
        cdef Place *place = <Place *>nt_get_place()
        if place is not NULL and place.dispatcher is <PyObject *>self.owner:
            if not isinstance(waiter.event, _PatientEvent):
                waiter.event = _PatientEvent()
        super().append(waiter)


cdef class FutureCore:
    """The state machine of ``concurrent.futures.Future``, without its costs."""

    cdef nt_mutex mutex  # protects what follows, but for reading phase
    cdef unsigned char phase
    cdef unsigned char failed
    cdef unsigned char seen
    # Of a task; here, where they fill a hole.
    cdef unsigned char lane_
    cdef unsigned char waiting  # in a lane; protected by the dispatcher's mutex
    cdef unsigned char warned  # likewise; and HANDED_OUT
    cdef unsigned char over  # the call was let go, and the time noted
    cdef object value  # the outcome; until the end, a list of the callbacks if there are any
    cdef _Standard standard
    cdef Parker *parked
    # No `__weakref__`: the standard's future, the other base of each of ours, brings it.

    def __init__(self):
        pass

    @property
    def _state(self):
        return _STATES[nt_load(&self.phase)]

    @property
    def _condition(self):
        return standard_of(self).condition

    @property
    def _waiters(self):
        return standard_of(self).waiters

    @property
    def _result(self):
        if nt_load(&self.phase) == FINISHED and not self.failed:
            return self.value
        return None

    @property
    def _exception(self):
        if nt_load(&self.phase) == FINISHED and self.failed:
            return self.value
        return None

    def _get_snapshot(self):
        """Return ``(done, cancelled, result, exception)`` of one moment."""
        cdef unsigned char phase = nt_load(&self.phase)
        if phase == FINISHED:
            if self.failed:
                self.seen = True
                return (True, False, None, self.value)
            return (True, False, self.value, None)
        return (phase == CANCELLED, phase == CANCELLED, None, None)

    def cancelled(self):
        """Return whether the future was cancelled."""
        return nt_load(&self.phase) == CANCELLED

    def running(self):
        """Return whether the call is being executed."""
        return nt_load(&self.phase) == RUNNING

    def done(self):
        """Return whether the future was cancelled or has finished."""
        return nt_load(&self.phase) >= CANCELLED

    def result(self, timeout=None):
        """Return what the call returned, or raise what it raised.

        Parameters:
            timeout: seconds to wait; None waits for ever.

        Raises:
            CancelledError: the future was cancelled.
            TimeoutError: it did not end in time.
        """
        if nt_load(&self.phase) < CANCELLED and not await_done(self, timeout):
            raise TimeoutError()
        if self.phase == CANCELLED:
            raise CancelledError()
        if self.failed:
            self.seen = True
            raise self.value
        return self.value

    def exception(self, timeout=None):
        """Return what the call raised, or None if it returned.

        Parameters:
            timeout: seconds to wait; None waits for ever.

        Raises:
            CancelledError: the future was cancelled.
            TimeoutError: it did not end in time.
        """
        if nt_load(&self.phase) < CANCELLED and not await_done(self, timeout):
            raise TimeoutError()
        if self.phase == CANCELLED:
            raise CancelledError()
        if self.failed:
            self.seen = True
            return self.value
        return None

    def add_done_callback(self, fn):
        """Call ``fn(future)`` when the future ends; at once if it has."""
        cdef list fresh = [fn]
        cdef bint done
        nt_lock(&self.mutex)
        try:
            done = self.phase >= CANCELLED
            if not done:
                if self.value is None:
                    self.value = fresh
                else:
                    (<list>self.value).append(fn)  # there may be no memory for it
        finally:
            nt_unlock(&self.mutex)
        if done:
            call_back(self, fn)

    def cancel(self):
        """Cancel the future unless it runs or has finished; return whether it is cancelled."""
        return settle(self, CANCELLED, False, None, NULL) or nt_load(&self.phase) == CANCELLED

    def set_running_or_notify_cancel(self):
        """Mark the future as running; return False if it was cancelled."""
        cdef unsigned char phase
        nt_lock(&self.mutex)
        phase = self.phase
        if phase == PENDING:
            nt_store(&self.phase, RUNNING)
        nt_unlock(&self.mutex)
        if phase == PENDING:
            return True
        if phase == CANCELLED:
            return False
        _standard_logger.critical("Future %s in unexpected state: %s", id(self), self._state)
        raise InvalidStateError("Future in unexpected state")

    def set_result(self, result):
        """End the future with a result."""
        if not settle(self, FINISHED, False, result, NULL):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception):
        """End the future with an exception."""
        if not settle(self, FINISHED, True, exception, NULL):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def _abandon(self, error=None):
        """End the future without a word, cancelled or with *error*: in a forked child.

        Who waits for it is the parent's, and so are the callbacks.
        """
        cdef bint began = self.phase == RUNNING
        cdef object _callbacks  # let go of when all is done: that may run somebody's code
        memset(&self.mutex, 0, sizeof(nt_mutex))
        self.parked = NULL
        self.standard = None
        if self.phase >= CANCELLED:
            return
        _callbacks = self.value
        self.seen = True
        self.failed = error is not None
        self.value = error
        track(self)
        nt_store(&self.phase, CANCELLED if error is None else FINISHED)
        if not began and isinstance(self, TaskCore):
            drop(<TaskCore>self, nt_now())

    def __setattr__(self, name, value):
        track(self)
        PyObject_GenericSetAttr(self, name, value)

    def __repr__(self):
        cdef unsigned char phase = nt_load(&self.phase)
        text = f"<{type(self).__name__} at {id(self):#x} state={_WORDS[phase]}"
        if phase == FINISHED:
            verb = "raised" if self.failed else "returned"
            text += f" {verb} {type(self.value).__name__}"
        return text + ">"

    def __del__(self):
        if self.failed and not self.seen:
            log_never_retrieved(self)


cdef int log_never_retrieved(FutureCore self) except -1:
    logger.error(
        "exception of a future was never retrieved: %s at %#x",
        type(self).__name__,
        id(self),
        exc_info=self.value,
    )
    return 0


cdef _Standard standard_of(FutureCore self):
    """Return what the standard's functions look at, made when they first do.

    They lock one future after the other and leave those locked if the next one has no
    condition. So if there is no memory, it is tried again.
    """
    cdef _Standard fresh = None
    cdef int tries = 0
    if self.standard is None:
        while fresh is None:
            tries += 1
            try:
                fresh = make_standard(self)
            except (MemoryError, RuntimeError):  # the latter: "can't allocate lock"
                if tries == TRIES:
                    raise
        nt_lock(&self.mutex)
        if self.standard is None:
            self.standard = fresh
        nt_unlock(&self.mutex)
    return self.standard


cdef _Standard make_standard(FutureCore self):
    cdef _Standard fresh = _Standard()
    fresh.condition = _Condition()
    if isinstance(self, TaskCore):
        fresh.waiters = _Waiters()
        fresh.waiters.owner = (<TaskCore>self).dispatcher
    else:
        fresh.waiters = []
    return fresh


cdef int call_back(FutureCore self, object fn) except -1:
    try:
        fn(self)
    except BaseException:
        try:
            _standard_logger.exception("exception calling callback for %r", self)
        except BaseException:  # there is no memory for that: others are still to be called
            pass
    return 0


cdef bint await_done(FutureCore self, object timeout) except -1:
    """Sleep until the future has ended; return whether it has."""
    cdef long long limit = microseconds(timeout)
    cdef Parker *parker = parker_get()
    cdef Place *place = NULL
    cdef bint woken = False, ours = False
    nt_lock(&self.mutex)
    if self.phase >= CANCELLED:
        nt_unlock(&self.mutex)
        parker_put(parker)
        return True
    push(&self.parked, parker)
    nt_unlock(&self.mutex)
    if limit:
        place = <Place *>nt_get_place()
    try:
        if place is not NULL:
            ours = isinstance(self, TaskCore) and (
                <PyObject *>(<TaskCore>self).dispatcher is place.dispatcher
            )
            step_aside(place, ours)
        woken = park(parker, limit)
    finally:
        if place is not NULL:
            step_back(place, ours)
        if not woken:
            nt_lock(&self.mutex)
            woken = not unlink_parker(&self.parked, parker)
            nt_unlock(&self.mutex)
            if woken:  # somebody holds it, and is about to release it
                with nogil:
                    PyThread_acquire_lock_timed(parker.lock, -1, 0)
        parker_put(parker)
    return woken


cdef inline void track(FutureCore self) noexcept:
    """Show the future to the garbage collector, if it is hidden."""
    if not PyObject_GC_IsTracked(self):
        PyObject_GC_Track(<PyObject *>self)


cdef inline bint enter(
    FutureCore self, unsigned char phase, bint failed, object value, PyObject **callbacks
) noexcept:
    """Take a final phase, and the callbacks out; False if it is too late. The mutex is held.

    The callbacks, or None, are the caller's: they are let go where no lock is held.
    """
    if self.phase >= CANCELLED or (phase == CANCELLED and self.phase == RUNNING):
        return False
    if PyObject_IS_GC(value):
        track(self)
    self.failed = failed
    callbacks[0] = <PyObject *>self.value
    Py_INCREF(self.value)
    self.value = value
    nt_store(&self.phase, phase)
    return True


cdef bint settle(
    FutureCore self, unsigned char phase, bint failed, object value, Parker **deferred
) except -1:
    """End the future, wake those who wait, run the callbacks; False if it is too late.

    Where nothing else is to be done, the parkers to release are left in *deferred*
    if that is given: a pool thread releases them when it has let the interpreter go.
    """
    cdef Parker *parked
    cdef PyObject *taken = NULL
    cdef list callbacks
    nt_lock(&self.mutex)
    if self.standard is None:
        if not enter(self, phase, failed, value, &taken):
            nt_unlock(&self.mutex)
            return False
    else:
        nt_unlock(&self.mutex)
        if not settle_standard(self, phase, failed, value, &taken):
            return False
        nt_lock(&self.mutex)
    parked = self.parked
    self.parked = NULL
    nt_unlock(&self.mutex)
    callbacks = <list>taken
    Py_DECREF(callbacks)  # ours, beside that of the local
    if callbacks is None and deferred is not NULL:
        deferred[0] = parked
        return True
    release_all(parked)
    if callbacks is not None:
        for fn in callbacks:
            call_back(self, fn)
    return True


cdef bint settle_standard(
    FutureCore self, unsigned char phase, bint failed, object value, PyObject **callbacks
) except -1:
    """Take a final phase where the standard's functions look on, under the condition.

    What fails meanwhile, as a thread may be out of memory or interrupted at any moment,
    is tried again: those who wait must hear of it.
    """
    cdef _Standard standard = self.standard
    cdef bint interrupted = False
    cdef bint entered, held = firmly(self, standard, ACQUIRE, None, &interrupted)
    nt_lock(&self.mutex)
    entered = enter(self, phase, failed, value, callbacks)
    nt_unlock(&self.mutex)
    if entered:
        for waiter in <list>standard.waiters:  # without an iterator: memory may lack
            firmly(self, standard, TELL, waiter, &interrupted)
        firmly(self, standard, NOTIFY, None, &interrupted)
    if held:
        firmly(self, standard, RELEASE, None, &interrupted)
    if interrupted:
        PyErr_SetInterrupt()  # not lost, but only now
    return entered


cdef bint firmly(
    FutureCore self, _Standard standard, int step, object waiter, bint *interrupted
) except -1:
    """Make a step of `settle_standard`, again if it fails; return whether it succeeded."""
    cdef int tries
    cdef object error = None
    for tries in range(TRIES):
        try:
            if step == ACQUIRE:
                standard.condition.acquire()
            elif step == NOTIFY:
                standard.condition.notify_all()
            elif step == RELEASE:
                standard.condition.release()
            elif tries and self in waiter.finished_futures:
                waiter.event.set()
            elif self.phase == CANCELLED:
                waiter.add_cancelled(self)
            elif self.failed:
                waiter.add_exception(self)
            else:
                waiter.add_result(self)
            return True
        except BaseException as exc:
            error = exc
            if isinstance(exc, KeyboardInterrupt):
                interrupted[0] = True
    try:
        logger.error("not everybody could be told of the end of a future", exc_info=error)
    except BaseException:
        pass
    return False


# What a task has at different times lies in one place: a million of them wait in fewer pages,
# and the first touch of a page costs more than all else that is done for the tasks in it.

cdef union Early:
    PyObject *prev  # while it waits in a lane; protected by the dispatcher's mutex
    long long started  # from then on; 0: it has not begun


cdef union Late:
    PyObject *context  # owned, and hidden from the collector; NULL: an empty one
    long long finished  # when it is over


cdef class TaskCore(FutureCore):
    """One call: what to run, in which lane, and when it was queued, started and ended."""

    # Protected by the dispatcher's mutex: the links and the view.
    cdef PyObject *next
    cdef Early early
    cdef PyObject *view  # borrowed, while the task is one of its outstanding ones; or NULL
    # Set when the task is made, let go when the call ends or is cancelled.
    cdef object fn
    cdef object args  # a tuple; with keywords a list of it and the dictionary
    cdef Late late
    cdef Dispatcher dispatcher
    cdef long long queued

    def __dealloc__(self):
        if not self.over:
            drop_context(self.late.context)

    @property
    def lane(self):
        """The index of the task's lane: 0 is CRITICAL, 3 is LOW."""
        return self.lane_

    @property
    def time_queued(self):
        """When the task entered its lane: seconds of the monotonic clock, or None."""
        return self.queued / 1e9 if self.queued else None

    @property
    def time_started(self):
        """When the task began to run: seconds of the monotonic clock, or None."""
        cdef long long started = 0
        cdef Dispatcher dispatcher = self.dispatcher
        if dispatcher is not None:
            nt_lock(&dispatcher.mutex)
            if not self.waiting:
                started = self.early.started
            nt_unlock(&dispatcher.mutex)
        return started / 1e9 if started else None

    @property
    def time_finished(self):
        """When the task ended: seconds of the monotonic clock, or None."""
        return self.late.finished / 1e9 if nt_load(&self.over) else None

    def _get_call(self):
        """Return the target, its arguments and its context, for a foreign executor to run."""
        cdef object fn, args, kwargs = None, context = None
        nt_lock(&self.mutex)
        fn, args = self.fn, self.args
        if not self.over and self.late.context is not NULL:
            context = <object>self.late.context
        nt_unlock(&self.mutex)
        if context is not None:
            if not PyObject_GC_IsTracked(context):
                PyObject_GC_Track(<PyObject *>context)  # others will hold it
        elif fn is not None:
            context = _Context()
        if type(args) is list:
            args, kwargs = args
        return fn, args, kwargs, context

    def _begin(self):
        """Move to running; return False if the task was cancelled."""
        return begin(self, nt_now())

    def _end(self, bint failed, value):
        """End the running task and drop what it held."""
        drop(self, nt_now())
        settle(self, FINISHED, failed, value, NULL)

    def _run(self):
        """Run the call in this thread, unless it was cancelled."""
        cdef Parker *deferred = NULL
        if begin(self, nt_now()):
            execute(self, NULL, &deferred)
            release_all(deferred)

    def cancel(self):
        """Cancel the task unless it runs or has finished; return whether it is cancelled.

        A waiting task leaves its lane, and whoever waits for it is woken at once.
        """
        if nt_load(&self.phase) >= CANCELLED:
            return self.phase == CANCELLED
        if not settle(self, CANCELLED, False, None, NULL):
            return nt_load(&self.phase) == CANCELLED
        if self.dispatcher is not None:
            forget(self.dispatcher, self)
        drop(self, nt_now())
        return True


cdef inline bint begin(TaskCore self, long long now) noexcept:
    cdef bint begun
    nt_lock(&self.mutex)
    begun = self.phase == PENDING
    if begun:
        nt_store(&self.phase, RUNNING)
    nt_unlock(&self.mutex)
    if begun:  # where a thread was free already, it is no later than the task came
        self.early.started = max(now, self.queued)
    return begun


cdef inline void drop_context(PyObject *context) noexcept:
    if context is not NULL:
        # Its end takes it out of the collector's list, so it has to be in.
        if not PyObject_GC_IsTracked(<object>context):
            PyObject_GC_Track(context)
        Py_DECREF(<object>context)


cdef inline int drop(TaskCore self, long long now) except -1:
    """Let go of the call that ended *now*, once: for who began or cancelled the task."""
    cdef object _fn = None  # which let go of them, unlocked
    cdef object _args = None
    cdef PyObject *context
    if FREE_THREADED:  # somebody may be about to look at them
        nt_lock(&self.mutex)
        _fn, _args = self.fn, self.args
    if self.over:
        if FREE_THREADED:
            nt_unlock(&self.mutex)
        return 0
    context = self.late.context
    self.late.finished = now
    nt_store(&self.over, True)
    self.fn = None
    self.args = None
    if FREE_THREADED:
        nt_unlock(&self.mutex)
    drop_context(context)
    return 0


cdef int execute(TaskCore self, Place *place, Parker **deferred) except -1:
    """Run a task that was begun, and end it."""
    cdef long long now
    cdef PyObject *outcome
    cdef PyObject *args = <PyObject *>self.args
    cdef PyObject *kwargs = NULL
    cdef PyObject *context = self.late.context
    cdef PyObject *empty = NULL  # owned, in place of one of the task's own
    cdef bint failed
    if type(self.args) is list:
        args, kwargs = borrow_item(self.args, 0), borrow_item(self.args, 1)
    if place is not NULL:
        show_target(place, <PyObject *>self.fn)
    if context is NULL:
        if place is not NULL:
            empty = place.empty
            place.empty = NULL
        if empty is NULL:
            empty = PyContext_New()
        context = empty
    if context is not NULL and PyContext_Enter(context) == 0:
        outcome = raw_call(<PyObject *>self.fn, args, kwargs)
        failed = outcome is NULL
        if failed:
            outcome = nt_take_exception()
        if PyContext_Exit(context) < 0:  # the target left it by itself
            PyErr_Clear()
        elif place is not NULL and empty is not NULL and nt_is_untouched(empty):
            place.empty = empty
            empty = NULL
    else:
        failed = True
        outcome = nt_take_exception()
    value = <object>outcome
    nt_hand_over(outcome)
    Py_DECREF(value)  # ours, beside that of the local
    now = nt_now()
    if place is not NULL:
        show_target(place, NULL)
    Py_XDECREF(empty)
    drop(self, now)
    try:
        settle(self, FINISHED, failed, value, deferred)
    except BaseException:  # the thread lives on, or its place would be lost
        try:
            logger.exception("error at the end of a task")
        except BaseException:
            pass
    return 0


# The dispatcher.

cdef struct Place:
    # One pool thread, on its own stack; protected by the dispatcher's mutex.
    Parker *parker
    unsigned long ident
    PyObject *task  # borrowed from the thread
    nt_mutex guard  # protects the next
    PyObject *fn  # borrowed from the task, while it is being called
    Place *newer  # on the stack of idle threads
    Place *older
    bint is_idle
    Place *after  # in the list of all
    Place *before
    PyObject *dispatcher  # borrowed from the thread
    PyObject *empty  # a context for the next task without one, or NULL; the thread's own
    bint reports  # it calls `on_drained`
    bint holds  # `waking`, while it does
    bint relieved  # others take its part meanwhile
    bint waits  # it stepped aside


cdef inline void show_target(Place *place, PyObject *fn) noexcept:
    """Let others see what a place calls; NULL: nothing any more."""
    if FREE_THREADED:  # or nobody looks meanwhile
        nt_lock(&place.guard)
    place.fn = fn
    if FREE_THREADED:
        nt_unlock(&place.guard)


cdef inline void let_wake(Dispatcher self, Place *place) noexcept:
    """Let others be woken again, if it was a place that stood against it. The mutex is held."""
    if place.holds:
        place.holds = self.waking = False


cdef int step_aside(Place *place, bint ours) except -1:
    """Note that a pool thread waits for a future; for a task of its pool it gives way.

    Without that, tasks that wait for tasks of their own pool would fill it, and wait
    for ever (what Java calls a managed blocker).
    """
    cdef Dispatcher self = <Dispatcher>place.dispatcher
    cdef bint busy = place.task is not NULL  # or it lets go of one that has ended
    nt_lock(&self.mutex)
    self.resting_ += busy or (ours and not place.relieved)
    if ours:
        place.waits = True
        self.active_ -= busy
        self.busy -= busy
        self.aside += not place.relieved
        let_wake(self, place)
    nt_unlock(&self.mutex)
    if ours:
        engage_in_place(self)
    return 0


cdef int engage_in_place(Dispatcher self) except -1:
    """See that others serve in place of a thread that waits."""
    try:
        self.engage()
    except BaseException:
        logger.exception("no thread could be started in place of one that waits")
    return 0


cdef int step_back(Place *place, bint ours) except -1:
    """Take the place again, at once: for a while more may run than the limits say."""
    cdef Dispatcher self = <Dispatcher>place.dispatcher
    cdef bint busy = place.task is not NULL
    nt_lock(&self.mutex)
    self.resting_ -= busy or (ours and not place.relieved)
    if ours:
        place.waits = False
        self.active_ += busy
        self.busy += busy
        self.aside -= not place.relieved
    nt_unlock(&self.mutex)
    return 0


cdef struct LaneState:
    PyObject *head  # owned
    PyObject *tail
    PyObject *warned[3]  # the last task that each level of `overdue` has seen
    long long submitted
    long long completed
    long long failed
    long long cancelled
    long long waited  # nanoseconds


cdef class Submitter:
    """A door into one lane of a dispatcher: the part of an executor that is called often."""

    cdef Dispatcher dispatcher
    cdef Parker *parked  # of those who wait for `outstanding`; the dispatcher's mutex
    cdef Py_ssize_t outstanding_  # likewise; all of them together own one reference to it
    cdef unsigned char lane_
    cdef unsigned char shut

    def __init__(self, Dispatcher dispatcher not None, unsigned char lane):
        self.dispatcher = dispatcher
        self.lane_ = lane

    @property
    def outstanding(self):
        """How many tasks came through this door and have not ended."""
        return self.outstanding_

    def submit(self, fn, /, *args, **kwargs):
        """Queue ``fn(*args, **kwargs)`` and return its `Task`.

        Raises:
            TypeError: *fn* cannot be called, or is a coroutine function.
            RuntimeError: the pool or this view of it was shut down, or does not run.
            QueueFull: the bound on waiting tasks is reached and the pool refuses.
        """
        cdef TaskCore task
        if nt_load(&self.shut):
            raise RuntimeError("cannot schedule new futures after shutdown")
        check_target(fn)
        task = make(self.dispatcher, fn, args, kwargs, self.lane_)
        enqueue(self.dispatcher, task, False, self)
        return task

    def shut_door(self):
        """Refuse further submissions through this view."""
        nt_store(&self.shut, True)

    def wait_outstanding(self):
        """Block until every task that came through this view has ended."""
        cdef Parker *parker = parker_get()
        cdef Dispatcher dispatcher = self.dispatcher
        cdef bint woken = False
        nt_lock(&dispatcher.mutex)
        woken = not self.outstanding_
        if not woken:
            push(&self.parked, parker)
        nt_unlock(&dispatcher.mutex)
        try:
            if not woken:
                woken = park(parker, -1)
        finally:
            retract(dispatcher, &self.parked, parker, woken)


cdef bint retract(Dispatcher self, Parker **head, Parker *parker, bint woken) noexcept:
    """Put back a parker that may still be in a list; return whether it had been released."""
    if not woken:
        nt_lock(&self.mutex)
        woken = not unlink_parker(head, parker)
        nt_unlock(&self.mutex)
        if woken:
            with nogil:
                PyThread_acquire_lock_timed(parker.lock, -1, 0)
    parker_put(parker)
    return woken


cdef int check_target(object fn) except -1:
    """Refuse what a pool thread cannot call."""
    cdef object inner = fn
    if not PyCallable_Check(fn):
        raise TypeError(f"the target must be callable, not {fn!r}")
    while type(inner) is _partial:
        inner = inner.func
    if nt_is_coroutine_function(inner):
        raise TypeError(
            f"{fn!r} is a coroutine function, which a pool thread cannot await: "
            "give its coroutine to an aloop (aloop.spawn_coroutine_threadsafe)"
        )
    return 0


cdef TaskCore make(
    Dispatcher self, object fn, tuple args, dict kwargs, unsigned char lane, bint bare=False
):
    """Return a task in a copy of the caller's context, or with *bare* in an empty one."""
    cdef TaskCore task = <TaskCore>nt_new(self.task_type, _NO_ARGS)
    task.fn = fn
    task.args = args
    if kwargs:
        task.args = [args, kwargs]
        nt_hand_over(<PyObject *>kwargs)
        nt_hand_over(<PyObject *>task.args)
    if not bare:
        task.late.context = nt_copy_context()
    nt_hand_over(<PyObject *>fn)
    nt_hand_over(<PyObject *>args)
    if task.late.context is not NULL:
        nt_hand_over(task.late.context)
        nt_hide(task.late.context)
    task.lane_ = lane
    task.dispatcher = self
    nt_hide(<PyObject *>task)
    return task


cdef int enqueue(Dispatcher self, TaskCore task, bint forced, Submitter view) except -1:
    """Put a task into its lane and see that it is started, or refuse it."""
    cdef object granted = None
    cdef object refusal
    cdef Place *wake = NULL
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef bint start = False, launch = False
    cdef int policy
    while True:
        task.queued = nt_now()
        nt_lock(&self.mutex)
        if self.refusal is not None and self.refusal is not granted:
            refusal = self.refusal
            nt_unlock(&self.mutex)
            error = refusal()
            if error is not None:
                raise error
            granted = refusal
            continue
        if (
            not self.queue_size
            or forced
            or task.lane_ == CRITICAL
            or self.waiting_ - self.counts[CRITICAL] < self.queue_size
        ):
            break
        policy = self.when_full
        nt_unlock(&self.mutex)
        if policy == WHEN_FULL_RAISE:
            raise QueueFull(
                f"{self.queue_size} tasks wait already (queue_size={self.queue_size}): "
                "submit later, raise queue_size, or choose when_full='block' or 'run'"
            )
        if policy == WHEN_FULL_RUN or is_own_thread(self):
            # A thread of the pool that waited for room might wait for itself.
            task._run()
            return 0
        wait_for_room(self)
    link(self, task)
    self.waiting_ += 1
    lane.submitted += 1
    if view is not None:
        enter_view(view, task)
    launch = self.launcher is not None
    if not launch and self.active_ < self.limits[task.lane_]:
        wake = plan(self, &start)
    nt_unlock(&self.mutex)
    if wake is not NULL:
        PyThread_release_lock(wake.parker.lock)
    if nt_load(&task.phase) == CANCELLED:  # a delayed task may be, between the two
        forget(self, task)
    if launch:
        pump(self)
    elif start:
        start_for(self, task)
    return 0


cdef inline bint is_own_thread(Dispatcher self) noexcept:
    cdef Place *place = <Place *>nt_get_place()
    return place is not NULL and place.dispatcher is <PyObject *>self


cdef int start_for(Dispatcher self, TaskCore task) except -1:
    """Start the thread that a submission was found to need."""
    cdef bint stuck
    try:
        start_one(self)
    except BaseException:
        nt_lock(&self.mutex)
        stuck = not self.threads_ and task.waiting
        nt_unlock(&self.mutex)
        if stuck:
            forget(self, task)
            raise
        logger.exception("a pool thread could not be started; %d serve on", self.threads_)
    else:
        self.engage()
    return 0


cdef int start_one(Dispatcher self) except -1:
    """Start a thread that is counted already."""
    try:
        self.start_thread()
    except BaseException:
        nt_lock(&self.mutex)
        self.threads_ -= 1
        nt_unlock(&self.mutex)
        raise
    return 0


cdef int wait_for_room(Dispatcher self) except -1:
    """Sleep until a task has left the lanes, or the settings have changed."""
    cdef Parker *parker = parker_get()
    cdef bint woken
    nt_lock(&self.mutex)
    woken = (
        self.refusal is not None
        or not self.queue_size
        or self.when_full != WHEN_FULL_BLOCK
        or self.waiting_ - self.counts[CRITICAL] < self.queue_size
    )
    if not woken:
        push(&self.space, parker)
    nt_unlock(&self.mutex)
    try:
        if not woken:
            woken = park(parker, -1)
            if woken:
                return 0
    finally:
        retract(self, &self.space, parker, woken)
    return 0


cdef inline void link(Dispatcher self, TaskCore task) noexcept:
    """Append a task to its lane. The mutex is held."""
    cdef LaneState *lane = &self.lanes[task.lane_]
    task.waiting = True
    task.next = NULL
    task.early.prev = lane.tail
    if lane.tail is NULL:
        lane.head = <PyObject *>task
    else:
        (<TaskCore>lane.tail).next = <PyObject *>task
    lane.tail = <PyObject *>task
    nt_lend(<PyObject *>task)
    self.counts[task.lane_] += 1


cdef inline void link_first(Dispatcher self, TaskCore task) noexcept:
    """Put a task back at the front of its lane. The mutex is held."""
    cdef LaneState *lane = &self.lanes[task.lane_]
    task.waiting = True
    task.early.prev = NULL
    task.next = lane.head
    if lane.head is NULL:
        lane.tail = <PyObject *>task
    else:
        (<TaskCore>lane.head).early.prev = <PyObject *>task
    lane.head = <PyObject *>task
    nt_lend(<PyObject *>task)
    self.counts[task.lane_] += 1


cdef inline void unlink(Dispatcher self, TaskCore task) noexcept:
    """Take a task out of its lane; the reference of the lane is the caller's. Mutex held."""
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef PyObject *raw = <PyObject *>task
    cdef PyObject *prev = task.early.prev
    task.waiting = False
    if prev is NULL:
        lane.head = task.next
    else:
        (<TaskCore>prev).next = task.next
    if task.next is NULL:
        lane.tail = prev
    else:
        (<TaskCore>task.next).early.prev = prev
    if task.warned:
        if lane.warned[1] is raw:
            lane.warned[1] = prev
        if lane.warned[2] is raw:
            lane.warned[2] = prev
    task.next = NULL
    task.early.started = 0
    self.counts[task.lane_] -= 1


cdef inline Py_ssize_t startable(Dispatcher self) noexcept:
    """Return how many of the waiting tasks may start now. The mutex is held."""
    cdef Py_ssize_t found = 0, room
    cdef int i
    if not self.waiting_:
        return 0
    for i in range(LANES):
        if self.counts[i]:
            room = self.limits[i] - self.active_ - found
            if room <= 0:
                break
            found += min(self.counts[i], room)
    return found


cdef Place *plan(Dispatcher self, bint *start) noexcept:
    """Decide on a thread to start (counted here) and one to wake. The mutex is held."""
    # Threads that wait for tasks of this pool do not count: others take their part.
    cdef Py_ssize_t threads = self.threads_ - self.aside - self.relieved
    cdef Py_ssize_t free = threads - self.busy
    cdef Py_ssize_t wanted
    cdef Place *place
    start[0] = False
    if self.lingering:
        nt_store(&self.hail, YES)
    # Where all threads are there and one is on its way to the lanes, it will do.
    if threads >= self.max_threads and (self.waking or self.idle_top is NULL):
        if self.counts[CRITICAL] <= free:
            return NULL
    wanted = startable(self)
    if wanted > free and (threads < self.max_threads or self.counts[CRITICAL] > free):
        start[0] = True
    elif threads < self.min_threads and self.refusal is None and not self.leaving_:
        start[0] = True
    if start[0]:
        self.threads_ += 1
    if not wanted or self.waking or self.idle_top is NULL:
        return NULL
    self.waking = True
    place = self.idle_top
    leave_idle(self, place)
    return place


cdef int wake_ahead(Dispatcher self, unsigned char lane) except -1:
    """Wake a thread for a task that is about to be put into a lane.

    It takes longer to wake than the task to be made. One that is too early sleeps again.
    """
    cdef Place *place = NULL
    nt_lock(&self.mutex)
    if not self.waking and self.active_ < self.limits[lane]:
        place = self.idle_top
        if place is not NULL:
            self.waking = True
            leave_idle(self, place)
    nt_unlock(&self.mutex)
    if place is not NULL:
        PyThread_release_lock(place.parker.lock)
    return 0


cdef inline void join_idle(Dispatcher self, Place *place) noexcept:
    place.is_idle = True
    place.newer = NULL
    place.older = self.idle_top
    if self.idle_top is not NULL:
        self.idle_top.newer = place
    self.idle_top = place
    self.idle_ += 1


cdef inline void leave_idle(Dispatcher self, Place *place) noexcept:
    place.is_idle = False
    if place.newer is NULL:
        self.idle_top = place.older
    else:
        place.newer.older = place.older
    if place.older is not NULL:
        place.older.newer = place.newer
    self.idle_ -= 1


cdef Parker *stir(Dispatcher self) noexcept:
    """Return the parkers of all idle threads, to make them look. The mutex is held."""
    cdef Parker *found = NULL
    cdef Place *place
    while self.idle_top is not NULL:
        place = self.idle_top
        leave_idle(self, place)
        place.parker.next = found
        found = place.parker
    return found


cdef inline TaskCore pick(Dispatcher self, long long now):
    """Take the task that may start first out of its lane, or None. The mutex is held."""
    cdef LaneState *lane
    cdef TaskCore task
    cdef int i
    if not self.waiting_:
        return None
    for i in range(LANES):
        if self.counts[i]:
            if self.active_ >= self.limits[i]:
                return None
            lane = &self.lanes[i]
            task = <TaskCore>lane.head
            unlink(self, task)
            Py_DECREF(task)  # the lane's; the local has its own
            self.waiting_ -= 1
            self.active_ += 1
            lane.waited += max(now - task.queued, 0)
            return task
    return None


cdef inline void account(Dispatcher self, TaskCore task) noexcept:
    """Count the end of a task that `pick` gave out. The mutex is held."""
    cdef LaneState *lane = &self.lanes[task.lane_]
    self.active_ -= 1
    if task.phase == CANCELLED:
        lane.cancelled += 1
    elif task.failed:
        lane.failed += 1
    else:
        lane.completed += 1


cdef inline Parker *take_drainers(Dispatcher self) noexcept:
    """Return the parkers of those who wait for the last task, if it is gone. Mutex held."""
    cdef Parker *parked = NULL
    if self.drainers is not NULL and not self.active_ and not self.waiting_ and not self.aside:
        parked = self.drainers
        self.drainers = NULL
    return parked


cdef inline void enter_view(Submitter view, TaskCore task) noexcept:
    """Count a task of a view. The mutex is held."""
    task.view = <PyObject *>view
    if not view.outstanding_:
        nt_lend(<PyObject *>view)
    view.outstanding_ += 1


cdef inline Parker *leave_view(TaskCore task, PyObject **last) noexcept:
    """Return the parkers to release now that a task ended; the mutex is held.

    Where it was the last one of its view, that is left in *last*, to be let go unlocked.
    """
    cdef Parker *parked = NULL
    cdef PyObject *raw = task.view
    last[0] = NULL
    if raw is not NULL:
        task.view = NULL
        (<Submitter>raw).outstanding_ -= 1
        if not (<Submitter>raw).outstanding_:
            last[0] = raw
            parked = (<Submitter>raw).parked
            (<Submitter>raw).parked = NULL
    return parked


cdef int abandon_view(TaskCore task, list views) except -1:
    """Leave the view in a forked child: who waits is the parent's; the last one is listed."""
    cdef PyObject *last
    leave_view(task, &last)
    if last is not NULL:
        views.append(<object>last)
        Py_DECREF(<object>last)
    return 0


cdef inline Parker *take_room(Dispatcher self) noexcept:
    """Return the parker of the first who waits for room. The mutex is held."""
    cdef Parker *parker = self.space
    if parker is not NULL:
        self.space = parker.next
        parker.next = NULL
    return parker


cdef int forget(Dispatcher self, TaskCore task) except -1:
    """Take a cancelled task out of its lane, if it is still there."""
    cdef PyObject *view = NULL
    cdef Parker *parked = NULL
    cdef Parker *drainers = NULL
    cdef Parker *room = NULL
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef bint found
    nt_lock(&self.mutex)
    found = task.waiting
    if found:
        unlink(self, task)
        self.waiting_ -= 1
        lane.cancelled += 1
        parked = leave_view(task, &view)
        drainers = take_drainers(self)
        room = take_room(self)
    nt_unlock(&self.mutex)
    if found:
        Py_DECREF(task)  # the lane's
    release_all(parked)
    release_all(drainers)
    release_all(room)
    Py_XDECREF(view)
    return 0


cdef int pump(Dispatcher self) except -1:
    """Hand what may start to the launcher; one thread at a time does so."""
    cdef TaskCore task = None
    cdef object launcher = None
    cdef object error = None
    cdef Parker *room
    cdef long long now
    nt_lock(&self.mutex)
    if self.pumping:  # the one that pumps looks again after we changed the lanes
        nt_unlock(&self.mutex)
        return 0
    self.pumping = True
    nt_unlock(&self.mutex)
    while True:
        task = None
        launcher = None
        room = NULL
        now = nt_now()
        nt_lock(&self.mutex)
        launcher = self.launcher
        if launcher is not None:
            task = pick(self, now)
        if task is None:
            self.pumping = False
        else:
            task.warned |= HANDED_OUT
            room = take_room(self)
        nt_unlock(&self.mutex)
        release_all(room)
        if task is None:
            break
        try:
            self.handed_out.add(task)
            launcher(task)
        except BaseException as exc:
            try:
                if not isinstance(exc, RuntimeError) or not put_back(self, task, launcher, now):
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
            error = None  # its traceback may hold what holds it
    return 0


cdef bint put_back(Dispatcher self, TaskCore task, launcher, long long picked) except -1:
    """Let a task wait again that a launcher could not hand over.

    Returns:
        False if that launcher is still ours: the task would meet the same once more; and
        if the task has ended.
    """
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef bint replaced, ended
    nt_lock(&self.mutex)
    replaced = self.launcher is not launcher
    nt_unlock(&self.mutex)
    if not replaced:
        return False
    nt_lock(&task.mutex)
    ended = task.phase >= CANCELLED or task.over
    if not ended:
        nt_store(&task.phase, PENDING)
    nt_unlock(&task.mutex)
    if ended:
        return False
    nt_lock(&self.mutex)
    if not task.warned & HANDED_OUT:  # it has just ended, and its place is given back
        nt_unlock(&self.mutex)
        return True
    task.warned &= ~HANDED_OUT
    lane.waited -= max(picked - task.queued, 0)
    link_first(self, task)
    self.waiting_ += 1
    self.active_ -= 1
    nt_unlock(&self.mutex)
    self.handed_out.discard(task)
    if nt_load(&task.phase) == CANCELLED:  # between the two
        forget(self, task)
    return True


@cython.final
cdef class Dispatcher:
    """Four lanes, the reserves between them, and the threads or executor that serve them."""

    cdef nt_mutex mutex  # protects all fields that change
    # Who waits for the mutex keeps fetching its line of the cache, which is filled with what
    # changes seldom; what each task changes lies close together in those that follow.
    cdef int when_full
    cdef Py_ssize_t min_threads
    cdef Py_ssize_t max_threads
    cdef Py_ssize_t queue_size
    cdef Py_ssize_t counts[4]  # of what waits in each lane
    cdef Py_ssize_t waiting_
    cdef Py_ssize_t active_
    cdef Py_ssize_t busy
    cdef Place *idle_top
    cdef bint waking
    cdef bint lingering  # what is on its way is a thread that looks for a while
    cdef bint leaving_
    cdef bint pumping
    cdef Py_ssize_t limits[4]  # how many may run for it to start one more
    cdef Py_ssize_t threads_
    cdef int aside  # threads whose task waits for another of this pool
    cdef int relieved  # threads in `on_drained` whose part others take
    cdef long long idle_timeout  # microseconds; -1: for ever
    cdef Py_ssize_t resting_  # threads whose task waits for any future of ours
    cdef Py_ssize_t idle_
    cdef long long wakeups
    cdef unsigned char hail  # to who lingers, that there is something; atomic
    cdef LaneState lanes[4]
    cdef Place *places
    cdef Parker *space
    cdef Parker *drainers
    cdef object refusal
    cdef object launcher
    cdef set handed_out  # to launchers, for a forked child to end them; a place is given
    # back by the bit, as there may be no memory to note a task here
    cdef object task_type
    cdef object start_thread
    cdef object on_drained
    cdef object __weakref__

    def __init__(self, task_type, start_thread):
        self.task_type = task_type
        self.start_thread = start_thread
        self.handed_out = set()
        self.max_threads = 1
        self.idle_timeout = -1
        for i in range(LANES):
            self.limits[i] = UNLIMITED

    def __dealloc__(self):
        cdef PyObject *task
        for i in range(LANES):
            while self.lanes[i].head is not NULL:
                task = self.lanes[i].head
                unlink(self, <TaskCore>task)
                Py_DECREF(<object>task)

    def configure(
        self, limits, Py_ssize_t min_threads, Py_ssize_t max_threads, idle_timeout,
        Py_ssize_t queue_size, when_full
    ):
        """Take new limits; what waits and may now start is started.

        Parameters:
            limits: per lane, how many tasks may run for it to start one more.
            min_threads, max_threads: threads that stay, and the most there are.
            idle_timeout: seconds after which an idle thread goes; None: never.
            queue_size: the most that may wait, CRITICAL aside; 0: no bound.
            when_full: ``'block'``, ``'raise'`` or ``'run'``.
        """
        cdef Parker *space
        cdef Parker *stirred
        cdef Py_ssize_t numbers[4]
        cdef long long timeout = microseconds(idle_timeout)
        cdef int policy = _POLICIES.index(when_full)
        for i in range(LANES):
            numbers[i] = limits[i]
        nt_lock(&self.mutex)
        for i in range(LANES):
            self.limits[i] = numbers[i]
        self.min_threads = min_threads
        self.max_threads = max_threads
        self.idle_timeout = timeout
        self.queue_size = queue_size
        self.when_full = policy
        space = self.space
        self.space = NULL
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(space)
        release_all(stirred)
        self.engage()

    def set_launcher(self, launcher):
        """Hand tasks to ``launcher(task)`` from now on; None: back to own threads."""
        cdef object old
        cdef Parker *stirred
        nt_lock(&self.mutex)
        old = self.launcher
        self.launcher = launcher
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(stirred)
        old = None
        self.engage()

    def set_on_drained(self, on_drained):
        """Have pool threads call this when they have ended the last task, before they sleep.

        Parameters:
            on_drained: called without arguments, by two threads at once, too; None: no
                more. The thread counts as on its way to the lanes meanwhile, so that what
                is submitted in it wakes no other; where it blocks, `relieve` helps.
        """
        cdef object old
        nt_lock(&self.mutex)
        old = self.on_drained
        self.on_drained = on_drained
        nt_unlock(&self.mutex)
        old = None

    def relieve(self):
        """Let others take the part of threads that are in what `set_on_drained` set."""
        cdef Place *place
        nt_lock(&self.mutex)
        place = self.places
        while place is not NULL:
            if place.reports and not (place.relieved or place.waits):
                place.relieved = True
                self.relieved += 1
                let_wake(self, place)
            place = place.after
        nt_unlock(&self.mutex)
        engage_in_place(self)

    def open(self):
        """Accept submissions."""
        cdef object old
        nt_lock(&self.mutex)
        old = self.refusal
        self.refusal = None
        self.leaving_ = False
        nt_unlock(&self.mutex)
        old = None
        self.engage()

    def close(self, refusal):
        """Refuse submissions from now on.

        Parameters:
            refusal: called for each submission, returns the exception to raise, or
                None to accept this one all the same.
        """
        cdef object old
        cdef Parker *space
        nt_lock(&self.mutex)
        old = self.refusal
        self.refusal = refusal
        space = self.space
        self.space = NULL
        nt_unlock(&self.mutex)
        release_all(space)
        old = None

    def end_with_interpreter(self, refusal):
        """Let the threads go, and answer submissions with *refusal* unless refused already."""
        nt_lock(&self.mutex)
        if self.refusal is None:
            self.refusal = refusal
        nt_unlock(&self.mutex)
        self.leave()

    def lose_thread(self):
        """Note that a thread ended before it came to `work`."""
        nt_lock(&self.mutex)
        self.threads_ -= 1
        nt_unlock(&self.mutex)

    def leave(self):
        """Let the threads go as soon as they find nothing to do."""
        cdef Parker *stirred
        nt_lock(&self.mutex)
        self.leaving_ = True
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(stirred)

    def make(self, fn, tuple args not None, dict kwargs, unsigned char lane):
        """Return a task that is not queued yet, in a copy of the caller's context."""
        return make(self, fn, args, kwargs, lane)

    def enqueue(self, TaskCore task not None, Submitter view=None):
        """Queue a task made before, whatever the bound; it was accepted then."""
        enqueue(self, task, True, view)

    def engage(self):
        """Start or wake what it takes to run the tasks that may start."""
        cdef Place *wake = NULL
        cdef bint start = True, launch = False
        while start:
            nt_lock(&self.mutex)
            launch = self.launcher is not None
            if launch:
                start = False
                wake = NULL
            else:
                wake = plan(self, &start)
            nt_unlock(&self.mutex)
            if wake is not NULL:
                PyThread_release_lock(wake.parker.lock)
            if launch:
                pump(self)
            elif start:
                start_one(self)

    def work(self):
        """Run tasks until this thread is no longer needed: the body of a pool thread."""
        cdef Place place
        memset(&place, 0, sizeof(place))
        place.parker = parker_get()
        place.ident = PyThread_get_thread_ident()
        place.dispatcher = <PyObject *>self
        nt_lock(&self.mutex)
        place.after = self.places
        if self.places is not NULL:
            self.places.before = &place
        self.places = &place
        nt_unlock(&self.mutex)
        nt_set_place(&place)
        try:
            serve(self, &place)
        finally:
            nt_set_place(NULL)
            parker_put(place.parker)
            Py_XDECREF(place.empty)

    def release(self, TaskCore task not None):
        """Give back the place of a task that the launcher ran, once."""
        cdef PyObject *view = NULL
        cdef Parker *parked = NULL
        cdef Parker *drainers = NULL
        cdef bint found
        nt_lock(&self.mutex)
        found = task.warned & HANDED_OUT
        if found:
            task.warned &= ~HANDED_OUT
            account(self, task)
            parked = leave_view(task, &view)
            drainers = take_drainers(self)
        nt_unlock(&self.mutex)
        if not found:
            return
        self.handed_out.discard(task)
        release_all(parked)
        release_all(drainers)
        Py_XDECREF(view)
        self.engage()

    def take_waiting(self, Submitter view=None):
        """Take the waiting tasks out of their lanes, all or those of one view, in order."""
        cdef list taken = []
        cdef TaskCore task = None
        cdef PyObject *owner
        cdef PyObject *raw
        cdef Parker *parked
        cdef Parker *more
        cdef int i
        for i in range(LANES):
            while True:
                task = None
                owner = NULL
                parked = NULL
                nt_lock(&self.mutex)
                raw = self.lanes[i].head
                while raw is not NULL and view is not None:
                    if (<TaskCore>raw).view is <PyObject *>view:
                        break
                    raw = (<TaskCore>raw).next
                if raw is not NULL:
                    task = <TaskCore>raw
                    unlink(self, task)
                    Py_DECREF(task)  # the lane's; the local has its own
                    self.waiting_ -= 1
                    self.lanes[i].cancelled += 1
                    parked = leave_view(task, &owner)
                nt_unlock(&self.mutex)
                release_all(parked)
                Py_XDECREF(owner)
                if task is None:
                    break
                taken.append(task)
        nt_lock(&self.mutex)
        parked = self.space
        self.space = NULL
        more = take_drainers(self)
        nt_unlock(&self.mutex)
        release_all(parked)
        release_all(more)
        return taken

    def take_one(self):
        """Take the first waiting task out of its lane, or return None: ``_work_queue.get``."""
        cdef TaskCore task = None
        cdef PyObject *view = NULL
        cdef Parker *parked = NULL
        cdef Parker *drainers = NULL
        cdef int i
        nt_lock(&self.mutex)
        for i in range(LANES):
            if self.counts[i]:
                task = <TaskCore>self.lanes[i].head
                unlink(self, task)
                Py_DECREF(task)  # the lane's; the local has its own
                self.waiting_ -= 1
                parked = leave_view(task, &view)
                drainers = take_drainers(self)
                break
        nt_unlock(&self.mutex)
        release_all(parked)
        release_all(drainers)
        Py_XDECREF(view)
        return task

    def overdue(self, int level, double age):
        """Return the tasks that have waited for *age* seconds, each once per *level* (1, 2).

        Returns:
            The tasks, and the time (monotonic seconds) at which the next one may be
            due; None when nothing waits.
        """
        cdef list found = []
        cdef TaskCore task = None
        cdef PyObject *raw
        cdef long long horizon = nt_now() - <long long>(age * 1e9)
        cdef long long soonest = 0
        cdef int i
        if not 1 <= level <= 2:
            raise ValueError(f"level must be 1 or 2, not {level}")
        for i in range(LANES):
            while True:
                task = None
                nt_lock(&self.mutex)
                raw = self.lanes[i].warned[level]
                raw = self.lanes[i].head if raw is NULL else (<TaskCore>raw).next
                if raw is not NULL:
                    if (<TaskCore>raw).queued <= horizon:
                        task = <TaskCore>raw
                        task.warned |= level
                        self.lanes[i].warned[level] = raw
                    elif not soonest or (<TaskCore>raw).queued < soonest:
                        soonest = (<TaskCore>raw).queued
                nt_unlock(&self.mutex)
                if task is None:
                    break
                found.append(task)
        return found, (soonest / 1e9 + age if soonest else None)

    def wait_drained(self, timeout=None):
        """Block until no task waits or runs; return False if that took too long.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        cdef long long limit = microseconds(timeout)
        cdef Parker *parker = parker_get()
        cdef bint woken
        nt_lock(&self.mutex)
        woken = not self.active_ and not self.waiting_ and not self.aside
        if not woken:
            push(&self.drainers, parker)
        nt_unlock(&self.mutex)
        try:
            if not woken:
                woken = park(parker, limit)
            else:
                limit = 0
        finally:
            woken = retract(self, &self.drainers, parker, woken)
        return woken

    def abandon(self):
        """Forget all threads and tasks: for a forked child, which has none of the threads.

        Returns:
            The tasks that waited, and those that ran.
        """
        cdef list waiting = []
        cdef list running = []
        cdef list views = []  # let go of at the end: what runs then finds all in order
        cdef TaskCore task = None
        cdef TaskCore own = None  # the one that this thread is in
        cdef Place *place
        cdef int i
        memset(&self.mutex, 0, sizeof(nt_mutex))
        for i in range(LANES):
            while self.lanes[i].head is not NULL:
                task = <TaskCore>self.lanes[i].head
                unlink(self, task)
                Py_DECREF(task)  # the lane's; the local has its own
                abandon_view(task, views)
                waiting.append(task)
        place = self.places
        while place is not NULL:
            if place.task is not NULL:
                running.append(<TaskCore>place.task)
                if place.ident == PyThread_get_thread_ident():
                    own = <TaskCore>place.task
            place = place.after
        running += self.handed_out
        self.handed_out = set()
        for task in running:
            task.warned &= ~HANDED_OUT
            abandon_view(task, views)
        self.places = NULL
        self.idle_top = NULL
        self.space = self.drainers = NULL
        self.waiting_ = self.active_ = self.threads_ = self.busy = self.idle_ = 0
        self.aside = self.resting_ = self.relieved = 0
        place = <Place *>nt_get_place()
        if place is not NULL:
            memset(&place.guard, 0, sizeof(nt_mutex))
        nt_set_place(NULL)
        self.waking = self.lingering = self.pumping = False
        for task in running:
            if task is not own:
                memset(&task.mutex, 0, sizeof(nt_mutex))
                drop(task, nt_now())
        return waiting, running

    def running(self):
        """Return ``(thread id, task, target)`` of each task that a pool thread runs."""
        cdef list found = []
        cdef unsigned long seen[64]
        cdef PyObject *tasks[64]
        cdef PyObject *fns[64]
        cdef Py_ssize_t skip = 0, i, n
        cdef Place *place
        while True:
            n = i = 0
            nt_lock(&self.mutex)
            place = self.places
            while place is not NULL and n < 64:
                if place.task is not NULL:
                    if i >= skip:
                        seen[n] = place.ident
                        tasks[n] = place.task
                        Py_INCREF(<object>place.task)
                        nt_lock(&place.guard)
                        fns[n] = place.fn
                        if place.fn is not NULL:
                            Py_INCREF(<object>place.fn)
                        nt_unlock(&place.guard)
                        n += 1
                    i += 1
                place = place.after
            nt_unlock(&self.mutex)
            for i in range(n):
                fn = None
                if fns[i] is not NULL:
                    fn = <object>fns[i]
                    Py_DECREF(fn)
                task = <object>tasks[i]
                Py_DECREF(task)
                found.append((seen[i], task, fn))
            if n < 64:
                return found
            skip += n

    @property
    def active(self):
        """How many tasks run, in all lanes."""
        return self.active_

    @property
    def resting(self):
        """How many pool threads wait for a future of ours within their task."""
        return self.resting_

    @property
    def engaged(self):
        """How many tasks run, or may start; those apart that wait for a future of ours."""
        cdef Py_ssize_t found
        nt_lock(&self.mutex)
        found = self.active_ - (self.resting_ - self.aside) + startable(self)
        nt_unlock(&self.mutex)
        return found

    @property
    def leaving(self):
        """Whether threads go that find nothing to do."""
        return self.leaving_

    @property
    def threads(self):
        """How many threads there are, the ones about to start included."""
        return self.threads_

    @property
    def idle(self):
        """How many threads sleep."""
        return self.idle_

    @property
    def waiting(self):
        """How many tasks wait, in all lanes."""
        return self.waiting_

    def figures(self):
        """Return one consistent set of counters; lists are per lane, CRITICAL first."""
        cdef LaneState lanes[4]
        cdef Py_ssize_t counts[4]
        cdef Py_ssize_t active, threads, idle
        cdef long long wakeups
        nt_lock(&self.mutex)
        lanes = self.lanes
        counts = self.counts
        active, threads, idle = self.active_, self.threads_, self.idle_
        wakeups = self.wakeups
        nt_unlock(&self.mutex)
        return {
            "active": active,
            "threads": threads,
            "idle": idle,
            "wakeups": wakeups,
            "waiting": [counts[i] for i in range(LANES)],
            "submitted": [lanes[i].submitted for i in range(LANES)],
            "completed": [lanes[i].completed for i in range(LANES)],
            "failed": [lanes[i].failed for i in range(LANES)],
            "cancelled": [lanes[i].cancelled for i in range(LANES)],
            "wait_seconds": [lanes[i].waited / 1e9 for i in range(LANES)],
        }


cdef int serve(Dispatcher self, Place *place) except -1:
    """The life of a pool thread: end one task and pick the next in one locked section."""
    cdef TaskCore ended = None
    cdef TaskCore task = None
    cdef PyObject *view = NULL
    cdef Parker *deferred = NULL  # those who wait for the task that ended
    cdef Parker *parked = NULL
    cdef Parker *drainers = NULL
    cdef Parker *room = NULL
    cdef Place *wake = NULL
    cdef object report = None
    cdef bint woken = False, lingered = False, lingers, again
    cdef bint served = False  # a task, since it last reported
    cdef bint surplus, leaving, launch, stay, more
    cdef long long now
    cdef long long since = nt_now()
    cdef long long finished = 0  # when the task ended that ran last; 0: it is long ago
    while True:
        if lingered:  # it holds `waking`: until that is given back no user code runs
            now = nt_now()
        else:
            now = finished if finished else nt_now()
            let_others_run_in_pool(&since, now)
        wake = NULL
        room = parked = drainers = NULL
        nt_lock(&self.mutex)
        if ended is not None and not lingered:
            place.task = NULL
            self.busy -= 1
            account(self, ended)
            parked = leave_view(ended, &view)
        if woken:
            self.waking = woken = False
            self.wakeups += 1
        if place.reports:
            self.relieved -= place.relieved
            place.reports = place.relieved = False
            let_wake(self, place)
        lingers = again = False
        if lingered:
            self.waking = self.lingering = False
        launch = self.launcher is not None
        surplus = self.threads_ - self.aside - self.relieved > self.max_threads
        if not launch and not (surplus and not self.counts[CRITICAL]):
            task = pick(self, now)
        if task is not None:
            self.busy += 1
            place.task = <PyObject *>task
            room = take_room(self)
        leaving = task is None and (surplus or self.leaving_ or launch)
        # After a task of one lane only those of it and below may follow.
        more = surplus or (
            task is not None and self.active_ < self.limits[task.lane_]
        )
        if more and self.idle_top is not NULL and not self.waking and startable(self):
            self.waking = True
            wake = self.idle_top
            leave_idle(self, wake)
        if leaving:
            self.threads_ -= 1
            forget_place(self, place)
        elif task is None:
            if FREE_THREADED and ended is not None and not (lingered or self.waking):
                self.waking = self.lingering = lingers = True
                nt_store(&self.hail, NO)
            elif ended is not None and (FREE_THREADED or Py_REFCNT(ended) == 1):
                again = True  # who is idle is counted on, and not to let go of anything
            elif (
                served
                and self.on_drained is not None
                and not (self.active_ or self.waiting_ or self.aside)
            ):
                report = self.on_drained
                place.reports = True
                place.holds = not self.waking
                self.waking = True
            else:
                join_idle(self, place)
        drainers = take_drainers(self)
        nt_unlock(&self.mutex)
        if wake is not NULL:
            PyThread_release_lock(wake.parker.lock)
        release_all(parked)
        release_all(drainers)
        release_all(room)
        lingered = lingers
        if lingered:  # and lets go of what has ended when it has looked
            release_all(deferred)
            deferred = NULL
            linger(self)
            continue
        if ended is not None:
            ended = None
            finished = 0
            Py_XDECREF(view)
            view = NULL
        if again:
            continue
        if report is not None:
            release_all(deferred)
            deferred = NULL
            served = False
            try:
                report()
            except BaseException:  # the thread lives on, or its place would be lost
                try:
                    logger.exception("error in %r", report)
                except BaseException:
                    pass
            report = None
            if nt_get_place() is not place:
                return 0
            continue
        if task is not None:
            release_all(deferred)
            deferred = NULL
            served = True
            if begin(task, now):
                execute(task, place, &deferred)
                if nt_get_place() is not place:
                    release_all(deferred)
                    return 0  # in a child that the task forked, where no thread is known
                finished = task.late.finished
            else:
                finished = 0
            ended = task
            task = None
            continue
        if leaving:
            release_all(deferred)
            if launch:
                pump(self)
            return 0
        stay = sleep(self, place, deferred)
        deferred = NULL
        if not stay:
            return 0
        woken = True
        since = nt_now()


cdef void linger(Dispatcher self) noexcept:
    """Look for a task for as long as about two handovers take, before the thread sleeps.

    Without the GIL one that is a moment ahead of who submits would have to be woken for
    each task. With it who submits would have to wait for the interpreter instead.
    """
    cdef long long until = nt_now() + PATIENCE
    while not nt_load(&self.hail) and nt_now() < until:
        nt_pause()


cdef void forget_place(Dispatcher self, Place *place) noexcept:
    """Take a place out of the list of all. The mutex is held."""
    if place.before is NULL:
        self.places = place.after
    else:
        place.before.after = place.after
    if place.after is not NULL:
        place.after.before = place.before


cdef bint sleep(Dispatcher self, Place *place, Parker *deferred) except -1:
    """Wait to be woken; return False if this thread should go instead.

    Those who wait for the last result are woken when the interpreter has been let
    go, so that they find it free.
    """
    cdef PyLockStatus status
    cdef long long timeout
    cdef bint idle, goes
    while True:
        timeout = self.idle_timeout
        with nogil:
            release_all(deferred)
            status = PyThread_acquire_lock_timed(place.parker.lock, timeout, 0)
        deferred = NULL
        if status == PY_LOCK_ACQUIRED:
            return True
        nt_lock(&self.mutex)
        idle = place.is_idle
        goes = idle and (self.threads_ > self.min_threads or self.leaving_)
        if goes:
            leave_idle(self, place)
            self.threads_ -= 1
            forget_place(self, place)
        nt_unlock(&self.mutex)
        if goes:
            return False
        if not idle:  # somebody took it off the stack and is about to release it
            with nogil:
                PyThread_acquire_lock_timed(place.parker.lock, -1, 0)
            return True


# The clockwork.

cdef enum:
    SKIP = 0
    DELAY = 1
    BURST = 2

cdef tuple _MISSED = ("skip", "delay", "burst")

cdef enum:
    MOST_SLACK = 3600  # seconds: it is kept in 32 bits of microseconds

cdef struct Entry:  # four of them fill a line of the cache
    long long limit  # when the timer is to fire at the latest
    unsigned int serial
    unsigned int slot

cdef enum:
    FIRED = 0xfffffffe  # in place of a slot: nothing is left to do
    NO_SLOT = 0xffffffff

# What `asleep_until` says: earlier than any timer, so that none rouses who is awake.
cdef long long AWAKE = -0x7fffffffffffffff
cdef long long FOREVER = 0x7fffffffffffffff
# Far enough for any schedule, near enough to be added to.
cdef long long FAR = 0x3fffffffffffffff


cdef struct Periodic:
    long long interval
    int policy
    bint queued  # in a queue of its interval, in place of the heap
    long long runs
    long long missed


@cython.no_gc
cdef class TimerCore:
    """One timer of a ticker: fires once, or every *interval* seconds until cancelled."""

    # The collector need not look into timers: one that waits is held by its ticker,
    # and one that does not has let go of its callback. The ticker's mutex protects
    # all that changes.
    cdef object callback
    cdef tuple args
    cdef TickerCore ticker
    cdef Periodic *periodic  # of a `PeriodicTimer`; NULL: fires once
    cdef long long when_
    cdef unsigned int slack_  # microseconds
    cdef unsigned int slot  # where the ticker notes the place in the heap; or FIRED, NO_SLOT

    def __init__(self):
        raise TypeError("timers are made by Ticker.call_at, call_later and call_every")

    @property
    def when(self):
        """When the timer fires next: seconds of the ticker's clock."""
        return self.when_ / 1e9

    @property
    def interval(self):
        """Seconds between two fires, or None."""
        return None if self.periodic is NULL else self.periodic.interval / 1e9

    @property
    def slack(self):
        """How many seconds later than due the timer may fire, to share a wake-up."""
        return self.slack_ / 1e6

    @property
    def runs(self):
        """How often the timer has fired."""
        if self.periodic is NULL:
            return int(nt_load32(&self.slot) == <unsigned int>FIRED)
        return self.periodic.runs

    @property
    def missed(self):
        """How many fires were left out because the tick came late."""
        return 0 if self.periodic is NULL else self.periodic.missed

    @property
    def active(self):
        """Whether the timer will fire."""
        return nt_load32(&self.slot) < <unsigned int>FIRED

    def cancel(self):
        """Keep the timer from firing again; return False if it had nothing left to do."""
        cdef TickerCore ticker = self.ticker
        cdef object callback = None
        cdef tuple args = None
        cdef bint found
        nt_lock(&ticker.mutex)
        found = self.slot < <unsigned int>FIRED
        if found:
            take_out(ticker, self)
            if ticker.size < ticker.room >> 3 or ticker.count < ticker.slots_room >> 6:
                shrink(ticker)
            callback = self.callback  # no-cython-lint: let go after the unlock
            args = self.args  # no-cython-lint: likewise
            self.callback = None
            self.args = None
        nt_unlock(&ticker.mutex)
        if found:
            Py_DECREF(self)  # the ticker's
        return found


@cython.final
@cython.no_gc
cdef class PeriodicTimer(TimerCore):
    """One that fires again and again; what that takes is beside the rest."""

    cdef Periodic own


cdef inline bint earlier(Entry *a, Entry *b) noexcept nogil:
    # Of two that are due together the one that was set first, unless two billion others
    # were set in between. Without a branch, as nobody could predict it.
    return (a.limit < b.limit) | ((a.limit == b.limit) & (<int>(a.serial - b.serial) < 0))


cdef inline long long limit_of(TimerCore timer) noexcept nogil:
    """Return when a timer is to fire at the latest."""
    return timer.when_ + <long long>timer.slack_ * 1000


cdef inline void place_at(TickerCore self, Py_ssize_t i, Entry entry) noexcept:
    # Places stand in an array of their own: to write them into the timers themselves would
    # cost a miss of the cache for each.
    self.heap[i] = entry
    self.places[entry.slot] = <unsigned int>i


cdef void sift_up(TickerCore self, Py_ssize_t i) noexcept:
    cdef Entry *heap = self.heap
    cdef Entry entry = heap[i]
    cdef Py_ssize_t parent
    while i > 0:
        parent = (i - 1) >> 2
        if not earlier(&entry, &heap[parent]):
            break
        place_at(self, i, heap[parent])
        i = parent
    place_at(self, i, entry)


cdef enum:
    MANY_TIMERS = 8192  # so many are farther away from the processor than it pays to wait
    MOST_LEVELS = 17  # of four to the power of sixteen timers

cdef inline void fetch_entries(Entry *first, Py_ssize_t count) noexcept nogil:
    """Fetch what is below an entry: two levels below, and three where that is the last."""
    cdef Py_ssize_t i
    for i in range(0, count * <Py_ssize_t>sizeof(Entry), 64):
        nt_prefetch(<char *>first + i)


cdef inline void fetch_timer(TickerCore self, unsigned int slot, int level) noexcept nogil:
    """Fetch what will be needed of a timer that has come up to a level of the heap.

    With each timer that leaves the top one comes up to every level; so from the third on
    there is time to fetch, one after the other, where it is, itself, and its callback.
    """
    cdef char *timer
    if level == 3:
        nt_prefetch(&self.timers[slot])
    elif level == 2:
        timer = <char *>self.timers[slot]
        nt_prefetch(timer)
        nt_prefetch(timer + 64)
        nt_prefetch(timer + 96)
    elif level == 1:
        nt_prefetch(<void *>(<TimerCore>self.timers[slot]).callback)
    elif level == 0:
        nt_prefetch_owner((<TimerCore>self.timers[slot]).callback)


cdef inline Py_ssize_t earliest_of_four(Entry *heap, Py_ssize_t first) noexcept nogil:
    cdef Py_ssize_t one = first + earlier(&heap[first + 1], &heap[first])
    cdef Py_ssize_t other = first + 2 + earlier(&heap[first + 3], &heap[first + 2])
    return one + (other - one) * earlier(&heap[other], &heap[one])


cdef void sift_down(TickerCore self, Py_ssize_t i) noexcept:
    # First the way down is found, then the entries are moved along it: so the processor
    # fetches places that are far away all at once, and while it looks for the way.
    cdef Entry *heap = self.heap
    cdef Py_ssize_t size = self.size
    cdef bint far = size > MANY_TIMERS
    cdef Entry entry = heap[i]
    cdef Py_ssize_t way[MOST_LEVELS]
    cdef Py_ssize_t child, below, best = i
    cdef int levels = 0, level
    while True:
        child = (best << 2) + 1
        if child + 4 <= size:
            below = (child << 2) + 1
            if below >= MANY_TIMERS and below + 16 <= size:
                fetch_entries(&heap[below], 16)
                below = (below << 2) + 1
                if (below << 2) >= size and below + 64 <= size:
                    fetch_entries(&heap[below], 64)
            best = earliest_of_four(heap, child)
        elif child < size:  # less than four are left
            best = child
            for child in range(child + 1, size):
                if earlier(&heap[child], &heap[best]):
                    best = child
        else:
            break
        if not earlier(&heap[best], &entry):
            break
        if far:
            nt_prefetch_write(&self.places[heap[best].slot])
        way[levels] = best
        levels += 1
    for level in range(levels):
        best = way[level]
        place_at(self, i, heap[best])
        if level < 4 and size > 64:
            fetch_timer(self, heap[i].slot, level)
        i = best
    place_at(self, i, entry)


cdef void heap_push(TickerCore self, TimerCore timer) noexcept:
    """Put a timer into the heap, which has room; the ticker gets a reference. Mutex held."""
    cdef Py_ssize_t i = self.size
    cdef unsigned int slot = self.free_slot
    if slot == <unsigned int>NO_SLOT:
        slot = self.slots
        self.slots += 1
    else:
        self.free_slot = self.places[slot]
    self.serial += 1
    self.heap[i].limit = limit_of(timer)
    self.heap[i].serial = self.serial
    self.heap[i].slot = slot
    self.timers[slot] = <PyObject *>timer
    self.size += 1
    self.count += 1
    Py_INCREF(timer)
    nt_store32(&timer.slot, slot)
    sift_up(self, i)


cdef inline void free_the_slot(TickerCore self, unsigned int slot) noexcept:
    self.places[slot] = self.free_slot
    self.free_slot = slot


cdef void replace(TickerCore self, Py_ssize_t i, Entry entry) noexcept:
    """Put an entry in the place of another."""
    place_at(self, i, entry)
    sift_up(self, i)
    sift_down(self, self.places[entry.slot])


cdef void heap_remove(TickerCore self, Py_ssize_t i) noexcept:
    """Take an entry out of the heap."""
    self.size -= 1
    if i != self.size:
        replace(self, i, self.heap[self.size])


cdef void take_out(TickerCore self, TimerCore timer) noexcept:
    """Take a timer out; the reference of the ticker is the caller's. The mutex is held."""
    cdef unsigned int slot = timer.slot
    cdef Queue *queue = NULL
    cdef Entry following
    self.count -= 1
    nt_store32(&timer.slot, NO_SLOT)
    if timer.periodic is not NULL:
        queue = find_queue(self, timer)
        if timer.periodic.queued:
            self.timers[slot] = NULL
            queue.dead += 1
            if queue.dead > queue.count >> 1 and queue.count >= FEWEST:
                bury(self, queue)
            return
    if queue is not NULL and queue.first == slot:
        if leave_queue(self, queue, &following):
            replace(self, self.places[slot], following)
        else:
            heap_remove(self, self.places[slot])
    else:
        heap_remove(self, self.places[slot])
    free_the_slot(self, slot)


# Queues of timers that fire again and again.
#
# Timers of one interval that are set anew as they fire are set in the order of their due
# times. So they wait in line, and only the first of each line is in the heap: what a fire
# costs does not grow with their number, and the memory that it needs is known long before.
# One that would not come last, because it or one before it was late, goes into the heap;
# in the end it finds its place in the line again.

cdef enum:
    QUEUES = 64  # for so many intervals, if no two fall upon the same
    FEWEST = 16  # entries that a queue has room for

cdef struct Queue:
    long long interval
    long long last  # the limit of the one that came last
    Entry *ring
    unsigned int room  # a power of two, or 0
    unsigned int head
    unsigned int count
    unsigned int dead  # of those, how many were cancelled: their timer is NULL
    unsigned int slack
    unsigned int first  # the slot of the first, which is in the heap; NO_SLOT: there is none


cdef inline Queue **place_of_queue(TickerCore self, TimerCore timer) noexcept:
    cdef unsigned long long mixed = timer.periodic.interval ^ (
        <unsigned long long>timer.slack_ << 20
    )
    return &self.queues[(mixed * <unsigned long long>0x9e3779b97f4a7c15) >> 58]


cdef inline Queue *find_queue(TickerCore self, TimerCore timer) noexcept:
    """Return the queue of a timer's interval and slack, or NULL."""
    cdef Queue *queue = place_of_queue(self, timer)[0]
    if queue is not NULL and (
        queue.interval != timer.periodic.interval or queue.slack != timer.slack_
    ):
        return NULL
    return queue


cdef Queue *get_queue(TickerCore self, TimerCore timer) noexcept:
    """Return the same, made if there is room for it."""
    cdef Queue **place = place_of_queue(self, timer)
    cdef Queue *queue = place[0]
    if queue is NULL:
        queue = <Queue *>PyMem_RawMalloc(sizeof(Queue))
        if queue is NULL:
            return NULL
        memset(queue, 0, sizeof(Queue))
        queue.first = NO_SLOT
        place[0] = queue
    if queue.first == <unsigned int>NO_SLOT:
        queue.interval = timer.periodic.interval
        queue.slack = timer.slack_
    elif queue.interval != timer.periodic.interval or queue.slack != timer.slack_:
        return NULL
    return queue


cdef inline Entry *in_ring(Queue *queue, unsigned int i) noexcept:
    return &queue.ring[(queue.head + i) & (queue.room - 1)]


cdef bint set_ring_room(Queue *queue, unsigned int room) noexcept:
    """Let the queue have room for so many; return False if there is none."""
    cdef Entry *ring = NULL
    cdef unsigned int i
    if room:
        ring = <Entry *>PyMem_RawMalloc(room * sizeof(Entry))
        if ring is NULL:
            return False
    for i in range(queue.count):
        ring[i] = in_ring(queue, i)[0]
    PyMem_RawFree(queue.ring)
    queue.ring = ring
    queue.room = room
    queue.head = 0
    return True


cdef bint join_queue(Queue *queue, Entry entry) noexcept:
    """Let an entry be the last; return False if there is no room."""
    if queue.count == queue.room:
        if queue.room >= <unsigned int>(FIRED >> 1):
            return False
        if not set_ring_room(queue, queue.room * 2 if queue.room else FEWEST):
            return False
    in_ring(queue, queue.count)[0] = entry
    queue.count += 1
    queue.last = entry.limit
    return True


cdef void jump_queue(Queue *queue, Entry entry) noexcept:
    """Put an entry where it belongs, past all that are later; there is room."""
    cdef unsigned int i = queue.count
    queue.count += 1
    while i and in_ring(queue, i - 1).limit > entry.limit:
        in_ring(queue, i)[0] = in_ring(queue, i - 1)[0]
        i -= 1
    in_ring(queue, i)[0] = entry


cdef void rejoin_queue(TickerCore self, Queue *queue, Entry entry) noexcept:
    """Put the entry that has just left before all others."""
    queue.head = (queue.head - 1) & (queue.room - 1)
    queue.count += 1
    queue.ring[queue.head] = entry
    (<TimerCore>self.timers[entry.slot]).periodic.queued = True


cdef inline void fetch_queued(TickerCore self, Queue *queue) noexcept:
    """Fetch what will be needed of those that come soon: first where they are."""
    cdef int level
    cdef unsigned int slot
    if queue.count > 12:
        nt_prefetch_write(&self.places[in_ring(queue, 8).slot])
        for level in range(4):
            slot = in_ring(queue, level << 2).slot
            if level == 3 or self.timers[slot] is not NULL:
                fetch_timer(self, slot, level)


cdef bint leave_queue(TickerCore self, Queue *queue, Entry *entry) noexcept:
    """Take the next entry to be the first, in the heap; return False if there is none."""
    cdef unsigned int slot
    cdef bint found = False
    queue.first = NO_SLOT
    while queue.count and not found:
        entry[0] = in_ring(queue, 0)[0]
        queue.head = (queue.head + 1) & (queue.room - 1)
        queue.count -= 1
        slot = entry.slot
        if self.timers[slot] is NULL:
            queue.dead -= 1
            free_the_slot(self, slot)
        else:
            queue.first = slot
            (<TimerCore>self.timers[slot]).periodic.queued = False
            found = True
    if found:
        fetch_queued(self, queue)
    if queue.room > FEWEST and queue.count < queue.room >> 3:
        set_ring_room(queue, queue.room >> 1)
    return found


cdef void bury(TickerCore self, Queue *queue) noexcept:
    """Take out the entries of those that were cancelled."""
    cdef unsigned int i, kept = 0
    for i in range(queue.count):
        if self.timers[in_ring(queue, i).slot] is NULL:
            free_the_slot(self, in_ring(queue, i).slot)
        else:
            in_ring(queue, kept)[0] = in_ring(queue, i)[0]
            kept += 1
    queue.count = kept
    queue.dead = 0
    while queue.room > FEWEST and queue.count < queue.room >> 3:
        if not set_ring_room(queue, queue.room >> 1):
            return


cdef long long nanoseconds(object seconds) except? -1:
    """Return a time in the unit of the heap."""
    cdef double value = seconds
    if value != value or value - value != 0:
        raise ValueError(f"a timer needs a finite time, not {seconds!r}")
    value *= 1e9
    if value >= <double>FAR:
        return FAR
    if value <= -<double>FAR:
        return -FAR
    # Rounded, so that a time that was read from the heap comes back as the same.
    return <long long>(value + 0.5 if value >= 0 else value - 0.5)


cdef class TickerCore:
    """The clockwork: a heap of timers, and the loop that fires those that are due."""

    cdef nt_mutex mutex  # protects what follows, and the timers
    cdef Entry *heap
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef Queue *queues[QUEUES]
    cdef Py_ssize_t count  # of all timers
    # By the slot of a timer: where it is in the heap, or the next free slot; and itself, owned.
    cdef unsigned int *places
    cdef PyObject **timers
    cdef Py_ssize_t slots_room
    cdef unsigned int slots  # how many were ever needed since they were last counted anew
    cdef unsigned int free_slot
    cdef unsigned int serial  # of the timer that was set last; begins again from 0
    # The blocks that the three are in.
    cdef void *heap_block
    cdef void *places_block
    cdef void *timers_block
    cdef long long asleep_until  # AWAKE, or when the thread means to wake
    cdef Parker *parker
    cdef bint stopping
    cdef long long fires_
    cdef unsigned int slack_  # microseconds, of timers that have none of their own
    cdef object clock  # None: the machine's

    def __cinit__(self, *args, **kwargs):
        self.asleep_until = AWAKE
        self.free_slot = NO_SLOT
        self.parker = parker_get()

    def __init__(self, now=None, slack=0.0):
        self.clock = now
        self.slack_ = slack_of(slack)

    @property
    def slack(self):
        """How many seconds later than due timers may fire that have no slack of their own."""
        return self.slack_ / 1e6

    @slack.setter
    def slack(self, value):
        self.slack_ = slack_of(value)

    def __dealloc__(self):
        cdef Py_ssize_t i
        cdef unsigned int at
        cdef Queue *queue
        for i in range(self.size):
            Py_DECREF(<object>self.timers[self.heap[i].slot])
        for i in range(QUEUES):
            queue = self.queues[i]
            if queue is not NULL:
                for at in range(queue.count):
                    Py_XDECREF(self.timers[in_ring(queue, at).slot])
                PyMem_RawFree(queue.ring)
                PyMem_RawFree(queue)
        PyMem_RawFree(self.heap_block)
        PyMem_RawFree(self.places_block)
        PyMem_RawFree(self.timers_block)
        if self.parker is not NULL:
            parker_put(self.parker)

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
        return add_timer(self, nanoseconds(when), NULL, callback, args, slack)

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
        return add_timer(self, now_of(self) + nanoseconds(delay), NULL, callback, args, slack)

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
        cdef Periodic periodic
        cdef double seconds = interval
        cdef long long start
        if not 0 < seconds < float("inf"):
            raise ValueError(f"interval must be positive and finite seconds, not {seconds!r}")
        if missed not in _MISSED:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        periodic.interval = max(1, nanoseconds(seconds))
        periodic.runs = periodic.missed = 0
        periodic.queued = False
        periodic.policy = _MISSED.index(missed)
        start = periodic.interval if first is None else nanoseconds(first)
        return add_timer(self, now_of(self) + start, &periodic, callback, args, slack)

    def tick(self):
        """Fire the timers that are due; return how many did."""
        cdef long long since = nt_now()
        return tick(self, &since)

    def run(self):
        """Fire timers as they fall due until `stop`: the body of the ticker's thread."""
        cdef long long until, pause
        cdef PyLockStatus status
        cdef bint roused
        cdef long long since = nt_now()
        while True:
            tick(self, &since)
            pause = now_of(self)
            nt_lock(&self.mutex)
            if self.stopping:
                nt_unlock(&self.mutex)
                return
            if self.size:
                until = self.heap[0].limit
                if until <= pause:
                    nt_unlock(&self.mutex)
                    continue
                pause = (until - pause + 999) // 1000
                pause = min(pause, PY_TIMEOUT_MAX)
                self.asleep_until = until
            else:
                pause = -1
                self.asleep_until = FOREVER
            nt_unlock(&self.mutex)
            with nogil:
                status = PyThread_acquire_lock_timed(self.parker.lock, pause, 0)
            since = nt_now()
            if status != PY_LOCK_ACQUIRED:
                nt_lock(&self.mutex)
                roused = self.asleep_until == AWAKE
                self.asleep_until = AWAKE
                nt_unlock(&self.mutex)
                if roused:  # somebody is about to release it
                    with nogil:
                        PyThread_acquire_lock_timed(self.parker.lock, -1, 0)

    def stop(self):
        """Make `run` return after the callbacks of this tick."""
        cdef bint rouse
        nt_lock(&self.mutex)
        self.stopping = True
        rouse = self.asleep_until != AWAKE
        self.asleep_until = AWAKE
        nt_unlock(&self.mutex)
        if rouse:
            PyThread_release_lock(self.parker.lock)

    def reset(self):
        """Make the ticker ready for another `run`."""
        nt_lock(&self.mutex)
        self.stopping = False
        nt_unlock(&self.mutex)

    def clear(self):
        """Cancel every timer; return how many there were."""
        cdef TimerCore timer = None
        cdef object callback = None
        cdef tuple args = None
        cdef Py_ssize_t cleared = 0
        while True:
            nt_lock(&self.mutex)
            if not self.size:
                nt_unlock(&self.mutex)
                return cleared
            timer = <TimerCore>self.timers[self.heap[self.size - 1].slot]
            take_out(self, timer)
            callback = timer.callback
            args = timer.args
            timer.callback = None
            timer.args = None
            nt_unlock(&self.mutex)
            Py_DECREF(timer)  # the ticker's
            cleared += 1
            timer = None
            callback = None
            args = None

    def abandon(self):
        """Forget all timers: in a forked child, which has not got the ticker's thread."""
        memset(&self.mutex, 0, sizeof(nt_mutex))
        self.asleep_until = AWAKE
        self.stopping = True
        self.clear()

    def now(self):
        """Return the time of the ticker's clock, in seconds."""
        return now_of(self) / 1e9

    @property
    def next_due(self):
        """When the next timer is to fire, its slack used: seconds of the clock, or None."""
        cdef long long when = 0
        cdef bint found
        nt_lock(&self.mutex)
        found = self.size > 0
        if found:
            when = self.heap[0].limit
        nt_unlock(&self.mutex)
        return when / 1e9 if found else None

    @property
    def fires(self):
        """How many timers have fired."""
        return self.fires_

    def __len__(self):
        return self.count


cdef long long now_of(TickerCore self) except? -1:
    if self.clock is None:
        return nt_now()
    return nanoseconds(self.clock())


cdef unsigned int slack_of(object seconds) except? 1:
    """Return a slack in the unit of timers."""
    cdef double value = seconds
    if not 0 <= value <= MOST_SLACK:
        raise ValueError(f"slack must be from 0 to {MOST_SLACK} seconds, not {seconds!r}")
    return <unsigned int>(value * 1e6 + 0.5)


cdef unsigned int choose_slack(TickerCore self, object own, Periodic *periodic) except? 1:
    """Return the slack of a timer: its own, or the ticker's."""
    cdef unsigned int slack
    if own is None:
        slack = self.slack_
        if periodic is not NULL and slack > periodic.interval // 2000:
            slack = <unsigned int>(periodic.interval // 2000)
    else:
        slack = slack_of(own)
        if periodic is not NULL and slack and slack >= periodic.interval // 1000:
            raise ValueError(
                f"slack must be less than the interval, {periodic.interval / 1e9} s, "
                f"not {own!r}"
            )
    # A clock that is turned by hand has no wake-ups to share.
    return slack if self.clock is None else 0


cdef bint make_room(TickerCore self) noexcept:
    """Make room for one more timer; return False if there is none. The mutex is held."""
    if not make_room_in_heap(self):
        return False
    if self.free_slot != <unsigned int>NO_SLOT or self.slots < self.slots_room:
        return True
    if self.slots_room >= <Py_ssize_t>(FIRED >> 1):
        return False
    return set_slots_room(self, self.slots_room * 2 if self.slots_room else 16)


cdef inline bint make_room_in_heap(TickerCore self) noexcept:
    if self.size < self.room:
        return True
    return set_room(self, self.room * 2 if self.room else 16)


cdef bint set_room(TickerCore self, Py_ssize_t room) noexcept:
    """Let the heap have room for so many; return False if there is none."""
    # The second entry begins a line of the cache, so that children share one.
    cdef void *block
    cdef void *heap
    heap = nt_array(
        room * sizeof(Entry), sizeof(Entry), self.heap, self.size * sizeof(Entry), &block
    )
    if heap is NULL:
        return False
    PyMem_RawFree(self.heap_block)
    self.heap_block = block
    self.heap = <Entry *>heap
    self.room = room
    return True


cdef bint set_slots_room(TickerCore self, Py_ssize_t room) noexcept:
    """Let there be so many slots; return False if there is no room."""
    cdef void *places_block
    cdef void *timers_block
    cdef void *places
    cdef void *timers
    cdef size_t used = self.slots
    places = nt_array(
        room * sizeof(unsigned int), 0, self.places, used * sizeof(unsigned int), &places_block
    )
    if places is NULL:
        return False
    timers = nt_array(
        room * sizeof(PyObject *), 0, self.timers, used * sizeof(PyObject *), &timers_block
    )
    if timers is NULL:
        PyMem_RawFree(places_block)
        return False
    PyMem_RawFree(self.places_block)
    PyMem_RawFree(self.timers_block)
    self.places_block = places_block
    self.timers_block = timers_block
    self.places = <unsigned int *>places
    self.timers = <PyObject **>timers
    self.slots_room = room
    return True


cdef TimerCore add_timer(
    TickerCore self, long long when, Periodic *periodic, object callback, tuple args,
    object slack
):
    cdef TimerCore timer
    cdef bint rouse
    if not PyCallable_Check(callback):
        raise TypeError(f"the callback of a timer must be callable, not {callback!r}")
    if periodic is NULL:
        timer = TimerCore.__new__(TimerCore)
    else:
        timer = PeriodicTimer.__new__(PeriodicTimer)
        (<PeriodicTimer>timer).own = periodic[0]
        timer.periodic = &(<PeriodicTimer>timer).own
    timer.callback = callback
    timer.args = args
    timer.ticker = self
    timer.when_ = when
    timer.slot = NO_SLOT
    if slack is not None or self.slack_:
        timer.slack_ = choose_slack(self, slack, periodic)
    nt_lock(&self.mutex)
    if not make_room(self):
        nt_unlock(&self.mutex)
        raise MemoryError()
    heap_push(self, timer)
    rouse = limit_of(timer) < self.asleep_until
    if rouse:
        self.asleep_until = AWAKE
    nt_unlock(&self.mutex)
    if rouse:
        PyThread_release_lock(self.parker.lock)
    return timer


cdef void rearm(TickerCore self, TimerCore timer, long long now) noexcept:
    """Set a periodic timer, which is first in the heap, to its next time. Mutex held."""
    cdef Queue *queue
    cdef Entry entry, following
    cdef Periodic *periodic = timer.periodic
    cdef long long interval = periodic.interval
    cdef long long late = now - timer.when_
    late = 0 if late < interval else late // interval
    if periodic.policy == BURST:
        timer.when_ += interval
    else:
        periodic.missed += late
        if periodic.policy == DELAY and late:
            timer.when_ = now + interval
        else:
            timer.when_ += (late + 1) * interval
    self.serial += 1
    entry.limit = limit_of(timer)
    entry.serial = self.serial
    entry.slot = timer.slot
    queue = get_queue(self, timer)
    if queue is NULL:
        self.heap[0] = entry
    elif queue.first == <unsigned int>NO_SLOT:
        queue.first = entry.slot
        queue.last = entry.limit
        self.heap[0] = entry
    elif queue.first != entry.slot:
        if entry.limit >= queue.last and join_queue(queue, entry):
            periodic.queued = True
            heap_remove(self, 0)
            return
        self.heap[0] = entry
    elif leave_queue(self, queue, &following):
        self.heap[0] = following
        if entry.limit >= queue.last:
            periodic.queued = join_queue(queue, entry)  # it has room for one that left
        elif make_room_in_heap(self):
            sift_down(self, 0)
            self.heap[self.size] = entry
            self.size += 1
            sift_up(self, self.size - 1)
            return
        elif entry.limit < following.limit:
            rejoin_queue(self, queue, following)
            queue.first = entry.slot
            self.heap[0] = entry
        else:
            jump_queue(queue, entry)
            periodic.queued = True
    else:
        queue.first = entry.slot
        queue.last = entry.limit
        self.heap[0] = entry
    sift_down(self, 0)


cdef void shrink(TickerCore self) noexcept:
    """Give memory back when little of it is used. The mutex is held."""
    cdef Py_ssize_t room = self.room >> 1
    if room >= 1024 and self.size < room >> 1:
        set_room(self, room)
    # To count slots anew takes a look at every timer: there must be few.
    if self.slots_room > 1024 and self.count < self.slots_room >> 6:
        count_slots_anew(self)


cdef void count_slots_anew(TickerCore self) noexcept:
    """Give the timers the first slots, if there is memory to do so. The mutex is held."""
    cdef PyObject **timers = <PyObject **>PyMem_RawMalloc(
        (self.count + 1) * sizeof(PyObject *)
    )
    cdef Queue *queue
    cdef unsigned int at, counted = 0
    cdef Py_ssize_t i, room = 1024
    if timers is NULL:
        return
    for i in range(self.size):
        timers[counted] = self.timers[self.heap[i].slot]
        self.heap[i].slot = counted
        counted += 1
    for i in range(QUEUES):
        queue = self.queues[i]
        if queue is not NULL:
            bury(self, queue)
            if queue.first != <unsigned int>NO_SLOT:
                queue.first = self.places[queue.first]  # as in the heap
            for at in range(queue.count):
                timers[counted] = self.timers[in_ring(queue, at).slot]
                in_ring(queue, at).slot = counted
                counted += 1
    for at in range(counted):
        self.timers[at] = timers[at]
        self.places[at] = at
        nt_store32(&(<TimerCore>timers[at]).slot, at)
    PyMem_RawFree(timers)
    self.slots = counted
    self.free_slot = NO_SLOT
    while room < self.count << 1:
        room <<= 1
    set_slots_room(self, room)


cdef Py_ssize_t tick(TickerCore self, long long *since) except -1:
    """Fire what is due now; what falls due meanwhile is left to the next tick."""
    cdef long long now = now_of(self)
    cdef Py_ssize_t fired = 0
    cdef TimerCore timer = None
    cdef object callback = None
    cdef tuple args = None
    cdef PyObject *outcome
    cdef bint once = False
    while True:
        if not fired & 31:
            let_others_run(since, nt_now())
        nt_lock(&self.mutex)
        timer = <TimerCore>self.timers[self.heap[0].slot] if self.size else None
        if timer is None or timer.when_ > now or self.stopping:
            shrink(self)
            nt_unlock(&self.mutex)
            return fired
        callback = timer.callback
        args = timer.args
        once = timer.periodic is NULL
        if once:
            take_out(self, timer)
            nt_store32(&timer.slot, FIRED)
            timer.callback = None
            timer.args = None
        else:
            timer.periodic.runs += 1
            rearm(self, timer, now)
        self.fires_ += 1
        nt_unlock(&self.mutex)
        if once:
            Py_DECREF(timer)  # the ticker's
        timer = None
        fired += 1
        outcome = raw_call(<PyObject *>callback, <PyObject *>args, NULL)
        if outcome is NULL:
            log_callback(callback)
        else:
            Py_DECREF(<object>outcome)
        callback = None
        args = None


cdef int log_callback(object callback) except -1:
    """Log the exception of a callback: it is set, as after any failed call."""
    cdef PyObject *raised = nt_take_exception()
    error = <object>raised
    Py_DECREF(error)
    logger.error("exception in timer callback %r", callback, exc_info=error)
    return 0


# The mailbox.

@cython.final
cdef class Mailbox:
    """A queue into another thread's loop that costs one wake-up per burst."""

    cdef nt_mutex mutex  # protects the items and the two flags
    cdef list items
    cdef bint posted
    cdef bint closed
    cdef object wake
    cdef object handle

    def __init__(self, wake, handle):
        self.wake = wake
        self.handle = handle

    def post(self, item):
        """Hand over an item; return False if the mailbox is closed.

        If the loop cannot be woken the item is taken back, and the exception raised.
        """
        cdef bint first = False, closed, lacks = True
        cdef list fresh = None
        while lacks:
            nt_lock(&self.mutex)
            closed = self.closed
            lacks = not closed and self.items is None and fresh is None
            if not lacks:
                break
            nt_unlock(&self.mutex)
            fresh = []  # not under the mutex: to make one may run the collector
        try:
            if not closed:
                if self.items is None:
                    self.items = fresh
                self.items.append(item)  # there may be no memory for it
                first = not self.posted
                self.posted = True
        finally:
            nt_unlock(&self.mutex)
        if first:
            try:
                self.wake()
            except BaseException:
                if take_back(self, item):
                    raise
                # Somebody else's wake-up has come so far.
        return not closed

    def drain(self):
        """Handle what was posted: called in the loop's thread."""
        cdef list items = None
        nt_lock(&self.mutex)
        items = self.items
        self.items = None
        self.posted = False
        nt_unlock(&self.mutex)
        if items is None:
            return
        for item in items:
            try:
                self.handle(item)
            except BaseException:
                try:
                    logger.exception("exception in the handler of a mailbox")
                except BaseException:  # there is no memory for that: the others go on
                    pass

    def close(self):
        """Refuse further items and return those that were not handled."""
        cdef list items = None
        nt_lock(&self.mutex)
        self.closed = True
        items = self.items
        self.items = None
        nt_unlock(&self.mutex)
        return [] if items is None else items

    def abandon(self):
        """Do what `close` does, in a forked child."""
        memset(&self.mutex, 0, sizeof(nt_mutex))
        return self.close()

    def __len__(self):
        cdef list items = self.items
        return 0 if items is None else len(items)


cdef bint take_back(Mailbox self, object item) except -1:
    """Let the next item wake the loop, and take this one out; False if it is gone."""
    cdef Py_ssize_t at
    cdef bint found = False
    nt_lock(&self.mutex)
    self.posted = False
    if self.items is not None:
        for at in range(len(self.items)):
            if self.items[at] is item:
                found = True
                break
        if found:
            del self.items[at]  # `item` keeps it alive
    nt_unlock(&self.mutex)
    return found


# Runs of coroutines that an interval makes due.

cdef class JobCore:
    """A job's own runs, where it is a coroutine on a loop that has nothing but an interval."""

    # Touched in the thread of the loop; but for `_ready`, which is a mere hint, and what
    # `_stage` sets before there is a timer.
    cdef public long long runs
    cdef public int _running
    cdef public bint _ready
    cdef double began, lasted  # seconds; NaN: not yet
    cdef object call, name, context
    cdef object make  # makes a task of a coroutine, with these keywords
    cdef dict options
    cdef EagerStart eager  # whose method that is, or None
    cdef TickerCore ticker

    def __cinit__(self, *args, **kwargs):
        self.began = self.lasted = NAN

    @property
    def _began(self):
        """When the latest run began, by the ticker's clock, or None."""
        return None if isnan(self.began) else self.began

    @_began.setter
    def _began(self, value):
        self.began = value

    @property
    def last_duration(self):
        """How many seconds the latest run that has ended took, or None."""
        return None if isnan(self.lasted) else self.lasted

    @last_duration.setter
    def last_duration(self, value):
        self.lasted = value

    def _stage(self, call, name, context, maker, ticker):
        """Take what a run needs.

        Parameters:
            maker: what makes tasks of one loop that begin to run where they are made, and
                its options; None: there is no such thing.
        """
        make, options = maker or (None, None)
        self.call = call
        self.name = name
        self.context = context
        self.make = make
        self.options = options
        owner = getattr(make, "__self__", None)
        self.eager = owner if isinstance(owner, EagerStart) else None
        self.ticker = ticker

    def _fire_coroutine(self):
        """Do what `_fire` does where `_stage` was given options: in one piece."""
        cdef dict options = self.options
        cdef object task = None, coro = None
        if not self._ready or self._running or options is None:
            self._fire()
            return
        self.runs += 1
        self._running = 1
        self.began = now_of(self.ticker) / 1e9
        try:
            coro = self.call()
            if self.eager is not None:
                context = PyContext_Copy(self.context)
                task = start_eagerly(self.eager, coro, self.name, context)
            else:
                options["name"] = self.name
                options["context"] = PyContext_Copy(self.context)
                task = PyObject_Call(self.make, (coro,), options)
            task.result()
        except BaseException as exc:
            if task is None:
                close_quietly(coro)
            elif not task.done():
                self._stays_on(self.began, task)
                return
            if not isinstance(exc, _TaskCancelled):
                self._failed(exc)
        finally:
            options["context"] = None
        self.lasted = now_of(self.ticker) / 1e9 - self.began
        self._running = 0


cdef int close_quietly(coro) except -1:
    """Close a coroutine that could not be made a task, if it is one."""
    try:
        coro.close()
    except BaseException:
        pass
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class EagerStart:
    """Makes tasks of a loop that begin to run where they are made."""

    # Touched in the thread of the loop.
    cdef object loop
    cdef object hook  # the method `_call_soon`
    cdef dict names  # of the loop, or None
    cdef dict options  # of a task
    cdef bint busy
    cdef object coro  # of the task whose step is awaited
    cdef object step, context

    def __init__(self, loop):
        names = getattr(loop, "__dict__", None)
        self.loop = loop
        self.names = names if type(names) is dict else None
        self.options = {"loop": loop}
        self.hook = self._call_soon

    def is_possible(self):
        """Return whether the loop is one whose ``call_soon`` may be another for a moment."""
        return self.names is not None and "call_soon" not in self.names

    def make(self, coro, *, name=None, context=None):
        """Return a task of *coro* that has made its first step, in *context*."""
        return start_eagerly(self, coro, name, context)

    def _call_soon(self, callback, *args, context=None):
        """Be the loop's ``call_soon``, once."""
        coro = self.coro
        restore(self)
        task = getattr(callback, "__self__", None)
        if context is not None and isinstance(task, _Task) and task.get_coro() is coro:
            self.step, self.context = callback, context
            return None
        return self.loop.call_soon(callback, *args, context=context)


cdef object start_eagerly(EagerStart self, coro, name, context):
    """Return a task that has made its first step, if that can be made at once."""
    cdef dict options = self.options
    cdef object step = None
    if (
        self.busy
        or self.names is None
        or self.names.setdefault("call_soon", self.hook) is not self.hook
    ):
        return _Task(coro, loop=self.loop, name=name, context=context)
    self.busy = True
    self.coro = coro
    options["name"] = name
    options["context"] = context
    try:
        task = PyObject_Call(_Task, (coro,), options)
        step, context = self.step, self.context
    finally:
        if self.coro is not None:
            restore(self)
        self.step = self.context = None
        options["name"] = options["context"] = None
        self.busy = False
    if step is not None:
        make_step(self, task, step, context)
    return task


cdef int make_step(EagerStart self, task, step, context) except -1:
    """Make the first step, or have it made soon where it cannot be made now."""
    cdef bint begun = False
    try:
        enter_context(context)
        begun = True
        try:
            step()
        finally:
            exit_context(context)
    except BaseException as exc:
        # The context is in use, or another task of the loop runs.
        if isinstance(exc, RuntimeError) and not (begun and _current_task(self.loop) is None):
            self.loop.call_soon(step, context=context)
            return 0
        if task.done() and not task.cancelled():
            task.exception()  # or it would complain that nobody asked for it
        raise
    return 0


cdef int restore(EagerStart self) except -1:
    self.coro = None
    found = self.names.pop("call_soon", None)
    if found is not None and found is not self.hook:
        self.names["call_soon"] = found
    return 0


# Runs of a worker, one after another.

@cython.final
@cython.auto_pickle(False)
cdef class Tally:
    """The counters of a worker, over all its lives."""

    cdef public long long runs
    cdef public long long missed
    cdef public long long errors


cdef enum:
    NO = 0
    YES = 1

cdef class SerialCore:
    """The tokens that keep runs of a worker one after another, and those in the pool."""

    cdef unsigned char idle_, queued_, pending_, open_, late_, begun_  # atomic
    cdef bint checks, paces
    cdef nt_mutex mutex  # protects the task
    cdef public long long owed
    cdef public double not_before
    cdef double spacing
    cdef bint asks_life  # what a run makes up for, as there is no spacing
    cdef unsigned long thread_
    cdef object life, run, task_
    cdef tuple names, values  # of the keywords of the run
    cdef Tally tally
    cdef Submitter lane
    cdef object clock_
    cdef TickerCore ticker  # the clock, if it is one: it is then asked without a call

    def __cinit__(self, *args, **kwargs):
        self.idle_ = self.open_ = YES

    def _stage(self, life, tally, run, kwargs, lane, clock, *, checks, paces, spacing):
        """Take what runs need.

        Parameters:
            run, kwargs: what is called, and its keywords.
            lane: of the pool that they are made in, or None.
            spacing: least seconds between the beginnings of two prompted runs; None: the
                life sees to what is pending or late as a run begins, in `on_run`.
        """
        self.life = life
        self.tally = tally
        self.run = run
        self.names = tuple(kwargs)
        self.values = tuple(kwargs.values())
        self.lane = lane
        self.clock_ = clock
        self.ticker = clock if isinstance(clock, TickerCore) else None
        self.checks = checks
        self.paces = paces
        self.asks_life = spacing is None
        self.spacing = 0.0 if spacing is None else spacing

    @property
    def idle(self):
        """Whether no run is on or claimed."""
        return nt_load(&self.idle_) == YES

    @property
    def queued(self):
        """Whether a claimed run has not begun."""
        return nt_load(&self.queued_) == YES

    @property
    def pending(self):
        """Whether a run is wanted that begins from now on."""
        return nt_load(&self.pending_) == YES

    @pending.setter
    def pending(self, bint value):
        nt_swap(&self.pending_, value)  # a run that clears it reads nothing before that

    @property
    def open(self):
        """Whether runs may begin."""
        return nt_load(&self.open_) == YES

    @open.setter
    def open(self, bint value):
        nt_store(&self.open_, value)

    @property
    def late(self):
        """Whether something fell due and did not begin at once."""
        return nt_load(&self.late_) == YES

    @late.setter
    def late(self, bint value):
        nt_store(&self.late_, value)

    @property
    def thread(self):
        """The identifier of the thread that the run is on in, or 0."""
        return self.thread_

    @thread.setter
    def thread(self, value):
        self.thread_ = value

    @property
    def task(self):
        """The latest run, or what makes all of them, or None."""
        nt_lock(&self.mutex)
        task = self.task_
        nt_unlock(&self.mutex)
        return task

    @task.setter
    def task(self, value):
        keep_task(self, value)

    def take_idle(self):
        """Take what says that no run is on; return False if it was not there."""
        return nt_swap(&self.idle_, NO) == YES

    def put_idle(self):
        """Put it back."""
        nt_swap(&self.idle_, YES)

    def take_queued(self):
        """Begin or make void the claimed run; return False if there is none."""
        return nt_swap(&self.queued_, NO) == YES

    def put_queued(self):
        """Have a run claimed that is to begin."""
        nt_swap(&self.queued_, YES)

    def claim(self):
        """Claim a run, to be entered; return False if one is on its way or on."""
        if nt_swap(&self.idle_, NO) == NO:
            return False
        nt_swap(&self.queued_, YES)
        return True

    def prompt(self, bint hold=False):
        """Have a run begin that begins from now on, if none is to, or `not_before`.

        Returns:
            Whether one was claimed that is yet to be entered when it is due; with *hold*
            the caller is to do so in any case.
        """
        return prompt(self, hold)

    def trigger(self):
        """Prompt a run, to begin when it is due; return False if none may begin."""
        if not nt_load(&self.open_):
            return False
        if prompt(self, False):
            self.life.enter_at(self.not_before)
        return True

    def answer(self):
        """See to what is pending or late as a run begins that makes up for it."""
        answer(self)

    def fire(self):
        """Make a run due: on the tick, or in the loop."""
        if nt_swap(&self.idle_, NO) == NO:
            self.life.fire_while_busy()
        elif self.lane is None:
            self.enter_taken()
        else:
            nt_swap(&self.queued_, YES)
            enter_pool(self)

    def enter(self):
        """Hand the claimed run to the pool."""
        enter_pool(self)

    def turn(self):
        """Make the claimed run: in a thread of the pool."""
        if nt_swap(&self.queued_, NO) == NO:
            return  # void
        if nt_load(&self.open_):
            if nt_load(&self.pending_) or nt_load(&self.late_):
                answer(self)
            self.tally.runs += 1
            self.thread_ = PyThread_get_thread_ident()
            try:
                result = nt_call_named(self.run, self.names, self.values)
            except BaseException:
                self.life.failed()
            else:
                if result is False or self.checks:
                    self.life.returned(result)
            self.thread_ = 0
            if self.paces:
                self.life.after_run()
        nt_swap(&self.idle_, YES)
        if self.owed or nt_load(&self.pending_) or not nt_load(&self.open_):
            self.life.settle()


cdef object _turn = SerialCore.turn


cdef bint prompt(SerialCore self, bint hold) except -1:
    nt_swap(&self.pending_, YES)
    if not nt_load(&self.begun_):  # as a life that has begun stays so, it is asked once
        if not self.life.begun and not self.life.want():
            return False
        nt_store(&self.begun_, YES)
    if nt_swap(&self.idle_, NO) == NO:
        return False
    nt_swap(&self.queued_, YES)
    # What the run before has set is looked at now that it has ended.
    if hold or (self.not_before and self.not_before > time_of(self)):
        return True
    if self.lane is None:
        self.enter()
    else:
        enter_pool(self)
    return False


cdef inline double time_of(SerialCore self) except? -1:
    if self.ticker is None:
        return self.clock_.now()
    return now_of(self.ticker) / 1e9


cdef int answer(SerialCore self) except -1:
    if self.asks_life:
        self.life.on_run()
        return 0
    nt_swap(&self.pending_, NO)  # before anything that the run may read
    nt_store(&self.late_, NO)
    if self.spacing:
        self.not_before = time_of(self) + self.spacing
    return 0


cdef int keep_task(SerialCore self, task) except -1:
    """Let a task be the latest one."""
    nt_lock(&self.mutex)
    last = self.task_
    self.task_ = task
    nt_unlock(&self.mutex)
    last = None
    return 0


cdef int enter_pool(SerialCore self) except -1:
    """Hand the claimed run to the pool, whatever its bound: there is one for each worker."""
    cdef Submitter lane = self.lane
    cdef TaskCore task = None
    if lane is not None and lane.dispatcher.launcher is None:
        try:
            wake_ahead(lane.dispatcher, lane.lane_)
            task = make(
                lane.dispatcher, PyMethod_New(_turn, self), _NO_ARGS, None, lane.lane_, True
            )
            enqueue(lane.dispatcher, task, True, None)
            keep_task(self, task)
            return 0
        except (RuntimeError, MemoryError):  # runs may yet be let in while workers stop
            if task is not None:
                task.cancel()
    self.enter_slowly()
    return 0


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
