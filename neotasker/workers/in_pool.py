"""`PoolRuns`: how the runs of a worker are made in a pool.

The driver of a ``SerialLife``: it knows how to run, and the life knows when.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from contextvars import Context
from queue import Full
from threading import get_ident
from typing import Any

from ..base.priority import TASK_NORMAL, lane_of
from ..base.report import Reporter
from ..core import SerialCore
from ..pool.launcher import OwnRun, has_strayed, keeps_threads
from ..timing.loopclock import Timing

__all__ = ["PoolRuns", "hand_over"]

logger = Reporter("neotasker")

_RETRY = 1.0  # seconds until a run that the pool would not take is handed to it again


def hand_over(
    executor: Executor, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Submit to an executor; to a pool of ours without waiting for room in its queue.

    The tick, and whoever triggers, must not be blocked, and there is only one run per
    worker to wait for its turn.
    """
    pool = getattr(executor, "pool", executor)
    crew = getattr(pool, "_crew", None)
    if crew is None:
        return executor.submit(fn, *args, **kwargs)
    lane = lane_of(getattr(executor, "priority", TASK_NORMAL))
    task = crew.dispatcher.make(fn, args, kwargs, lane)
    crew.dispatcher.enqueue(task)
    return task


class _Pool:
    """An executor in the place of a host's pool."""

    queue_size = None

    def __init__(self, executor: Executor) -> None:
        self.executor = executor


class PoolRuns(SerialCore, OwnRun):
    """Makes the runs of a life in a pool: the host's, or an executor of the user's.

    An executor that is no thread pool gets the bare target, without ``_worker``: it may
    send it to another process, where neither would arrive.

    A run that the pool would not take, or has not run in the end, is handed to it again
    after a second while the host is active, with a line in the log.
    """

    __slots__ = ("_pool", "clock", "life")

    def __init__(self, executor: Executor | None, life: Any) -> None:
        super().__init__()
        self.life = life
        self.clock: Timing = life.host.ticker
        self._pool = life.host.thread_pool if executor is None else _Pool(executor)
        call, lane = life.call, None
        run, kwargs = call.run, call.kwargs
        if executor is None:
            lane = life.host.lane(call.priority)
        # Each run has the starter's context to itself: a copy, or where nothing is in it the
        # empty one that each task of a pool of ours runs in.
        if executor is not None or len(call.context):
            run, kwargs = call.run_in_copy, {}
        checks, paces = call.checks_result, life.paces
        self._stage(
            life,
            life.tally,
            run,
            kwargs,
            lane,
            self.clock,
            checks=checks,
            paces=paces,
            spacing=life.spacing,
        )

    def begin(self) -> None:
        """Be ready: nothing is needed."""

    @property
    def enter_due(self) -> Callable[[], None]:
        """That does the same in the callback of a timer of `clock`."""
        return self.enter

    def enter_taken(self) -> None:
        """Hand a run to the pool now that idle was taken."""
        self.put_queued()
        self.enter()

    def enter_slowly(self) -> None:
        """Hand the claimed run to an executor of others, or to a pool that is not as usual."""
        pool = self._pool
        executor = pool.executor
        try:
            if keeps_threads(executor):
                self.task = self._submit(self.turn, {})
                if isinstance(pool, _Pool):  # that of the host calls `was_not_run` by itself
                    self.task.add_done_callback(self._on_turn_done)
            elif self._takes_off():
                self._send()
        except Full:
            self.was_not_run(RuntimeError("the queue of the executor is full"))
        except RecursionError:  # of who triggers
            raise
        except Exception as exc:  # it takes nothing now, has no thread; it is anybody's
            self.was_not_run(exc)

    def _on_turn_done(self, task: Future[Any]) -> None:
        if task.cancelled():
            self.was_not_run(CancelledError("the executor has cancelled it"))
        elif (error := task.exception()) is not None:
            self.was_not_run(error)

    def was_not_run(self, error: BaseException | None) -> None:
        """Hand the run to the pool once more, unless it was made void meanwhile."""
        life = self.life
        if not life.open:
            if self.take_queued():
                self.conclude()
            return
        if not (self.queued and life.host.active):
            return
        if has_strayed(error, self._pool.executor):
            self.enter()
            return
        logger.error("worker %s: its run was refused: %s", life.worker._title, error)
        try:
            life.host.ticker.call_later(_RETRY, self.enter)
        except BaseException:
            self.pending = True
            self.give_back()
            raise

    def _submit(self, fn: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        # In an empty context: a run is not to see that of who triggers it.
        return Context().run(self._hand_over, fn, kwargs)

    def _hand_over(self, fn: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        if isinstance(self._pool, _Pool):
            return hand_over(self._pool.executor, fn, (), kwargs)
        return self.life.host.enqueue(fn, (), kwargs, self.life.call.priority)

    # A turn in two parts, where the run is elsewhere.

    def _takes_off(self) -> bool:
        """Begin the run; return False if it is void."""
        life = self.life
        if not self.take_queued():
            return False
        try:
            if life.open:
                if self.pending or self.late:
                    self.answer()
                life.tally.runs += 1
                return True
        except BaseException:
            self._land()
            raise
        self._land()
        return False

    def _land(self) -> None:
        """End the run."""
        life = self.life
        try:
            if life.paces:
                life.after_run()
        finally:
            self.put_idle()
            if self.owed or self.pending or not life.open:
                life.settle()

    def _send(self) -> None:
        call = self.life.call
        try:
            self.task = self._submit(call.run, call.kwargs_elsewhere)
        except BaseException:
            self.life.tally.runs -= 1
            self.put_queued()
            raise
        self.task.add_done_callback(self._came_back)

    def _came_back(self, task: Future[Any]) -> None:
        try:
            if not task.cancelled():
                try:
                    result = task.result()
                except BaseException:
                    self.life.failed()
                else:
                    self.life.returned(result)
        finally:
            self._land()

    def conclude(self) -> None:
        """End the life."""
        self.life.end()

    def inside(self) -> bool:
        """Return whether the caller is the run."""
        return self.thread == get_ident()

    async def serve(self) -> None:
        """Do nothing: there is no task."""
