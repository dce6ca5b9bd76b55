"""Tasks that begin to run where they are made, on every version of Python."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

WHERE: contextvars.ContextVar[str] = contextvars.ContextVar("WHERE", default="outside")


class Loopless:
    """A loop that has no ``__dict__``."""

    __slots__ = ("_loop",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if name == "__dict__":
            raise AttributeError(name)
        return getattr(self._loop, name)


@pytest.fixture
def start(nt):
    from neotasker._accel import EagerStart

    return lambda loop: EagerStart(loop).make


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
    async def target() -> asyncio.Task[Any] | None:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return asyncio.current_task()

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target())
        assert not task.done()
        return task

    task = in_loop(begin)
    assert task.result() is task


def test_it_is_cancelled_while_it_waits(start):
    async def target() -> None:
        await asyncio.Event().wait()

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = start(loop)(target())
        task.cancel()
        return task

    assert in_loop(begin).cancelled()


def test_its_exception_is_kept(start):
    async def target() -> None:
        raise ValueError(7)

    task = in_loop(lambda loop: start(loop)(target()))
    with pytest.raises(ValueError, match="7"):
        task.result()


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

    async def target() -> str:
        return "done"

    def begin(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
        task = context.run(lambda: start(loop)(target(), context=context))
        assert not task.done()
        return task

    assert in_loop(begin).result() == "done"


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


def test_a_task_that_is_made_while_another_one_is_made_is_not_mixed_up(start):
    began: list[str] = []

    async def target(name: str) -> None:
        began.append(name)

    class Name:
        def __init__(self, begin: Callable[..., asyncio.Task[Any]]) -> None:
            self._begin = begin

        def __str__(self) -> str:
            self.task = self._begin(target("inner"))
            return "name"

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        maker = start(loop)
        maker(target("outer"), name=Name(maker))

    in_loop(begin)
    assert began == ["inner", "outer"]


def test_what_is_no_coroutine_is_refused_and_the_loop_as_before(start):
    def begin(loop: asyncio.AbstractEventLoop) -> None:
        maker = start(loop)
        with pytest.raises(TypeError, match="coroutine"):
            maker(7)
        assert "call_soon" not in vars(loop)

    in_loop(begin)


def test_a_loop_that_cannot_be_changed_or_was_keeps_its_call_soon(start):
    called: list[Any] = []

    async def target() -> None:
        called.append("target")

    def begin(loop: asyncio.AbstractEventLoop) -> None:
        task = start(Loopless(loop))(target())
        assert not task.done()
        loop.call_soon = own = type(loop).call_soon.__get__(loop)  # type: ignore[method-assign]
        task = start(loop)(target())
        assert not task.done() and loop.call_soon is own

    in_loop(begin)
    assert called == ["target", "target"]
