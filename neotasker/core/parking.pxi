# Parkers: who sleeps, and who is woken.
#
# Guarantees: a parker that was released wakes the one thread that sleeps on it, once, also
# if the release came first. Parkers are kept and used again; none is freed while a late
# release might still touch it.
#
# Assumes: who takes a parker out of a list releases it, once. Who finds that somebody else
# has taken it out waits for that release before the parker is put back.
#
# The twin, parking.py, has no list of spare parkers, as a lock of Python costs little to
# make, and no `let_others_run`, as each call of a function in Python does that by itself.

# Atomic bytes that say yes or no.
cdef enum:
    NO = 0
    YES = 1

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


cdef bint is_main_thread() except -1:
    """Return whether this is the thread in which Ctrl+C strikes."""
    return threading.main_thread().ident == PyThread_get_thread_ident()


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


cdef void join_parkers(Parker **head, Parker *more) noexcept nogil:
    """Append a list of parkers to another one."""
    while head[0] is not NULL:
        head = &head[0].next
    head[0] = more


cdef bint unlink_parker(Parker **head, Parker *parker) noexcept nogil:
    """Take a parker out of a list; return whether it was there."""
    while head[0] is not NULL:
        if head[0] is parker:
            head[0] = parker.next
            return True
        head = &head[0].next
    return False


cdef object _index = operator.index
cdef object _LONGEST = PY_TIMEOUT_MAX // 1000000  # seconds


cdef long long microseconds(object timeout) except? -2:
    """Return a timeout in the unit of the interpreter's locks; None waits for ever: -1.

    What is not above 0 is no time, nan among it; what is longer than a lock can wait is as
    long as that.
    """
    cdef double seconds
    if timeout is None:
        return -1
    if type(timeout) is not float:
        try:
            if not timeout > 0:
                return 0
            if not isinstance(timeout, float):
                timeout = _index(timeout)
                if timeout > _LONGEST:
                    return PY_TIMEOUT_MAX
        except TypeError:
            raise TypeError(
                f"a timeout is an int or a float of seconds, or None, not {timeout!r}"
            ) from None
    seconds = timeout
    if not seconds > 0:
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
