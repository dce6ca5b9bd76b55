"""The ticker at full speed, and how punctual it is."""

from __future__ import annotations

import asyncio
import functools
import statistics
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from ..harness import Pair, Run, Sample, Subject, at_least, at_most, check, percentile

if TYPE_CHECKING:
    from neotasker.timing.ticker import Ticker

BUSY = 10_000
RATE = 100_000
LEAD = 0.7
"""Seconds to set all timers in, before the first falls due."""

subject = Subject("ticker", "timers that fire again and again, callbacks inline")


@contextmanager
def _ticker() -> Iterator[Ticker]:
    from neotasker.timing.ticker import Ticker

    ticker = Ticker()
    ticker.start("benchmark_ticker")
    try:
        yield ticker
    finally:
        check(ticker.stop_thread(10), "the ticker did not stop")
        ticker.clear()


def our_busy_rate(timers: int, seconds: float) -> float:
    """Return how many times a second of processor our timers fire that are always due."""
    count = 0

    def fire() -> None:
        nonlocal count
        count += 1

    with _ticker() as ticker:
        made = [ticker.call_every(0.001, fire) for _ in range(timers)]
        start, before = time.process_time(), ticker.fires
        threading.Event().wait(seconds)
        spent, fired = time.process_time() - start, ticker.fires - before
    check(count == sum(timer.runs for timer in made), "calls and runs do not agree")
    check(all(timer.runs for timer in made), "a timer never fired")
    check(fired, "no tick ended")
    return fired / spent


def peer_busy_rate(timers: int, seconds: float) -> float:
    """Return how many times a second of processor timers of asyncio fire."""
    count = 0

    async def main() -> float:
        loop = asyncio.get_running_loop()

        def fire(when: float) -> None:
            nonlocal count
            count += 1
            loop.call_at(when + 0.001, fire, when + 0.001)

        begin = loop.time()
        for _ in range(timers):
            loop.call_at(begin, fire, begin)
        start = time.process_time()
        await asyncio.sleep(seconds)
        return time.process_time() - start

    spent = asyncio.run(main())
    check(count >= timers, "a timer never fired")
    return count / spent


@subject.row(
    f"fires per second of processor, {BUSY:,} timers always due",
    "loop.call_at that re-arms itself",
    at_least(6),
    unit="1/s",
)
def busy(run: Run) -> Pair:
    seconds = run.seconds(1.0)
    return run.alternate(
        lambda size: our_busy_rate(size, seconds),
        lambda size: peer_busy_rate(size, seconds),
        run.size(BUSY, 100),
        rounds=3,
        warm_up=False,
    )


def our_lateness(rate: int, seconds: float) -> array[float]:
    """Return by how much each fire was late, with so many timers that fire once a second."""
    late = array("d")
    clock, note = time.monotonic, late.append

    with _ticker() as ticker:
        start = ticker.now() + LEAD
        due = [start + number / rate for number in range(rate)]

        def fire(number: int) -> None:
            when = due[number]
            note(clock() - when)
            due[number] = when + 1.0

        for number, when in enumerate(due):
            ticker.call_every(1.0, fire, number, missed="burst", first=when - ticker.now())
        threading.Event().wait(start + seconds - clock())
        fired, due_by_now = late[:], rate * (clock() - start)
    check(
        0.9 * due_by_now <= len(fired) <= due_by_now + 1,
        f"{len(fired):,} fires of {due_by_now:,.0f}",
    )
    return fired


def peer_lateness(rate: int, seconds: float) -> array[float]:
    """Return by how much each fire of asyncio was late."""
    late = array("d")
    note = late.append

    async def main() -> None:
        loop = asyncio.get_running_loop()
        finish = asyncio.Event()
        clock, start = loop.time, loop.time() + LEAD

        def fire(when: float) -> None:
            note(clock() - when)
            loop.call_at(when + 1.0, fire, when + 1.0)

        for number in range(rate):
            when = start + number / rate
            loop.call_at(when, fire, when)
        loop.call_at(start + seconds, finish.set)
        await finish.wait()

    asyncio.run(main())
    check(len(late) >= min(1.0, seconds) * rate - 1, f"only {len(late):,} fires")
    return late


Lateness: TypeAlias = "tuple[list[array[float]], list[array[float]]]"


@functools.cache
def _lateness(run: Run) -> Lateness:
    """Return how late each fire was, of all rounds: ours, and asyncio's."""
    seconds = 0.1 if run.quick else 1.5
    kept: Lateness = ([], [])

    def keep(side: int, late: array[float]) -> float:
        kept[side].append(late)
        return statistics.fmean(late)

    run.alternate(
        lambda rate: keep(0, our_lateness(rate, seconds)),
        lambda rate: keep(1, peer_lateness(rate, seconds)),
        run.size(RATE, 1_000),
        rounds=3,
        warm_up=False,
    )
    return kept


def _reduced(run: Run, reduce: Callable[[array[float]], float]) -> Pair:
    ours, peer = _lateness(run)
    return Pair(Sample(tuple(map(reduce, ours))), Sample(tuple(map(reduce, peer))))


@subject.row(
    f"mean lateness at {RATE:,} fires a second",
    "loop.call_at that re-arms itself",
    at_most(0.2),
    compare="part",
)
def mean_lateness(run: Run) -> Pair:
    return _reduced(run, statistics.fmean)


@subject.row(
    f"lateness at {RATE:,} fires a second, p99",
    "loop.call_at that re-arms itself",
    at_most(0.001, of="ours"),
    compare="part",
)
def tail_of_lateness(run: Run) -> Pair:
    return _reduced(run, lambda late: percentile(list(late), 0.99))
