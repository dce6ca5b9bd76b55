"""`Reporter`: the log, for those who must go on whatever the log does."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from opcode import opmap
from typing import Any

__all__ = ["Reporter"]

Failure = BaseException | bool | None  # True: the one that is being handled

_RAISE = opmap["RAISE_VARARGS"]


class Reporter:
    """A logger that never raises.

    Handlers and filters of the log are code of the user's, and may fail: a disk is full, a
    socket is gone. The thread that has something to tell is one that all timers, tasks or
    runs rely on, or is between two steps that belong together. So it must go on.

    Guarantees: no method lets an exception out. What the log did not take is written to
    the standard error, with the exception of the log; if that fails as well, it is lost.
    Ctrl+C that strikes the main thread meanwhile is raised when the report is done.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        """Make a reporter for the logger of that name."""
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *args: Any) -> None:
        """Log at that level."""
        self._tell(self._logger.debug, message, args)

    def info(self, message: str, *args: Any) -> None:
        """Log at that level."""
        self._tell(self._logger.info, message, args)

    def warning(self, message: str, *args: Any) -> None:
        """Log at that level."""
        self._tell(self._logger.warning, message, args)

    def error(self, message: str, *args: Any, exc_info: Failure = None) -> None:
        """Log at that level, with an exception if one is given."""
        self._tell(self._logger.error, message, args, exc_info)

    def exception(self, message: str, *args: Any) -> None:
        """Log an error with the exception that is being handled."""
        self._tell(self._logger.exception, message, args, True)

    def critical(self, message: str, *args: Any, exc_info: Failure = None) -> None:
        """Log at that level, with an exception if one is given."""
        self._tell(self._logger.critical, message, args, exc_info)

    def log(self, level: int, message: str, *args: Any) -> None:
        """Log at a level, given as its number."""
        self._tell(partial(self._logger.log, level), message, args)

    def _tell(
        self,
        tell: Callable[..., object],
        message: str,
        args: tuple[Any, ...],
        error: Failure = None,
    ) -> None:
        if error is True:
            error = sys.exception()
        try:
            # The record is to name the line that reports, which is two frames up.
            tell(message, *args, exc_info=error, stacklevel=3)
        except BaseException as failure:
            interrupted = _is_interrupt(failure)
            with suppress(BaseException):
                sys.stderr.write(_text(message, args, error or None, failure))
            if interrupted:
                interrupt_main()


def _text(
    message: str, args: tuple[Any, ...], error: BaseException | None, failure: BaseException
) -> str:
    """Return what to write in place of the log."""
    with suppress(Exception):  # a repr of the user's may be what has failed
        message = message % args
    lines = [f"neotasker: {message}\n"]
    if error is not None:
        lines += traceback.format_exception(error)
    with suppress(Exception):
        lines.append(f"neotasker: the log did not take it: {failure!r}\n")
    return "".join(lines)


def _is_interrupt(failure: BaseException) -> bool:
    """Return whether a signal's handler raised that, and no statement of a log handler's."""
    if not isinstance(failure, KeyboardInterrupt):
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    frames = failure.__traceback__
    while frames is not None and frames.tb_next is not None:
        frames = frames.tb_next
    if frames is None:
        return True
    code = frames.tb_frame.f_code.co_code
    return frames.tb_lasti < 0 or code[frames.tb_lasti] != _RAISE
