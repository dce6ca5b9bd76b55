"""Lets one allocation after the other fail in what the core does: in a process of its own.

Each operation is tried again and again, and each time one allocation later fails. It may
succeed or fail, but not hang, and everything works afterwards.

What the standard brings is left out, as `wait`, ``threading.Event`` and the loops of
asyncio: without memory it can leave a lock locked for ever, lose a callback, or crash the
interpreter.
"""

from __future__ import annotations

import _testcapi  # type: ignore[import-not-found]
import asyncio
import faulthandler
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from concurrent import futures
from functools import partial

import neotasker
from neotasker.core import TickerCore

PATIENCE = 10.0
MOST = 400  # allocations of one operation

logging.disable(logging.CRITICAL)
faulthandler.dump_traceback_later(100, exit=True)

supervisor = neotasker.TaskSupervisor("nomemory")
supervisor.start()
supervisor.set_thread_pool(pool_size=2, min_size=2)
aloop = supervisor.create_aloop("main", default=True)
ticker = supervisor.ticker
got: list[object] = []
queue = neotasker.BackgroundQueueWorker("queue", got.append, supervisor=supervisor)
queue.start()
runs: list[object] = []
event = neotasker.BackgroundEventWorker(
    "event", lambda **_: runs.append(None), supervisor=supervisor, poll_delay=0
)
event.start()


async def sleepy(n: int) -> int:
    await asyncio.sleep(0)
    return n


def submit() -> list[futures.Future[int]]:
    return [supervisor.spawn(pow, 2, 3) for _ in range(8)]


calls: list[object] = []


def call_back() -> list[futures.Future[int]]:
    task = supervisor.spawn(pow, 2, 3)
    task.add_done_callback(calls.append)
    return [task]


def set_timers() -> list[object]:
    timers = [ticker.call_later(3600, int) for _ in range(40)]
    for timer in timers[::2]:
        timer.cancel()
    return []


def fire_timers() -> None:
    ticker.call_later(0, int)
    time.sleep(0.001)  # it fires meanwhile


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


hand = Hand()


def mix_phases() -> None:
    """Let timers that wait in line come out of order, where the heap has no room left."""
    hand.now = 0.0
    own = TickerCore(hand)
    try:
        timers = [own.call_every(50, int, first=10 * number) for number in range(4)]
        hand.now = 30.0
        own.tick()
        for _ in range(15):  # and the first of the line: sixteen
            own.call_later(1000, int)
        hand.now = 115.0
        own.tick()
        for number, hand.now in (2, 120.0), (3, 130.0), (0, 150.0), (1, 160.0):
            own.tick()
            assert timers[number].runs == 3
    finally:
        own.clear()


def come_first() -> None:
    """Let the first of a line be set to a time before that of the next one."""
    hand.now = 0.0
    own = TickerCore(hand)
    try:
        first = own.call_every(10, int, first=0)
        own.tick()
        own.call_every(10, partial(own.call_later, 1000, int), first=2)  # late, it is behind
        for _ in range(14):  # and with the one that is set meanwhile there is no room left
            own.call_later(1000, int)
        hand.now = 12.0
        own.tick()
        hand.now = 20.0
        own.tick()
        assert first.runs == 3
    finally:
        own.clear()


def delay() -> list[futures.Future[int]]:
    return [supervisor.put_task(pow, (2, 3), delay=0.0001)]


def expect(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.0002)


def check() -> None:
    """See that all works, and that nothing is left running."""
    assert [supervisor.spawn(pow, 2, n).result(PATIENCE) for n in range(3)] == [1, 2, 4]
    assert aloop.run_coroutine_threadsafe(sleepy(2)) == 2
    fired: list[object] = []
    ticker.call_later(0, fired.append, None)
    expect(lambda: fired, "the ticker has stopped")
    runs.clear()
    assert event.trigger_threadsafe()
    expect(lambda: runs, "the event worker has stopped")
    mark = object()
    queue.put_threadsafe(mark)
    expect(lambda: mark in got, "the queue worker has stopped")
    got.clear()
    dispatcher = supervisor.thread_pool._crew.dispatcher
    expect(lambda: not dispatcher.active, "a place was not given back")


def main() -> None:
    assert neotasker.COMPILED
    check()
    for operation in (
        submit,
        call_back,
        set_timers,
        fire_timers,
        mix_phases,
        come_first,
        delay,
    ):
        failures = well = 0
        for number in range(MOST):
            handed: list[futures.Future[int]] | None = None
            _testcapi.set_nomemory(number, number + 1)
            try:
                handed = operation()  # type: ignore[operator]
            except (MemoryError, RuntimeError):  # as the standard says of a lock
                failures += 1
                well = 0
            finally:
                _testcapi.remove_mem_hooks()
            for task in handed or ():
                error = task.exception(PATIENCE)
                assert error is None or isinstance(error, MemoryError), error
            check()
            well += 1
            if well > 60:  # it allocates no more than that
                break
        print(f"{operation.__name__}: {failures} of {number + 1} failed", flush=True)
    queue.stop()
    event.stop()
    report = supervisor.stop()
    assert not report.still_running, report
    print("all well")
    sys.stdout.flush()


try:
    main()
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
