"""The way to somebody else's executor and back."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from ._accel import Dispatcher
from .task import Task

__all__ = ["Launcher"]


class Launcher:
    """Hands tasks to a foreign executor and brings their results back.

    Guarantees: each task that it is called with ends, and gives its place back to
    the dispatcher once.
    """

    def __init__(self, executor: Executor, dispatcher: Dispatcher) -> None:
        self.executor = executor
        self._dispatcher = dispatcher
        self._carries_context = isinstance(executor, ThreadPoolExecutor)

    def __call__(self, task: Task[Any]) -> None:
        if not task._begin():
            self._dispatcher.release(task)
            return
        fn, args, kwargs, context = task._get_call()
        # A context cannot travel to another process.
        call = (context.run, fn, *args) if self._carries_context else (fn, *args)
        inner = self.executor.submit(*call, **(kwargs or {}))
        inner.add_done_callback(partial(self._finished, task))

    def _finished(self, task: Task[Any], inner: Future[Any]) -> None:
        if inner.cancelled():
            task._end(True, CancelledError())
        elif (error := inner.exception()) is not None:
            task._end(True, error)
        else:
            task._end(False, inner.result())
        self._dispatcher.release(task)
