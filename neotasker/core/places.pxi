# Places: the threads of a pool, and whether they serve, step aside, look around or sleep.
#
# Guarantees: at most one wake-up is on its way; the thread that it woke passes it on while
# there is more to start. A thread that waits for a task of its own pool gives its place to
# another one. Nothing of the user's runs in a place that can be woken.
#
# Assumes: a place is on the stack of its thread, and in the dispatcher's list while the
# thread is in `serve`. The dispatcher's mutex protects it; `guard` is taken inside that.
#
# The twin, places.py, has no `linger` and no `wake_ahead`: both save a hand-over of the
# interpreter that Python itself makes many times for each task.

cdef extern from "Python.h":
    Py_ssize_t count_of "Py_REFCNT" (PyObject *op)


cdef struct Place:
    # One pool thread, on its own stack; protected by the dispatcher's mutex.
    Parker *parker
    unsigned long ident
    PyObject *task  # borrowed from the thread
    nt_mutex guard  # protects the next
    PyObject *fn  # borrowed from the task, while it is being called
    Place *newer  # on the stack of idle threads
    Place *older
    bint is_idle
    Place *after  # in the list of all
    Place *before
    PyObject *dispatcher  # borrowed from the thread
    PyObject *empty  # a context for the next task without one, or NULL; the thread's own
    bint reports  # it calls `on_drained`
    bint holds  # `waking`, while it does
    bint relieved  # others take its part meanwhile
    bint waits  # it stepped aside
    bint drops  # it lets go of what has ended, and counts as busy meanwhile
    bint called_back  # somebody was called at the end of the task that ran last
    bint left  # it is not in the list any more


cdef inline void show_target(Place *place, PyObject *fn) noexcept:
    """Let others see what a place calls; NULL: nothing any more."""
    if FREE_THREADED:  # or nobody looks meanwhile
        nt_lock(&place.guard)
    place.fn = fn
    if FREE_THREADED:
        nt_unlock(&place.guard)


cdef inline void let_wake(Dispatcher self, Place *place) noexcept:
    """Let others be woken again, if it was a place that stood against it. The mutex is held."""
    if place.holds:
        place.holds = self.waking = False


cdef int step_aside(Place *place, bint ours) except -1:
    """Note that a pool thread waits for a future; for a task of its pool it gives way.

    Without that, tasks that wait for tasks of their own pool would fill it, and wait
    for ever (what Java calls a managed blocker).
    """
    cdef Dispatcher self = <Dispatcher>place.dispatcher
    cdef bint busy = place.task is not NULL  # or it lets go of one that has ended
    nt_lock(&self.mutex)
    self.resting_ += busy or (ours and not place.relieved)
    if ours:
        place.waits = True
        self.active_ -= busy
        self.busy -= busy or place.drops
        self.aside += not place.relieved
        let_wake(self, place)
    nt_unlock(&self.mutex)
    if ours:
        engage_in_place(self)
    return 0


cdef int engage_in_place(Dispatcher self) except -1:
    """See that others serve in place of a thread that waits."""
    try:
        self.engage()
    except BaseException:
        try:
            logger.exception("no thread could be started in place of one that waits")
        except BaseException:
            pass
    return 0


cdef int step_back(Place *place, bint ours) except -1:
    """Take the place again, at once: for a while more may run than the limits say."""
    cdef Dispatcher self = <Dispatcher>place.dispatcher
    cdef bint busy = place.task is not NULL
    nt_lock(&self.mutex)
    self.resting_ -= busy or (ours and not place.relieved)
    if ours:
        place.waits = False
        self.active_ += busy
        self.busy += busy or place.drops
        self.aside -= not place.relieved
    nt_unlock(&self.mutex)
    return 0


cdef int start_for(Dispatcher self, TaskCore task) except -1:
    """Start the thread that a submission was found to need; if it raises, the task is out."""
    cdef bint failed
    try:
        start_one(self)
        self.engage()
    except BaseException as exc:
        # The system gave no thread; anything else came from outside, as a signal handler.
        failed = isinstance(exc, (RuntimeError, MemoryError))
        if not (failed and self.threads_) and (forget(self, task, True) or not failed):
            serve_the_others(self)
            raise
        report_thread(self)
    return 0


cdef int start_before(Dispatcher self, bint told) except -1:
    """Start a thread, counted already, for a task that is not in its lane yet."""
    try:
        start_one(self)
    except BaseException as exc:
        if isinstance(exc, (RuntimeError, MemoryError)) and self.threads_:
            report_thread(self)
            return 0
        if told:
            pass_room_on(self)
        serve_the_others(self)
        raise
    return 0


cdef int serve_the_others(Dispatcher self) except -1:
    """See to tasks that relied on a thread which could not be started.

    They were accepted. Where there is no thread at all they end, with what went wrong.
    """
    if not self.waiting_:
        return 0
    try:
        self.engage()
    except BaseException as exc:
        if self.threads_:
            report_thread(self)
            return 0
        for task in self.take_waiting():
            (<TaskCore>task)._end(True, exc)
    return 0


cdef int report_thread(Dispatcher self) except -1:
    """Say that a thread could not be started, in an ``except``; whatever log handlers do."""
    try:
        logger.exception("a pool thread could not be started; %d serve on", self.threads_)
    except BaseException:
        pass
    return 0


cdef int start_one(Dispatcher self) except -1:
    """Start a thread that is counted already."""
    cdef Parker *parker
    try:
        parker = parker_get()  # or there may be no memory for it when the thread is there
        nt_lock(&self.mutex)
        parker.next = self.berths
        self.berths = parker
        nt_unlock(&self.mutex)
        self.start_thread()
    except BaseException:
        lose_one(self)
        raise
    return 0


cdef void lose_one(Dispatcher self) noexcept:
    """Count a thread no more that was to come, unless it is there."""
    cdef Parker *parker = NULL
    nt_lock(&self.mutex)
    if self.starting:
        self.starting -= 1
        self.threads_ -= 1
        parker = self.berths
        if parker is not NULL:
            self.berths = parker.next
    nt_unlock(&self.mutex)
    if parker is not NULL:
        parker_put(parker)


cdef int enroll(Dispatcher self, Place *place) except -1:
    """Give a thread its place; it need not be one that was expected."""
    cdef Parker *parker
    nt_lock(&self.mutex)
    parker = self.berths
    if parker is not NULL:
        self.berths = parker.next
    nt_unlock(&self.mutex)
    if parker is NULL:
        try:
            parker = parker_get()
        except BaseException:
            lose_one(self)
            raise
    place.parker = parker
    place.ident = PyThread_get_thread_ident()
    place.dispatcher = <PyObject *>self
    nt_lock(&self.mutex)
    if self.starting:
        self.starting -= 1
    else:
        self.threads_ += 1
    place.after = self.places
    if self.places is not NULL:
        self.places.before = place
    self.places = place
    nt_unlock(&self.mutex)
    return 0


cdef void strike_off(Dispatcher self, Place *place) noexcept:
    """Count a thread no more that goes, by whatever way."""
    nt_lock(&self.mutex)
    if not place.left:
        if place.is_idle:
            leave_idle(self, place)
        self.threads_ -= 1
        forget_place(self, place)
    nt_unlock(&self.mutex)


cdef Place *plan(Dispatcher self, bint *start) noexcept:
    """Decide on a thread to start (counted here) and one to wake. The mutex is held."""
    # Threads that wait for tasks of this pool do not count: others take their part.
    cdef Py_ssize_t threads = self.threads_ - self.aside - self.relieved
    cdef Py_ssize_t free = threads - self.busy
    cdef Py_ssize_t wanted
    cdef Place *place
    start[0] = False
    if self.lingering:
        nt_store(&self.hail, YES)
    # Where all threads are there and one is on its way to the lanes, it will do.
    if threads >= self.max_threads and (self.waking or self.idle_top is NULL):
        if self.counts[CRITICAL] <= free:
            return NULL
    wanted = startable(self)
    if wanted > free and (threads < self.max_threads or self.counts[CRITICAL] > free):
        start[0] = True
    elif threads < self.min_threads and self.refusal is None and not self.leaving_:
        start[0] = True
    if start[0]:
        self.threads_ += 1
        self.starting += 1
    if not wanted or self.waking or self.idle_top is NULL:
        return NULL
    self.waking = True
    place = self.idle_top
    leave_idle(self, place)
    return place


cdef int wake_ahead(Dispatcher self, unsigned char lane) except -1:
    """Wake a thread for a task that is about to be put into a lane.

    It takes longer to wake than the task to be made. One that is too early sleeps again.
    """
    cdef Place *place = NULL
    nt_lock(&self.mutex)
    if not self.waking and self.active_ < self.limits[lane]:
        place = self.idle_top
        if place is not NULL:
            self.waking = True
            leave_idle(self, place)
    nt_unlock(&self.mutex)
    if place is not NULL:
        PyThread_release_lock(place.parker.lock)
    return 0


cdef inline void join_idle(Dispatcher self, Place *place) noexcept:
    place.is_idle = True
    place.newer = NULL
    place.older = self.idle_top
    if self.idle_top is not NULL:
        self.idle_top.newer = place
    self.idle_top = place
    self.idle_ += 1


cdef inline void leave_idle(Dispatcher self, Place *place) noexcept:
    place.is_idle = False
    if place.newer is NULL:
        self.idle_top = place.older
    else:
        place.newer.older = place.older
    if place.older is not NULL:
        place.older.newer = place.newer
    self.idle_ -= 1


cdef Parker *stir(Dispatcher self) noexcept:
    """Return the parkers of all idle threads, to make them look. The mutex is held."""
    cdef Parker *found = NULL
    cdef Place *place
    while self.idle_top is not NULL:
        place = self.idle_top
        leave_idle(self, place)
        place.parker.next = found
        found = place.parker
    return found


# What a thread does after a look at the lanes.
cdef enum:
    SERVE = 0  # run the task that it took
    LOOK_AGAIN = 1  # let go of the one that ended first: who is idle is counted on, and
    # what was taken would not begin until that is done
    LINGER = 2
    REPORT = 3  # that the last task has ended
    LEAVE = 4
    REST = 5


cdef struct Look:
    # One look of a thread at the lanes, the mutex held: what it comes with, and what it finds.
    bint woken  # it slept, and was woken for this
    bint lingered  # it has looked for a while, and let go of nothing since its last task
    bint served  # a task, since it last reported
    bint launches  # tasks go to an executor of others
    bint surplus  # there are more threads than there may be
    Place *wake  # to be woken, as there is more to start
    Parker *parked  # of those who wait for the view of the task that ended
    Parker *drainers
    Parker *room
    PyObject *view  # owned, if that task was its last one


cdef int serve(Dispatcher self, Place *place) except -1:
    """The life of a pool thread: end one task and pick the next in one locked section."""
    cdef Look look
    cdef TaskCore ended = None
    cdef TaskCore task = None
    cdef Parker *deferred = NULL  # those who wait for the task that ended
    cdef object report = None
    cdef int step
    cdef bint serves
    cdef long long now
    cdef long long since = nt_now()
    cdef long long finished = 0  # when the task ended that ran last; 0: it is long ago
    memset(&look, 0, sizeof(look))
    while True:
        if look.lingered:  # it holds `waking`: until that is given back no user code runs
            now = nt_now()
        else:
            now = finished if finished else nt_now()
            if not look.woken:  # else it has just let them, and others are not woken
                let_others_run_in_pool(&since, now)
                if nt_get_place() is not place:
                    release_all(deferred)
                    return 0
        nt_lock(&self.mutex)
        arrive(self, place, ended, &look)
        step = SERVE
        serves = may_serve(self, &look)
        if self.waiting_ and lets_go(ended, &look):
            step = LOOK_AGAIN
        elif serves:
            task = pick(self, now)
            if task is not None:
                take_up(self, place, task, &look)
        pass_on(self, task, &look)
        if task is None:
            if step == SERVE:
                step = choose_rest(self, place, ended, &look)
            if step == LOOK_AGAIN:
                place.drops = True
                self.busy += 1
            if step == REPORT:
                report = self.on_drained
        look.drainers = take_drainers(self)
        nt_unlock(&self.mutex)
        tell(&look)
        look.lingered = step == LINGER
        if look.lingered:  # and lets go of what has ended when it has looked
            release_all(deferred)
            deferred = NULL
            linger(self)
            continue
        if ended is not None:
            ended = None
            finished = 0
            Py_XDECREF(look.view)
            look.view = NULL
            if nt_get_place() is not place:
                release_all(deferred)
                return 0  # in a child that somebody's destructor forked
        if step == LOOK_AGAIN:
            continue
        if step == REST:
            look.woken = sleep(self, place, deferred)
            if not look.woken:
                return 0
            deferred = NULL
            since = nt_now()
            continue
        release_all(deferred)
        deferred = NULL
        if step == SERVE:
            look.served = True
            if begin(task, now):
                execute(task, place, &deferred)
                if nt_get_place() is not place:
                    release_all(deferred)
                    return 0  # in a child that the task forked, where no thread is known
                finished = 0 if place.called_back else task.late.finished
            else:
                finished = 0
            ended = task
            task = None
        elif step == REPORT:
            look.served = False
            report_drained(report)
            report = None
            since = nt_now()
            if nt_get_place() is not place:
                return 0
        else:
            if look.launches:
                nt_set_place(NULL)  # it is counted no more
                pump(self)
            return 0


cdef inline void arrive(Dispatcher self, Place *place, TaskCore ended, Look *look) noexcept:
    """Count the thread no more as in its task, on its way, or in a report. Mutex held."""
    look.wake = NULL
    look.parked = look.room = NULL
    if ended is not None and not look.lingered:
        place.task = NULL
        self.busy -= 1
        account(self, ended)
        look.parked = leave_view(ended, &look.view)
    if place.drops:
        place.drops = False
        self.busy -= 1
    if look.woken:
        self.waking = look.woken = False
        self.wakeups += 1
    if place.reports:
        self.relieved -= place.relieved
        place.reports = place.relieved = False
        let_wake(self, place)
    if look.lingered:
        self.waking = self.lingering = False


cdef inline bint may_serve(Dispatcher self, Look *look) noexcept:
    """Return whether this thread is to run tasks at all. The mutex is held."""
    look.launches = self.launcher is not None
    look.surplus = self.threads_ - self.aside - self.relieved > self.max_threads
    return not look.launches and not (look.surplus and not self.counts[CRITICAL])


cdef inline void take_up(Dispatcher self, Place *place, TaskCore task, Look *look) noexcept:
    """Count the thread as in that task. The mutex is held."""
    self.busy += 1
    place.task = <PyObject *>task
    look.room = take_room(self)


cdef inline void pass_on(Dispatcher self, TaskCore task, Look *look) noexcept:
    """Choose a thread to wake, if there is more to start and none is on its way. Mutex held."""
    # After a task of one lane only those of it and below may follow.
    cdef bint more = look.surplus or (
        task is not None and self.active_ < self.limits[task.lane_]
    )
    if more and self.idle_top is not NULL and not self.waking and startable(self):
        self.waking = True
        look.wake = self.idle_top
        leave_idle(self, look.wake)


cdef inline bint lets_go(TaskCore ended, Look *look) noexcept:
    """Return whether code of the user's may run as what has ended is let go of.

    It may wait for the task that would be taken here, so none is. The mutex is held.
    """
    if ended is None:
        return False
    if look.view is not NULL and count_of(look.view) == 1:
        return True
    # What nobody but the collector could find holds nothing that has such code.
    return Py_REFCNT(ended) == 1 and (
        PyObject_IS_GC(ended.value) if FREE_THREADED else PyObject_GC_IsTracked(ended)
    )


cdef inline int choose_rest(
    Dispatcher self, Place *place, TaskCore ended, Look *look
) noexcept:
    """Decide what a thread without a task does, and count it so. The mutex is held."""
    cdef bint goes = look.surplus or self.leaving_ or look.launches
    if FREE_THREADED and ended is not None and not (look.lingered or self.waking or goes):
        self.waking = self.lingering = True
        nt_store(&self.hail, NO)
        return LINGER
    if ended is not None and (
        FREE_THREADED
        or Py_REFCNT(ended) == 1
        or (look.view is not NULL and count_of(look.view) == 1)
    ):
        return LOOK_AGAIN
    if goes:
        self.threads_ -= 1
        forget_place(self, place)
        return LEAVE
    if (
        look.served
        and self.on_drained is not None
        and not (self.active_ or self.waiting_ or self.aside)  # guests have no part in it
    ):
        place.reports = True
        place.holds = not self.waking
        self.waking = True
        return REPORT
    join_idle(self, place)
    return REST


cdef inline void tell(Look *look) noexcept:
    """Release those that the look has found."""
    if look.wake is not NULL:
        PyThread_release_lock(look.wake.parker.lock)
    release_all(look.parked)
    release_all(look.drainers)
    release_all(look.room)


cdef int report_drained(object report) except -1:
    """Call what wants to know that the last task has ended."""
    try:
        report()
    except BaseException:  # the thread lives on, or its place would be lost
        try:
            logger.exception("error in %r", report)
        except BaseException:
            pass
    return 0


cdef void linger(Dispatcher self) noexcept:
    """Look for a task for as long as about two handovers take, before the thread sleeps.

    Without the GIL one that is a moment ahead of who submits would have to be woken for
    each task. With it who submits would have to wait for the interpreter instead.
    """
    cdef long long until = nt_now() + PATIENCE
    while not nt_load(&self.hail) and nt_now() < until:
        nt_pause()


cdef void forget_place(Dispatcher self, Place *place) noexcept:
    """Take a place out of the list of all. The mutex is held."""
    place.left = True
    if place.before is NULL:
        self.places = place.after
    else:
        place.before.after = place.after
    if place.after is not NULL:
        place.after.before = place.before


cdef bint sleep(Dispatcher self, Place *place, Parker *deferred) except -1:
    """Wait to be woken; return False if this thread should go instead.

    Those who wait for the last result are woken when the interpreter has been let
    go, so that they find it free.
    """
    cdef PyLockStatus status
    cdef long long timeout
    cdef bint idle, goes
    while True:
        timeout = self.idle_timeout
        with nogil:
            release_all(deferred)
            status = PyThread_acquire_lock_timed(place.parker.lock, timeout, 0)
        deferred = NULL
        if status == PY_LOCK_ACQUIRED:
            return True
        nt_lock(&self.mutex)
        idle = place.is_idle
        goes = idle and (self.threads_ > self.min_threads or self.leaving_)
        if goes:
            leave_idle(self, place)
            self.threads_ -= 1
            forget_place(self, place)
        nt_unlock(&self.mutex)
        if goes:
            return False
        if not idle:  # somebody took it off the stack and is about to release it
            with nogil:
                PyThread_acquire_lock_timed(place.parker.lock, -1, 0)
            return True
