"""`PutTask`: tasks as atasker has them, in threads and in processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from ..base.priority import TASK_NORMAL, lane_of
from ..base.progress import TT_COROUTINE, TT_THREAD, TaskType, kind_of
from ..base.seconds import check_delay
from ..base.signatures import parameters_of
from ..base.targets import NOT_PLAIN
from ..lifecycle.start import SupervisorLife
from ..pool.pool import TaskPool
from ..pool.task import Task, check_target

if TYPE_CHECKING:
    from ..pool.processes import ProcessPool

__all__ = ["PutTask"]

T = TypeVar("T")


class PutTask(SupervisorLife):
    """Tasks with an id, a delay, a callback, and a pool of processes that may run them."""

    def put_task(
        self,
        target: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[..., object] | None = None,
        priority: int = TASK_NORMAL,
        delay: float | None = None,
        tt: int = TT_THREAD,
        task_id: str | None = None,
        worker: Any = None,
        _send_task_id: bool | None = None,
    ) -> Task[T]:
        """Run a call in the pool, now or later.

        Parameters:
            target, args, kwargs: what to call.
            callback: called with the task when it is done; with ``TT_MP`` with the result,
                if there is one.
            priority: of the lane.
            delay: seconds until the task enters its lane; at once when left out.
            tt: ``TT_THREAD``, or ``TT_MP`` for the pool of processes.
            task_id: the task's id; one is made if left out.
            worker: kept in the task, for those who look at it.
            _send_task_id: whether the target gets the id as a keyword ``_task_id``; when
                left out, if it has a parameter of that name.

        Raises:
            TypeError: the target or the callback cannot be called, or the target is a
                coroutine function.
            ValueError: there is no such priority or kind of task, or the delay is negative.
            RuntimeError: there is no pool of processes.
            SupervisorNotStarted: the supervisor does not run.
            QueueFull: the bound on waiting tasks is reached and the pool refuses.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback must be callable, not {callback!r}")
        sends_id = _takes_task_id(target) if _send_task_id is None else _send_task_id
        usual = not delay and delay is not False and tt is TT_THREAD
        if usual and not (task_id or worker or sends_id) and self._pool.queue_size is None:
            if (
                type(target) is not FunctionType
                or target.__code__.co_flags & NOT_PLAIN
                or target.__dict__
            ):
                check_target(target)
            lane = lane_of(priority)
            task: Task[T] = self._dispatcher.make(target, tuple(args), dict(kwargs or ()), lane)
            if callback is not None:
                task.__dict__["callback"] = callback
                task.add_done_callback(callback)
            self._tasks.add(task)  # before it begins: it may ask for itself
            try:
                self._dispatcher.enqueue(task)
            except BaseException:
                self._tasks.drop(task)
                raise
            return task
        kind = _kind_of_call(tt)
        given = dict(kwargs or {})
        if sends_id:
            task_id = given["_task_id"] = task_id or str(uuid.uuid4())
        pool = self._pool if kind == TT_THREAD else self._require_processes()
        view = pool.lane(priority)
        check_target(target)
        dispatcher = pool._crew.dispatcher
        seconds = 0.0 if delay is None else check_delay(delay)
        if seconds:
            self.require_started("a task")
        if not seconds and pool.queue_size is not None:
            task = view.submit(target, *args, **given)
        else:
            task = dispatcher.make(target, tuple(args), given, lane_of(priority))
        traits = _traits(task_id, kind, seconds, callback, worker)
        if traits:
            task.__dict__.update(traits)
        if callback is not None:
            task.add_done_callback(
                callback if kind == TT_THREAD else partial(_hand_result, callback)
            )
        self._tasks.add(task)  # before it begins: it may ask for itself
        try:
            if seconds:
                self._delayed.add(task, seconds, dispatcher)
            elif pool.queue_size is None:
                dispatcher.enqueue(task)
        except BaseException:
            self._tasks.drop(task)
            raise
        return task

    # Processes.

    @property
    def mp_pool(self) -> ProcessPool | None:
        """The pool of processes for ``TT_MP``; None if none was made."""
        return self._processes

    def create_mp_pool(self, *args: Any, **kwargs: Any) -> ProcessPool:
        """Make the pool of processes that tasks with ``TT_MP`` run in.

        It is stopped with the supervisor, and made again when that starts again. One that
        was made before gives way to it, and ends when its tasks have.

        Parameters:
            args, kwargs: see `ProcessPool`; those of ``multiprocessing.Pool``, besides
                others. One process per CPU when left out.

        Raises:
            TypeError: a size is not a whole number, or the initializer not callable.
            ValueError: a size is out of range.
        """
        from ..pool.processes import ProcessPool  # not before somebody wants one

        pool = ProcessPool(*args, **kwargs)
        before, self._processes = self._processes, pool
        if before is not None:
            before.shutdown(wait=False)
        return pool

    def set_mp_pool(
        self, pool_size: int = 0, reserve_normal: int = 0, reserve_high: int = 0
    ) -> None:
        """Set the sizes of the pool of processes; make it if there is none.

        A pool that is there keeps its number of processes.

        Parameters:
            pool_size: places for tasks of all lanes; 0: no limit.
            reserve_normal: places more for NORMAL and above.
            reserve_high: places more for HIGH and above.

        Raises:
            TypeError: a size is not a whole number.
            ValueError: a size is negative.
        """
        make = self.create_mp_pool if self._processes is None else self._processes.resize
        make(pool_size=pool_size, reserve_normal=reserve_normal, reserve_high=reserve_high)

    def _require_processes(self) -> TaskPool:
        self.require_started("a task")
        pool = self._processes
        if pool is None:
            raise RuntimeError(
                f"supervisor {self.id} has no pool of processes for a task with TT_MP: make it "
                "with create_mp_pool() or set_mp_pool(pool_size=...)"
            )
        pool.mend()
        return pool


def _kind_of_call(tt: int) -> TaskType:
    kind = kind_of(tt)
    if kind == TT_COROUTINE:
        raise ValueError(
            f"put_task takes TT_THREAD or TT_MP, not {tt!r}: give a coroutine to an aloop "
            "(aloop.spawn_coroutine_threadsafe), or its function to background_task"
        )
    return kind


def _traits(
    task_id: str | None,
    kind: TaskType,
    delay: float,
    callback: Callable[..., object] | None,
    worker: Any,
) -> dict[str, Any]:
    """Return the attributes of a task that are other than those of its class."""
    traits = {"_id": task_id, "delay": delay or None, "callback": callback, "worker": worker}
    if kind != TT_THREAD:
        traits["tt"] = kind
    return {name: value for name, value in traits.items() if value is not None}


def _takes_task_id(target: Callable[..., Any]) -> bool:
    """Return whether *target* has a parameter ``_task_id``."""
    if type(target) is FunctionType:
        code = target.__code__
        return "_task_id" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if type(target) is BuiltinFunctionType:
        return False
    parameters = parameters_of(target)
    return parameters is not None and any(
        p.name == "_task_id" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        for p in parameters
    )


def _hand_result(callback: Callable[[Any], object], task: Task[Any]) -> None:
    # Not by exception(), which would count as a look at it: it is logged if nobody takes one.
    if not task.cancelled() and task._exception is None:
        callback(task.result())
