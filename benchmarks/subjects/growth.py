"""Whether a task costs more when many wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..harness import Pair, Run, Subject, at_most, check
from ..pooled import THREADS, Gate, no_op, our_pool

if TYPE_CHECKING:
    from neotasker.pool import TaskPool

MANY = 1_000_000
FEW = 1_000

subject = Subject("growth", f"{MANY:,} tasks queued, {FEW:,} queued; per task")


def _cost(pool: TaskPool, size: int) -> float:
    """Return the seconds that so many tasks take which are all queued before the first runs.

    That is the time to submit them, from the start of the first to the end of the last,
    and to take the results; not the time that the blocked threads take to wake up.
    """
    gate = Gate()
    for _ in range(THREADS - 1):  # NORMAL may not have the last place
        pool.submit(gate)
    gate.wait_for(THREADS - 1)
    futures: list[Any] = [None] * size
    start = time.perf_counter()
    for index in range(size):
        futures[index] = pool.submit(no_op)
    submitted = time.perf_counter() - start
    check(not futures[0].running(), "a task ran that should wait")
    gate.open()
    futures[-1].result()
    start = time.perf_counter()
    wrong = 0
    for future in futures:  # and keep none: the pages of a list would count as the tasks'
        if future.result() is not None:
            wrong += 1
    taken = time.perf_counter() - start
    check(not wrong, "not every no-op came back with None")
    first = min(future.time_started for future in futures[:THREADS])
    last = max(future.time_finished for future in futures[-THREADS:])
    return float(submitted + (last - first) + taken)


@subject.row(
    f"a task of {MANY:,} queued", f"a task of {FEW:,} queued", at_most(1.3), compare="part"
)
def queued(run: Run) -> Pair:
    few = run.size(FEW, 50)
    with our_pool() as pool:
        return run.alternate(
            lambda size: _cost(pool, size) / size,
            lambda size: sum(_cost(pool, few) for _ in range(size // few // 4)) / (size // 4),
            run.size(MANY, 1_000),
            rounds=5,
            budget=12,
        )
