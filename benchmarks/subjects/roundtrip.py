"""One task at a time: how long until its result is here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..harness import Pair, Run, Side, Subject, at_most, check, percentile
from ..pooled import STANDARD, THREADS, no_op, our_pool

subject = Subject("roundtrip", "submit().result(), one after the other; p50")

SIZE = 5_000


def _side(submit: Callable[..., Any]) -> Side:
    def side(size: int) -> float:
        clock = time.perf_counter
        times = [0.0] * size
        for index in range(size):
            start = clock()
            result = submit(no_op).result()
            times[index] = clock() - start
            check(result is None, f"the no-op came back with {result!r}")
        return percentile(times, 0.5)

    return side


@subject.row("submit().result(), p50", STANDARD, at_most(0.95), compare="part")
def standard(run: Run) -> Pair:
    with our_pool() as pool, ThreadPoolExecutor(THREADS) as peer:
        ours = _side(pool.submit)
        return run.alternate(ours, _side(peer.submit), run.size(SIZE, 20), rounds=9)


@subject.row("submit().result(), p50", "a lock passed to a thread and back", compare="part")
def lock(run: Run) -> Pair:
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()
    stop = threading.Event()
    rounds = 0

    def answer() -> None:
        nonlocal rounds
        while True:
            there.acquire()
            if stop.is_set():
                return
            rounds += 1
            back.release()

    def side(size: int) -> float:
        clock = time.perf_counter
        times = [0.0] * size
        before = rounds
        for index in range(size):
            start = clock()
            there.release()
            back.acquire()
            times[index] = clock() - start
        check(rounds - before == size, "the lock went astray")
        return percentile(times, 0.5)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with our_pool() as pool:
            ours = _side(pool.submit)
            return run.alternate(ours, side, run.size(SIZE, 20), rounds=5)
    finally:
        stop.set()
        there.release()
        thread.join()
