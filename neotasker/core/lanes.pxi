# Lanes: what waits, in which order, and who may start. Submission, and views of one lane.
#
# Guarantees: of those that may start the highest lane goes first, and inside a lane the
# first in. Lanes are lists linked through the tasks themselves: to queue one allocates
# nothing, and one that is cancelled is taken out of the middle.
#
# Assumes: what says "The mutex is held" is called so; nothing there calls code of the
# user's, or lets go of what might.
#
# The twin, lanes.py, has queues in place of linked lists: what was cancelled stays in them,
# marked, until it is met or until half of a queue is such.

cdef enum:
    LANES = 4
    CRITICAL = 0

cdef enum:
    WHEN_FULL_BLOCK = 0
    WHEN_FULL_RAISE = 1
    WHEN_FULL_RUN = 2

cdef tuple _POLICIES = ("block", "raise", "run")


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
