# The ticker: the loop that fires what is due.
#
# Guarantees: see `TickerCore` in ticker.py.
#
# Assumes: one thread at a time calls ``run`` or ``tick``.
#
# The twin, ticker.py, leaves nothing out.

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
