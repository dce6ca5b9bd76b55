"""No-ops through a pool with reserves, against every pool that there is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.pool import ThreadPool
from typing import Any

from .. import peers
from ..harness import Pair, Run, Side, Subject, at_least, check
from ..interpreter import cpython, free_threaded, with_gil
from ..pooled import (
    SIZE,
    STANDARD,
    THREADS,
    against_standard,
    no_op,
    our_pool,
    submit_and_result,
)

subject = Subject(
    "submit",
    f"{SIZE:,} no-ops submitted, then all results; {THREADS} threads, reserves on, "
    "contexts carried; per task",
)

NAME = "submit + result"


@subject.row(
    NAME,
    STANDARD,
    at_least(20, on=cpython((3, 13))),
    at_least(16, on=with_gil),
    at_least(12, on=free_threaded),
)
def standard(run: Run) -> Pair:
    with our_pool() as pool:
        return against_standard(run, pool.submit)


def _against(run: Run, peer: Side) -> Pair:
    """Measure against something that has no bar, in less depth."""
    with our_pool() as pool:
        ours = submit_and_result(pool.submit)
        return run.alternate(ours, peer, run.size(SIZE // 2, 200), rounds=2)


@subject.row(NAME, "multiprocessing.pool.ThreadPool(4).apply_async")
def multiprocessing_pool(run: Run) -> Pair:
    with ThreadPool(THREADS) as pool:

        def side(size: int) -> float:
            start = time.perf_counter()
            pending = [pool.apply_async(no_op) for _ in range(size)]
            results = [result.get() for result in pending]
            elapsed = time.perf_counter() - start
            check(results == [None] * size, "not every no-op came back with None")
            return elapsed / size

        return _against(run, side)


@subject.row(NAME, "fastthreadpool.Pool(4), no futures")
def fast_thread_pool(run: Run) -> Pair:
    module: Any = peers.load("fastthreadpool")

    def side(size: int) -> float:
        pool = module.Pool(THREADS)
        start = time.perf_counter()
        for _ in range(size):
            pool.submit(no_op)
        pool.shutdown()  # waits for all
        elapsed = time.perf_counter() - start
        check(len(pool.done) == size, f"{len(pool.done)} of {size} ran")
        return elapsed / size

    return _against(run, side)


@subject.row(NAME, "SimpleQueue to 4 threads, no futures")
def simple_queue(run: Run) -> Pair:
    def side(size: int) -> float:
        calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        ran = [0] * THREADS

        def work(number: int) -> None:
            while (call := calls.get()) is not None:
                call()
                ran[number] += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        for _ in range(size):
            calls.put(no_op)
        for _ in threads:
            calls.put(None)
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - start
        check(sum(ran) == size, f"{sum(ran)} of {size} ran")
        return elapsed / size

    return _against(run, side)


@subject.row(NAME, "uvloop call_soon_threadsafe, a future each")
def uvloop(run: Run) -> Pair:
    loop = peers.load("uvloop").new_event_loop()

    def call(future: Future[None]) -> None:
        no_op()
        future.set_result(None)

    def submit(_: object) -> Future[None]:
        future: Future[None] = Future()
        loop.call_soon_threadsafe(call, future)
        return future

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        return _against(run, submit_and_result(submit))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
