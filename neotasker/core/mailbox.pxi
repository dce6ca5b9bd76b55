# The mailbox: the way into an event loop of another thread.
#
# Guarantees, assumes: see `Mailbox` in mailbox.py.
#
# The twin, mailbox.py, leaves nothing out.

@cython.final
cdef class Mailbox:
    """A queue into another thread's loop that costs one wake-up per burst."""

    cdef nt_mutex mutex  # protects the items and the two flags
    cdef list items
    cdef bint posted
    cdef bint closed
    cdef object wake
    cdef object handle

    def __init__(self, wake, handle):
        self.wake = wake
        self.handle = handle

    def post(self, item):
        """Hand over an item; return False if the mailbox is closed.

        If the loop cannot be woken the item is taken back, and the exception raised.
        """
        cdef bint first = False, closed, lacks = True
        cdef list fresh = None
        while lacks:
            nt_lock(&self.mutex)
            closed = self.closed
            lacks = not closed and self.items is None and fresh is None
            if not lacks:
                break
            nt_unlock(&self.mutex)
            fresh = []  # not under the mutex: to make one may run the collector
        try:
            if not closed:
                if self.items is None:
                    self.items = fresh
                self.items.append(item)  # there may be no memory for it
                first = not self.posted
                self.posted = True
        finally:
            nt_unlock(&self.mutex)
        if first:
            try:
                self.wake()
            except BaseException as exc:
                lost = take_back(self, item)
                announce_again(self)
                if lost or not isinstance(exc, Exception):
                    raise
                # Somebody else's wake-up has come so far.
        return not closed

    def drain(self):
        """Handle what was posted: called in the loop's thread."""
        cdef list items = None
        nt_lock(&self.mutex)
        items = self.items
        self.items = None
        self.posted = False
        nt_unlock(&self.mutex)
        if items is None:
            return
        for item in items:
            try:
                self.handle(item)
            except BaseException:
                try:
                    logger.exception("exception in the handler of a mailbox")
                except BaseException:  # not even a call is possible: the others go on
                    pass

    def shut(self):
        """Refuse further items; those that came before can be drained."""
        nt_lock(&self.mutex)
        self.closed = True
        nt_unlock(&self.mutex)

    def close(self):
        """Refuse further items and return those that were not handled."""
        cdef list items = None
        nt_lock(&self.mutex)
        self.closed = True
        items = self.items
        self.items = None
        nt_unlock(&self.mutex)
        return [] if items is None else items

    def abandon(self, handle=None):
        """Do what `close` does, in a forked child.

        Parameters:
            handle: gets what `drain` has taken already, if it was that which forked.
        """
        if handle is not None:
            self.handle = handle
        memset(&self.mutex, 0, sizeof(nt_mutex))
        return self.close()

    def __len__(self):
        cdef Py_ssize_t count
        nt_lock(&self.mutex)
        count = 0 if self.items is None else len(self.items)
        nt_unlock(&self.mutex)
        return count


cdef bint take_back(Mailbox self, object item) except -1:
    """Let the next item wake the loop, and take this one out; False if it is gone."""
    cdef Py_ssize_t at
    cdef bint found = False
    nt_lock(&self.mutex)
    self.posted = False
    if self.items is not None:
        for at in range(len(self.items)):
            if self.items[at] is item:
                found = True
                break
        if found:
            del self.items[at]  # `item` keeps it alive
    nt_unlock(&self.mutex)
    return found


cdef enum:
    WAKES = 3  # tries to announce what others rely on


cdef int announce_again(Mailbox self) except -1:
    """Announce what others have posted and rely on a wake-up that did not come."""
    cdef bint needed
    cdef int tries
    for tries in range(WAKES):
        nt_lock(&self.mutex)
        needed = not self.posted and self.items is not None and len(self.items) > 0
        if needed:
            self.posted = True
        nt_unlock(&self.mutex)
        if not needed:
            return 0
        try:
            self.wake()
            return 0
        except BaseException:
            nt_lock(&self.mutex)
            self.posted = False
            nt_unlock(&self.mutex)
    logger.error("a mailbox could not wake its loop; the next post tries again")
    return 0
