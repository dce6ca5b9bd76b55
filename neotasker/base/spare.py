"""A thread for what must not wait for its caller, and stack for what must not fail."""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable

from .green import is_patched_late

__all__ = ["make_thread", "need_stack", "run_apart"]


def need_stack(frames: int = 64) -> None:
    """Look that there is room on the stack, before something begins that must not be half done.

    Raises:
        RecursionError: there is not.
    """
    if frames:
        need_stack(frames - 1)


def run_apart(name: str, target: Callable[[], object], daemon: bool = True) -> bool:
    """Call *target* once in a thread of its own, or here if there is no thread to be had.

    Parameters:
        name: of the thread.
        target: what to call.
        daemon: whether the thread lets the process end. Where an interpreter has no such
            threads, as some subinterpreters, it gets one that does not.

    Returns:
        Whether it was left to a thread.
    """
    token = [None]  # a thread that was started may be followed by an exception all the same

    def live() -> None:
        if token and _take(token):
            target()

    if is_patched_late():  # what `threading` makes now would run in the caller's thread
        return _run_bare(live)
    try:
        make_thread(name, live, daemon).start()
    except RuntimeError:  # there is none to be had, or the stack is too deep
        return _run_bare(live)
    except BaseException:  # of a signal handler
        _run_bare(live)
        raise
    return True


def make_thread(
    name: str, target: Callable[[], object], daemon: bool = True
) -> threading.Thread:
    """Return a thread, to be started.

    Parameters:
        name: of the thread.
        target: what it calls.
        daemon: whether it lets the process end, where the interpreter has such threads.
    """
    try:
        return threading.Thread(target=target, name=name, daemon=daemon)
    except RuntimeError:
        if not daemon:
            raise
    return threading.Thread(target=target, name=name, daemon=False)


def _run_bare(target: Callable[[], object]) -> bool:
    """Call *target* in a thread without a name, for which less has to go well."""
    try:
        start_new_thread(target, ())
    except RuntimeError:
        target()
        return False
    return True


def _take(token: list[None]) -> bool:
    """Take the token out; return False if somebody else has it."""
    try:
        token.pop()
    except IndexError:
        return False
    return True
