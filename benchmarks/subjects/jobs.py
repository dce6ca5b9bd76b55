"""Async jobs: coroutines that a job scheduler starts again and again."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from .. import peers
from ..harness import Pair, Run, Subject, at_most, check
from ..supervised import Fires, supervisor

JOBS = 1_000
INTERVAL = 0.1

subject = Subject("jobs", f"{JOBS:,} async jobs at 10 Hz; seconds of processor per run")


def our_cost(jobs: int, seconds: float, spread: float) -> float:
    """Return what a run of one of our jobs costs.

    Parameters:
        jobs: how many there are.
        seconds: how long to watch them.
        spread: seconds over which their due times are spread.
    """
    fires = Fires()

    async def target() -> None:
        fires.note()

    with supervisor() as host:
        scheduler = host.create_async_job_scheduler("measured")
        first = time.monotonic() + 0.2 + jobs * 0.0005
        made = []
        for number in range(jobs):
            timer = first + number * spread / jobs - time.monotonic()
            made.append(
                host.create_async_job(scheduler, target=target, interval=INTERVAL, timer=timer)
            )
        check(time.monotonic() < first, "it took too long to create the jobs")
        time.sleep(first + 2.5 * INTERVAL - time.monotonic())
        cost = fires.cost(seconds, (jobs, INTERVAL))
        for job in made:
            job.cancel()
    runs = sum(job.runs for job in made)
    check(runs == fires.count, f"{fires.count} calls, but {runs} runs counted")
    return cost


def aiosched_cost(jobs: int, seconds: float, spread: float) -> float:
    """Return what a run of a job of aiosched costs."""
    scheduler: Any = peers.load("aiosched").AsyncJobScheduler()
    fires = Fires()

    async def target() -> None:
        fires.note()

    async def create(first: float) -> None:
        for number in range(jobs):
            timer = first + number * spread / jobs - time.monotonic()
            await scheduler.create(target, interval=INTERVAL, timer=timer)

    async def start() -> None:
        await scheduler._init_queue()
        scheduler.start(loop)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result()
        first = time.monotonic() + 0.2 + jobs * 0.0005
        asyncio.run_coroutine_threadsafe(create(first), loop).result()
        time.sleep(max(0.0, first + 2.5 * INTERVAL - time.monotonic()))
        cost = fires.cost(seconds)
        scheduler.stop()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()  # lets it end
        return cost
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _measure(run: Run, spread: float, rounds: int) -> Pair:
    peers.load("aiosched")
    seconds = run.seconds(1.2)
    return run.alternate(
        lambda size: our_cost(size, seconds, spread),
        lambda size: aiosched_cost(size, seconds, spread),
        run.size(JOBS, 20),
        rounds=rounds,
        warm_up=False,
    )


@subject.row("jobs due together", "aiosched 0.0.25", at_most(1 / 3), compare="part")
def together(run: Run) -> Pair:
    return _measure(run, 0.0, 3)


@subject.row("jobs spread over the interval", "aiosched 0.0.25", compare="part")
def spread(run: Run) -> Pair:
    return _measure(run, INTERVAL, 2)
