"""Queue workers: order, and nothing lost."""

from __future__ import annotations

import asyncio
import collections
import random
import threading
import time

import pytest
from helpers import Blocker, switch_interval, wait_until

# Order, and nothing lost.


def test_items_are_processed_in_order(make):
    seen = []
    worker = make(seen.append)
    for n in range(20_000):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert seen == list(range(20_000))
    assert worker.runs == 20_000
    assert worker.unprocessed == []


def test_coroutines_put_too(make, host):
    seen = []
    worker = make(seen.append)

    async def put():
        for n in range(100):
            await worker.put(n)

    host.get_aloop("main").run_coroutine_threadsafe(put())
    asyncio.run(put())
    worker.stop(drain=True)
    assert seen == [*range(100)] * 2


@pytest.mark.parametrize("options", [{}, {"concurrency": 4, "key": lambda item: item[0]}])
def test_each_item_of_many_producers_once_and_in_their_order(make, options):
    producers, items = 8, 2_000
    seen = collections.defaultdict(list)
    worker = make(lambda item: seen[item[0]].append(item[1]), **options)
    barrier = threading.Barrier(producers)

    def produce(number):
        barrier.wait()
        for n in range(items):
            worker.put_threadsafe((number, n))

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(producers)]
    with switch_interval(1e-5):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worker.stop(drain=True)
    assert seen == {number: list(range(items)) for number in range(producers)}
    assert worker.runs == producers * items


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"concurrency": 4, "key": lambda item: item[0]}])
def test_eight_hundred_thousand_items_of_eight_producers(make, options):
    producers, items = 8, 100_000
    seen = collections.defaultdict(list)
    worker = make(lambda item: seen[item[0]].append(item[1]), **options)

    def produce(number):
        for n in range(items):
            worker.put_threadsafe((number, n))

    threads = [threading.Thread(target=produce, args=(n,)) for n in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.stop(drain=True)
    assert seen == {number: list(range(items)) for number in range(producers)}
    assert worker.runs == producers * items


def test_no_item_is_left_behind_when_puts_meet_the_end_of_a_turn(make):
    """The last item of each burst comes just as the worker finds its queue empty."""
    seen = []
    worker = make(seen.append)
    with switch_interval():
        for n in range(2_000):
            worker.put_threadsafe(n)
            if n % 3 == 0:
                wait_until(lambda n=n: len(seen) > n)
    wait_until(lambda: len(seen) == 2_000)
    assert seen == list(range(2_000))


def test_a_put_costs_no_more_than_a_few_microseconds(make, host):
    worker = make(lambda item: None)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for n in range(2_000):
            worker.put_threadsafe(n)
        best = min(best, (time.perf_counter() - began) / 2_000)
        wait_until(lambda: worker.get_queue_obj().empty())
    assert best < 20e-6


def test_a_long_queue_leaves_the_thread_to_others(nt, host):
    host.set_thread_pool(pool_size=1)
    worker = nt.BackgroundQueueWorker("q", lambda item: time.sleep(0.001), supervisor=host)
    worker.start()
    for n in range(3_000):
        worker.put_threadsafe(n)
    host.spawn(int).result(timeout=2)
    assert worker.runs < 3_000
    worker.stop()


def test_a_long_queue_leaves_the_loop_to_others(nt, host):
    async def target(item):
        time.sleep(0.001)  # and never a pause of the coroutine

    worker = nt.BackgroundQueueWorker("q", target, supervisor=host)
    worker.start()
    for n in range(3_000):
        worker.put_threadsafe(n)
    assert host.get_aloop("main").run_coroutine_threadsafe(asyncio.sleep(0, "seen")) == "seen"
    assert worker.runs < 3_000
    worker.stop()


def test_one_at_a_time_unless_told_otherwise(nt, host):
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker("q", block, supervisor=host)
        worker.start()
        for n in range(5):
            worker.put_threadsafe(n)
        block.expect_exactly(1)
    worker.stop(drain=True)
    assert (block.peak, worker.runs) == (1, 5)


def test_items_that_wait_are_never_paced(make):
    """0.0.41 sleeps for the poll delay after each item."""
    worker = make(lambda item: None, poll_delay=10)
    began = time.monotonic()
    for n in range(100):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert time.monotonic() - began < 5
    assert worker.runs == 100


def test_a_run_that_raises_does_not_stop_the_queue(make, caplog):
    seen = []

    def target(item):
        if item == 1:
            raise ValueError("one")
        seen.append(item)

    worker = make(target)
    for n in range(4):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert seen == [0, 2, 3]
    assert (worker.runs, worker.errors) == (4, 1)
    assert "ValueError: one" in caplog.text


# Stopping.


def test_stop_with_drain_finishes_what_is_queued(held, gate):
    worker = held(range(20))
    stopper = threading.Thread(target=worker.stop, kwargs={"drain": True})
    stopper.start()
    wait_until(lambda: not worker.is_active())
    gate.open.set()
    stopper.join(10)
    assert gate.items == ["first", *range(20)]
    assert worker.unprocessed == []


@pytest.mark.parametrize(
    "options", [{}, {"maxsize": 50}, {"batch": 3}, {"key": lambda item: hash(item) % 3}]
)
def test_what_a_stop_leaves_is_kept_in_order_and_logged(held, gate, caplog, options):
    """0.0.41 ran 4 of 20 items and dropped 16 without a word."""
    worker = held(range(20), **options)
    stopper = threading.Thread(target=worker.stop)
    stopper.start()
    wait_until(lambda: not worker.is_active())
    gate.open.set()
    stopper.join(10)
    assert worker.is_stopped()
    assert gate.items in (["first"], [["first"]])
    assert worker.unprocessed == list(range(20))
    assert "worker q stopped with 20 items unprocessed" in caplog.text
    worker.start()
    assert worker.unprocessed == []


def test_a_stopped_worker_takes_no_items(nt, make):
    worker = make(lambda item: None)
    worker.stop()
    with pytest.raises(nt.WorkerNotStarted, match=r"worker q was stopped and takes no items"):
        worker.put_threadsafe(1)
    with pytest.raises(nt.WorkerNotStarted, match="was stopped"):
        asyncio.run(worker.put(1))
    assert worker.unprocessed == []


def test_a_worker_that_was_never_started_says_so(nt, host):
    worker = nt.BackgroundQueueWorker("q", print, supervisor=host)
    for use in (
        lambda: worker.put_threadsafe(1),
        lambda: asyncio.run(worker.put(1)),
        worker.get_queue_obj,
    ):
        with pytest.raises(
            nt.WorkerNotStarted, match=r"worker q was not started: call start\(\)"
        ):
            use()


def test_every_item_is_processed_refused_or_left(make, nt):
    """Whatever the moment at which a stop meets the puts of many threads."""
    for round_number in range(20):
        seen, refused = [], []
        worker = make(seen.append, concurrency=1 + round_number % 2)
        barrier = threading.Barrier(5)

        def produce(number, worker=worker, refused=refused, barrier=barrier):
            barrier.wait()
            for n in range(200):
                try:
                    worker.put_threadsafe((number, n))
                except nt.WorkerNotStarted:
                    refused.append((number, n))

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(4)]
        with switch_interval():
            for thread in threads:
                thread.start()
            barrier.wait()
            time.sleep(random.random() * 0.003)
            worker.stop(drain=bool(round_number % 3))
            for thread in threads:
                thread.join()
        everything = sorted([*seen, *refused, *worker.unprocessed])
        assert everything == [(number, n) for number in range(4) for n in range(200)]
        if round_number % 3:
            assert worker.unprocessed == []


def test_none_stops_the_worker_behind_what_was_put_before(make):
    seen = []
    worker = make(seen.append)
    for item in (1, 2, 3, None):
        worker.put_threadsafe(item)
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert seen == [1, 2, 3]
    worker.put_threadsafe(None)


def test_false_stops_the_worker_and_keeps_the_rest(nt, host, is_async):
    go = threading.Event()

    def plain(item):
        go.wait(10)
        return item != 2

    async def coroutine(item):
        while not go.is_set():
            await asyncio.sleep(0.001)
        return item != 2

    worker = nt.BackgroundQueueWorker("q", coroutine if is_async else plain, supervisor=host)
    worker.start()
    for n in range(5):
        worker.put_threadsafe(n)
    go.set()
    assert worker.wait_until_stop(10)
    assert worker.unprocessed == [3, 4]


def test_a_stop_does_not_wait_for_a_place_in_a_stuck_pool(nt, host):
    host.set_thread_pool(pool_size=1)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        worker = nt.BackgroundQueueWorker("q", print, supervisor=host)
        worker.start()
        worker.put_threadsafe(1)
        worker.stop()
        assert worker.unprocessed == [1]


def test_a_drain_has_an_end_when_the_supervisors_time_is_over(nt, host):
    worker = nt.BackgroundQueueWorker("q", lambda item: time.sleep(0.01), supervisor=host)
    worker.start()
    for n in range(1_000):
        worker.put_threadsafe(n)
    began = time.monotonic()
    report = host.stop(wait=0.2, drain=True)
    assert time.monotonic() - began < 3
    left = report.unprocessed["q"]
    assert left == list(range(1_000))[-len(left) :]
    assert worker.runs + len(left) == 1_000
