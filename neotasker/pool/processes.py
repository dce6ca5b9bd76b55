"""`ProcessPool`: the lanes of a pool before processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from ..base.known_as import also_known_as, known_as
from ..base.spare import run_apart
from .pool import ExecutorPool
from .task import Task

__all__ = ["ProcessPool"]

_BORN_IN = os.getpid()


@known_as("neotasker.processes")
class ProcessPool(ExecutorPool):
    """Lanes and reserves before a number of processes.

    Tasks travel to a process and back: target, arguments and result are pickled, so the
    target must be found in a module. A process that dies takes the tasks of all with it,
    which end with ``BrokenProcessPool``; the pool has new ones for those that follow.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        pool_size: int | None = None,
        reserve_normal: int = 0,
        reserve_high: int = 0,
    ) -> None:
        """Make a pool; a process starts when there is work for it.

        Parameters:
            processes: how many; the pool's size with the reserves when left out, else the
                CPU count.
            initializer, initargs: called in each process before its first task.
            maxtasksperchild: tasks after which a process is replaced; None: never.
            context: of the module ``multiprocessing``: how processes start. When left
                out, as the interpreter does it by default, but never by a fork of a
                process with several threads.
            pool_size, reserve_normal, reserve_high: see `TaskPool`; *processes* when left
                out.

        Raises:
            TypeError: a size is not a whole number, or the initializer not callable.
            ValueError: a size is out of range.
        """
        if processes is None:
            processes = (pool_size or 0) + reserve_normal + reserve_high or os.cpu_count() or 1
        self._recipe: dict[str, Any] = {
            "max_workers": processes,
            "mp_context": context,
            "initializer": initializer,
            "initargs": tuple(initargs),
            "max_tasks_per_child": maxtasksperchild,
        }
        self._mending = threading.RLock()  # a handler may submit while a pool is made
        super().__init__(
            self._make_executor(),
            pool_size=processes if pool_size is None else pool_size,
            reserve_normal=reserve_normal,
            reserve_high=reserve_high,
        )

    def _make_executor(self) -> ProcessPoolExecutor:
        recipe = dict(self._recipe)
        if recipe["mp_context"] is not None:
            return ProcessPoolExecutor(**recipe)
        method = multiprocessing.get_context().get_start_method()
        if method == "fork" and (recipe["max_tasks_per_child"] is not None or not _is_alone()):
            method = "forkserver"
        if method == "forkserver" and os.getpid() != _BORN_IN:
            method = "spawn"  # the server of the parent does not serve a forked child
        recipe["mp_context"] = multiprocessing.get_context(method)
        executor = ProcessPoolExecutor(**recipe)
        if method == "fork":  # all start with the first task; later there will be threads
            executor.submit(os.getpid).result()
        return executor

    def renewed(self) -> ProcessPool:
        """Return this pool, or, if it was shut down, another one of the same sizes."""
        if not self._shutdown:
            return self
        recipe, sizes = self._recipe, self.sizes
        return ProcessPool(
            recipe["max_workers"],
            recipe["initializer"],
            recipe["initargs"],
            recipe["max_tasks_per_child"],
            recipe["mp_context"],
            pool_size=sizes.pool_size,
            reserve_normal=sizes.reserve_normal,
            reserve_high=sizes.reserve_high,
        )

    def abandon(self) -> None:
        """Be shut down: in a forked child, whose parent has the processes."""
        self._shutdown = True
        self._mending = threading.RLock()

    def mend(self) -> None:
        """Have new processes if one of them has died."""
        with self._mending:
            executor = self.executor
            if getattr(executor, "_broken", False) and not self._shutdown:
                fresh = self._make_executor()
                if self.executor is executor:
                    self.use_executor(fresh)
                else:  # a handler has done it meanwhile
                    executor = fresh
                assert executor is not None
                executor.shutdown(wait=False)

    def apply(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function and return its result, as ``multiprocessing.Pool`` does."""
        return self.apply_async(func, args, kwds).result()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Task[Any]:
        """Run a function and return its task, not a result of ``multiprocessing``'s kind.

        Parameters:
            func, args, kwds: what to call.
            callback: called with the result.
            error_callback: called with the exception, if there is one instead.
        """

        def report(task: Task[Any]) -> None:
            error = task._exception
            if task.cancelled():
                return
            if error is None:
                if callback is not None:
                    callback(task.result())
            elif error_callback is not None:
                error_callback(error)

        self.mend()
        task: Task[Any] = self.submit(func, *args, **(kwds or {}))
        task.add_done_callback(report)
        return task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse new tasks, and let the processes go when the queued ones are done.

        Parameters:
            wait: return only when all tasks and processes have ended.
            cancel_futures: cancel the tasks that have not begun.
        """
        try:
            super().shutdown(wait, cancel_futures=cancel_futures)
        except BaseException:
            wait = False
            raise
        finally:
            if wait:
                self._end_processes()
            else:  # they are needed until what waits in the lanes is done
                run_apart("process pool end", self._end_processes, daemon=False)

    def kill(self) -> None:
        """End the processes at once; tasks that run in them end with ``BrokenProcessPool``."""
        processes = getattr(self.executor, "_processes", None) or {}
        for process in list(processes.values()):
            process.kill()

    def _end_processes(self) -> None:
        self._crew.dispatcher.wait_drained()
        assert self.executor is not None
        self.executor.shutdown()


def _is_alone() -> bool:
    """Return whether this is the only thread of the process, those of libraries included."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return threading.active_count() == 1


also_known_as("neotasker.processes", __name__)
