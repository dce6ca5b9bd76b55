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


cdef inline void place_at(Clockwork *works, Py_ssize_t i, Entry entry) noexcept:
    # Places stand in an array of their own: to write them into the timers themselves would
    # cost a miss of the cache for each.
    works.heap[i] = entry
    works.places[entry.slot] = <unsigned int>i


cdef void sift_up(Clockwork *works, Py_ssize_t i) noexcept:
    cdef Entry *heap = works.heap
    cdef Entry entry = heap[i]
    cdef Py_ssize_t parent
    while i > 0:
        parent = (i - 1) >> 2
        if not earlier(&entry, &heap[parent]):
            break
        place_at(works, i, heap[parent])
        i = parent
    place_at(works, i, entry)


cdef enum:
    MANY_TIMERS = 8192  # so many are farther away from the processor than it pays to wait
    MOST_LEVELS = 17  # of four to the power of sixteen timers

cdef inline void fetch_entries(Entry *first, Py_ssize_t count) noexcept nogil:
    """Fetch what is below an entry: two levels below, and three where that is the last."""
    cdef Py_ssize_t i
    for i in range(0, count * <Py_ssize_t>sizeof(Entry), 64):
        nt_prefetch(<char *>first + i)


cdef inline void fetch_timer(Clockwork *works, unsigned int slot, int level) noexcept nogil:
    """Fetch what will be needed of a timer that has come up to a level of the heap.

    With each timer that leaves the top one comes up to every level; so from the third on
    there is time to fetch, one after the other, what is held for it, itself and its callback,
    and whose method that is.
    """
    cdef char *timer
    if level == 3:
        nt_prefetch(&works.held[slot])
    elif level == 2:
        timer = <char *>works.held[slot].timer
        nt_prefetch(timer)
        nt_prefetch(timer + 64)
        nt_prefetch(<void *>works.held[slot].callback)
    elif level == 1:
        nt_prefetch_owner(works.held[slot].callback)


cdef inline Py_ssize_t earliest_of_four(Entry *heap, Py_ssize_t first) noexcept nogil:
    cdef Py_ssize_t one = first + earlier(&heap[first + 1], &heap[first])
    cdef Py_ssize_t other = first + 2 + earlier(&heap[first + 3], &heap[first + 2])
    return one + (other - one) * earlier(&heap[other], &heap[one])


cdef void sift_down(Clockwork *works, Py_ssize_t i) noexcept:
    # First the way down is found, then the entries are moved along it: so the processor
    # fetches places that are far away all at once, and while it looks for the way.
    cdef Entry *heap = works.heap
    cdef Py_ssize_t size = works.size
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
            nt_prefetch_write(&works.places[heap[best].slot])
        way[levels] = best
        levels += 1
    for level in range(levels):
        best = way[level]
        place_at(works, i, heap[best])
        if level < 4 and size > 64:
            fetch_timer(works, heap[i].slot, level)
        i = best
    place_at(works, i, entry)


cdef void heap_push(
    Clockwork *works, TimerCore timer, object callback, tuple args
) noexcept:
    """Put a timer into the heap, which has room, with its call; references to all are taken.

    The mutex is held.
    """
    cdef Py_ssize_t i = works.size
    cdef unsigned int slot = works.free_slot
    if slot == <unsigned int>NO_SLOT:
        slot = works.slots
        works.slots += 1
    else:
        works.free_slot = works.places[slot]
    works.serial += 1
    works.heap[i].limit = limit_of(timer)
    works.heap[i].serial = works.serial
    works.heap[i].slot = slot
    works.held[slot].timer = <PyObject *>timer
    works.held[slot].callback = <PyObject *>callback
    works.held[slot].args = <PyObject *>args
    works.size += 1
    works.count += 1
    Py_INCREF(timer)
    Py_INCREF(callback)
    Py_INCREF(args)
    nt_store32(&timer.slot, slot)
    sift_up(works, i)


cdef inline void free_the_slot(Clockwork *works, unsigned int slot) noexcept:
    works.places[slot] = works.free_slot
    works.free_slot = slot


cdef void replace(Clockwork *works, Py_ssize_t i, Entry entry) noexcept:
    """Put an entry in the place of another."""
    place_at(works, i, entry)
    sift_up(works, i)
    sift_down(works, works.places[entry.slot])


cdef void heap_remove(Clockwork *works, Py_ssize_t i) noexcept:
    """Take an entry out of the heap."""
    works.size -= 1
    if i != works.size:
        replace(works, i, works.heap[works.size])


cdef Held take_out(Clockwork *works, TimerCore timer, unsigned int final) noexcept:
    """Take a timer out, and return the references that the ticker had. The mutex is held.

    Parameters:
        final: what the timer is to have in place of a slot.
    """
    cdef unsigned int slot = timer.slot
    cdef Held held = works.held[slot]
    cdef Queue *queue = NULL
    cdef Entry following
    works.held[slot].timer = works.held[slot].callback = works.held[slot].args = NULL
    works.count -= 1
    nt_store32(&timer.slot, final)
    if timer.periodic is not NULL:
        queue = find_queue(works, timer)
        if timer.periodic.queued:
            queue.dead += 1
            if queue.dead > queue.count >> 1 and queue.count >= FEWEST:
                bury(works, queue)
            return held
    if queue is not NULL and queue.first == slot:
        if leave_queue(works, queue, &following):
            replace(works, works.places[slot], following)
        else:
            heap_remove(works, works.places[slot])
    else:
        heap_remove(works, works.places[slot])
    free_the_slot(works, slot)
    return held


cdef inline void let_go(Held held) noexcept:
    """Drop what `take_out` has returned, which may run code of the user's."""
    Py_XDECREF(held.callback)
    Py_XDECREF(held.args)
    Py_XDECREF(held.timer)


# Queues of timers that fire again and again.
#
# Timers of one interval that are set anew as they fire are set in the order of their due
# times. So they wait in line, and only the first of each line is in the heap: what a fire
# costs does not grow with their number, and the memory that it needs is known long before.
# One that would not come last, because it or one before it was late, goes into the heap;
# in the end it finds its place in the line again.

cdef enum:
    FEWEST = 16  # entries that a queue has room for


cdef inline Queue **place_of_queue(Clockwork *works, TimerCore timer) noexcept:
    cdef unsigned long long mixed = timer.periodic.interval ^ (
        <unsigned long long>timer.slack_ << 20
    )
    return &works.queues[(mixed * <unsigned long long>0x9e3779b97f4a7c15) >> 58]


cdef inline Queue *find_queue(Clockwork *works, TimerCore timer) noexcept:
    """Return the queue of a timer's interval and slack, or NULL."""
    cdef Queue *queue = place_of_queue(works, timer)[0]
    if queue is not NULL and (
        queue.interval != timer.periodic.interval or queue.slack != timer.slack_
    ):
        return NULL
    return queue


cdef Queue *get_queue(Clockwork *works, TimerCore timer) noexcept:
    """Return the same, made if there is room for it."""
    cdef Queue **place = place_of_queue(works, timer)
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


cdef inline bint join_queue(Queue *queue, Entry entry) noexcept:
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


cdef void rejoin_queue(Clockwork *works, Queue *queue, Entry entry) noexcept:
    """Put the entry that has just left before all others."""
    queue.head = (queue.head - 1) & (queue.room - 1)
    queue.count += 1
    queue.ring[queue.head] = entry
    (<TimerCore>works.held[entry.slot].timer).periodic.queued = True


cdef inline void fetch_queued(Clockwork *works, Queue *queue) noexcept:
    """Fetch what will be needed of those that come soon: first where they are."""
    cdef int level
    cdef unsigned int slot
    if queue.count > 12:
        nt_prefetch_write(&works.places[in_ring(queue, 8).slot])
        for level in range(4):
            slot = in_ring(queue, level << 2).slot
            if level == 3 or works.held[slot].timer is not NULL:
                fetch_timer(works, slot, level)


cdef inline bint leave_queue(Clockwork *works, Queue *queue, Entry *entry) noexcept:
    """Take the next entry to be the first, in the heap; return False if there is none."""
    cdef unsigned int slot
    cdef bint found = False
    queue.first = NO_SLOT
    while queue.count and not found:
        entry[0] = in_ring(queue, 0)[0]
        queue.head = (queue.head + 1) & (queue.room - 1)
        queue.count -= 1
        slot = entry.slot
        if works.held[slot].timer is NULL:
            queue.dead -= 1
            free_the_slot(works, slot)
        else:
            queue.first = slot
            (<TimerCore>works.held[slot].timer).periodic.queued = False
            found = True
    if found:
        fetch_queued(works, queue)
    if queue.room > FEWEST and queue.count < queue.room >> 3:
        set_ring_room(queue, queue.room >> 1)
    return found


cdef void bury(Clockwork *works, Queue *queue) noexcept:
    """Take out the entries of those that were cancelled."""
    cdef unsigned int i, kept = 0
    for i in range(queue.count):
        if works.held[in_ring(queue, i).slot].timer is NULL:
            free_the_slot(works, in_ring(queue, i).slot)
        else:
            in_ring(queue, kept)[0] = in_ring(queue, i)[0]
            kept += 1
    queue.count = kept
    queue.dead = 0
    while queue.room > FEWEST and queue.count < queue.room >> 3:
        if not set_ring_room(queue, queue.room >> 1):
            return


cdef bint make_room(Clockwork *works) noexcept:
    """Make room for one more timer; return False if there is none. The mutex is held."""
    if not make_room_in_heap(works):
        return False
    if works.free_slot != <unsigned int>NO_SLOT or works.slots < works.slots_room:
        return True
    if works.slots_room >= <Py_ssize_t>(FIRED >> 1):
        return False
    return set_slots_room(works, works.slots_room * 2 if works.slots_room else 16)


cdef inline bint make_room_in_heap(Clockwork *works) noexcept:
    if works.size < works.room:
        return True
    return set_room(works, works.room * 2 if works.room else 16)


cdef bint set_room(Clockwork *works, Py_ssize_t room) noexcept:
    """Let the heap have room for so many; return False if there is none."""
    # The second entry begins a line of the cache, so that children share one.
    cdef void *block
    cdef void *heap
    heap = nt_array(
        room * sizeof(Entry), sizeof(Entry), works.heap, works.size * sizeof(Entry), &block
    )
    if heap is NULL:
        return False
    PyMem_RawFree(works.heap_block)
    works.heap_block = block
    works.heap = <Entry *>heap
    works.room = room
    return True


cdef bint set_slots_room(Clockwork *works, Py_ssize_t room) noexcept:
    """Let there be so many slots; return False if there is no room."""
    cdef void *places_block
    cdef void *held_block
    cdef void *places
    cdef void *held
    cdef size_t used = works.slots
    places = nt_array(
        room * sizeof(unsigned int), 0, works.places, used * sizeof(unsigned int), &places_block
    )
    if places is NULL:
        return False
    held = nt_array(room * sizeof(Held), 0, works.held, used * sizeof(Held), &held_block)
    if held is NULL:
        PyMem_RawFree(places_block)
        return False
    PyMem_RawFree(works.places_block)
    PyMem_RawFree(works.held_block)
    works.places_block = places_block
    works.held_block = held_block
    works.places = <unsigned int *>places
    works.held = <Held *>held
    works.slots_room = room
    return True


cdef void shrink(Clockwork *works) noexcept:
    """Give memory back when little of it is used. The mutex is held."""
    cdef Py_ssize_t room = works.room >> 1
    if room >= 1024 and works.size < room >> 1:
        set_room(works, room)
    # To count slots anew takes a look at every timer: there must be few.
    if works.slots_room > 1024 and works.count < works.slots_room >> 6:
        count_slots_anew(works)


cdef void count_slots_anew(Clockwork *works) noexcept:
    """Give the timers the first slots, if there is memory to do so. The mutex is held."""
    cdef Held *held = <Held *>PyMem_RawMalloc((works.count + 1) * sizeof(Held))
    cdef Queue *queue
    cdef unsigned int at, counted = 0
    cdef Py_ssize_t i, room = 1024
    if held is NULL:
        return
    for i in range(works.size):
        held[counted] = works.held[works.heap[i].slot]
        works.heap[i].slot = counted
        counted += 1
    for i in range(QUEUES):
        queue = works.queues[i]
        if queue is not NULL:
            bury(works, queue)
            if queue.first != <unsigned int>NO_SLOT:
                queue.first = works.places[queue.first]  # as in the heap
            for at in range(queue.count):
                held[counted] = works.held[in_ring(queue, at).slot]
                in_ring(queue, at).slot = counted
                counted += 1
    for at in range(counted):
        works.held[at] = held[at]
        works.places[at] = at
        nt_store32(&(<TimerCore>held[at].timer).slot, at)
    PyMem_RawFree(held)
    works.slots = counted
    works.free_slot = NO_SLOT
    while room < works.count << 1:
        room <<= 1
    set_slots_room(works, room)
