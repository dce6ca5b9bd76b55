"""No-ops through the view of one lane."""

from __future__ import annotations

from ..harness import Pair, Run, Subject, at_least
from ..interpreter import cpython, free_threaded
from ..pooled import SIZE, STANDARD, against_standard, our_pool

subject = Subject("lane", f"the same {SIZE:,} no-ops through lane(TASK_HIGH); per task")


@subject.row(
    "lane(TASK_HIGH).submit + result",
    STANDARD,
    at_least(20, on=cpython((3, 13))),
    at_least(12, on=free_threaded),
)
def standard(run: Run) -> Pair:
    from neotasker.base.priority import TASK_HIGH

    with our_pool() as pool:
        return against_standard(run, pool.lane(TASK_HIGH).submit)
