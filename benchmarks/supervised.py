"""A supervisor to measure with: ours, or that of neotasker 0.0.41 in a process of its own.

What is measured on both is written in what both have.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .harness import check

__all__ = ["ANCESTOR", "Fires", "an_ancestor", "supervisor"]

ANCESTOR = "neotasker 0.0.41"


@contextmanager
def supervisor() -> Iterator[Any]:
    """Run a supervisor with a default aloop; see that it stops clean."""
    import neotasker

    made = neotasker.TaskSupervisor(f"benchmark_{os.getpid()}")
    made.start()
    if an_ancestor():
        made.create_aloop("main", default=True)
        yield made
        return  # it would take minutes to stop; its process is ended
    try:
        made.create_aloop("main", default=True)
        yield made
    finally:
        report = made.stop()
    check(report.clean, f"the supervisor did not stop clean: {report}")


def an_ancestor() -> bool:
    """Return whether the neotasker of this process is the old one."""
    import neotasker

    return getattr(neotasker, "__version__", "").startswith("0.0.")


class Fires:
    """Counts runs, and what one costs while a while goes by."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._seen = 0
        self.note = self._count.__next__
        """Counts one run; from any thread."""

    @property
    def count(self) -> int:
        """How many there were."""
        self._seen += 1  # reading counts, too
        return next(self._count) + 1 - self._seen

    def cost(self, seconds: float, due: tuple[int, float] | None = None) -> float:
        """Wait so many seconds; return the seconds of processor that went into one run.

        Parameters:
            seconds: how long.
            due: how many things run at which interval, if all of those runs have to come.
        """
        before, start, spent = self.count, time.monotonic(), time.process_time()
        time.sleep(seconds)
        spent = time.process_time() - spent
        elapsed, fired = time.monotonic() - start, self.count - before
        check(fired, "nothing ran")
        if due is not None:
            number, interval = due
            expected = number * elapsed / interval
            check(
                abs(fired - expected) <= 0.1 * expected + number,
                f"{fired:,} runs of {expected:,.0f}",
            )
        return spent / fired
