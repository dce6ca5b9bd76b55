"""The way to somebody else's executor and back."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from ._accel import Dispatcher
from .task import Task

__all__ = ["Launcher", "OwnRun", "has_strayed", "keeps_threads"]


def keeps_threads(executor: Executor | None) -> bool:
    """Return whether tasks stay in this process: in threads of a pool's own, or another's."""
    return executor is None or isinstance(executor, ThreadPoolExecutor)


def has_strayed(error: BaseException | None, executor: Executor | None) -> bool:
    """Return whether *error* tells of a run of a thread that *executor* has for no thread.

    So it goes with one that waited in its lane as an executor of processes took over: it
    cannot be pickled.
    """
    if error is None or isinstance(error, (RuntimeError, CancelledError)):
        return False
    return not keeps_threads(executor)


class OwnRun:
    """Whose bound methods are runs of a worker or a job, which must know of each."""

    __slots__ = ()

    def was_not_run(self, error: BaseException | None) -> None:
        """See to a run that was accepted and did not begin, as *error* kept it from that."""
        raise NotImplementedError


class Launcher:
    """Hands tasks to a foreign executor and brings their results back.

    Guarantees: each task that it is called with ends, and gives its place back to
    the dispatcher once; or the call raises. What raises `RuntimeError` goes back into its
    lane if the dispatcher has another launcher by then: an executor that was replaced may
    be shut down at once, by its owner, and loses no task by that.

    An `OwnRun` is told of what did not run.
    """

    def __init__(self, executor: Executor, dispatcher: Dispatcher) -> None:
        self.executor = executor
        self._dispatcher = dispatcher
        self._carries_context = keeps_threads(executor)

    def __call__(self, task: Task[Any]) -> None:
        if not task._begin():
            self._dispatcher.release(task)
            return
        fn, args, kwargs, context = task._get_call()
        # A context cannot travel to another process.
        call = (context.run, fn, *args) if self._carries_context else (fn, *args)
        inner = self.executor.submit(*call, **(kwargs or {}))
        inner.add_done_callback(partial(self._finished, task))

    def fail(self, task: Task[Any], error: BaseException) -> None:
        """End a task that has failed, or could not be handed over."""
        owner = getattr(task._get_call()[0], "__self__", None)
        task._end(True, error)
        self._dispatcher.release(task)
        if isinstance(owner, OwnRun):
            owner.was_not_run(error)

    def _finished(self, task: Task[Any], inner: Future[Any]) -> None:
        if inner.cancelled():
            self.fail(task, CancelledError())
        elif (error := inner.exception()) is not None:
            self.fail(task, error)
        else:
            task._end(False, inner.result())
            self._dispatcher.release(task)
