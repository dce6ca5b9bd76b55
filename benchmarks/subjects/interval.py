"""Workers that run again and again."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from datetime import datetime, timedelta

from .. import peers
from ..harness import Pair, Run, Sample, Side, Subject, at_most, check
from ..processes import fresh
from ..supervised import ANCESTOR, Fires, an_ancestor, supervisor

WORKERS = 1_000
ASYNC_WORKERS = 10_000
INTERVAL = 0.1
SLACK = 0.005

APSCHEDULER = "APScheduler 3 interval jobs"

subject = Subject("interval", "workers at 10 Hz; seconds of processor per run")


def _wait_until(when: float) -> None:
    time.sleep(max(0.0, when - time.monotonic()))


def our_cost(workers: int, seconds: float, spread: float, slack: float) -> float:
    """Return what a run of a plain target costs.

    Parameters:
        workers: how many there are.
        seconds: how long to watch them.
        spread: seconds over which their due times are spread.
        slack: seconds within which fires may share a wake-up.
    """
    from neotasker import BackgroundIntervalWorker

    fires = Fires()

    def target() -> None:
        fires.note()

    options = {"slack": slack} if slack else {}
    with supervisor() as host:
        made = [
            BackgroundIntervalWorker(
                number, target, interval=INTERVAL, supervisor=host, **options
            )
            for number in range(workers)
        ]
        first = time.monotonic() + 0.2 + workers * 0.0005
        for number, worker in enumerate(made):
            due = first + number * spread / workers
            worker.start(_delay_before=due - time.monotonic())
        check(time.monotonic() < first, "it took too long to start the workers")
        _wait_until(first + 2.5 * INTERVAL)
        cost = fires.cost(seconds, (workers, INTERVAL))
        for worker in made:
            worker.stop(wait=False)
    runs = sum(worker.runs for worker in made)
    check(runs == fires.count, f"{fires.count} calls, but {runs} runs counted")
    return cost


def apscheduler_cost(workers: int, seconds: float, spread: float) -> float:
    """Return what a run of an interval job of APScheduler costs."""
    scheduler = peers.load("apscheduler.schedulers.background").BackgroundScheduler()
    trigger = peers.load("apscheduler.triggers.interval").IntervalTrigger
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    fires = Fires()

    def target() -> None:
        fires.note()

    zone = scheduler.timezone
    lead = 0.2 + workers * 0.0015
    first = datetime.now(zone) + timedelta(seconds=lead)
    ready = time.monotonic() + lead
    for number in range(workers):
        due = first + timedelta(seconds=number * spread / workers)
        scheduler.add_job(target, trigger(seconds=INTERVAL, start_date=due, timezone=zone))
    scheduler.start()
    try:
        _wait_until(ready + 2.5 * INTERVAL)
        return fires.cost(seconds)
    finally:
        scheduler.shutdown()


@functools.cache
def _plain(run: Run, spread: float, *slacks: float) -> list[Sample]:
    """Return the samples of our workers with each slack, then that of APScheduler."""
    peers.load("apscheduler.schedulers.background")
    seconds = run.seconds(1.2)

    def with_slack(slack: float) -> Side:
        return lambda size: our_cost(size, seconds, spread, slack)

    sides = [with_slack(slack) for slack in slacks]
    sides.append(lambda size: apscheduler_cost(size, seconds, spread))
    return run.rounds(sides, run.size(WORKERS, 20), rounds=3, warm_up=False)


@subject.row(
    f"{WORKERS:,} plain workers, due together", APSCHEDULER, at_most(1 / 20), compare="part"
)
def together(run: Run) -> Pair:
    return Pair(*_plain(run, 0.0, 0.0))


@subject.row(
    f"{WORKERS:,} plain workers, spread over the interval",
    APSCHEDULER,
    at_most(0.6),
    compare="part",
)
def spread(run: Run) -> Pair:
    ours, _, peer = _plain(run, INTERVAL, 0.0, SLACK)
    return Pair(ours, peer)


@subject.row(
    f"{WORKERS:,} plain workers, spread, slack={SLACK:g}",
    APSCHEDULER,
    at_most(1 / 8),
    compare="part",
)
def spread_with_slack(run: Run) -> Pair:
    _, ours, peer = _plain(run, INTERVAL, 0.0, SLACK)
    return Pair(ours, peer)


def async_cost(workers: int, seconds: float, ancestor: bool) -> float:
    """Return what a run of an async target costs; for a process of its own.

    A run less than half an interval after the one before is not counted: whoever cannot
    keep up, and runs several times in one go to make up for it, does not run at 10 Hz.
    """
    from neotasker import BackgroundIntervalWorker

    check(an_ancestor() == ancestor, "this is the other neotasker")
    fires = Fires()
    all_there = asyncio.Event()  # a start takes long on a loop that is busy with runs

    clock = time.perf_counter

    async def target(o: list[float], **_: object) -> None:
        if not all_there.is_set():
            await all_there.wait()
        last, o[0] = o[0], clock()
        if o[0] - last > INTERVAL / 2:
            fires.note()

    with supervisor() as host:
        for number in range(workers):
            worker = BackgroundIntervalWorker(
                number, target, interval=INTERVAL, supervisor=host, o=[0.0]
            )
            worker.start()
        host.get_aloop("main").get_loop().call_soon_threadsafe(all_there.set)
        time.sleep(1 if workers > 1_000 else 2 * INTERVAL)  # what was missed is made up for
        return fires.cost(seconds)


def _against_ancestor(run: Run, workers: int) -> Pair:
    paths = [peers.ancestor()]
    seconds = run.seconds(1.2)
    return run.alternate(
        lambda size: float(fresh(async_cost, size, seconds, False)),
        lambda size: float(fresh(async_cost, size, seconds, True, paths=paths)),
        run.size(workers, 20),
        rounds=2,
        warm_up=False,
    )


@subject.row(f"{ASYNC_WORKERS:,} async workers", ANCESTOR, at_most(1 / 4), compare="part")
def many_of_async_targets(run: Run) -> Pair:
    return _against_ancestor(run, ASYNC_WORKERS)


@subject.row(f"{WORKERS:,} async workers", ANCESTOR, compare="part")
def of_async_targets(run: Run) -> Pair:
    return _against_ancestor(run, WORKERS)
