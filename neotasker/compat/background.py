"""Functions as tasks: `background_task`, and waiting for what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future, wait
from functools import partial, wraps
from operator import methodcaller
from typing import Any, ParamSpec, TypeVar, overload

from .. import host
from ..base.known_as import also_known_as, known_as
from ..base.priority import TASK_NORMAL, lane_of
from ..base.progress import TT_COROUTINE, TT_MP, TT_THREAD, kind_of
from ..base.seconds import check_delay, wait_in_parts
from ..base.targets import check_called
from ..loops.gate import CoroutineFuture
from ..loops.port import ForeignLoop, LoopPort
from ..pool.task import Task

__all__ = ["background_task", "co_mp_apply", "wait_completed"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def background_task(
    f: Callable[P, Coroutine[Any, Any, T]], /, **options: Any
) -> Callable[P, CoroutineFuture[T]]: ...


@overload
def background_task(f: Callable[P, T], /, **options: Any) -> Callable[P, Task[T]]: ...


@overload
def background_task(
    f: None = None, /, **options: Any
) -> Callable[[Callable[P, Any]], Callable[P, Any]]: ...


@known_as("neotasker.tasks")
def background_task(f: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Return a function that runs *f* in the background: bare, or with options.

    What it is called with goes to *f*, and it returns at once: a `Task`, or the future of a
    coroutine.

    Parameters:
        f: a plain function, which runs in the pool, or an async one, which runs on a loop.
        priority: of a plain function; ``TASK_NORMAL`` when left out.
        delay: seconds until it begins.
        tt: ``TT_MP`` runs a plain function in the supervisor's pool of processes;
            ``TT_COROUTINE`` says of one that is not declared as async that it returns a
            coroutine.
        callback: called with the result when there is one.
        loop: for a coroutine: an aloop, the name of one, or an asyncio loop; the default
            aloop when left out, else the supervisor's own loop.
        supervisor: the default supervisor when left out.
        options: others do no harm.

    Raises:
        TypeError: *f* or *callback* cannot be called, the delay is no number.
        ValueError: there is no such priority or kind of task, or the delay is negative.
    """
    if f is None:
        return partial(background_task, **options)
    if not callable(f):
        raise TypeError(f"a task is made of something callable, not of {f!r}")
    starter = _Starter(f, options)

    @wraps(f)
    def start(*args: Any, **kwargs: Any) -> Future[Any]:
        return starter.start(args, kwargs)

    return start


class _Starter:
    """Starts a function as a task, in the way that the options say."""

    def __init__(self, f: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._f = f
        self._supervisor = options.get("supervisor")
        self._loop = options.get("loop")
        self._tt = kind_of(_given(options, "tt", TT_THREAD))
        kind = check_called("the target of a task", f)
        self._is_coroutine = self._tt == TT_COROUTINE or kind in ("async", "awaitable")
        self._priority = _given(options, "priority", TASK_NORMAL)
        lane_of(self._priority)
        delay = options.get("delay")
        self._delay = None if delay is None else check_delay(delay)
        callback = options.get("callback")
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback must be callable, not {callback!r}")
        self._callback = callback

    def start(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        supervisor = _supervisor(self._supervisor)
        started: Future[Any]
        if self._is_coroutine:
            loop = supervisor.resolve_aloop(self._loop)
            port = loop if isinstance(loop, LoopPort) else ForeignLoop(loop)
            started = port.spawn_coroutine_threadsafe(self._coroutine(args, kwargs))
        else:
            started = supervisor.put_task(
                self._f,
                args,
                kwargs,
                priority=self._priority,
                delay=self._delay,
                tt=self._tt,
                _send_task_id=False,
            )
        if self._callback is not None:
            started.add_done_callback(partial(_hand_result, self._callback))
        return started

    async def _coroutine(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._delay:
            await asyncio.sleep(self._delay)
        return await self._f(*args, **kwargs)


def _given(options: Mapping[str, Any], name: str, default: Any) -> Any:
    value = options.get(name)
    return default if value is None else value


def _supervisor(given: Any) -> Any:
    if given is not None:
        return given
    assert host.default is not None
    return host.default()


def _hand_result(callback: Callable[[Any], object], task: Future[Any]) -> None:
    # Not by exception(), which would count as a look at it: it is logged if nobody takes one.
    if not task.cancelled() and task._exception is None:
        callback(task.result())


@overload
def wait_completed(tasks: Future[T], timeout: float | None = None) -> T: ...


@overload
def wait_completed(tasks: Iterable[Future[T]], timeout: float | None = None) -> list[T]: ...


@known_as("neotasker.tasks")
def wait_completed(
    tasks: Future[Any] | Iterable[Future[Any]], timeout: float | None = None
) -> Any:
    """Wait for tasks, and return what they returned.

    Parameters:
        tasks: one task, or several; futures of any kind.
        timeout: seconds to wait in all; None waits for ever.

    Returns:
        The result of the one, or a list of the results in the order of the tasks.

    Raises:
        TimeoutError: not all have ended in time.
        TypeError: something is not a future.
        BaseException: what a task has raised, the first in order, when all have ended.
    """
    one = isinstance(tasks, Future)
    waited = [tasks] if isinstance(tasks, Future) else list(tasks)
    wrong = [task for task in waited if not isinstance(task, Future)]
    if wrong:
        raise TypeError(f"a task or a future is needed, not {wrong[0]!r}")
    left = _not_done(waited, timeout)
    if left:
        raise TimeoutError(
            f"{len(left)} of {len(waited)} tasks have not ended within {timeout} s"
        )
    try:
        results = list(map(methodcaller("result"), waited))
    finally:
        # This frame is in the traceback of what is raised, which must not lead back to it.
        del tasks, waited
    return results[0] if one else results


def _not_done(tasks: list[Future[Any]], timeout: float | None) -> set[Future[Any]]:
    """Wait for tasks; return those that have not ended in time."""
    if timeout is not None:
        wait_in_parts(lambda part: not wait(tasks, part).not_done, timeout)
    return wait(tasks, timeout if timeout is None else 0).not_done


async def co_mp_apply(
    f: Callable[..., T],
    args: Iterable[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    priority: int | None = None,
    delay: float | None = None,
    supervisor: Any = None,
) -> T:
    """Run a function in the supervisor's pool of processes, and return its result.

    Parameters:
        f: the function, of a module that the other process can import.
        args, kwargs: its arguments.
        priority: of its lane there; ``TASK_NORMAL`` when left out.
        delay: seconds until it enters its lane.
        supervisor: the default supervisor when left out.

    Raises:
        RuntimeError: the supervisor has no such pool; `create_mp_pool` makes it.
    """
    task: Task[T] = _supervisor(supervisor).put_task(
        f,
        args,
        kwargs,
        priority=TASK_NORMAL if priority is None else priority,
        delay=delay,
        tt=TT_MP,
        _send_task_id=False,
    )
    return await task


# Not as a decorator, in which type checkers lose that it is async.
known_as("neotasker.tasks")(co_mp_apply)


also_known_as("neotasker.tasks", __name__)
