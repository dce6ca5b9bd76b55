# Runs of a job, where it is a coroutine that an interval makes due.
#
# Guarantees, assumes: see `JobCore` in job.py. A job is looked at by the thread of its loop
# alone.
#
# The twin, job.py, leaves nothing out.

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

    def _stage(self, call, name, context, maker, TickerCore ticker not None):
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
        cdef bint on = False
        if not self._ready or self._running or options is None:
            self._fire()
            return
        self.runs += 1
        self._running = 1
        try:
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
                    on = True
                if not on and not isinstance(exc, _TaskCancelled):
                    self._failed(exc)
            if on:
                self._stays_on(self.began, task)  # sees to the rest, also where it raises
            else:
                self.lasted = now_of(self.ticker) / 1e9 - self.began
        finally:
            options["context"] = None
            if not on:
                self._running = 0


cdef int close_quietly(coro) except -1:
    """Close a coroutine that could not be made a task, if it is one."""
    try:
        coro.close()
    except BaseException:
        pass
    return 0
