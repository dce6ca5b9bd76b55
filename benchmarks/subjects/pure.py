"""No-ops through a pool on the pure core, in a process that runs on it."""

from __future__ import annotations

from ..harness import Pair, Run, Subject, at_least, check
from ..interpreter import pure_core
from ..pooled import SIZE, STANDARD, against_standard, our_pool

subject = Subject(
    "pure",
    f"the same {SIZE:,} no-ops on the pure core; per task",
    {"NEOTASKER_PURE_PYTHON": "1"},
)


@subject.row("submit + result, pure core", STANDARD, at_least(2, on=pure_core))
def standard(run: Run) -> Pair:
    check(not run.interpreter.compiled, "this is not the pure core")
    with our_pool() as pool:
        return against_standard(run, pool.submit)
