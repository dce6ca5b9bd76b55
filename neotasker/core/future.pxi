# Futures: the state machine of the standard's future, without its costs.
#
# Guarantees: see `FutureCore` in future.py. The phase is an atomic byte, stored with release
# after the value and loaded with acquire before it, so that ``done()`` and a finished
# ``result()`` take no lock.
#
# Assumes: a subclass derives from ``concurrent.futures.Future`` too, whose ``__init__`` is
# never called; it brings the weak references.
#
# The twin, future.py, keeps callbacks and outcome apart, as it saves no memory to let them
# share one place.

cdef enum:
    PENDING = 0
    RUNNING = 1
    CANCELLED = 2
    FINISHED = 3

# Callbacks that end other futures, one within the other.
cdef enum:
    DEEPEST = 32

# The steps of `settle_standard`, and how often each is tried.
cdef enum:
    ACQUIRE = 0
    TELL = 1
    NOTIFY = 2
    RELEASE = 3
    TRIES = 5

cdef tuple _STATES = ("PENDING", "RUNNING", "CANCELLED_AND_NOTIFIED", "FINISHED")
cdef tuple _WORDS = ("pending", "running", "cancelled", "finished")


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
        nt_need_room()
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
            call_all(self, fresh)

    def cancel(self):
        """Cancel the future unless it runs or has finished; return whether it is cancelled."""
        nt_need_room()
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
        raise UnexpectedState("Future in unexpected state")

    def set_result(self, result):
        """End the future with a result."""
        nt_need_room()
        if not settle(self, FINISHED, False, result, NULL):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception):
        """End the future with an exception; None is a result.

        Raises:
            TypeError: it is no exception.
        """
        if exception is not None and not isinstance(exception, BaseException):
            check_exception(exception)
        nt_need_room()
        if not settle(self, FINISHED, exception is not None, exception, NULL):
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


cdef int check_exception(object exception) except -1:
    """Refuse what cannot be raised."""
    if not (isinstance(exception, type) and issubclass(exception, BaseException)):
        raise TypeError(f"an exception is needed, or None, not {exception!r}")
    return 0


cdef int report_callback(FutureCore self) except -1:
    """Report the exception of a callback; without memory for that, others are to be called."""
    try:
        _standard_logger.exception("exception calling callback for %r", self)
    except BaseException:
        pass
    return 0


cdef object call_back(FutureCore self, object fn, object raised):
    """Call a callback; return what is to be raised in the end: *raised*, or what it raises."""
    try:
        if self.failed and isinstance(self.value, StopIteration):
            fn(_told_to(fn, self, self.value))
        else:
            fn(self)
    except Exception:
        report_callback(self)
    except BaseException as exc:
        if raised is not None or not is_main_thread():  # one can be raised
            report_callback(self)
        else:
            return exc
    return raised


cdef int call_all(FutureCore self, list callbacks) except -1:
    """Call the callbacks of an ended future, in order.

    A callback may end another future, whose callbacks end the next one, and so on. Beyond a
    certain depth they are put off until the callback that ended the future has returned, so
    that no chain is too long.

    What they raise is logged. In the main thread what is no `Exception`, as Ctrl+C, is raised
    when all have been called; in any other it would end the thread.

    Raises:
        BaseException: the first of these.
    """
    cdef nt_callbacks *mine = nt_get_callbacks()
    cdef object raised = None
    cdef list others = None
    if mine.depth >= DEEPEST or (mine.depth and not nt_has_room()):
        if put_off(mine, self, callbacks):
            return 0
    mine.depth += 1
    for fn in callbacks:
        raised = call_back(self, fn, raised)
        while mine.put_off is not NULL:
            others = <list>mine.put_off
            Py_DECREF(others)  # that of the thread; the local has its own
            mine.put_off = NULL
            for other in others:
                for last in <list>(<tuple>other)[1]:
                    raised = call_back(<FutureCore>(<tuple>other)[0], last, raised)
    mine.depth -= 1
    if raised is not None:
        raise raised
    return 0


cdef bint put_off(nt_callbacks *mine, FutureCore self, list callbacks) noexcept:
    """Leave the callbacks to the one that runs; return False if there is no memory for it."""
    cdef list those = None
    try:
        if mine.put_off is NULL:
            those = [(self, callbacks)]
            mine.put_off = <PyObject *>those
            Py_INCREF(those)
        else:
            (<list>mine.put_off).append((self, callbacks))
    except MemoryError:
        return False
    return True


cdef bint await_done(FutureCore self, object timeout) except -1:
    """Sleep until the future has ended; return whether it has."""
    cdef long long limit = microseconds(timeout)
    cdef Parker *parker = NULL
    cdef Place *place = NULL
    cdef bint woken = False, ours = False
    if not limit:
        return nt_load(&self.phase) >= CANCELLED
    if self.standard is not None and self.standard.condition._is_owned():
        # By a function of the standard that a signal handler has interrupted: who ends the
        # future has to have it.
        if nt_load(&self.phase) < CANCELLED:
            self.standard.condition.wait(None if limit < 0 else limit // 1000000 + 1)
        return nt_load(&self.phase) >= CANCELLED
    need_threads()
    parker = parker_get()
    nt_lock(&self.mutex)
    if self.phase >= CANCELLED:
        nt_unlock(&self.mutex)
        parker_put(parker)
        return True
    push(&self.parked, parker)
    nt_unlock(&self.mutex)
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
    callbacks = <list>taken
    Py_DECREF(callbacks)  # ours, beside that of the local
    if phase == CANCELLED and isinstance(self, TaskCore):
        nt_unlock(&self.mutex)
        withdraw(<TaskCore>self)
        nt_lock(&self.mutex)
    parked = self.parked
    self.parked = NULL
    nt_unlock(&self.mutex)
    if callbacks is None and deferred is not NULL:
        deferred[0] = parked
        return True
    release_all(parked)
    if callbacks is not None:
        call_all(self, callbacks)
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
