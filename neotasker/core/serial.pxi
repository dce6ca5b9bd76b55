# Runs of a worker, one after another.
#
# Guarantees, assumes: see `SerialCore` in serial.py. Its tokens are bytes here that are
# exchanged.
#
# The twin, serial.py, leaves nothing out.

@cython.final
@cython.auto_pickle(False)
cdef class Tally:
    """The counters of a worker, over all its lives."""

    cdef public long long runs
    cdef public long long missed
    cdef public long long errors


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
    cdef TickerCore errands  # the host's; a life on something smaller has none

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
        errands = getattr(getattr(life, "host", None), "ticker", None)
        self.errands = errands if isinstance(errands, TickerCore) else None
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

    def give_back(self):
        """Give back a claim that could not be entered, and have left words seen to."""
        give_back(self)

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
            try:
                self.life.enter_at(self.not_before)
            except BaseException:
                give_back(self)
                raise
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
        """Hand the claimed run to the pool, or give the claim back and raise."""
        enter_pool(self)

    def turn(self):
        """Make the claimed run: in a thread of the pool."""
        cdef bint begun = False
        if nt_swap(&self.queued_, NO) == NO:
            return  # void
        if self.tally is None:
            nt_swap(&self.idle_, YES)
            raise AttributeError("a worker's core that was not staged has nothing to run")
        try:
            if nt_load(&self.open_):
                begun = True
                if nt_load(&self.pending_) or nt_load(&self.late_):
                    answer(self)
                self.tally.runs += 1
                self.thread_ = PyThread_get_thread_ident()
                try:
                    result = nt_call_named(self.run, self.names, self.values)
                except BaseException:
                    self.life.failed()
                else:
                    if result is False or self.checks or nt_may_wait(result):
                        self.life.returned(result)
        except BaseException:
            end_turn(self, begun)
            raise
        end_turn(self, begun)


cdef int end_turn(SerialCore self, bint begun) except -1:
    """Let another run begin, and see to what was left to this one."""
    self.thread_ = 0
    try:
        if begun and self.paces:
            self.life.after_run()
    finally:
        nt_swap(&self.idle_, YES)
        if self.owed or nt_load(&self.pending_) or not nt_load(&self.open_):
            self.life.settle()
    return 0


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
        try:
            self.enter()
        except BaseException:
            give_back(self)
            raise
    else:
        enter_pool(self)
    return False


cdef int give_back(SerialCore self) except -1:
    """Give back a claim that could not be entered, and have left words seen to."""
    if nt_swap(&self.queued_, NO) == YES:
        nt_swap(&self.idle_, YES)
    if self.errands is not None and (
        self.owed or nt_load(&self.pending_) or not nt_load(&self.open_)
    ):
        do_later(self.errands, self.life.settle)
    return 0


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
    """Hand the claimed run to the pool, whatever its bound: there is one for each worker.

    Raises:
        BaseException: it could not be; the claim was given back.
    """
    try:
        return enter_if_possible(self)
    except BaseException:
        give_back(self)
        raise


cdef int enter_if_possible(SerialCore self) except -1:
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
