"""First steps: tasks of a loop that begin to run where they are made.

**Guarantees**, **assumes**: see `EagerStart`.

The compiled twin is ``eager.pxi``; neither leaves anything out.
"""

from __future__ import annotations

from asyncio import Task, current_task

__all__ = ["EagerStart"]


class EagerStart:
    """Makes tasks of a loop that begin to run where they are made.

    What ``Task(eager_start=True)`` does from CPython 3.12 on, for those before it: a new
    task asks its loop to call the first step soon. The loop's ``call_soon`` is another
    one until it does; that takes the step, which is then made at once.

    Guarantees: what cannot begin at once, as a task that is made while another one runs,
    begins in a later pass of the loop. Calls of ``call_soon`` that are not that of the
    new task reach the loop. No step is made twice, and none is lost.

    Assumes: it is called in the thread of its loop, which runs.
    """

    __slots__ = ("_busy", "_coro", "_hook", "_loop", "_names", "_step")

    def __init__(self, loop):
        names = getattr(loop, "__dict__", None)
        self._loop = loop
        self._names = names if type(names) is dict else None
        self._hook = self._call_soon
        self._busy = False  # a finalizer or signal handler may come in between
        self._coro = None  # of the task whose step is awaited
        self._step = None

    def is_possible(self):
        """Return whether the loop is one whose ``call_soon`` may be another for a moment."""
        return self._names is not None and "call_soon" not in self._names

    def make(self, coro, *, name=None, context=None):
        """Return a task of *coro* that has made its first step, in *context*."""
        loop = self._loop
        if self._busy or not self.is_possible():
            return Task(coro, loop=loop, name=name, context=context)
        try:
            self._busy = True
            self._coro = coro
            self._names["call_soon"] = self._hook
            task = Task(coro, loop=loop, name=name, context=context)
            step = self._step
        finally:
            self._restore()
            self._step = None
            self._busy = False
        if step is not None:
            self._make_step(task, *step)
        return task

    def _make_step(self, task, step, context):
        """Make the first step, or have it made soon where it cannot be made now."""
        begun = []
        try:
            context.run(lambda: (begun.append(None), step()))
        except BaseException as exc:
            # The context is in use, or another task of the loop runs.
            if isinstance(exc, RuntimeError) and not (
                begun and current_task(self._loop) is None
            ):
                self._loop.call_soon(step, context=context)
                return
            if task.done() and not task.cancelled():
                task.exception()  # or it would complain that nobody asked for it
            raise

    def _restore(self):
        self._coro = None
        found = self._names.pop("call_soon", None)
        if found is not None and found is not self._hook:
            self._names["call_soon"] = found

    def _call_soon(self, callback, *args, context=None):
        """Be the loop's ``call_soon``, once."""
        coro = self._coro
        self._restore()
        task = getattr(callback, "__self__", None)
        if context is not None and isinstance(task, Task) and task.get_coro() is coro:
            self._step = callback, context
            return None
        return self._loop.call_soon(callback, *args, context=context)
