# The ticker: the loop that fires what is due.
#
# Guarantees: see `TickerCore` in ticker.py.
#
# Assumes: one thread at a time calls ``run`` or ``tick``.
#
# The twin, ticker.py, leaves nothing out.

cdef class TickerCore:
    """The clockwork: a heap of timers, and the loop that fires those that are due."""

    cdef Clockwork *works
    cdef unsigned int slack_  # microseconds, of timers that have none of their own
    cdef object clock  # None: the machine's

    def __cinit__(self, *args, **kwargs):
        self.works = make_works()

    def __init__(self, now=None, slack=0.0):
        self.clock = now
        self.slack_ = slack_of(slack)

    def __dealloc__(self):
        if self.works is not NULL:
            clear_works(self.works)
            leave_works(self.works)

    @property
    def slack(self):
        """How many seconds later than due timers may fire that have no slack of their own."""
        return self.slack_ / 1e6

    @slack.setter
    def slack(self, value):
        self.slack_ = slack_of(value)

    def call_at(self, when, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick at *when* (seconds of the ticker's clock).

        Parameters:
            slack: seconds by which it may be later, to share a wake-up with others; the
                ticker's own when left out.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the time is not finite, or the slack not from 0 to an hour.
        """
        return add_timer(self, nanoseconds("when", when), NULL, callback, args, slack)

    def call_later(self, delay, callback, /, *args, slack=None):
        """Call ``callback(*args)`` on the tick in *delay* seconds; negative: at the next.

        Parameters:
            slack: see `call_at`.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the delay is not finite, or the slack not from 0 to an hour.
        """
        cdef long long pause = nanoseconds("delay", delay)
        return add_timer(self, now_of(self) + pause, NULL, callback, args, slack)

    def call_every(self, interval, callback, /, *args, missed="skip", first=None, slack=None):
        """Call ``callback(*args)`` on the tick every *interval* seconds, at a fixed rate.

        Parameters:
            interval: seconds, a microsecond or more.
            missed: what follows when the tick comes late by an interval or more:
                ``'skip'`` keeps the phase, ``'delay'`` starts a new one, ``'burst'``
                catches up (the words of tokio's ``MissedTickBehavior``).
            first: seconds until the first call; one interval when left out.
            slack: see `call_at`; less than the interval. Of the ticker's own slack, half
                an interval is used at most. Due times do not drift by it.

        Returns:
            The `Timer`.

        Raises:
            TypeError: a time is no number, or the callback cannot be called.
            ValueError: the interval is less than a microsecond or not finite, *missed*
                unknown, or the slack out of range.
        """
        cdef Periodic periodic
        cdef double seconds = seconds_of("interval", interval)
        cdef long long start
        if not SHORTEST <= seconds < float("inf"):
            raise ValueError(_too_short("interval", interval))
        if missed not in _MISSED:
            raise ValueError(f"missed must be 'skip', 'delay' or 'burst', not {missed!r}")
        memset(&periodic, 0, sizeof(Periodic))
        periodic.interval = rounded(seconds)
        periodic.policy = _MISSED.index(missed)
        start = periodic.interval if first is None else nanoseconds("first", first)
        return add_timer(self, now_of(self) + start, &periodic, callback, args, slack)

    def _do_later(self, errand):
        """Have the ticker call *errand* soon, for who has failed to do it."""
        do_later(self, errand)

    def tick(self):
        """Fire the timers that are due; return how many did."""
        cdef long long since = nt_now()
        return tick(self, &since)

    def run(self):
        """Fire timers as they fall due until `stop`: the body of the ticker's thread."""
        cdef long long until, pause
        cdef PyLockStatus status
        cdef bint roused
        cdef Clockwork *works = self.works
        cdef long long since = nt_now()
        while True:
            tick(self, &since)
            pause = now_of(self)
            nt_lock(&works.mutex)
            if works.stopping:
                nt_unlock(&works.mutex)
                return
            if works.size:
                until = works.heap[0].limit
                if until <= pause:
                    nt_unlock(&works.mutex)
                    continue
                pause = (until - pause + 999) // 1000
                pause = min(pause, PY_TIMEOUT_MAX)
                works.asleep_until = until
            else:
                pause = -1
                works.asleep_until = FOREVER
            nt_unlock(&works.mutex)
            with nogil:
                status = PyThread_acquire_lock_timed(works.parker.lock, pause, 0)
            since = nt_now()
            if status != PY_LOCK_ACQUIRED:
                nt_lock(&works.mutex)
                roused = works.asleep_until == AWAKE
                works.asleep_until = AWAKE
                nt_unlock(&works.mutex)
                if roused:  # somebody is about to release it
                    with nogil:
                        PyThread_acquire_lock_timed(works.parker.lock, -1, 0)

    def stop(self):
        """Make `run` return after the callbacks of this tick."""
        cdef Clockwork *works = self.works
        cdef bint rouse
        nt_lock(&works.mutex)
        works.stopping = True
        rouse = works.asleep_until != AWAKE
        works.asleep_until = AWAKE
        nt_unlock(&works.mutex)
        if rouse:
            PyThread_release_lock(works.parker.lock)

    def reset(self):
        """Make the ticker ready for another `run`."""
        cdef Clockwork *works = self.works
        nt_lock(&works.mutex)
        works.stopping = False
        nt_unlock(&works.mutex)

    def clear(self):
        """Cancel every timer; return how many there were."""
        return clear_works(self.works)

    def abandon(self):
        """Forget all timers: in a forked child, which has not got the ticker's thread."""
        cdef Clockwork *works = self.works
        memset(&works.mutex, 0, sizeof(nt_mutex))
        works.asleep_until = AWAKE
        works.stopping = True
        self.clear()

    def now(self):
        """Return the time of the ticker's clock, in seconds."""
        return now_of(self) / 1e9

    @property
    def next_due(self):
        """When the next timer is to fire, its slack used: seconds of the clock, or None."""
        cdef Clockwork *works = self.works
        cdef long long when = 0
        cdef bint found
        nt_lock(&works.mutex)
        found = works.size > 0
        if found:
            when = works.heap[0].limit
        nt_unlock(&works.mutex)
        return when / 1e9 if found else None

    @property
    def fires(self):
        """How many timers have fired."""
        return self.works.fires

    def __len__(self):
        return self.works.count


cdef long long now_of(TickerCore self) except? -1:
    if self.clock is None:
        return nt_now()
    return nanoseconds("the time of the clock", self.clock())


cdef Py_ssize_t clear_works(Clockwork *works) noexcept:
    """Cancel every timer; return how many there were."""
    cdef Held held
    cdef Py_ssize_t cleared = 0
    while True:
        nt_lock(&works.mutex)
        if not works.size:
            nt_unlock(&works.mutex)
            return cleared
        held = works.held[works.heap[works.size - 1].slot]
        take_out(works, <TimerCore>held.timer, NO_SLOT)
        nt_unlock(&works.mutex)
        let_go(held)
        cleared += 1


# What timers call is held in arrays, of which Cython knows nothing.

cdef nt_traverseproc _traverse_others = (<nt_type *>TickerCore).tp_traverse
cdef nt_inquiry _clear_others = (<nt_type *>TickerCore).tp_clear


cdef int show_timers_to_collector(PyObject *op, nt_visitproc visit, void *arg) noexcept:
    """Tell the collector what a ticker holds: the world stands still, nothing may change."""
    cdef Clockwork *works = (<TickerCore>op).works
    cdef unsigned int slot
    cdef int stop
    if works is not NULL:
        for slot in range(works.slots):
            if works.held[slot].timer is not NULL:
                stop = visit(works.held[slot].callback, arg)
                if not stop:
                    stop = visit(works.held[slot].args, arg)
                if stop:
                    return stop
    return _traverse_others(op, visit, arg)


cdef int clear_timers_for_collector(PyObject *op) noexcept:
    """Let go of what a ticker holds that nobody can reach."""
    if (<TickerCore>op).works is not NULL:
        clear_works((<TickerCore>op).works)
    return _clear_others(op)


(<nt_type *>TickerCore).tp_traverse = show_timers_to_collector
(<nt_type *>TickerCore).tp_clear = clear_timers_for_collector


cdef enum:
    MOST_AT_ONCE = 1000  # fires of one timer in one tick that make up for what was missed


cdef TimerCore add_timer(
    TickerCore self, long long when, Periodic *periodic, object callback, tuple args,
    object slack
):
    cdef Clockwork *works = self.works
    cdef TimerCore timer
    cdef bint rouse
    if not nt_is_plain(callback, True):
        check_callback(callback)
    if periodic is NULL:
        timer = TimerCore.__new__(TimerCore)
    else:
        timer = PeriodicTimer.__new__(PeriodicTimer)
        (<PeriodicTimer>timer).own = periodic[0]
        timer.periodic = &(<PeriodicTimer>timer).own
    timer.when_ = when
    timer.slot = NO_SLOT
    if slack is not None or self.slack_:
        timer.slack_ = choose_slack(self, slack, periodic)
    timer.works = works
    nt_count_up(&works.users)
    nt_lock(&works.mutex)
    if not make_room(works):
        nt_unlock(&works.mutex)
        raise MemoryError()
    heap_push(works, timer, callback, args)
    rouse = limit_of(timer) < works.asleep_until
    if rouse:
        works.asleep_until = AWAKE
    nt_unlock(&works.mutex)
    if rouse:
        PyThread_release_lock(works.parker.lock)
    return timer


cdef enum:
    ERRAND = 50000000  # nanoseconds until that is tried which somebody has failed to do


cdef int do_later(TickerCore self, object errand) except -1:
    add_timer(self, now_of(self) + ERRAND, NULL, errand, _NO_ARGS, None)
    return 0


cdef inline bint has_caught_up(Clockwork *works, Periodic *periodic) noexcept:
    """Count a fire to be made up for; return whether that is enough for this tick."""
    if periodic.tick != works.ticks:
        periodic.tick = works.ticks
        periodic.caught_up = 0
    periodic.caught_up += 1
    return periodic.caught_up >= MOST_AT_ONCE


cdef void rearm(Clockwork *works, TimerCore timer, long long now) noexcept:
    """Set a periodic timer, which is first in the heap, to its next time. Mutex held."""
    cdef Queue *queue
    cdef Entry entry, following
    cdef Periodic *periodic = timer.periodic
    cdef long long interval = periodic.interval
    cdef long long late = now - timer.when_
    cdef bint waits = False
    late = 0 if late < interval else late // interval
    if periodic.policy == BURST:
        timer.when_ += interval
        waits = timer.when_ <= now and has_caught_up(works, periodic)
    else:
        periodic.missed += late
        if periodic.policy == DELAY and late:
            timer.when_ = now + interval
        else:
            timer.when_ += (late + 1) * interval
    works.serial += 1
    entry.limit = limit_of(timer)
    if waits and entry.limit < now:
        entry.limit = now  # behind all others that are due
    entry.serial = works.serial
    entry.slot = timer.slot
    queue = get_queue(works, timer)
    if queue is NULL:
        works.heap[0] = entry
    elif queue.first == <unsigned int>NO_SLOT:
        queue.first = entry.slot
        queue.last = entry.limit
        works.heap[0] = entry
    elif queue.first != entry.slot:
        if entry.limit >= queue.last and join_queue(queue, entry):
            periodic.queued = True
            heap_remove(works, 0)
            return
        works.heap[0] = entry
    elif leave_queue(works, queue, &following):
        works.heap[0] = following
        if entry.limit >= queue.last:
            periodic.queued = join_queue(queue, entry)  # it has room for one that left
        elif make_room_in_heap(works):
            sift_down(works, 0)
            works.heap[works.size] = entry
            works.size += 1
            sift_up(works, works.size - 1)
            return
        elif entry.limit < following.limit:
            rejoin_queue(works, queue, following)
            queue.first = entry.slot
            works.heap[0] = entry
        else:
            jump_queue(queue, entry)
            periodic.queued = True
    else:
        queue.first = entry.slot
        queue.last = entry.limit
        works.heap[0] = entry
    sift_down(works, 0)


cdef inline bint is_enough(Clockwork *works, TimerCore timer) noexcept:
    """Return whether the first timer is one that is to go on in the next tick only."""
    cdef Periodic *periodic = timer.periodic
    return (
        periodic is not NULL
        and periodic.caught_up >= MOST_AT_ONCE
        and periodic.tick == works.ticks
    )


cdef Py_ssize_t tick(TickerCore self, long long *since) except -1:
    """Fire what is due now; what falls due meanwhile is left to the next tick."""
    cdef Clockwork *works = self.works
    cdef long long now = now_of(self)
    cdef Py_ssize_t fired = 0
    cdef TimerCore timer = None
    cdef Held held
    cdef PyObject *outcome
    nt_lock(&works.mutex)
    works.ticks += 1
    nt_unlock(&works.mutex)
    while True:
        if not fired & 31:
            let_others_run(since, nt_now())
        nt_lock(&works.mutex)
        if works.size:
            timer = <TimerCore>works.held[works.heap[0].slot].timer
        if (
            timer is None or timer.when_ > now or works.stopping or is_enough(works, timer)
        ):
            shrink(works)
            nt_unlock(&works.mutex)
            return fired
        if timer.periodic is NULL:
            held = take_out(works, timer, FIRED)
        else:
            held = works.held[timer.slot]
            held.timer = NULL
            Py_INCREF(<object>held.callback)
            Py_INCREF(<object>held.args)
            timer.periodic.runs += 1
            rearm(works, timer, now)
        works.fires += 1
        nt_unlock(&works.mutex)
        timer = None
        fired += 1
        outcome = raw_call(held.callback, held.args, NULL)
        if outcome is NULL:
            log_callback(<object>held.callback)
        else:
            Py_DECREF(<object>outcome)
        let_go(held)


cdef int log_callback(object callback) noexcept:
    """Log the exception of a callback: it is set, as after any failed call."""
    cdef PyObject *raised = nt_take_exception()
    if raised is NULL:  # there was no memory for one
        return 0
    error = <object>raised
    Py_DECREF(error)
    try:
        logger.error("exception in timer callback %r", callback, exc_info=error)
    except BaseException:  # not even a call is possible
        pass
    return 0
