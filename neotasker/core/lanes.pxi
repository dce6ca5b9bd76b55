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
    cdef Py_ssize_t visited  # by the collector, of these
    cdef unsigned char lane_
    cdef unsigned char shut

    def __cinit__(self):
        self.shut = True  # until it is known whose door it is

    def __init__(self, Dispatcher dispatcher not None, Py_ssize_t lane):
        require_made(dispatcher)
        check_lane(lane)
        if self.dispatcher is not None and self.outstanding_:
            raise RuntimeError(f"{type(self).__name__} is in use: it cannot be made anew")
        self.dispatcher = dispatcher
        self.lane_ = <unsigned char>lane
        self.shut = False

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
            require_door(self)
            raise RuntimeError("cannot schedule new futures after shutdown")
        check_target(fn)
        task = make(self.dispatcher, fn, args, kwargs, self.lane_)
        enqueue(self.dispatcher, task, False, self)
        return task

    def shut_door(self):
        """Refuse further submissions through this view."""
        nt_store(&self.shut, True)

    def wait_outstanding(self):
        """Block until every task that came through this view has ended.

        Raises:
            RuntimeError: called by one of these tasks, which would wait for itself.
        """
        cdef Parker *parker
        cdef Place *place
        cdef bint ours, woken = False
        require_door(self)
        if runs_here(self.dispatcher, self):
            raise RuntimeError("cannot join current thread")
        parker = parker_get()
        cdef Dispatcher dispatcher = self.dispatcher
        nt_lock(&dispatcher.mutex)
        woken = not self.outstanding_
        if not woken:
            push(&self.parked, parker)
        nt_unlock(&dispatcher.mutex)
        if woken:
            parker_put(parker)
            return
        place = <Place *>nt_get_place()
        ours = place is not NULL and place.dispatcher is <PyObject *>dispatcher
        try:
            if ours:
                step_aside(place, True)
            woken = park(parker, -1)
        finally:
            if ours:
                step_back(place, True)
            retract(dispatcher, &self.parked, parker, woken)


cdef int require_made(Dispatcher self) except -1:
    """Refuse a dispatcher that was not initialized."""
    if self.start_thread is None:
        raise AttributeError("the dispatcher was not initialized: call its __init__ first")
    return 0


cdef int require_door(Submitter self) except -1:
    """Refuse a door that was not initialized."""
    if self.dispatcher is None:
        raise AttributeError(
            f"{type(self).__name__} was not initialized: call its __init__ first"
        )
    return 0


cdef int check_lane(Py_ssize_t lane) except -1:
    """Refuse the number of a lane that there is not."""
    if not 0 <= lane < LANES:
        raise ValueError(f"there is no lane {lane}: give 0 (CRITICAL) to {LANES - 1} (LOW)")
    return 0


cdef bint runs_here(Dispatcher self, Submitter view) except -1:
    """Return whether this thread is in a task of the dispatcher, or in one of a view of it."""
    cdef Place *place = <Place *>nt_get_place()
    cdef bint found = False
    cdef unsigned long mine = PyThread_get_thread_ident()
    if place is not NULL and place.dispatcher is <PyObject *>self:
        if view is None:
            return True
        nt_lock(&self.mutex)
        if place.task is not NULL:
            found = (<TaskCore>place.task).view is <PyObject *>view
        nt_unlock(&self.mutex)
    if not found and self.guests:
        for ident, task, _ in list(self.guests.values()):
            if ident == mine and (
                view is None or (<TaskCore>task).view is <PyObject *>view
            ):
                return True
    return found


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
    while type(inner) is _partial:
        inner = inner.func
    if not nt_is_plain(inner, False):
        check_task(fn)
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
    cdef Place *wake = NULL
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef bint start = False, launch = False, told = False, tried = False
    cdef long long now
    while True:
        now = nt_now()
        nt_lock(&self.mutex)
        if (
            (self.refusal is None or self.refusal is granted)
            and not task.queued
            and (not self.queue_size or forced or has_room(self, task))
        ):
            if tried or not lacks_thread(self, task.lane_):
                break
            # First the thread, then the task: until it is there anything may be raised, and
            # what is refused then must not run meanwhile.
            tried = True
            self.threads_ += 1
            self.starting += 1
            nt_unlock(&self.mutex)
            start_before(self, told)
            continue
        nt_unlock(&self.mutex)
        granted = stand_at_door(self, task, forced, view, granted, &told)
        if granted is _RAN:
            return 0
    task.queued = now
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


cdef inline bint lacks_thread(Dispatcher self, unsigned char lane) noexcept:
    """Return whether one more task that comes would start a thread. The mutex is held."""
    cdef Py_ssize_t threads
    cdef Py_ssize_t free
    if self.threads_ - self.aside - self.relieved >= self.max_threads:
        return False
    threads = self.threads_ - self.aside - self.relieved
    free = threads - self.busy
    if self.launcher is not None or self.active_ >= self.limits[lane]:
        return False
    return free <= (startable(self) if self.waiting_ else 0)


cdef object _RAN = object()  # what `stand_at_door` returns for a task that it ran


cdef inline bint has_room(Dispatcher self, TaskCore task) noexcept:
    """Return whether the bound lets one more task wait. The mutex is held."""
    return (
        task.lane_ == CRITICAL
        or self.waiting_ - self.counts[CRITICAL] < self.queue_size
    )


cdef object stand_at_door(
    Dispatcher self, TaskCore task, bint forced, Submitter view, object granted, bint *told
):
    """See to what stands against a task, or refuse it: then its lane is to be tried again.

    Who was told of room and does not take it, as an exception comes between, passes it on.

    Parameters:
        told: whether this thread was told of room; kept from one call to the next.

    Returns:
        The refusal that lets this task in, or None; `_RAN` if the task was run here.
    """
    cdef object refusal = None
    cdef object error = None
    cdef bint full, once_more
    cdef int policy
    cdef Py_ssize_t bound
    nt_lock(&self.mutex)
    refusal = self.refusal
    once_more = task.queued
    bound = self.queue_size
    full = bound and not forced and not has_room(self, task)
    policy = self.when_full
    nt_unlock(&self.mutex)
    try:
        if once_more:
            raise ValueError(f"{task!r} was queued already: make another task")
        if refusal is not None and refusal is not granted:
            error = refusal()
            if error is not None:
                raise error
            return refusal
        if full:
            if policy == WHEN_FULL_RAISE:
                raise QueueFull(
                    f"{bound} tasks wait already (queue_size={bound}): submit later, "
                    "raise queue_size, or choose when_full='block' or 'run'"
                )
            if policy == WHEN_FULL_RUN or is_own_thread(self):
                # A thread of the pool that waited for room might wait for itself.
                if told[0]:
                    told[0] = False
                    pass_room_on(self)
                run_as_guest(self, task, view)
                return _RAN
            told[0] = wait_for_room(self, granted)
    except BaseException:
        if told[0]:
            pass_room_on(self)
        raise
    finally:
        error = None  # its traceback holds this frame
    return granted


cdef inline bint is_own_thread(Dispatcher self) noexcept:
    cdef Place *place = <Place *>nt_get_place()
    return place is not NULL and place.dispatcher is <PyObject *>self


cdef int note_guest(Dispatcher self, TaskCore task, bint submitted) except -1:
    """Note that this thread runs a task in no place of the pool; it *submitted* it, or not."""
    self.guests[id(task)] = (PyThread_get_thread_ident(), task, submitted)
    return 0


cdef int run_as_guest(Dispatcher self, TaskCore task, Submitter view) except -1:
    """Run a task in the thread that submits it: counted and waited for, without a place."""
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef PyObject *last = NULL
    cdef Parker *parked
    cdef Parker *drainers
    note_guest(self, task, True)
    nt_lock(&self.mutex)
    task.queued = nt_now()
    lane.submitted += 1
    self.guests_ += 1
    if view is not None:
        enter_view(view, task)
    nt_unlock(&self.mutex)
    try:
        task._run()
    finally:
        if self.guests.pop(id(task), None) is not None:  # else we are in a forked child
            nt_lock(&self.mutex)
            self.guests_ -= 1
            tally(lane, task)
            parked = leave_view(task, &last)
            drainers = take_drainers(self)
            nt_unlock(&self.mutex)
            release_all(parked)
            release_all(drainers)
            Py_XDECREF(last)
    return 0


cdef bint wait_for_room(Dispatcher self, object granted) except -1:
    """Sleep until a task has left the lanes, or the settings have changed.

    Parameters:
        granted: the refusal that lets this thread in, or None.

    Returns:
        Whether the thread was told, and not just found it so.
    """
    cdef Parker *parker = parker_get()
    cdef bint woken
    nt_lock(&self.mutex)
    woken = (
        (self.refusal is not None and self.refusal is not granted)
        or not self.queue_size
        or self.when_full != WHEN_FULL_BLOCK
        or self.waiting_ - self.counts[CRITICAL] < self.queue_size
    )
    if not woken:
        push(&self.space, parker)
    nt_unlock(&self.mutex)
    if woken:
        parker_put(parker)
        return False
    try:
        woken = park(parker, -1)
    except BaseException:
        if retract(self, &self.space, parker, False):
            pass_room_on(self)
        raise
    parker_put(parker)
    return True


cdef void pass_room_on(Dispatcher self) noexcept:
    """Tell the next who waits for room: the one that was told does not take it."""
    cdef Parker *room
    nt_lock(&self.mutex)
    room = take_room(self)
    nt_unlock(&self.mutex)
    release_all(room)


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
    self.active_ -= 1
    tally(&self.lanes[task.lane_], task)


cdef inline void tally(LaneState *lane, TaskCore task) noexcept:
    """Count how a task has ended. The mutex is held."""
    if task.phase == CANCELLED:
        lane.cancelled += 1
    elif task.failed:
        lane.failed += 1
    else:
        lane.completed += 1


cdef inline bint is_drained(Dispatcher self) noexcept:
    """Return whether no task waits or runs. The mutex is held."""
    return not (self.active_ or self.waiting_ or self.aside or self.guests_)


cdef inline Parker *take_drainers(Dispatcher self) noexcept:
    """Return the parkers of those who wait for the last task, if it is gone. Mutex held."""
    cdef Parker *parked = NULL
    if self.drainers is not NULL and is_drained(self):
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


cdef bint forget(Dispatcher self, TaskCore task, bint refused=False) except -1:
    """Take a task out of its lane, if it is still there: it was cancelled, or is *refused*.

    Returns:
        Whether it was there.
    """
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
        if refused:  # it has never been here
            task.queued = 0
            lane.submitted -= 1
        else:
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
    return found


cdef PyObject *unlink_all(Dispatcher self, Submitter view, Parker **parked) noexcept:
    """Unlink what waits, all or that of one view, and return it as a list. The mutex is held.

    It is linked by `next`, and owns the references of the lanes. A task that was the last one
    of its view owns that in `view`.
    """
    cdef PyObject *first = NULL
    cdef PyObject *last = NULL
    cdef PyObject *raw
    cdef PyObject *following
    cdef PyObject *owner
    cdef Parker *more
    cdef int i
    for i in range(LANES):
        raw = self.lanes[i].head
        while raw is not NULL:
            following = (<TaskCore>raw).next
            if view is None or (<TaskCore>raw).view is <PyObject *>view:
                unlink(self, <TaskCore>raw)
                self.waiting_ -= 1
                self.lanes[i].cancelled += 1
                more = leave_view(<TaskCore>raw, &owner)
                (<TaskCore>raw).view = owner
                if more is not NULL:
                    join_parkers(parked, more)
                if last is NULL:
                    first = raw
                else:
                    (<TaskCore>last).next = raw
                last = raw
            raw = following
    return first


cdef void empty_lanes(Dispatcher self) noexcept:
    """Let go of what waits, where nobody can come to it any more."""
    cdef PyObject *raw
    cdef PyObject *view
    for i in range(LANES):
        while self.lanes[i].head is not NULL:
            raw = self.lanes[i].head
            unlink(self, <TaskCore>raw)
            self.waiting_ -= 1
            leave_view(<TaskCore>raw, &view)
            Py_DECREF(<object>raw)
            Py_XDECREF(view)


# What the collector is to know of, and the compiler of these classes does not: the tasks in
# the lanes, and the context of a task. Tasks that wait are hidden from it, and so is a context
# that nobody else holds; what they hold is shown as if their owner held it.

cdef extern from "Python.h":
    ctypedef int (*visitproc)(PyObject *op, void *arg) noexcept
    ctypedef int (*traverseproc)(PyObject *op, visitproc visit, void *arg) noexcept
    ctypedef int (*inquiry)(PyObject *op) noexcept
    ctypedef struct PyTypeObject:
        traverseproc tp_traverse
        inquiry tp_clear
    PyTypeObject *type_of "Py_TYPE" (PyObject *op)
    int is_shown "PyObject_GC_IsTracked" (PyObject *op)

cdef traverseproc _traverse_dispatcher
cdef inquiry _clear_dispatcher
cdef traverseproc _traverse_task
cdef inquiry _clear_task


cdef int visit_owned(PyObject *op, visitproc visit, void *arg) noexcept:
    """Visit what is owned; what is hidden and nobody else's is looked through."""
    if is_shown(op) or count_of(op) > 1:
        return visit(op, arg)
    return type_of(op).tp_traverse(op, visit, arg)


cdef int traverse_task(PyObject *op, visitproc visit, void *arg) noexcept:
    cdef PyObject *context = NULL
    cdef int found = _traverse_task(op, visit, arg)
    if found:
        return found
    if FREE_THREADED:  # who only asks for what a task refers to stops nobody
        nt_lock(&(<TaskCore>op).mutex)
    if not (<TaskCore>op).over:
        context = (<TaskCore>op).late.context
    if context is not NULL:
        found = visit_owned(context, visit, arg)
    if FREE_THREADED:
        nt_unlock(&(<TaskCore>op).mutex)
    return found


cdef int clear_task(PyObject *op) noexcept:
    cdef PyObject *context = NULL
    nt_lock(&(<TaskCore>op).mutex)
    if not (<TaskCore>op).over:
        context = (<TaskCore>op).late.context
        (<TaskCore>op).late.context = NULL
    nt_unlock(&(<TaskCore>op).mutex)
    drop_context(context)
    return _clear_task(op)


cdef int traverse_dispatcher(PyObject *op, visitproc visit, void *arg) noexcept:
    cdef int found = _traverse_dispatcher(op, visit, arg)
    if found:
        return found
    if FREE_THREADED:
        nt_lock(&(<Dispatcher>op).mutex)
    # While threads serve the lanes, or tasks run, somebody holds the dispatcher. To look
    # through a long queue each time would cost the collector much for nothing.
    if (<Dispatcher>op).places is NULL and not (
        (<Dispatcher>op).active_ or (<Dispatcher>op).guests_
    ):
        found = traverse_lanes(op, visit, arg)
    if FREE_THREADED:
        nt_unlock(&(<Dispatcher>op).mutex)
    return found


cdef int traverse_lanes(PyObject *op, visitproc visit, void *arg) noexcept:
    cdef PyObject *raw
    cdef PyObject *view
    cdef int i, found
    for i in range(LANES):
        raw = (<Dispatcher>op).lanes[i].head
        while raw is not NULL:
            found = visit_owned(raw, visit, arg)
            view = (<TaskCore>raw).view
            if view is not NULL:  # all tasks of a view own one reference to it
                (<Submitter>view).visited += 1
                if (<Submitter>view).visited == (<Submitter>view).outstanding_:
                    (<Submitter>view).visited = 0
                    if not found:
                        found = visit(view, arg)
            if found:
                return found
            raw = (<TaskCore>raw).next
    return 0


cdef int clear_dispatcher(PyObject *op) noexcept:
    empty_lanes(<Dispatcher>op)
    return _clear_dispatcher(op)


cdef int show_to_collector() except -1:
    """Have the collector ask the functions above."""
    global _traverse_dispatcher, _clear_dispatcher, _traverse_task, _clear_task
    cdef PyTypeObject *dispatcher = <PyTypeObject *>Dispatcher
    cdef PyTypeObject *task = <PyTypeObject *>TaskCore
    _traverse_dispatcher, _clear_dispatcher = dispatcher.tp_traverse, dispatcher.tp_clear
    _traverse_task, _clear_task = task.tp_traverse, task.tp_clear
    dispatcher.tp_traverse, dispatcher.tp_clear = traverse_dispatcher, clear_dispatcher
    task.tp_traverse, task.tp_clear = traverse_task, clear_task
    return 0


show_to_collector()
