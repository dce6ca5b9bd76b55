"""What becomes of supervisors when the process ends or forks."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

from ..base.latch import Latch
from ..base.report import Reporter
from ..pool import threads as _threads  # its hooks are registered before those below

__all__ = ["stir", "watch"]

logger = Reporter("neotasker")


if TYPE_CHECKING:  # it takes long to make such a class
    from typing import Protocol

    class _Inhabitant(Protocol):
        """What a process asks of a supervisor."""

        def keeps_process(self) -> bool:
            """Return whether the process must not end yet."""

        def end_with_process(self, again: bool) -> None:
            """Stop, and return when nothing is left to wait for; *again*: do not wait."""

        def after_fork_in_child(self) -> None:
            """Forget what only the parent has."""


_inhabitants: weakref.WeakSet[_Inhabitant] = weakref.WeakSet()
_stirred = Latch()
_over = False  # the main thread has ended, and nothing keeps the process


def is_over() -> bool:
    """Return whether the main thread has ended, so that nobody stops what starts now."""
    return _over


def watch(inhabitant: _Inhabitant) -> None:
    """Have *inhabitant* asked when the main thread ends, and told in forked children."""
    _inhabitants.add(inhabitant)


def stir() -> None:
    """Make a main thread that has ended look again whether the process may end."""
    _stirred.set()


def _on_main_thread_end() -> None:
    """Keep the process while supervisors need it, then stop them.

    Ctrl+C stops them at once, also one that has ended the main thread before; so a
    second one finds a stop under way, and ends the process whatever runs.
    """
    global _over
    interrupts = int(_was_interrupted())
    begun = False
    while True:
        try:
            if not interrupts:
                _wait_for_keepers()
            _over = True
            again, begun = begun, True
            for inhabitant in list(_inhabitants):
                inhabitant.end_with_process(again)
            return
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                _end_at_once()
        except BaseException:
            logger.exception("error at the end of the main thread")
            return


def _was_interrupted() -> bool:
    """Return whether Ctrl+C has ended the main thread.

    The interpreter notes what has ended a program where it also notes what went wrong at its
    prompt, or at one that a program has (those of `code` and of IPython), and went on.
    """
    kind = getattr(sys, "last_type", None)
    if not (isinstance(kind, type) and issubclass(kind, KeyboardInterrupt)):
        return False
    if hasattr(sys, "ps1"):  # there is a prompt: a program that ends has none
        return False
    trace = getattr(sys, "last_traceback", None)
    return trace is None or trace.tb_frame.f_code.co_filename != "<console>"


def _wait_for_keepers() -> None:
    global _stirred
    while True:
        _stirred = Latch()
        if not any(inhabitant.keeps_process() for inhabitant in list(_inhabitants)):
            return
        _stirred.wait()


def _end_at_once() -> None:
    logger.critical("interrupted again while stopping: the process ends at once")
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(130)  # the shell's code for a process that SIGINT ended


def _after_fork_in_child() -> None:
    global _over, _stirred
    _over = False
    _stirred = Latch()
    for inhabitant in list(_inhabitants):
        inhabitant.after_fork_in_child()


# Called in reverse order, so that supervisors find their pools in working order; the
# hooks of forks are called in order, so that they find them cleared.
assert _threads
threading._register_atexit(_on_main_thread_end)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
