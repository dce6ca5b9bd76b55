"""Sides that several subjects have in common: no-ops through a pool of four threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .harness import Pair, Run, Side, check

if TYPE_CHECKING:
    from neotasker.pool import TaskPool

__all__ = [
    "SIZE",
    "STANDARD",
    "THREADS",
    "Gate",
    "against_standard",
    "no_op",
    "our_pool",
    "submit_and_result",
]

SIZE = 200_000
THREADS = 4
STANDARD = f"ThreadPoolExecutor({THREADS})"

Submit = Callable[..., Any]

_variable: ContextVar[str] = ContextVar("_variable", default="nobody's")


def no_op() -> None:
    """Do nothing."""


@contextmanager
def our_pool() -> Iterator[TaskPool]:
    """Make a pool of four places, two of them reserved for higher lanes."""
    from neotasker.pool import TaskPool

    with TaskPool(pool_size=2, reserve_normal=1, reserve_high=1) as pool:
        yield pool


def submit_and_result(submit: Submit) -> Side:
    """Return the side that submits so many no-ops, then takes all the results."""

    def side(size: int) -> float:
        start = time.perf_counter()
        futures = [submit(no_op) for _ in range(size)]
        results = [future.result() for future in futures]
        elapsed = time.perf_counter() - start
        check(results == [None] * size, "not every no-op came back with None")
        return elapsed / size

    return side


def see_each_run_once(submit: Submit, size: int) -> None:
    """See that each of so many tasks runs, once, and gives back its own result."""
    count = itertools.count()
    futures = [submit(pow, number, 2) for number in range(size)]
    counted = [submit(next, count) for _ in range(size)]
    check([f.result() for f in futures] == [n * n for n in range(size)], "results mixed up")
    check(sorted(f.result() for f in counted) == list(range(size)), "not once each")


@contextmanager
def carried_context(submit: Submit) -> Iterator[None]:
    """Have something in the context meanwhile, and see that it arrives in a task."""
    token = _variable.set("mine")
    try:
        check(submit(_variable.get).result() == "mine", "the context was not carried")
        yield
    finally:
        _variable.reset(token)


def against_standard(run: Run, submit: Submit) -> Pair:
    """Measure submit + result against the standard's pool.

    The budget lets the standard come to five rounds: the first ones find the memory cold.
    """
    see_each_run_once(submit, run.size(2_000, 50))
    with carried_context(submit), ThreadPoolExecutor(THREADS) as standard:
        return run.alternate(
            submit_and_result(submit),
            submit_and_result(standard.submit),
            run.size(SIZE, 200),
            budget=15,
        )


class Gate:
    """A target that blocks whoever calls it until the gate is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._inside = threading.Semaphore(0)

    def __call__(self) -> None:
        self._inside.release()
        self._open.wait()

    def wait_for(self, count: int) -> None:
        """Wait until so many callers are blocked."""
        for _ in range(count):
            self._inside.acquire()

    def open(self) -> None:
        """Let all go."""
        self._open.set()
