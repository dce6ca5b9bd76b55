# Timers: what fires once, or again and again; and the units they are kept in.
#
# Guarantees: a timer that was cancelled, and said so, does not fire any more, save for a call
# that is on its way already.
#
# Assumes: the ticker's mutex protects all that changes.
#
# What a timer calls is held by the ticker, which shows it to the garbage collector; the timer
# has no reference to anything of Python. So a cycle through a timer that somebody keeps is
# one through the ticker, and a million timers that wait are not looked at one by one.
#
# The twin, timer.py, keeps times as seconds in floats, where here they are nanoseconds.

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


cdef struct Held:  # for a timer, by the ticker; all three are references of its own
    PyObject *timer
    PyObject *callback
    PyObject *args


cdef enum:
    QUEUES = 64  # for so many intervals, if no two fall upon the same

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


cdef struct Clockwork:
    # What a ticker and its timers share. It ends with the last of them: a timer whose ticker
    # is gone may still be cancelled.
    unsigned int users  # the ticker, and its timers; atomic
    nt_mutex mutex  # protects what follows, and the timers
    Entry *heap
    Py_ssize_t size
    Py_ssize_t room
    Queue *queues[QUEUES]
    Py_ssize_t count  # of all timers
    # By the slot of a timer: where it is in the heap, or the next free slot; and what is held.
    unsigned int *places
    Held *held
    Py_ssize_t slots_room
    unsigned int slots  # how many were ever needed since they were last counted anew
    unsigned int free_slot
    unsigned int serial  # of the timer that was set last; begins again from 0
    # The blocks that the three are in.
    void *heap_block
    void *places_block
    void *held_block
    long long asleep_until  # AWAKE, or when the thread means to wake
    Parker *parker
    bint stopping
    long long fires
    unsigned int ticks  # how often `tick` was called; begins again from 0


cdef Clockwork *make_works() except NULL:
    """Return a clockwork without timers, for its first user."""
    cdef Parker *parker = parker_get()
    cdef Clockwork *works = <Clockwork *>PyMem_RawMalloc(sizeof(Clockwork))
    if works is NULL:
        parker_put(parker)
        raise MemoryError()
    memset(works, 0, sizeof(Clockwork))
    works.users = 1
    works.parker = parker
    works.asleep_until = AWAKE
    works.free_slot = NO_SLOT
    return works


cdef void leave_works(Clockwork *works) noexcept:
    """Be no user any more; the last one frees it. It then has no timers."""
    cdef Py_ssize_t i
    if nt_count_down(&works.users):
        return
    for i in range(QUEUES):
        if works.queues[i] is not NULL:
            PyMem_RawFree(works.queues[i].ring)
            PyMem_RawFree(works.queues[i])
    PyMem_RawFree(works.heap_block)
    PyMem_RawFree(works.places_block)
    PyMem_RawFree(works.held_block)
    parker_put(works.parker)
    PyMem_RawFree(works)


cdef struct Periodic:
    long long interval
    int policy
    bint queued  # in a queue of its interval, in place of the heap
    long long runs
    long long missed
    # Of a timer that catches up: how often it did in the latest tick in which it had to.
    unsigned int caught_up
    unsigned int tick


cdef class TimerCore:
    """One timer of a ticker: fires once, or every *interval* seconds until cancelled."""

    cdef Clockwork *works  # NULL: it was made by no ticker
    cdef Periodic *periodic  # of a `PeriodicTimer`; NULL: fires once
    cdef long long when_
    cdef unsigned int slack_  # microseconds
    cdef unsigned int slot  # what the ticker holds, and notes the place of; or FIRED, NO_SLOT

    def __init__(self):
        raise TypeError("timers are made by Ticker.call_at, call_later and call_every")

    def __dealloc__(self):
        if self.works is not NULL:
            leave_works(self.works)

    @property
    def when(self):
        """When the timer fires next: seconds of the ticker's clock."""
        return checked(self).when_ / 1e9

    @property
    def interval(self):
        """Seconds between two fires, or None."""
        return None if checked(self).periodic is NULL else self.periodic.interval / 1e9

    @property
    def slack(self):
        """How many seconds later than due the timer may fire, to share a wake-up."""
        return checked(self).slack_ / 1e6

    @property
    def runs(self):
        """How often the timer has fired."""
        if checked(self).periodic is NULL:
            return int(nt_load32(&self.slot) == <unsigned int>FIRED)
        return self.periodic.runs

    @property
    def missed(self):
        """How many fires were left out because the tick came late."""
        return 0 if checked(self).periodic is NULL else self.periodic.missed

    @property
    def active(self):
        """Whether the timer will fire."""
        return nt_load32(&checked(self).slot) < <unsigned int>FIRED

    def cancel(self):
        """Keep the timer from firing again; return False if it had nothing left to do."""
        cdef Clockwork *works = checked(self).works
        cdef Held held
        cdef bint found
        nt_lock(&works.mutex)
        found = self.slot < <unsigned int>FIRED
        if found:
            held = take_out(works, self, NO_SLOT)
            if works.size < works.room >> 3 or works.count < works.slots_room >> 6:
                shrink(works)
        nt_unlock(&works.mutex)
        if found:
            let_go(held)
        return found


cdef inline TimerCore checked(TimerCore self):
    """Return the timer, if a ticker has made it."""
    if self.works is NULL:
        raise AttributeError(
            "no ticker has made this timer: use Ticker.call_at, call_later or call_every"
        )
    return self


@cython.final
cdef class PeriodicTimer(TimerCore):
    """One that fires again and again; what that takes is beside the rest."""

    cdef Periodic own


cdef double seconds_of(str name, object value) except? -1:
    """Return a time as a number of seconds, whatever kind of number it is."""
    if type(value) is float:
        return <double>value
    return _real_seconds(name, value)


cdef long long nanoseconds(str name, object seconds) except? -1:
    """Return a time in the unit of the heap."""
    cdef double value = seconds_of(name, seconds)
    if value - value != 0:
        raise ValueError(f"{name} must be finite seconds, not {seconds!r}")
    return rounded(value)


cdef long long rounded(double value) noexcept nogil:
    value *= 1e9
    if value >= <double>FAR:
        return FAR
    if value <= -<double>FAR:
        return -FAR
    # So that a time that was read from the heap comes back as the same.
    return <long long>(value + 0.5 if value >= 0 else value - 0.5)


cdef unsigned int slack_of(object seconds) except? 1:
    """Return a slack in the unit of timers."""
    cdef double value = seconds_of("slack", seconds)
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
        if periodic is not NULL and slack and slack * <long long>1000 >= periodic.interval:
            raise ValueError(
                f"slack must be less than the interval, {periodic.interval / 1e9} s, "
                f"not {own!r}"
            )
    # A clock that is turned by hand has no wake-ups to share.
    return slack if self.clock is None else 0
