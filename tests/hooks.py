"""Calls a hook in the middle of the library: in the place of a finalizer or a signal handler.

What these do is done by a profile function here, which the interpreter calls at each call and
return of Python code; so the point can be chosen, and all of them be tried in turn.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Points", "hook_at", "hook_at_collection"]


class Points:
    """Counts the calls and returns of the library's Python code, and calls a hook at one."""

    def __init__(
        self,
        folder: str,
        hook: Callable[[FrameType], object],
        at: int,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        """Make a counter.

        Parameters:
            folder: that of the package; other code is passed over.
            hook: called with the frame that the point is in.
            at: the number of the point, from 1; 0: none.
            leave_out: files of the package that have no points.
        """
        self._folder = folder
        self._leave_out = tuple(f"{folder}/{name}" for name in leave_out)
        self._hook = hook
        self._at = at
        self.seen = 0
        self.place = ""  # where the hook was called

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "return"):
            return
        name = frame.f_code.co_filename
        if not name.startswith(self._folder) or name in self._leave_out:
            return
        self.seen += 1
        if self.seen == self._at:
            code = frame.f_code
            self.place = f"{event} of {code.co_qualname}, line {frame.f_lineno}"
            self._hook(frame)


@contextmanager
def hook_at(points: Points, everywhere: bool = False) -> Iterator[Points]:
    """Have *points* count in this thread, or *everywhere*, in all that can be reached."""
    # Without the GIL CPython 3.13 takes a hook away from a thread that is just calling it.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    whole = everywhere and has_gil and hasattr(threading, "setprofile_all_threads")
    if whole:
        threading.setprofile_all_threads(points)
    else:
        sys.setprofile(points)
    try:
        yield points
    finally:
        if whole:
            threading.setprofile_all_threads(None)
        else:
            sys.setprofile(None)


@contextmanager
def hook_at_collection(hook: Callable[[FrameType], object], at: int) -> Iterator[list[None]]:
    """Call a hook as the collector runs, which nearly each allocation has it do meanwhile.

    Before CPython 3.12 that is in the allocation itself, those of the compiled core among them;
    since then it is before the next step of Python code.

    Parameters:
        hook: called with the frame that the collector interrupts.
        at: in which of its runs, from 1.

    Yields:
        An item for each run, up to the one with the hook.
    """
    runs: list[None] = []
    mine = threading.get_ident()

    def callback(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and len(runs) < at and threading.get_ident() == mine:
            runs.append(None)
            if len(runs) == at:
                hook(sys._getframe(1))

    before = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(1, 1000, 1000)
    try:
        yield runs
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
