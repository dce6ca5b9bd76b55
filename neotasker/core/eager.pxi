# First steps: tasks of a loop that begin to run where they are made.
#
# Guarantees, assumes: see `EagerStart` in eager.py. The fields belong to the loop's thread.
#
# The twin, eager.py, leaves nothing out.

@cython.final
@cython.auto_pickle(False)
cdef class EagerStart:
    """Makes tasks of a loop that begin to run where they are made."""

    # Touched in the thread of the loop.
    cdef object loop
    cdef object hook  # the method `_call_soon`
    cdef dict names  # of the loop, or None
    cdef dict options  # of a task
    cdef bint busy
    cdef object coro  # of the task whose step is awaited
    cdef object step, context

    def __init__(self, loop):
        names = getattr(loop, "__dict__", None)
        self.loop = loop
        self.names = names if type(names) is dict else None
        self.options = {"loop": loop}
        self.hook = self._call_soon

    def is_possible(self):
        """Return whether the loop is one whose ``call_soon`` may be another for a moment."""
        return self.names is not None and "call_soon" not in self.names

    def make(self, coro, *, name=None, context=None):
        """Return a task of *coro* that has made its first step, in *context*."""
        return start_eagerly(self, coro, name, context)

    def _call_soon(self, callback, *args, context=None):
        """Be the loop's ``call_soon``, once."""
        coro = self.coro
        restore(self)
        task = getattr(callback, "__self__", None)
        if context is not None and isinstance(task, _Task) and task.get_coro() is coro:
            self.step, self.context = callback, context
            return None
        return self.loop.call_soon(callback, *args, context=context)


cdef object start_eagerly(EagerStart self, coro, name, context):
    """Return a task that has made its first step, if that can be made at once."""
    cdef dict options = self.options
    cdef object step = None
    if (
        self.busy
        or self.names is None
        or self.names.setdefault("call_soon", self.hook) is not self.hook
    ):
        return _Task(coro, loop=self.loop, name=name, context=context)
    self.busy = True
    self.coro = coro
    options["name"] = name
    options["context"] = context
    try:
        task = PyObject_Call(_Task, (coro,), options)
        step, context = self.step, self.context
    finally:
        if self.coro is not None:
            restore(self)
        self.step = self.context = None
        options["name"] = options["context"] = None
        self.busy = False
    if step is not None:
        make_step(self, task, step, context)
    return task


cdef int make_step(EagerStart self, task, step, context) except -1:
    """Make the first step, or have it made soon where it cannot be made now."""
    cdef bint begun = False
    try:
        enter_context(context)
        begun = True
        try:
            step()
        finally:
            exit_context(context)
    except BaseException as exc:
        # The context is in use, or another task of the loop runs.
        if isinstance(exc, RuntimeError) and not (begun and _current_task(self.loop) is None):
            self.loop.call_soon(step, context=context)
            return 0
        if task.done() and not task.cancelled():
            task.exception()  # or it would complain that nobody asked for it
        raise
    return 0


cdef int restore(EagerStart self) except -1:
    self.coro = None
    found = self.names.pop("call_soon", None)
    if found is not None and found is not self.hook:
        self.names["call_soon"] = found
    return 0
