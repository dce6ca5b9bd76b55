"""For programs of other languages that carry Python inside: start, stop, call and report.

The host replaces `report_result`, and gets the outcome of each call there.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from . import set_debug as _set_debug
from . import task_supervisor
from .base.report import Reporter
from .errors import SupervisorNotStarted

__all__ = [
    "add_import_path",
    "call",
    "call_async",
    "call_direct",
    "report_result",
    "set_debug",
    "set_poll_delay",
    "set_thread_pool_size",
    "spawn",
    "start",
    "stop",
]

logger = Reporter("neotasker")

debug = False
"""Whether ``set_debug`` has turned debug messages on."""

_ALOOP = "eapi"

_d = SimpleNamespace(loop=None, on_sigint=None)

Error = tuple[str, str, str]
"""Class name and message of an exception, and the traceback as text."""


def set_poll_delay(poll_delay: float) -> None:
    """Set the poll delay of the default supervisor, in seconds."""
    task_supervisor.poll_delay = poll_delay


def set_thread_pool_size(size: Sequence[int]) -> None:
    """Set the size of the default supervisor's thread pool.

    Parameters:
        size: the threads that are always there, and the most threads.

    Raises:
        ValueError: these are not two numbers, or the sizes contradict each other.
    """
    try:
        least, most = size
    except (TypeError, ValueError):
        raise ValueError(f"size must be two numbers (min, max), not {size!r}") from None
    task_supervisor.set_thread_pool(min_size=least, max_size=most)


def add_import_path(import_path: str | list[str]) -> None:
    """Look for modules in a directory, or a list of them, before all others."""
    paths = [import_path] if isinstance(import_path, str) else list(import_path)
    sys.path[:0] = paths


def start() -> None:
    """Start the default supervisor, with an aloop ``eapi``, and take Ctrl+C out of use.

    A second call changes nothing.
    """
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGINT, _ignore)
        if before is not _ignore:
            _d.on_sigint = before
    else:
        logger.warning("embed: started outside of the main thread, Ctrl+C stays in use")
    task_supervisor.start()
    aloop = task_supervisor.get_aloop(_ALOOP) or task_supervisor.create_aloop(_ALOOP)
    if aloop:
        aloop.start()
        _d.loop = aloop.get_loop()
    logger.debug("embed: started")


def _ignore(signum: int, frame: Any) -> None:
    """Do nothing: the host decides about the end."""


def stop(wait: bool | float = True) -> None:
    """Stop the default supervisor, and put Ctrl+C back in use.

    Parameters:
        wait: as for ``TaskSupervisor.stop``.
    """
    task_supervisor.stop(wait=wait)
    _d.loop = None
    on_sigint, _d.on_sigint = _d.on_sigint, None
    if (
        on_sigint is not None
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is _ignore
    ):
        signal.signal(signal.SIGINT, on_sigint)


def spawn(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Run a call in the pool, and report nothing."""
    logger.debug("embed: spawning %r, args %r, kwargs %r", func, args, kwargs)
    task_supervisor.spawn(func, *args, **kwargs)


def call(call_id: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Run a call in the pool, and report its outcome: from any thread.

    Parameters:
        call_id: by which the host knows the call, in `report_result`.
        func, args, kwargs: what to call.

    Raises:
        SupervisorNotStarted: `start` was not called.
    """
    aloop = task_supervisor.get_aloop(_ALOOP)
    if aloop is None or not aloop.active:
        raise SupervisorNotStarted(
            f"embed does not run, call {call_id!r} is refused: call start() first"
        )
    aloop.spawn_coroutine_threadsafe(call_async(call_id, func, *args, **kwargs))


async def call_async(
    call_id: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> None:
    """Run a call in the pool, and report its outcome: from a coroutine.

    Parameters:
        call_id, func, args, kwargs: see `call`.
    """
    logger.debug("embed: call %r of %r, args %r, kwargs %r", call_id, func, args, kwargs)
    try:
        result = await task_supervisor.spawn(func, *args, **kwargs)
    except BaseException as exc:
        _report(call_id, error=_error_of(exc))
        if isinstance(exc, asyncio.CancelledError):
            raise
    else:
        _report(call_id, result=result)


def call_direct(call_id: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Run a call here and now, and report its outcome.

    Parameters:
        call_id, func, args, kwargs: see `call`.
    """
    try:
        result = func(*args, **kwargs)
    except Exception as exc:
        _report(call_id, error=_error_of(exc))
    else:
        _report(call_id, result=result)


def _error_of(exc: BaseException) -> Error:
    trace = "".join(traceback.format_exception(exc))
    return type(exc).__name__, str(exc), trace


def _report(call_id: Any, **outcome: Any) -> None:
    """Call what `report_result` is now."""
    logger.debug("embed: call %r has ended: %r", call_id, outcome)
    try:
        report_result(call_id, **outcome)
    except Exception:
        logger.exception("embed: error while call %r was reported", call_id)


def report_result(call_id: Any, result: Any = None, error: Error | None = None) -> None:
    """Print the outcome of a call: the host is to replace this by a function of its own.

    Parameters:
        call_id: what the call was given.
        result: what it returned.
        error: of a call that raised.
    """
    lines = [
        "CRITICAL: neotasker.embed.report_result was not replaced by the host",
        f"call {call_id!r} has ended",
    ]
    if error is not None:
        lines += [f"exception {error[0]}: {error[1]}", error[2].rstrip()]
    elif result is not None:
        lines.append(f"result: {result!r}")
    print("\n".join(lines), file=sys.stderr, flush=True)


def set_debug(mode: bool = True, nlevel: int = logging.INFO) -> None:
    """Log everything, or no more than usual.

    Parameters:
        mode: whether to log everything.
        nlevel: the level of the root logger otherwise.
    """
    logging.basicConfig(level=logging.DEBUG if mode else nlevel)
    _set_debug(mode)
