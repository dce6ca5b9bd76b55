"""Event workers: how long from a trigger to the run."""

from __future__ import annotations

import threading
import time

from .. import peers
from ..harness import Pair, Run, Subject, at_most, check, percentile
from ..processes import fresh
from ..supervised import ANCESTOR, an_ancestor, supervisor

TRIGGERS = 30

subject = Subject("event", "from a trigger to the run of an idle event worker; p50")


def answer(triggers: int, asynchronous: bool, ancestor: bool) -> float:
    """Return the median seconds from a trigger to the run; for a process of its own."""
    from neotasker import BackgroundEventWorker

    check(an_ancestor() == ancestor, "this is the other neotasker")
    ran = threading.Lock()  # what is measured is not to wait for a waiter written in Python
    ran.acquire()
    began: list[float] = []

    def plain(**_: object) -> None:
        began.append(time.perf_counter())
        ran.release()

    async def coroutine(**_: object) -> None:
        began.append(time.perf_counter())
        ran.release()

    target = coroutine if asynchronous else plain
    triggered = []
    with supervisor() as host:
        worker = BackgroundEventWorker("measured", target, e=True, supervisor=host)
        worker.start()
        for _ in range(triggers):
            time.sleep(2 * host.poll_delay)  # idle again, with nothing left to pace
            triggered.append(time.perf_counter())
            worker.trigger_threadsafe()
            check(ran.acquire(timeout=10), "a trigger without a run")
        if not ancestor:
            worker.stop()
    check(len(began) == triggers, f"{len(began)} runs after {triggers} triggers")
    times = [end - start for start, end in zip(triggered, began, strict=True)]
    return percentile(times, 0.5)


def _measure(run: Run, asynchronous: bool, rounds: int) -> Pair:
    paths = [peers.ancestor()]
    return run.alternate(
        lambda size: float(fresh(answer, size, asynchronous, False)),
        lambda size: float(fresh(answer, size, asynchronous, True, paths=paths)),
        run.size(TRIGGERS, 3),
        rounds=rounds,
        warm_up=False,
    )


@subject.row("trigger to run, plain target", ANCESTOR, at_most(1 / 4), compare="part")
def of_plain_targets(run: Run) -> Pair:
    return _measure(run, False, 7)


@subject.row("trigger to run, async target", ANCESTOR, compare="part")
def of_async_targets(run: Run) -> Pair:
    return _measure(run, True, 3)
