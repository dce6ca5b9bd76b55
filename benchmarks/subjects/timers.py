"""Timers by the million: what they cost to set, to hold, to cancel, and to fire."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable
from typing import Any

from ..harness import Pair, Run, Sample, Side, Subject, at_most, check
from ..memory import resident
from ..processes import fresh

MANY = 1_000_000
FEW = 1_000

subject = Subject("timers", f"{MANY:,} timers at once; per timer")

PEER = "loop.call_later + cancel"


def _delays(size: int) -> list[float]:
    """Return delays in no order, from an hour up: none of the timers falls due."""
    chance = random.Random(size)
    return [3600 + chance.random() * 3600 for _ in range(size)]


def ours(size: int) -> tuple[float, float]:
    """Return seconds and bytes of one of our timers; for a process of its own."""
    from neotasker.timing.ticker import Ticker

    delays = _delays(size)
    timers: list[Any] = [None] * size
    ticker = Ticker()
    ticker.start("benchmark_ticker")
    before = resident()
    start = time.perf_counter()
    for index, delay in enumerate(delays):
        timers[index] = ticker.call_later(delay, print)
    elapsed = time.perf_counter() - start
    held = resident() - before
    check(len(ticker) == size, f"{len(ticker)} timers of {size}")
    start = time.perf_counter()
    for timer in timers:
        timer.cancel()
    elapsed += time.perf_counter() - start
    check(len(ticker) == 0, f"{len(ticker)} timers left")
    check(ticker.stop_thread(10), "the ticker did not stop")
    check(ticker.fires == 0, f"{ticker.fires} fired")
    return elapsed / size, held / size


async def _peer(size: int) -> tuple[float, float]:
    """Return seconds and bytes of one timer of asyncio."""
    delays = _delays(size)
    timers: list[Any] = [None] * size
    loop = asyncio.get_running_loop()
    before = resident()
    start = time.perf_counter()
    for index, delay in enumerate(delays):
        timers[index] = loop.call_later(delay, print)
    elapsed = time.perf_counter() - start
    held = resident() - before
    start = time.perf_counter()
    for timer in timers:
        timer.cancel()
    await asyncio.sleep(0)  # the loop clears them away
    await asyncio.sleep(0)
    elapsed += time.perf_counter() - start
    check(all(timer.cancelled() for timer in timers), "a timer was not cancelled")
    return elapsed / size, held / size


def peer(size: int) -> tuple[float, float]:
    """Return seconds and bytes of one timer of asyncio; for a process of its own."""
    return asyncio.run(_peer(size))


@functools.cache
def _samples(run: Run) -> tuple[Pair, Pair]:
    """Return the seconds and the bytes of both."""
    kept: list[list[float]] = [[], []]

    def side(function: Callable[[int], object], held: list[float]) -> Side:
        def measure(size: int) -> float:
            seconds, bytes_held = fresh(function, size)
            held.append(bytes_held)
            return float(seconds)

        return measure

    sides = side(ours, kept[0]), side(peer, kept[1])
    size = run.size(MANY, 10_000)
    seconds = run.alternate(*sides, size, rounds=3, budget=10, warm_up=False)
    return seconds, Pair(Sample(tuple(kept[0])), Sample(tuple(kept[1])))


@subject.row("a timer set and cancelled", PEER, at_most(0.33), compare="part")
def set_and_cancelled(run: Run) -> Pair:
    return _samples(run)[0]


@subject.row("a timer that is set", PEER, at_most(0.5), unit="B", compare="part")
def held(run: Run) -> Pair:
    return _samples(run)[1]


class _Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class _Firing:
    """Timers that fire again and again, about a thousand of them at each tick."""

    def __init__(self, timers: int) -> None:
        from neotasker.timing.ticker import Ticker

        self._clock = _Clock()
        self._ticker = Ticker(self._clock)
        self._count = 0
        interval = max(1.0, timers / FEW)
        chance = random.Random(timers)
        fire = self._fire  # one object: what callbacks cost is not what is asked
        for _ in range(timers):
            self._ticker.call_every(interval, fire, first=chance.random() * interval)

    def _fire(self) -> None:
        self._count += 1

    def __call__(self, size: int) -> float:
        """Fire so many times, about; return the seconds of one fire."""
        count, fired = self._count, 0
        start = time.perf_counter()
        while fired < size:
            self._clock.time += 1.0
            fired += self._ticker.tick()
        elapsed = time.perf_counter() - start
        check(self._count - count == fired, "calls and fires do not agree")
        return elapsed / fired


@subject.row(
    f"a fire with {MANY:,} timers", f"a fire with {FEW:,} timers", at_most(3), compare="part"
)
def fired(run: Run) -> Pair:
    many, few = _Firing(run.size(MANY, 2_000)), _Firing(run.size(FEW, 100))
    return run.alternate(many, few, run.size(500_000, 500), rounds=5)
