# The dispatcher's face: settings, launchers, what waits and runs, and the figures.
#
# Guarantees: see `Dispatcher` in dispatcher.py.
#
# Assumes: `work` is run only by threads that ``start_thread`` made, each once.
#
# The twin, dispatcher.py, leaves nothing out.

cdef int pump(Dispatcher self) except -1:
    """Hand what may start to the launcher; one thread at a time does so."""
    cdef TaskCore task = None
    cdef object launcher = None
    cdef object error = None
    cdef Parker *room
    cdef long long now
    nt_lock(&self.mutex)
    if self.pumping:  # the one that pumps looks again after we changed the lanes
        nt_unlock(&self.mutex)
        return 0
    self.pumping = True
    nt_unlock(&self.mutex)
    while True:
        task = None
        launcher = None
        room = NULL
        now = nt_now()
        nt_lock(&self.mutex)
        launcher = self.launcher
        if launcher is not None:
            task = pick(self, now)
        if task is None:
            self.pumping = False
        else:
            task.warned |= HANDED_OUT
            room = take_room(self)
        nt_unlock(&self.mutex)
        release_all(room)
        if task is None:
            break
        try:
            self.handed_out.add(task)
            launcher(task)
        except BaseException as exc:
            try:
                if not isinstance(exc, RuntimeError) or not put_back(self, task, launcher, now):
                    launcher.fail(task, exc)
                    if isinstance(exc, KeyboardInterrupt) and is_main_thread():
                        error = exc  # the task has ended with it, and its code is to hear
            except BaseException as failure:  # but others rely on who pumps
                if error is None:
                    error = failure
    if launcher is None:
        self.engage()
    if error is not None:
        try:
            raise error
        finally:
            error = None  # its traceback may hold what holds it
    return 0


cdef bint put_back(Dispatcher self, TaskCore task, launcher, long long picked) except -1:
    """Let a task wait again that a launcher could not hand over.

    Returns:
        False if that launcher is still ours: the task would meet the same once more; and
        if the task has ended.
    """
    cdef LaneState *lane = &self.lanes[task.lane_]
    cdef bint replaced, ended
    nt_lock(&self.mutex)
    replaced = self.launcher is not launcher
    nt_unlock(&self.mutex)
    if not replaced:
        return False
    nt_lock(&task.mutex)
    ended = task.phase >= CANCELLED or task.over
    if not ended:
        nt_store(&task.phase, PENDING)
    nt_unlock(&task.mutex)
    if ended:
        return False
    nt_lock(&self.mutex)
    if not task.warned & HANDED_OUT:  # it has just ended, and its place is given back
        nt_unlock(&self.mutex)
        return True
    task.warned &= ~HANDED_OUT
    lane.waited -= max(picked - task.queued, 0)
    link_first(self, task)
    self.waiting_ += 1
    self.active_ -= 1
    nt_unlock(&self.mutex)
    self.handed_out.discard(task)
    if nt_load(&task.phase) == CANCELLED:  # between the two
        forget(self, task)
    return True


@cython.final
cdef class Dispatcher:
    """Four lanes, the reserves between them, and the threads or executor that serve them."""

    cdef nt_mutex mutex  # protects all fields that change
    # Who waits for the mutex keeps fetching its line of the cache, which is filled with what
    # changes seldom; what each task changes lies close together in those that follow.
    cdef int when_full
    cdef Py_ssize_t min_threads
    cdef Py_ssize_t max_threads
    cdef Py_ssize_t queue_size
    cdef Py_ssize_t counts[4]  # of what waits in each lane
    cdef Py_ssize_t waiting_
    cdef Py_ssize_t active_
    cdef Py_ssize_t busy
    cdef Place *idle_top
    cdef bint waking
    cdef bint lingering  # what is on its way is a thread that looks for a while
    cdef bint leaving_
    cdef bint pumping
    cdef Py_ssize_t limits[4]  # how many may run for it to start one more
    cdef Py_ssize_t threads_
    cdef Py_ssize_t starting  # of these, those that have not come to `work`
    cdef Parker *berths  # for them
    cdef Py_ssize_t guests_  # tasks that their submitters run
    cdef int aside  # threads whose task waits for another of this pool
    cdef int relieved  # threads in `on_drained` whose part others take
    cdef long long idle_timeout  # microseconds; -1: for ever
    cdef Py_ssize_t resting_  # threads whose task waits for any future of ours
    cdef Py_ssize_t idle_
    cdef long long wakeups
    cdef unsigned char hail  # to who lingers, that there is something; atomic
    cdef LaneState lanes[4]
    cdef Place *places
    cdef Parker *space
    cdef Parker *drainers
    cdef object refusal
    cdef object launcher
    cdef dict guests  # what threads of others run: ``(ident, task, by its submitter)``
    cdef set handed_out  # to launchers, for a forked child to end them; a place is given
    # back by the bit, as there may be no memory to note a task here
    cdef object task_type
    cdef object start_thread
    cdef object on_drained
    cdef object __weakref__

    def __cinit__(self):
        self.guests = {}
        self.handed_out = set()
        self.max_threads = 1
        self.idle_timeout = -1
        for i in range(LANES):
            self.limits[i] = UNLIMITED

    def __init__(self, task_type, start_thread):
        if not isinstance(task_type, type) or not issubclass(task_type, TaskCore):
            raise TypeError(f"the type of tasks must derive from TaskCore, not {task_type!r}")
        if not callable(start_thread):
            raise TypeError(f"what starts a thread must be callable, not {start_thread!r}")
        self.task_type = task_type
        self.start_thread = start_thread

    def __dealloc__(self):
        cdef Parker *parker
        empty_lanes(self)
        while self.berths is not NULL:
            parker = self.berths
            self.berths = parker.next
            parker_put(parker)

    def configure(
        self, limits, Py_ssize_t min_threads, Py_ssize_t max_threads, idle_timeout,
        Py_ssize_t queue_size, when_full
    ):
        """Take new limits; what waits and may now start is started.

        Parameters:
            limits: per lane, how many tasks may run for it to start one more.
            min_threads, max_threads: threads that stay, and the most there are.
            idle_timeout: seconds after which an idle thread goes; None: never.
            queue_size: the most that may wait, CRITICAL aside; 0: no bound.
            when_full: ``'block'``, ``'raise'`` or ``'run'``.
        """
        cdef Parker *space
        cdef Parker *stirred
        cdef Py_ssize_t numbers[4]
        cdef long long timeout = microseconds(idle_timeout)
        cdef int policy
        require_made(self)
        if when_full not in _POLICIES:
            raise ValueError(f"when_full must be 'block', 'raise' or 'run', not {when_full!r}")
        policy = _POLICIES.index(when_full)
        if len(limits) != LANES:
            raise ValueError(f"limits must be {LANES} numbers, one per lane, not {limits!r}")
        for i in range(LANES):
            numbers[i] = limits[i]
        nt_lock(&self.mutex)
        for i in range(LANES):
            self.limits[i] = numbers[i]
        self.min_threads = min_threads
        self.max_threads = max_threads
        self.idle_timeout = timeout
        self.queue_size = queue_size
        self.when_full = policy
        space = self.space
        self.space = NULL
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(space)
        release_all(stirred)
        self.engage()

    def set_launcher(self, launcher):
        """Hand tasks to ``launcher(task)`` from now on; None: back to own threads."""
        cdef object old
        cdef Parker *stirred
        require_made(self)
        nt_lock(&self.mutex)
        old = self.launcher
        self.launcher = launcher
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(stirred)
        old = None
        self.engage()

    def set_on_drained(self, on_drained):
        """Have pool threads call this when they have ended the last task, before they sleep.

        Parameters:
            on_drained: called without arguments, by two threads at once, too; None: no
                more. The thread counts as on its way to the lanes meanwhile, so that what
                is submitted in it wakes no other; where it blocks, `relieve` helps.
        """
        cdef object old
        nt_lock(&self.mutex)
        old = self.on_drained
        self.on_drained = on_drained
        nt_unlock(&self.mutex)
        old = None

    def relieve(self):
        """Let others take the part of threads that are in what `set_on_drained` set."""
        cdef Place *place
        nt_lock(&self.mutex)
        place = self.places
        while place is not NULL:
            if place.reports and not (place.relieved or place.waits):
                place.relieved = True
                self.relieved += 1
                let_wake(self, place)
            place = place.after
        nt_unlock(&self.mutex)
        engage_in_place(self)

    def open(self):
        """Accept submissions."""
        cdef object old
        nt_lock(&self.mutex)
        old = self.refusal
        self.refusal = None
        self.leaving_ = False
        nt_unlock(&self.mutex)
        old = None
        self.engage()

    def close(self, refusal):
        """Refuse submissions from now on.

        Parameters:
            refusal: called for each submission, returns the exception to raise, or
                None to accept this one all the same.
        """
        cdef object old
        cdef Parker *space
        nt_lock(&self.mutex)
        old = self.refusal
        self.refusal = refusal
        space = self.space
        self.space = NULL
        nt_unlock(&self.mutex)
        release_all(space)
        old = None

    def end_with_interpreter(self, refusal):
        """Let the threads go, and answer submissions with *refusal* unless refused already."""
        nt_lock(&self.mutex)
        if self.refusal is None:
            self.refusal = refusal
        nt_unlock(&self.mutex)
        self.leave()

    def lose_thread(self):
        """Note that a thread ended before it came to `work`."""
        lose_one(self)

    def leave(self):
        """Let the threads go as soon as they find nothing to do."""
        cdef Parker *stirred
        nt_lock(&self.mutex)
        self.leaving_ = True
        stirred = stir(self)
        nt_unlock(&self.mutex)
        release_all(stirred)

    def make(self, fn, tuple args not None, dict kwargs, Py_ssize_t lane):
        """Return a task that is not queued yet, in a copy of the caller's context."""
        cdef TaskCore task
        require_made(self)
        check_lane(lane)
        task = make(self, fn, args, kwargs, <unsigned char>lane)
        track(task)  # nobody else may hold it, but what it holds itself
        return task

    def enqueue(self, TaskCore task not None, Submitter view=None):
        """Queue a task made before, whatever the bound; it was accepted then.

        Raises:
            ValueError: it was made by another dispatcher, was queued before, or has run.
        """
        require_made(self)
        if task.dispatcher is not self and task.phase != FINISHED:
            raise ValueError(f"{task!r} was not made by this dispatcher")
        if task.phase == RUNNING or task.phase == FINISHED:
            raise ValueError(f"{task!r} was run already: make another task")
        if view is not None and view.dispatcher is not self:
            raise ValueError(f"{view!r} is no view of this dispatcher")
        enqueue(self, task, True, view)

    def run_elsewhere(self, TaskCore task not None, call, /, *args, **kwargs):
        """Make a call that runs a task in a thread of others, which is in that task then."""
        note_guest(self, task, False)
        try:
            return call(*args, **kwargs)
        finally:
            self.guests.pop(id(task), None)

    def runs_here(self, Submitter view=None):
        """Return whether this thread is in a task of the dispatcher, or in one of a view."""
        return runs_here(self, view)

    def engage(self):
        """Start or wake what it takes to run the tasks that may start."""
        cdef Place *wake = NULL
        cdef bint start = True, launch = False
        require_made(self)
        while start:
            nt_lock(&self.mutex)
            launch = self.launcher is not None
            if launch:
                start = False
                wake = NULL
            else:
                wake = plan(self, &start)
            nt_unlock(&self.mutex)
            if wake is not NULL:
                PyThread_release_lock(wake.parker.lock)
            if launch:
                pump(self)
            elif start:
                start_one(self)

    def work(self):
        """Run tasks until this thread is no longer needed: the body of a pool thread.

        However it ends, the thread is counted no more then.

        Raises:
            RuntimeError: this thread serves the dispatcher already.
        """
        cdef Place place
        cdef Place *outer = <Place *>nt_get_place()
        require_made(self)
        if is_own_thread(self):
            raise RuntimeError("this thread serves the pool already")
        memset(&place, 0, sizeof(place))
        enroll(self, &place)
        nt_set_place(&place)
        try:
            serve(self, &place)
        finally:
            if nt_get_place() is &place:  # else it has left, or is in a forked child
                strike_off(self, &place)
                nt_set_place(outer)
            parker_put(place.parker)
            Py_XDECREF(place.empty)

    def release(self, TaskCore task not None):
        """Give back the place of a task that the launcher ran, once."""
        cdef PyObject *view = NULL
        cdef Parker *parked = NULL
        cdef Parker *drainers = NULL
        cdef bint found
        nt_lock(&self.mutex)
        found = task.warned & HANDED_OUT
        if found:
            task.warned &= ~HANDED_OUT
            account(self, task)
            parked = leave_view(task, &view)
            drainers = take_drainers(self)
        nt_unlock(&self.mutex)
        if not found:
            return
        self.handed_out.discard(task)
        release_all(parked)
        release_all(drainers)
        Py_XDECREF(view)
        self.engage()

    def take_waiting(self, Submitter view=None):
        """Take the waiting tasks out of their lanes, all or those of one view, in order."""
        cdef list taken
        cdef TaskCore task
        cdef PyObject *first = NULL
        cdef PyObject *raw
        cdef Parker *parked = NULL
        cdef Parker *more
        cdef Py_ssize_t room, found = 0
        while True:  # a list that is long enough is made before: there may be no memory
            room = self.waiting_
            taken = [None] * room
            nt_lock(&self.mutex)
            if self.waiting_ <= room:
                break
            nt_unlock(&self.mutex)
        first = unlink_all(self, view, &parked)
        more = self.space
        self.space = NULL
        join_parkers(&parked, more)
        join_parkers(&parked, take_drainers(self))
        nt_unlock(&self.mutex)
        release_all(parked)
        while first is not NULL:
            task = <TaskCore>first
            Py_DECREF(task)  # the lane's; the local has its own
            taken[found] = task
            found += 1
            first = task.next
            task.next = NULL
            raw = task.view
            task.view = NULL
            Py_XDECREF(raw)
        task = None
        del taken[found:]
        return taken

    def take_one(self):
        """Take the first waiting task out of its lane, or return None: ``_work_queue.get``."""
        cdef TaskCore task = None
        cdef PyObject *view = NULL
        cdef Parker *parked = NULL
        cdef Parker *drainers = NULL
        cdef Parker *room = NULL
        cdef int i
        nt_lock(&self.mutex)
        for i in range(LANES):
            if self.counts[i]:
                task = <TaskCore>self.lanes[i].head
                unlink(self, task)
                Py_DECREF(task)  # the lane's; the local has its own
                task.queued = 0  # it may be queued again
                self.waiting_ -= 1
                parked = leave_view(task, &view)
                drainers = take_drainers(self)
                room = take_room(self)
                break
        nt_unlock(&self.mutex)
        release_all(parked)
        release_all(drainers)
        release_all(room)
        Py_XDECREF(view)
        return task

    def overdue(self, int level, double age):
        """Return the tasks that have waited for *age* seconds, each once per *level* (1, 2).

        Returns:
            The tasks, and the time (monotonic seconds) at which the next one may be
            due; None when nothing waits.
        """
        cdef list found = []
        cdef TaskCore task = None
        cdef PyObject *raw
        cdef long long horizon = nt_now() - <long long>(age * 1e9)
        cdef long long soonest = 0
        cdef int i
        if not 1 <= level <= 2:
            raise ValueError(f"level must be 1 or 2, not {level}")
        for i in range(LANES):
            while True:
                task = None
                nt_lock(&self.mutex)
                raw = self.lanes[i].warned[level]
                raw = self.lanes[i].head if raw is NULL else (<TaskCore>raw).next
                if raw is not NULL:
                    if (<TaskCore>raw).queued <= horizon:
                        task = <TaskCore>raw
                        task.warned |= level
                        self.lanes[i].warned[level] = raw
                    elif not soonest or (<TaskCore>raw).queued < soonest:
                        soonest = (<TaskCore>raw).queued
                nt_unlock(&self.mutex)
                if task is None:
                    break
                found.append(task)
        return found, (soonest / 1e9 + age if soonest else None)

    def wait_drained(self, timeout=None):
        """Block until no task waits or runs; return False if that took too long.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        cdef long long limit = microseconds(timeout)
        cdef Parker *parker = parker_get()
        cdef bint woken
        nt_lock(&self.mutex)
        woken = is_drained(self)
        if not woken:
            push(&self.drainers, parker)
        nt_unlock(&self.mutex)
        try:
            if not woken:
                woken = park(parker, limit)
            else:
                limit = 0
        finally:
            woken = retract(self, &self.drainers, parker, woken)
        return woken

    def abandon(self):
        """Forget all threads and tasks: for a forked child, which has none of the threads.

        Returns:
            The tasks that waited, and those that ran.
        """
        cdef list waiting = []
        cdef list running = []
        cdef list views = []  # let go of at the end: what runs then finds all in order
        cdef TaskCore task = None
        cdef TaskCore own = None  # the one that this thread is in
        cdef Place *place
        cdef int i
        memset(&self.mutex, 0, sizeof(nt_mutex))
        for i in range(LANES):
            while self.lanes[i].head is not NULL:
                task = <TaskCore>self.lanes[i].head
                unlink(self, task)
                Py_DECREF(task)  # the lane's; the local has its own
                abandon_view(task, views)
                waiting.append(task)
        place = self.places
        while place is not NULL:
            if place.task is not NULL:
                running.append(<TaskCore>place.task)
                if place.ident == PyThread_get_thread_ident():
                    own = <TaskCore>place.task
            place = place.after
        running += self.handed_out
        self.handed_out = set()
        for _, guest, submitted in list(self.guests.values()):
            if submitted:
                running.append(guest)
        for ident, guest, _ in list(self.guests.values()):
            if ident == PyThread_get_thread_ident() and own is None:
                own = guest
        self.guests = {}
        for task in running:
            task.warned &= ~HANDED_OUT
            abandon_view(task, views)
        self.places = NULL
        self.idle_top = NULL
        self.space = self.drainers = NULL
        self.waiting_ = self.active_ = self.threads_ = self.busy = self.idle_ = 0
        self.aside = self.resting_ = self.relieved = self.starting = self.guests_ = 0
        place = <Place *>nt_get_place()
        if place is not NULL:
            memset(&place.guard, 0, sizeof(nt_mutex))
        nt_set_place(NULL)
        self.waking = self.lingering = self.pumping = False
        for task in running:
            if task is not own:
                memset(&task.mutex, 0, sizeof(nt_mutex))
                drop(task, nt_now())
        return waiting, running

    def running(self):
        """Return ``(thread id, task, target)`` of each task that a pool thread runs."""
        cdef list found = []
        cdef unsigned long seen[64]
        cdef PyObject *tasks[64]
        cdef PyObject *fns[64]
        cdef Py_ssize_t skip = 0, i, n
        cdef Place *place
        while True:
            n = i = 0
            nt_lock(&self.mutex)
            place = self.places
            while place is not NULL and n < 64:
                if place.task is not NULL:
                    if i >= skip:
                        seen[n] = place.ident
                        tasks[n] = place.task
                        Py_INCREF(<object>place.task)
                        nt_lock(&place.guard)
                        fns[n] = place.fn
                        if place.fn is not NULL:
                            Py_INCREF(<object>place.fn)
                        nt_unlock(&place.guard)
                        n += 1
                    i += 1
                place = place.after
            nt_unlock(&self.mutex)
            for i in range(n):
                fn = None
                if fns[i] is not NULL:
                    fn = <object>fns[i]
                    Py_DECREF(fn)
                task = <object>tasks[i]
                Py_DECREF(task)
                found.append((seen[i], task, fn))
            if n < 64:
                break
            skip += n
        for ident, guest, submitted in list(self.guests.values()):
            if submitted:
                found.append((ident, guest, (<TaskCore>guest)._get_call()[0]))
        return found

    @property
    def active(self):
        """How many tasks run, in all lanes."""
        return self.active_ + self.guests_

    @property
    def resting(self):
        """How many pool threads wait for a future of ours within their task."""
        return self.resting_

    @property
    def engaged(self):
        """How many tasks run, or may start; those apart that wait for a future of ours."""
        cdef Py_ssize_t found
        nt_lock(&self.mutex)
        found = self.active_ - (self.resting_ - self.aside) + startable(self)
        nt_unlock(&self.mutex)
        return found

    @property
    def leaving(self):
        """Whether threads go that find nothing to do."""
        return self.leaving_

    @property
    def threads(self):
        """How many threads there are, the ones about to start included."""
        return self.threads_

    @property
    def idle(self):
        """How many threads sleep."""
        return self.idle_

    @property
    def waiting(self):
        """How many tasks wait, in all lanes."""
        return self.waiting_

    def figures(self):
        """Return one consistent set of counters; lists are per lane, CRITICAL first."""
        cdef LaneState lanes[4]
        cdef Py_ssize_t counts[4]
        cdef Py_ssize_t active, threads, idle
        cdef long long wakeups
        nt_lock(&self.mutex)
        lanes = self.lanes
        counts = self.counts
        active, threads, idle = self.active_ + self.guests_, self.threads_, self.idle_
        wakeups = self.wakeups
        nt_unlock(&self.mutex)
        return {
            "active": active,
            "threads": threads,
            "idle": idle,
            "wakeups": wakeups,
            "waiting": [counts[i] for i in range(LANES)],
            "submitted": [lanes[i].submitted for i in range(LANES)],
            "completed": [lanes[i].completed for i in range(LANES)],
            "failed": [lanes[i].failed for i in range(LANES)],
            "cancelled": [lanes[i].cancelled for i in range(LANES)],
            "wait_seconds": [lanes[i].waited / 1e9 for i in range(LANES)],
        }
