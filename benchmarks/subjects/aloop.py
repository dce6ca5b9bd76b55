"""Coroutines handed to a loop in another thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from .. import peers
from ..harness import Pair, Run, Side, Subject, at_least, check
from ..supervised import supervisor

SIZE = 50_000

subject = Subject("aloop", f"{SIZE:,} trivial coroutines to results; per coroutine")

NAME = "aloop.spawn_coroutine_threadsafe + result"
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


async def trivial(number: int) -> int:
    """Return the number."""
    return number


def _side(spawn: Callable[[Coroutine[object, object, int]], Future[int]]) -> Side:
    def side(size: int) -> float:
        start = time.perf_counter()
        futures = [spawn(trivial(number)) for number in range(size)]
        results = [future.result() for future in futures]
        elapsed = time.perf_counter() - start
        check(results == list(range(size)), "wrong results came back")
        return elapsed / size

    return side


@contextmanager
def _peer_loop(make: LoopFactory) -> Iterator[asyncio.AbstractEventLoop]:
    loop = make()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _measure(run: Run, make: LoopFactory, ours_makes: LoopFactory | None = None) -> Pair:
    with supervisor() as ours, _peer_loop(make) as loop:
        aloop = ours.create_aloop("measured", loop_factory=ours_makes)
        assert aloop
        return run.alternate(
            _side(aloop.spawn_coroutine_threadsafe),
            _side(lambda coro: asyncio.run_coroutine_threadsafe(coro, loop)),
            run.size(SIZE, 100),
        )


@subject.row(NAME, "asyncio.run_coroutine_threadsafe + result", at_least(10))
def on_asyncio(run: Run) -> Pair:
    return _measure(run, asyncio.new_event_loop)


@subject.row(f"{NAME}, uvloop", "asyncio.run_coroutine_threadsafe + result, uvloop")
def on_uvloop(run: Run) -> Pair:
    make: LoopFactory = peers.load("uvloop").new_event_loop
    return _measure(run, make, make)
