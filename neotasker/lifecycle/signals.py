"""`Signals`: SIGINT and SIGTERM ask a program that waits for its supervisor to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from ..base.latch import Latch
from .stop import StopReport

if TYPE_CHECKING:
    from .leave import Leaving

__all__ = ["GRACE", "LIMIT", "Signals", "end_now"]

GRACE = 10.0
"""Seconds that coroutines and tasks that have not begun get after a signal."""

LIMIT = 30.0
"""Seconds after which a stop that a signal asked for returns, and reports what still runs."""

logger = logging.getLogger("neotasker")


class Signals:
    """What SIGINT and SIGTERM do meanwhile: the first ends the wait, the second the process.

    Guarantees: the first signal raises nothing, wherever it strikes: it cuts no start and no
    stop short. One that comes before the wait ends it, too.

    Assumes: used in the main thread, where handlers run; entered once.
    """

    def __init__(
        self, supervisor: Leaving, end: Callable[[StopReport, int], object] | None = None
    ) -> None:
        """Make what handles the signals; they are handled inside ``with``.

        Parameters:
            supervisor: whose stop the signals ask for.
            end: called at the second signal, with a report of the moment and the number
                of the signal; ends the process with 128 and that number when left out.
        """
        self._supervisor = supervisor
        self._end = end or self._end_by_signal
        self._before: dict[int, Any] = {}
        self._over = Latch()
        self.count = 0
        """How many signals have come."""

    def __enter__(self) -> Signals:
        """Take the signals over.

        Raises:
            RuntimeError: this is not the main thread of the main interpreter.
        """
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._on_signal)
        except ValueError as exc:
            raise RuntimeError(
                "signals can be handled in the main thread only: call this there, or with "
                "signals=False"
            ) from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None: it was not set from Python, and cannot be set again from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def wait(self, seconds: float | None) -> None:
        """Return after so many seconds, on a signal, or when the supervisor has stopped."""
        forget = self._supervisor._ended.call_when_set(self._over.set)
        try:
            self._over.wait(seconds)
        finally:
            forget()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self._over.set()
            return
        self._end(self._supervisor.stop(wait=False, cancel_tasks=True, timeout=0), number)

    def _end_by_signal(self, report: StopReport, number: int) -> NoReturn:
        logger.critical(
            "%s: the process ends by a second signal, %s", self._supervisor._title, report
        )
        end_now(128 + number)


def end_now(status: int) -> NoReturn:
    """End the process, whatever runs."""
    for end in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(Exception):
            end()
    os._exit(status)
