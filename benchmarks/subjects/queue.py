"""Queue workers: how many items a second go through one."""

from __future__ import annotations

import threading
import time

from .. import peers
from ..harness import Pair, Run, Subject, at_least, check
from ..processes import fresh
from ..supervised import ANCESTOR, an_ancestor, supervisor

OURS = 200_000
ANCESTORS = 50

subject = Subject("queue", "items put into one queue worker, until the last is processed")


def rate(items: int, asynchronous: bool, ancestor: bool) -> float:
    """Return how many items a second one worker processes; for a process of its own."""
    from neotasker import BackgroundQueueWorker

    check(an_ancestor() == ancestor, "this is the other neotasker")
    seen: list[int] = []
    done = threading.Event()
    last = items - 1

    def plain(item: int, **_: object) -> None:
        seen.append(item)
        if item == last:
            done.set()

    async def coroutine(item: int, **_: object) -> None:
        seen.append(item)
        if item == last:
            done.set()

    target = coroutine if asynchronous else plain
    with supervisor() as host:
        worker = BackgroundQueueWorker("measured", target, q=True, supervisor=host)
        worker.start()
        start = time.perf_counter()
        for item in range(items):
            worker.put_threadsafe(item)
        check(done.wait(60), f"{len(seen)} of {items} items after 60 s")
        elapsed = time.perf_counter() - start
        if not ancestor:
            worker.stop()
    check(seen == list(range(items)), "items came out of order, or not once each")
    return items / elapsed


def _measure(run: Run, asynchronous: bool) -> Pair:
    paths = [peers.ancestor()]
    theirs = run.size(ANCESTORS, 5)
    return run.alternate(
        lambda size: float(fresh(rate, size, asynchronous, False)),
        lambda size: float(fresh(rate, theirs, asynchronous, True, paths=paths)),
        run.size(OURS, 50),
        rounds=3,
        warm_up=False,
    )


BAR = at_least(300_000, of="ours")


@subject.row("items a second, plain target", ANCESTOR, BAR, unit="1/s")
def of_plain_targets(run: Run) -> Pair:
    return _measure(run, False)


@subject.row("items a second, async target", ANCESTOR, BAR, unit="1/s")
def of_async_targets(run: Run) -> Pair:
    return _measure(run, True)
