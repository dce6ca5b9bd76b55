# Timers: what fires once, or again and again; and the units they are kept in.
#
# Guarantees: a timer that was cancelled, and said so, does not fire any more, save for a call
# that is on its way already.
#
# Assumes: the ticker's mutex protects all that changes.
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
