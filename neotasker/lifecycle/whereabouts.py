"""Where threads and tasks are, for reports."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Stacks", "stack_of_task", "title_of_task"]

# Where a coroutine, a generator, and one that is both have their frame, and what they await.
_KINDS = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


class Stacks:
    """What threads are at, looked up when it is first asked for.

    A stop that finds nothing running must not look: it would get frames of all interpreters
    of the process, and those of another one are not to be touched.
    """

    def __init__(self) -> None:
        self._frames: dict[int, FrameType] | None = None

    def __call__(self, ident: int | None) -> str:
        """Return the stack of the thread with this identifier, "" if there is none."""
        frame = self._all().get(ident or 0)
        return "" if frame is None else "".join(traceback.format_stack(frame)).rstrip()

    def around(self, task: asyncio.Task[Any]) -> str:
        """Return the stack of the thread that is inside *task* now, "" if none is.

        A loop need not tell which thread runs it (uvloop does not), but a frame of the task
        is on the stack of that thread: that of its coroutine, or of the run that was begun in
        the name of a worker's task, which itself waits.
        """
        own = list(_frames_of(task.get_coro()))
        for ident, innermost in self._all().items():
            frame: FrameType | None = innermost
            while frame is not None:
                if frame in own:
                    return self(ident)
                frame = frame.f_back
        return ""

    def _all(self) -> dict[int, FrameType]:
        if self._frames is None:
            self._frames = sys._current_frames()
        return self._frames


def title_of_task(task: asyncio.Task[Any]) -> str:
    """Return the name of a task, and of its coroutine."""
    coro = task.get_coro()
    return f"{task.get_name()} {getattr(coro, '__qualname__', None) or repr(coro)}"


def stack_of_task(task: asyncio.Task[Any]) -> str:
    """Return where a task waits; "" if that cannot be told, as it runs on while we look."""
    try:
        frames = list(_frames_of(task.get_coro()))
        return "".join("".join(traceback.format_stack(frame, 1)) for frame in frames).rstrip()
    except Exception:
        return ""


def _frames_of(coro: Any) -> Iterator[FrameType]:
    """Give the frames of a coroutine that waits, and of what it waits for, outermost first."""
    from ..workers.in_loop import LoopRuns  # not before a report asks

    while coro is not None:
        found = [(getattr(coro, name, None), inner) for name, inner in _KINDS]
        frame, inner = next((pair for pair in found if pair[0] is not None), (None, ""))
        if frame is None:
            return
        yield frame
        # The task of a worker does not await the run: it waits for what that waits for.
        is_bridge = frame.f_code is LoopRuns._bridge.__code__
        coro = frame.f_locals.get("work") if is_bridge else getattr(coro, inner, None)
