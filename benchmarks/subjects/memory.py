"""What a task costs in memory while it waits."""

from __future__ import annotations

from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from ..harness import Pair, Run, Subject, at_most, check
from ..memory import resident
from ..pooled import STANDARD, THREADS, Gate, no_op, our_pool
from ..processes import fresh

SIZE = 100_000

subject = Subject("memory", f"{SIZE:,} no-ops that wait, futures held; bytes per task")


def _waiting(pool: Executor, size: int) -> float:
    """Return the bytes per task that so many waiting tasks hold."""
    gate = Gate()
    futures: list[Any] = [None] * size
    blockers = [pool.submit(gate) for _ in range(THREADS - 1)]
    gate.wait_for(len(blockers))
    blockers.append(pool.submit(gate))  # of ours, this one's place is reserved
    before = resident()
    for index in range(size):
        futures[index] = pool.submit(no_op)
    held = resident() - before
    check(not any(f.running() or f.done() for f in futures), "tasks ran that should wait")
    gate.open()
    check([f.result() for f in futures] == [None] * size, "not every no-op came back")
    check([f.result() for f in blockers] == [None] * len(blockers), "a blocker failed")
    return held / size


def ours(size: int) -> float:
    """Return the figure of our pool; for a process of its own."""
    with our_pool() as pool:
        return _waiting(pool, size)


def peer(size: int) -> float:
    """Return the figure of the standard's pool; for a process of its own."""
    with ThreadPoolExecutor(THREADS) as pool:
        return _waiting(pool, size)


@subject.row("a waiting task", STANDARD, at_most(0.25), unit="B", compare="part")
def standard(run: Run) -> Pair:
    return run.alternate(
        lambda size: float(fresh(ours, size)),
        lambda size: float(fresh(peer, size)),
        run.size(SIZE, 1_000),
        rounds=2,
        warm_up=False,
    )
