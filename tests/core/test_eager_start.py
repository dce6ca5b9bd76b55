"""Tasks that begin to run where they are made, on every version of Python."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest
from helpers import wait_until

# When something else may run while a task is made. From CPython 3.14 on nothing of Python
# runs once the task has asked for its first step; before, it is put into a set then.
MOMENTS = ("before", "after") if sys.version_info < (3, 14) else ("before",)
ALL_TASKS = "_all_tasks" if sys.version_info < (3, 12) else "_scheduled_tasks"

WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("WHERE", default="outside")


@pytest.fixture
def start(nt):
    from neotasker.core import EagerStart

    return lambda loop: EagerStart(loop).make


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop()


def in_loop(call: Callable[[asyncio.AbstractEventLoop], Any]) -> Any:
    """Return what *call* returns in a loop that runs, and no task; after three passes more."""
    loop = asyncio.new_event_loop()
    outcome: futures.Future[Any] = futures.Future()

    def begin() -> None:
        try:
            outcome.set_result(call(loop))
        except BaseException as exc:
            outcome.set_exception(exc)
        loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)

    loop.call_soon(begin)
    try:
        loop.run_forever()
    finally:
        loop.close()
    return outcome.result()


def test_the_first_step_is_made_at_once_in_the_context_and_as_the_task(start):
    context = contextvars.copy_context()
    context.run(WHERE.set, "inside")
    seen: list[Any] = []

    async def target() -> str:
        seen.append((WHERE.get(), asyncio.current_task()))
        return "done"

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        task = start(loop)(target(), name="mine", context=context)
        assert task.done() and task.result() == "done" and task.get_name() == "mine"
        assert seen == [("inside", task)]
        assert asyncio.current_task() is None and "call_soon" not in vars(loop)

    in_loop(begin)


def test_what_waits_goes_on_as_any_task_does(start):
    steps: list[str] = []

    async def target() -> asyncio.Task[Any] | None:
        steps.append("first")
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        steps.append("second")
        return asyncio.current_task()

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target())
        assert steps == ["first"] and not task.done()
        return task

    task = in_loop(begin)
    assert task.result() is task and steps == ["first", "second"]


def test_it_is_cancelled_while_it_waits(start):
    began: list[None] = []

    async def target() -> None:
        began.append(None)
        await asyncio.Event().wait()

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target())
        assert began and task.cancel()
        return task

    assert in_loop(begin).cancelled()


def test_its_exception_is_kept(start):
    async def target() -> None:
        raise ValueError(7)

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        task = start(loop)(target())
        with pytest.raises(ValueError, match="7"):
            task.result()

    in_loop(begin)


class Refusing:
    """Something awaitable that cannot be waited for."""

    _asyncio_future_blocking = False
    get_loop = staticmethod(asyncio.get_running_loop)

    def __await__(self) -> Any:
        self._asyncio_future_blocking = True
        yield self

    def add_done_callback(self, callback: Any, *, context: Any = None) -> None:
        raise RuntimeError("no callbacks here")


def test_a_step_that_was_made_and_fails_is_not_made_again(start):
    resumed: list[None] = []

    async def target() -> None:
        await Refusing()
        resumed.append(None)

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(RuntimeError, match="no callbacks here"):
            start(loop)(target())

    in_loop(begin)
    gc.collect()
    assert not resumed


def test_an_exit_passes_through(start):
    async def target() -> None:
        raise SystemExit(3)

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(SystemExit):
            start(loop)(target())
        assert "call_soon" not in vars(loop)

    in_loop(begin)


def test_one_that_is_made_while_a_task_runs_begins_in_the_next_pass(start):
    began: list[str] = []

    async def inner() -> None:
        began.append("inner")

    async def outer(loop: asyncio.AbstractEventLoop) -> None:
        task = start(loop)(inner())
        assert not began
        await task

    task = in_loop(lambda loop: start(loop)(outer(loop)))
    task.result()
    assert began == ["inner"]


def test_one_whose_context_is_in_use_begins_in_the_next_pass(start):
    context = contextvars.copy_context()
    context.run(WHERE.set, "inside")

    async def target() -> str:
        return WHERE.get()

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = context.run(lambda: start(loop)(target(), context=context))
        assert not task.done()
        return task

    assert in_loop(begin).result() == "inside"


def test_other_calls_reach_the_loop_while_a_task_is_made(start):
    called: list[Any] = []

    async def target() -> None:
        called.append("target")

    class Name:
        """Is asked for its text while the task is made."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop

        def __str__(self) -> str:
            self._loop.call_soon(called.append, "other")
            return "name"

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target(), name=Name(loop))
        assert not called and not task.done() and "call_soon" not in vars(loop)
        return task

    assert in_loop(begin).done()
    assert called == ["other", "target"]


@pytest.mark.parametrize("when", MOMENTS)
def test_a_task_that_is_made_while_another_one_is_made_is_not_mixed_up(
    start, monkeypatch, when
):
    """As a finalizer or a signal handler may: before the first step is taken, or after."""
    made: list[asyncio.Task[Any]] = []
    steps: list[tuple[str, str, bool]] = []

    async def target(name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        steps.append((name, WHERE.get(), task.get_name() == name))

    def inside(name: str) -> contextvars.Context:
        context = contextvars.copy_context()
        context.run(WHERE.set, name)
        return context

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        maker = start(loop)
        once = [None]

        def interrupt() -> None:
            if once:
                once.pop()
                made.append(maker(target("inner"), name="inner", context=inside("inner")))

        class Name:
            def __str__(self) -> str:
                interrupt()
                return "outer"

        if when == "before":
            return maker(target("outer"), name=Name(), context=inside("outer"))
        tasks = getattr(asyncio.tasks, ALL_TASKS)
        keep = tasks.add

        def add(task: asyncio.Task[Any]) -> None:
            keep(task)
            interrupt()

        with monkeypatch.context() as patch:
            patch.setattr(tasks, "add", add)
            return maker(target("outer"), name="outer", context=inside("outer"))

    outer = in_loop(begin)
    assert outer.done() and made[0].done()
    assert sorted(steps) == [("inner", "inner", True), ("outer", "outer", True)]


def test_what_is_no_coroutine_is_refused_and_the_loop_as_before(start):
    def begin(loop: asyncio.AbstractEventLoop) -> None:
        maker = start(loop)
        with pytest.raises(TypeError, match="coroutine"):
            maker(7)
        assert "call_soon" not in vars(loop)

    in_loop(begin)


def test_a_loop_with_a_call_soon_of_its_own_keeps_it(start):
    called: list[Any] = []

    async def target() -> None:
        called.append("target")

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        loop.call_soon = own = type(loop).call_soon.__get__(loop)  # type: ignore[method-assign]
        task = start(loop)(target())
        assert not task.done() and loop.call_soon is own
        return task

    assert in_loop(begin).done()
    assert called == ["target"]


def test_only_a_loop_that_can_be_changed_lets_tasks_begin_at_once(nt):
    from neotasker.core import EagerStart

    class Slotted:
        __slots__ = ()

    class Plain: ...

    assert EagerStart(Plain()).is_possible()
    assert not EagerStart(Slotted()).is_possible()
    changed = Plain()
    changed.call_soon = print  # type: ignore[attr-defined]
    assert not EagerStart(changed).is_possible()


def test_one_that_is_put_there_while_a_task_is_made_stays(start):
    async def target() -> None: ...

    class Name:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop

        def __str__(self) -> str:
            self._loop.call_soon = call_soon  # type: ignore[method-assign]
            return "name"

    called: list[Any] = []

    def call_soon(*call: Any, context: Any = None) -> None:
        called.append(call)

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target(), name=Name(loop))
        assert vars(loop).pop("call_soon") is call_soon
        loop.call_soon(called[0][0])
        return task

    assert in_loop(begin).done() and len(called) == 1


@pytest.mark.parametrize("uses", ["eager", "a factory", "a call_soon of its own"])
def test_loops_make_eager_tasks_unless_somebody_else_has_a_say(nt, uses):
    from neotasker.loops.gate import LoopGate

    async def target() -> None: ...

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        if uses == "a factory":
            loop.set_task_factory(asyncio.Task)  # type: ignore[arg-type]
        elif uses != "eager":
            loop.call_soon = type(loop).call_soon.__get__(loop)  # type: ignore[method-assign]
        eager = LoopGate(loop).eager
        if uses == "a factory":
            assert eager is None
        elif uses == "eager" or sys.version_info >= (3, 12):  # those ask no `call_soon`
            assert eager is not None
            make, options = eager
            assert make(target(), **options).done()
        else:
            assert eager is None

    in_loop(begin)


def test_a_coroutine_that_is_handed_to_an_aloop_begins_before_what_is_handed_over_later(
    supervisor,
):
    order: list[str] = []

    async def target() -> None:
        order.append("coroutine")

    aloop = supervisor.create_aloop("test")
    held, done = threading.Event(), threading.Event()
    aloop.get_loop().call_soon_threadsafe(held.wait)  # all come in one burst
    aloop.spawn_coroutine_threadsafe(target())
    aloop._gate.post(lambda: order.append("call"))
    aloop._gate.post(done.set)
    held.set()
    assert done.wait(10) and order == ["coroutine", "call"]


def test_a_run_of_a_job_begins_where_it_is_due(supervisor):
    came: list[Any] = []

    async def target() -> None: ...

    jobs = supervisor.create_async_job_scheduler("test", aloop=supervisor.create_aloop("a"))
    make, options = jobs._task_maker

    def spy(coro: Any, **given: Any) -> asyncio.Task[Any]:
        task = make(coro, **given)
        came.append(task.done())
        return task

    jobs._task_maker = (spy, options)
    job = supervisor.create_async_job(jobs, target=target, interval=0.01)
    wait_until(lambda: len(came) >= 3)  # a run is counted before its task is made
    assert job.runs >= 3 and all(came)


def test_a_run_that_is_cancelled_before_its_first_step_is_counted_as_missed(supervisor):
    """On a loop that lets no task begin at once."""
    began: list[None] = []

    async def target() -> None:
        began.append(None)

    class Loop(asyncio.SelectorEventLoop):
        def __init__(self) -> None:
            super().__init__()
            self.set_task_factory(self._make)

        def _make(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(coro, loop=loop, **options)
            if coro.__qualname__.startswith("AsyncJob"):
                task.cancel()
            return task

    aloop = supervisor.create_aloop("a", loop_factory=Loop)
    jobs = supervisor.create_async_job_scheduler("test", aloop=aloop)
    job = supervisor.create_async_job(jobs, target=target, interval=0.01)
    wait_until(lambda: job.missed >= 3)
    job.cancel()
    wait_until(lambda: not job.running)
    assert job.runs == 0 and not began
