"""Submission from several threads at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..harness import Pair, Run, Side, Subject, check
from ..pooled import STANDARD, THREADS, no_op, our_pool

SIZE = 40_000

subject = Subject("producers", f"{SIZE:,} no-ops to results, from several threads; per task")


def _side(submit: Callable[..., Any], producers: int) -> Side:
    def side(size: int) -> float:
        share = max(1, size // producers)
        done = [0] * producers

        def produce(number: int) -> None:
            futures = [submit(no_op) for _ in range(share)]
            done[number] = [future.result() for future in futures].count(None)

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(producers)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - start
        check(done == [share] * producers, f"{done} came back of {share} each")
        return elapsed / (share * producers)

    return side


def _add(producers: int) -> None:
    threads = "thread submits" if producers == 1 else "threads submit"

    @subject.row(f"{producers} {threads}", STANDARD)
    def measure(run: Run) -> Pair:
        with our_pool() as pool, ThreadPoolExecutor(THREADS) as peer:
            return run.alternate(
                _side(pool.submit, producers),
                _side(peer.submit, producers),
                run.size(SIZE, 200),
                rounds=2,
            )


for _producers in (1, 2, 4):
    _add(_producers)


@subject.row("4 threads submit", "1 thread submits", compare="part")
def four_to_one(run: Run) -> Pair:
    with our_pool() as pool:
        return run.alternate(
            _side(pool.submit, 4), _side(pool.submit, 1), run.size(5 * SIZE, 200)
        )
