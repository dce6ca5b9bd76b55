"""Tasks that compute: what a second thread adds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..harness import Pair, Run, Side, Skip, Subject, at_least, check
from ..interpreter import free_threaded

TASKS = 40
LOOPS = 100_000

subject = Subject(
    "scaling", f"{TASKS} tasks of some milliseconds of arithmetic; tasks a second"
)


def compute(loops: int) -> int:
    """Keep one processor busy."""
    total = 0
    for number in range(loops):
        total += number * number
    return total


def _side(submit: Callable[..., Any]) -> Side:
    expected = compute(LOOPS)

    def side(size: int) -> float:
        start = time.perf_counter()
        futures = [submit(compute, LOOPS) for _ in range(size)]
        results = [future.result() for future in futures]
        elapsed = time.perf_counter() - start
        check(results == [expected] * size, "a wrong sum came back")
        return size / elapsed

    return side


@subject.row(
    "arithmetic on 2 pool threads",
    "1 pool thread",
    at_least(1.8, on=free_threaded),
    unit="1/s",
)
def two_threads(run: Run) -> Pair:
    if not run.interpreter.free_threaded:
        raise Skip("with the GIL, threads that compute take turns")
    from neotasker.pool import TaskPool

    with TaskPool(2) as two, TaskPool(1) as one:
        return run.alternate(
            _side(two.submit), _side(one.submit), run.size(TASKS, 2), rounds=7, budget=15
        )
