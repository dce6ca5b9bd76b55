# The heap of timers, and the lines of those that fire again and again.
#
# Guarantees: the first entry is the one with the earliest limit; of two with one limit, the
# one that was set first. Memory that a fire needs is there before it.
#
# Assumes: the ticker's mutex is held. Nothing here creates or lets go of an object.
#
# The twin, heap.py, is one list that the standard's `heapq` keeps, without the lines: a call
# of Python costs more than a heap of any size.

cdef inline bint earlier(Entry *a, Entry *b) noexcept nogil:
    # Of two that are due together the one that was set first, unless two billion others
    # were set in between. Without a branch, as nobody could predict it.
    return (a.limit < b.limit) | ((a.limit == b.limit) & (<int>(a.serial - b.serial) < 0))


cdef inline long long limit_of(TimerCore timer) noexcept nogil:
    """Return when a timer is to fire at the latest."""
    return timer.when_ + <long long>timer.slack_ * 1000


cdef inline void place_at(TickerCore self, Py_ssize_t i, Entry entry) noexcept:
    # Places stand in an array of their own: to write them into the timers themselves would
    # cost a miss of the cache for each.
    self.heap[i] = entry
    self.places[entry.slot] = <unsigned int>i


cdef void sift_up(TickerCore self, Py_ssize_t i) noexcept:
    cdef Entry *heap = self.heap
    cdef Entry entry = heap[i]
    cdef Py_ssize_t parent
    while i > 0:
        parent = (i - 1) >> 2
        if not earlier(&entry, &heap[parent]):
            break
        place_at(self, i, heap[parent])
        i = parent
    place_at(self, i, entry)


cdef enum:
    MANY_TIMERS = 8192  # so many are farther away from the processor than it pays to wait
    MOST_LEVELS = 17  # of four to the power of sixteen timers

cdef inline void fetch_entries(Entry *first, Py_ssize_t count) noexcept nogil:
    """Fetch what is below an entry: two levels below, and three where that is the last."""
    cdef Py_ssize_t i
    for i in range(0, count * <Py_ssize_t>sizeof(Entry), 64):
        nt_prefetch(<char *>first + i)


cdef inline void fetch_timer(TickerCore self, unsigned int slot, int level) noexcept nogil:
    """Fetch what will be needed of a timer that has come up to a level of the heap.

    With each timer that leaves the top one comes up to every level; so from the third on
    there is time to fetch, one after the other, where it is, itself, and its callback.
    """
    cdef char *timer
    if level == 3:
        nt_prefetch(&self.timers[slot])
    elif level == 2:
        timer = <char *>self.timers[slot]
        nt_prefetch(timer)
        nt_prefetch(timer + 64)
        nt_prefetch(timer + 96)
    elif level == 1:
        nt_prefetch(<void *>(<TimerCore>self.timers[slot]).callback)
    elif level == 0:
        nt_prefetch_owner((<TimerCore>self.timers[slot]).callback)


cdef inline Py_ssize_t earliest_of_four(Entry *heap, Py_ssize_t first) noexcept nogil:
    cdef Py_ssize_t one = first + earlier(&heap[first + 1], &heap[first])
    cdef Py_ssize_t other = first + 2 + earlier(&heap[first + 3], &heap[first + 2])
    return one + (other - one) * earlier(&heap[other], &heap[one])


cdef void sift_down(TickerCore self, Py_ssize_t i) noexcept:
    # First the way down is found, then the entries are moved along it: so the processor
    # fetches places that are far away all at once, and while it looks for the way.
    cdef Entry *heap = self.heap
    cdef Py_ssize_t size = self.size
    cdef bint far = size > MANY_TIMERS
    cdef Entry entry = heap[i]
    cdef Py_ssize_t way[MOST_LEVELS]
    cdef Py_ssize_t child, below, best = i
    cdef int levels = 0, level
    while True:
        child = (best << 2) + 1
        if child + 4 <= size:
            below = (child << 2) + 1
            if below >= MANY_TIMERS and below + 16 <= size:
                fetch_entries(&heap[below], 16)
                below = (below << 2) + 1
                if (below << 2) >= size and below + 64 <= size:
                    fetch_entries(&heap[below], 64)
            best = earliest_of_four(heap, child)
        elif child < size:  # less than four are left
            best = child
            for child in range(child + 1, size):
                if earlier(&heap[child], &heap[best]):
                    best = child
        else:
            break
        if not earlier(&heap[best], &entry):
            break
        if far:
            nt_prefetch_write(&self.places[heap[best].slot])
        way[levels] = best
        levels += 1
    for level in range(levels):
        best = way[level]
        place_at(self, i, heap[best])
        if level < 4 and size > 64:
            fetch_timer(self, heap[i].slot, level)
        i = best
    place_at(self, i, entry)


cdef void heap_push(TickerCore self, TimerCore timer) noexcept:
    """Put a timer into the heap, which has room; the ticker gets a reference. Mutex held."""
    cdef Py_ssize_t i = self.size
    cdef unsigned int slot = self.free_slot
    if slot == <unsigned int>NO_SLOT:
        slot = self.slots
        self.slots += 1
    else:
        self.free_slot = self.places[slot]
    self.serial += 1
    self.heap[i].limit = limit_of(timer)
    self.heap[i].serial = self.serial
    self.heap[i].slot = slot
    self.timers[slot] = <PyObject *>timer
    self.size += 1
    self.count += 1
    Py_INCREF(timer)
    nt_store32(&timer.slot, slot)
    sift_up(self, i)


cdef inline void free_the_slot(TickerCore self, unsigned int slot) noexcept:
    self.places[slot] = self.free_slot
    self.free_slot = slot


cdef void replace(TickerCore self, Py_ssize_t i, Entry entry) noexcept:
    """Put an entry in the place of another."""
    place_at(self, i, entry)
    sift_up(self, i)
    sift_down(self, self.places[entry.slot])


cdef void heap_remove(TickerCore self, Py_ssize_t i) noexcept:
    """Take an entry out of the heap."""
    self.size -= 1
    if i != self.size:
        replace(self, i, self.heap[self.size])


cdef void take_out(TickerCore self, TimerCore timer) noexcept:
    """Take a timer out; the reference of the ticker is the caller's. The mutex is held."""
    cdef unsigned int slot = timer.slot
    cdef Queue *queue = NULL
    cdef Entry following
    self.count -= 1
    nt_store32(&timer.slot, NO_SLOT)
    if timer.periodic is not NULL:
        queue = find_queue(self, timer)
        if timer.periodic.queued:
            self.timers[slot] = NULL
            queue.dead += 1
            if queue.dead > queue.count >> 1 and queue.count >= FEWEST:
                bury(self, queue)
            return
    if queue is not NULL and queue.first == slot:
        if leave_queue(self, queue, &following):
            replace(self, self.places[slot], following)
        else:
            heap_remove(self, self.places[slot])
    else:
        heap_remove(self, self.places[slot])
    free_the_slot(self, slot)


# Queues of timers that fire again and again.
#
# Timers of one interval that are set anew as they fire are set in the order of their due
# times. So they wait in line, and only the first of each line is in the heap: what a fire
# costs does not grow with their number, and the memory that it needs is known long before.
# One that would not come last, because it or one before it was late, goes into the heap;
# in the end it finds its place in the line again.

cdef enum:
    QUEUES = 64  # for so many intervals, if no two fall upon the same
    FEWEST = 16  # entries that a queue has room for

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


cdef inline Queue **place_of_queue(TickerCore self, TimerCore timer) noexcept:
    cdef unsigned long long mixed = timer.periodic.interval ^ (
        <unsigned long long>timer.slack_ << 20
    )
    return &self.queues[(mixed * <unsigned long long>0x9e3779b97f4a7c15) >> 58]


cdef inline Queue *find_queue(TickerCore self, TimerCore timer) noexcept:
    """Return the queue of a timer's interval and slack, or NULL."""
    cdef Queue *queue = place_of_queue(self, timer)[0]
    if queue is not NULL and (
        queue.interval != timer.periodic.interval or queue.slack != timer.slack_
    ):
        return NULL
    return queue


cdef Queue *get_queue(TickerCore self, TimerCore timer) noexcept:
    """Return the same, made if there is room for it."""
    cdef Queue **place = place_of_queue(self, timer)
    cdef Queue *queue = place[0]
    if queue is NULL:
        queue = <Queue *>PyMem_RawMalloc(sizeof(Queue))
        if queue is NULL:
            return NULL
        memset(queue, 0, sizeof(Queue))
        queue.first = NO_SLOT
        place[0] = queue
    if queue.first == <unsigned int>NO_SLOT:
        queue.interval = timer.periodic.interval
        queue.slack = timer.slack_
    elif queue.interval != timer.periodic.interval or queue.slack != timer.slack_:
        return NULL
    return queue


cdef inline Entry *in_ring(Queue *queue, unsigned int i) noexcept:
    return &queue.ring[(queue.head + i) & (queue.room - 1)]


cdef bint set_ring_room(Queue *queue, unsigned int room) noexcept:
    """Let the queue have room for so many; return False if there is none."""
    cdef Entry *ring = NULL
    cdef unsigned int i
    if room:
        ring = <Entry *>PyMem_RawMalloc(room * sizeof(Entry))
        if ring is NULL:
            return False
    for i in range(queue.count):
        ring[i] = in_ring(queue, i)[0]
    PyMem_RawFree(queue.ring)
    queue.ring = ring
    queue.room = room
    queue.head = 0
    return True


cdef bint join_queue(Queue *queue, Entry entry) noexcept:
    """Let an entry be the last; return False if there is no room."""
    if queue.count == queue.room:
        if queue.room >= <unsigned int>(FIRED >> 1):
            return False
        if not set_ring_room(queue, queue.room * 2 if queue.room else FEWEST):
            return False
    in_ring(queue, queue.count)[0] = entry
    queue.count += 1
    queue.last = entry.limit
    return True


cdef void jump_queue(Queue *queue, Entry entry) noexcept:
    """Put an entry where it belongs, past all that are later; there is room."""
    cdef unsigned int i = queue.count
    queue.count += 1
    while i and in_ring(queue, i - 1).limit > entry.limit:
        in_ring(queue, i)[0] = in_ring(queue, i - 1)[0]
        i -= 1
    in_ring(queue, i)[0] = entry


cdef void rejoin_queue(TickerCore self, Queue *queue, Entry entry) noexcept:
    """Put the entry that has just left before all others."""
    queue.head = (queue.head - 1) & (queue.room - 1)
    queue.count += 1
    queue.ring[queue.head] = entry
    (<TimerCore>self.timers[entry.slot]).periodic.queued = True


cdef inline void fetch_queued(TickerCore self, Queue *queue) noexcept:
    """Fetch what will be needed of those that come soon: first where they are."""
    cdef int level
    cdef unsigned int slot
    if queue.count > 12:
        nt_prefetch_write(&self.places[in_ring(queue, 8).slot])
        for level in range(4):
            slot = in_ring(queue, level << 2).slot
            if level == 3 or self.timers[slot] is not NULL:
                fetch_timer(self, slot, level)


cdef bint leave_queue(TickerCore self, Queue *queue, Entry *entry) noexcept:
    """Take the next entry to be the first, in the heap; return False if there is none."""
    cdef unsigned int slot
    cdef bint found = False
    queue.first = NO_SLOT
    while queue.count and not found:
        entry[0] = in_ring(queue, 0)[0]
        queue.head = (queue.head + 1) & (queue.room - 1)
        queue.count -= 1
        slot = entry.slot
        if self.timers[slot] is NULL:
            queue.dead -= 1
            free_the_slot(self, slot)
        else:
            queue.first = slot
            (<TimerCore>self.timers[slot]).periodic.queued = False
            found = True
    if found:
        fetch_queued(self, queue)
    if queue.room > FEWEST and queue.count < queue.room >> 3:
        set_ring_room(queue, queue.room >> 1)
    return found


cdef void bury(TickerCore self, Queue *queue) noexcept:
    """Take out the entries of those that were cancelled."""
    cdef unsigned int i, kept = 0
    for i in range(queue.count):
        if self.timers[in_ring(queue, i).slot] is NULL:
            free_the_slot(self, in_ring(queue, i).slot)
        else:
            in_ring(queue, kept)[0] = in_ring(queue, i)[0]
            kept += 1
    queue.count = kept
    queue.dead = 0
    while queue.room > FEWEST and queue.count < queue.room >> 3:
        if not set_ring_room(queue, queue.room >> 1):
            return


cdef bint make_room(TickerCore self) noexcept:
    """Make room for one more timer; return False if there is none. The mutex is held."""
    if not make_room_in_heap(self):
        return False
    if self.free_slot != <unsigned int>NO_SLOT or self.slots < self.slots_room:
        return True
    if self.slots_room >= <Py_ssize_t>(FIRED >> 1):
        return False
    return set_slots_room(self, self.slots_room * 2 if self.slots_room else 16)


cdef inline bint make_room_in_heap(TickerCore self) noexcept:
    if self.size < self.room:
        return True
    return set_room(self, self.room * 2 if self.room else 16)


cdef bint set_room(TickerCore self, Py_ssize_t room) noexcept:
    """Let the heap have room for so many; return False if there is none."""
    # The second entry begins a line of the cache, so that children share one.
    cdef void *block
    cdef void *heap
    heap = nt_array(
        room * sizeof(Entry), sizeof(Entry), self.heap, self.size * sizeof(Entry), &block
    )
    if heap is NULL:
        return False
    PyMem_RawFree(self.heap_block)
    self.heap_block = block
    self.heap = <Entry *>heap
    self.room = room
    return True


cdef bint set_slots_room(TickerCore self, Py_ssize_t room) noexcept:
    """Let there be so many slots; return False if there is no room."""
    cdef void *places_block
    cdef void *timers_block
    cdef void *places
    cdef void *timers
    cdef size_t used = self.slots
    places = nt_array(
        room * sizeof(unsigned int), 0, self.places, used * sizeof(unsigned int), &places_block
    )
    if places is NULL:
        return False
    timers = nt_array(
        room * sizeof(PyObject *), 0, self.timers, used * sizeof(PyObject *), &timers_block
    )
    if timers is NULL:
        PyMem_RawFree(places_block)
        return False
    PyMem_RawFree(self.places_block)
    PyMem_RawFree(self.timers_block)
    self.places_block = places_block
    self.timers_block = timers_block
    self.places = <unsigned int *>places
    self.timers = <PyObject **>timers
    self.slots_room = room
    return True


cdef void shrink(TickerCore self) noexcept:
    """Give memory back when little of it is used. The mutex is held."""
    cdef Py_ssize_t room = self.room >> 1
    if room >= 1024 and self.size < room >> 1:
        set_room(self, room)
    # To count slots anew takes a look at every timer: there must be few.
    if self.slots_room > 1024 and self.count < self.slots_room >> 6:
        count_slots_anew(self)


cdef void count_slots_anew(TickerCore self) noexcept:
    """Give the timers the first slots, if there is memory to do so. The mutex is held."""
    cdef PyObject **timers = <PyObject **>PyMem_RawMalloc(
        (self.count + 1) * sizeof(PyObject *)
    )
    cdef Queue *queue
    cdef unsigned int at, counted = 0
    cdef Py_ssize_t i, room = 1024
    if timers is NULL:
        return
    for i in range(self.size):
        timers[counted] = self.timers[self.heap[i].slot]
        self.heap[i].slot = counted
        counted += 1
    for i in range(QUEUES):
        queue = self.queues[i]
        if queue is not NULL:
            bury(self, queue)
            if queue.first != <unsigned int>NO_SLOT:
                queue.first = self.places[queue.first]  # as in the heap
            for at in range(queue.count):
                timers[counted] = self.timers[in_ring(queue, at).slot]
                in_ring(queue, at).slot = counted
                counted += 1
    for at in range(counted):
        self.timers[at] = timers[at]
        self.places[at] = at
        nt_store32(&(<TimerCore>timers[at]).slot, at)
    PyMem_RawFree(timers)
    self.slots = counted
    self.free_slot = NO_SLOT
    while room < self.count << 1:
        room <<= 1
    set_slots_room(self, room)
