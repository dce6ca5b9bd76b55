# Tasks: one call, its context, and the times at which it was queued, began and ended.
#
# Guarantees: target, arguments and context are let go when the call has run, before its
# result is seen, or when it is cancelled; once.
#
# Assumes: whoever runs a task has begun it. The dispatcher's mutex protects the links, the
# view and whether it waits.
#
# The twin, task.py, hides nothing from the garbage collector, and has no `union`: each time
# and each link has a slot of its own.

# In `TaskCore.warned`, above the levels of `overdue`: a launcher has a place for the task.
cdef enum:
    HANDED_OUT = 4


# Runs within runs: what the pure core has before it meets the limit of recursion. A stack of
# half a mebibyte holds them.
cdef enum:
    MOST_RUNS = 200


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
        else:
            started = self.early.started
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
        let_dispatcher_go(self)

    def _run(self):
        """Run the call in this thread, unless it was cancelled.

        Raises:
            KeyboardInterrupt: the call did, in the main thread, whose code is to hear of it.
            RecursionError: a call has led to itself too often; this one has not begun.
        """
        cdef Parker *deferred = NULL
        cdef nt_callbacks *mine = nt_get_callbacks()
        if self.args is None:
            return  # it has no call: it was never given one, or has let go of it
        if mine.runs >= MOST_RUNS:
            raise RecursionError(
                f"{MOST_RUNS} tasks run one within the other, as each is run where it is "
                "submitted (when_full='run'): raise queue_size, or submit less in tasks"
            )
        mine.runs += 1
        try:
            if begin(self, nt_now()):
                execute(self, NULL, &deferred)
                release_all(deferred)
                if self.failed and isinstance(self.value, KeyboardInterrupt):
                    if is_main_thread():
                        self.seen = True
                        raise self.value
        finally:
            mine.runs -= 1

    def cancel(self):
        """Cancel the task unless it runs or has finished; return whether it is cancelled.

        A waiting task leaves its lane, and whoever waits for it is woken at once.
        """
        nt_need_room()
        return settle(self, CANCELLED, False, None, NULL) or nt_load(&self.phase) == CANCELLED


cdef int withdraw(TaskCore self) except -1:
    """Take a task that was cancelled out of its lane, before its callbacks are called."""
    if self.dispatcher is not None:
        forget(self.dispatcher, self)
    drop(self, nt_now())
    track(self)  # it holds its dispatcher on
    return 0


cdef inline bint begin(TaskCore self, long long now) noexcept:
    cdef bint begun
    nt_lock(&self.mutex)
    begun = self.phase == PENDING
    if begun:
        nt_store(&self.phase, RUNNING)
    nt_unlock(&self.mutex)
    # Where a thread was free already, it is no later than the task came.
    if begun and not self.waiting:
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
    if place is not NULL:
        place.called_back = self.value is not None or self.standard is not None
    try:
        settle(self, FINISHED, failed, value, deferred)
    except BaseException as exc:  # the thread lives on, or its place would be lost
        if not isinstance(exc, Exception) and is_main_thread():
            raise  # it was run where it was submitted
        report_callback(self)
    finally:
        let_dispatcher_go(self)
    return 0


cdef inline void let_dispatcher_go(TaskCore self) noexcept:
    """Hold the dispatcher no more, once the task has ended, where the collector sees no task.

    Otherwise one that somebody keeps would keep the pool, and what that belongs to.
    """
    if not FREE_THREADED:
        self.dispatcher = None
