"""The way to somebody else's executor and back."""

from __future__ import annotations

import os
import weakref
from collections import deque
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
)
from contextlib import suppress
from functools import partial
from types import MethodType
from typing import Any

from ..base.report import Reporter
from ..base.spare import run_apart
from ..core import Dispatcher
from .task import Task

__all__ = ["Launcher", "OwnRun", "has_strayed", "keeps_threads"]

logger = Reporter("neotasker")

_launchers: weakref.WeakSet[Launcher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Free the child of what only the parent's threads would see to."""
    for launcher in list(_launchers):
        launcher.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def keeps_threads(executor: Executor | None) -> bool:
    """Return whether tasks stay in this process: in threads of a pool's own, or another's."""
    return executor is None or isinstance(executor, ThreadPoolExecutor)


def has_strayed(error: BaseException | None, executor: Executor | None) -> bool:
    """Return whether *error* tells of a run of a thread that *executor* has for no thread.

    So it goes with one that waited in its lane as an executor of processes took over: it
    cannot be pickled.
    """
    if error is None or isinstance(error, (RuntimeError, MemoryError, CancelledError)):
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

    Executors tell of what they cancel, or lose as they break, while they hold a lock of
    their own, under which nothing may be handed to them. So that is seen to in a thread
    that lives as long as there is something to see to.

    Who takes the token sees to these tasks, and looks for more when it was put back; who adds
    one looks at the token after. So one of the two sees the other, without a lock.
    """

    def __init__(self, executor: Executor, dispatcher: Dispatcher) -> None:
        self.executor = executor
        self._dispatcher = dispatcher
        self._carries_context = keeps_threads(executor)
        self._fallen: deque[tuple[Task[Any], BaseException]] = deque()
        self._token = {None}
        _launchers.add(self)

    def __call__(self, task: Task[Any]) -> None:
        if not task._begin():
            self._dispatcher.release(task)
            return
        fn, args, kwargs, context = task._get_call()
        call: tuple[Any, ...] = (fn, *args)
        if self._carries_context:  # neither it nor the dispatcher can travel to a process
            if kwargs:  # where `Context.run` is Python, names of its own stand in their way
                call, kwargs = (partial(fn, *args, **kwargs),), None
            call = (self._dispatcher.run_elsewhere, task, context.run, *call)
        inner = self.executor.submit(*call, **(kwargs or {}))
        try:
            inner.add_done_callback(partial(self._finished, task))
        except BaseException as exc:
            if inner.done() or isinstance(exc, RuntimeError):
                raise  # of a callback of the task, in the main thread; or see `Dispatcher`
            self.fail(task, exc)  # nobody hears how it ends: it was handed over, though

    def abandon(self) -> None:
        """Forget what is the parent's: in a forked child, where nobody mends."""
        self._fallen.clear()
        self._token = {None}

    def fail(self, task: Task[Any], error: BaseException) -> None:
        """End a task that has failed, or could not be handed over."""
        fn = task._get_call()[0]
        owner = fn.__self__ if type(fn) is MethodType else None  # it asks no code of the user's
        try:
            self._end(task, True, error)
        finally:
            if isinstance(owner, OwnRun):
                owner.was_not_run(error)

    def _end(self, task: Task[Any], failed: bool, value: Any) -> None:
        """End a task and give back its place; in the main thread its callbacks may raise."""
        try:
            task._end(failed, value)
        finally:
            self._dispatcher.release(task)

    def _finished(self, task: Task[Any], inner: Future[Any]) -> None:
        error = CancelledError() if inner.cancelled() else inner.exception()
        if error is None:
            self._end(task, False, inner.result())
        elif isinstance(error, (CancelledError, BrokenExecutor)):
            self._fail_elsewhere(task, error)
        else:
            self.fail(task, error)

    def _fail_elsewhere(self, task: Task[Any], error: BaseException) -> None:
        self._fallen.append((task, error))
        if self._token:
            run_apart("neotasker_launcher", self._mend)

    def _mend(self) -> None:
        while self._fallen:
            try:
                self._token.remove(None)
            except KeyError:
                return
            try:
                self._mend_all()
            finally:
                self._token.add(None)

    def _mend_all(self) -> None:
        while self._fallen:
            try:
                task, error = self._fallen.popleft()
            except IndexError:  # a fork has emptied it
                return
            try:
                self.fail(task, error)
            except BaseException:
                with suppress(BaseException):
                    logger.exception("error at the end of %r", task)
