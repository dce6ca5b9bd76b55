"""The ticker: the clockwork of the core, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Literal

from ..base.known_as import also_known_as, known_as
from ..base.report import Reporter
from ..base.restarts import Restarts
from ..base.seconds import is_alive, join_within
from ..core import TickerCore, TimerCore

__all__ = ["Missed", "Ticker", "Timer"]

logger = Reporter("neotasker")

Missed = Literal["skip", "delay", "burst"]

Timer = TimerCore
"""One timer of a ticker; made by ``call_at``, ``call_later`` and ``call_every``."""


@known_as("neotasker.ticker")
class Ticker(TickerCore):
    """The clockwork behind every interval, delay and timeout.

    Timers may be set at any time; they fire while the thread runs, those that fell due
    before it started first. Callbacks run inline on the tick and delay all others:
    what takes more than microseconds belongs in the pool.

    Assumes: `start` and `stop_thread` are called by one owner, one at a time.
    """

    def __init__(self, now: Callable[[], float] | None = None, slack: float = 0.0) -> None:
        """Make a ticker.

        Parameters:
            now: returns the seconds of its clock; ``time.monotonic`` when left out.
            slack: seconds by which its timers may be late, to share wake-ups: those that
                fall due within that time of one another fire together. Not used where
                *now* is given.

        Raises:
            ValueError: the slack is not from 0 to an hour.
        """
        super().__init__(now, slack)
        self.thread: threading.Thread | None = None
        self._told = threading.Event()  # to stop

    def start(self, name: str, daemon: bool = False) -> None:
        """Start the thread.

        Parameters:
            name: of the thread.
            daemon: whether the thread lets the process end while it runs.
        """
        self.reset()
        self._told.clear()
        thread = threading.Thread(target=self._serve, name=name, daemon=daemon)
        thread.start()
        self.thread = thread

    def _serve(self) -> None:
        """Run until told to stop: what comes out of the loop ends nothing but that pass."""
        restarts = Restarts()
        while True:
            began = monotonic()
            try:
                self.run()
                return
            except BaseException:  # of a clock of the user's, or for lack of memory
                logger.exception("the ticker's loop has failed and is started again")
            restarts.lived(monotonic() - began)
            if self._told.wait(restarts.next_pause(monotonic())):
                return

    def stop_thread(self, timeout: float | None = None) -> bool:
        """Let the thread end after this tick and wait for it, unless it is this thread.

        Parameters:
            timeout: seconds to wait; None waits for ever.

        Returns:
            Whether it has ended.
        """
        self._told.set()
        self.stop()
        thread = self.thread
        if thread is None:
            return True
        if thread is not threading.current_thread():
            join_within(thread, timeout)
        return not is_alive(thread)


also_known_as("neotasker.ticker", __name__)
