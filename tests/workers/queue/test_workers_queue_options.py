"""Queue workers: bounds, batches, side by side, by key; hooks and bad input."""

from __future__ import annotations

import asyncio
import collections
import threading
import time

import pytest
from helpers import Blocker, switch_interval, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

# Bounds.


def test_a_full_queue_is_refused_after_a_timeout(nt, held):
    worker = held([1, 2], maxsize=2)
    queue = worker.get_queue_obj()
    assert (queue.qsize(), queue.full(), queue.maxsize) == (2, True, 2)
    began = time.monotonic()
    with pytest.raises(nt.QueueFull, match=r"worker q holds 2 items already \(maxsize=2\)"):
        worker.put_threadsafe(3, timeout=0.05)
    assert 0.04 < time.monotonic() - began < 5
    with pytest.raises(nt.QueueFull):
        worker.put_threadsafe(3, timeout=0)
    with pytest.raises(nt.QueueFull):
        queue.put_nowait(3)


def test_putters_wait_for_room_in_the_order_of_their_coming(held, gate):
    worker = held([0], maxsize=1)
    threads = []
    for n in range(1, 5):
        thread = threading.Thread(target=worker.put_threadsafe, args=(n,))
        thread.start()
        threads.append(thread)
        wait_until(lambda n=n: len(worker._life._putters) == n)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    worker.stop(drain=True)
    assert gate.items == ["first", 0, 1, 2, 3, 4]


def test_coroutines_wait_for_room_without_blocking_their_loop(held, gate):
    worker = held([0], maxsize=1)

    async def main():
        puts = [asyncio.ensure_future(worker.put(n)) for n in (1, 2, 3)]
        await asyncio.sleep(0.02)
        assert not any(put.done() for put in puts)
        puts[0].cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.wait_for(asyncio.gather(*puts[1:]), 10)

    asyncio.run(main())
    worker.stop(drain=True)
    assert gate.items == ["first", 0, 2, 3]


def test_who_would_wait_for_himself_is_refused_at_once(nt, host, is_async):
    outcome = []

    def target(item):
        for n in range(3):
            try:
                worker.put_threadsafe(n)
            except nt.QueueFull as exc:
                outcome.append(exc)
        return False

    async def coroutine(item):
        return target(item)

    worker = nt.BackgroundQueueWorker(
        "q", coroutine if is_async else target, supervisor=host, maxsize=2
    )
    worker.start()
    worker.put_threadsafe("go")
    assert worker.wait_until_stop(10)
    assert len(outcome) == 1
    assert worker.unprocessed == [0, 1]


def test_a_stop_wakes_those_who_wait_for_room(nt, held, gate):
    worker = held([0], maxsize=1)
    errors = []

    def put():
        try:
            worker.put_threadsafe(1)
        except nt.WorkerNotStarted as exc:
            errors.append(exc)

    async def put_async():
        with pytest.raises(nt.WorkerNotStarted):
            await worker.put(2)
        errors.append("async")

    threads = [threading.Thread(target=put) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: asyncio.run(put_async())))
    for thread in threads:
        thread.start()
    wait_until(lambda: len(worker._life._putters) == 4)
    worker.stop(wait=False)
    for thread in threads:
        thread.join(10)
    assert len(errors) == 4
    gate.open.set()
    assert worker.wait_until_stop(10)
    assert worker.unprocessed == [0]


def test_a_bound_holds_whatever_the_number_of_producers(nt, make):
    sizes = []
    worker = make(lambda item: sizes.append(worker.get_queue_obj().qsize()), maxsize=3)
    threads = [
        threading.Thread(target=lambda: [worker.put_threadsafe(n) for n in range(300)])
        for _ in range(4)
    ]
    with switch_interval():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    worker.stop(drain=True)
    assert len(sizes) == 1_200
    assert max(sizes) <= 3


# Batches, side by side.


def test_a_batch_holds_what_is_there_up_to_its_size(held, gate):
    worker = held(range(7), batch=3)
    gate.open.set()
    worker.stop(drain=True)
    assert gate.items == [["first"], [0, 1, 2], [3, 4, 5], [6]]
    assert worker.runs == 4


def test_as_many_runs_at_once_as_concurrency_says(nt, host):
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker("q", block, supervisor=host, concurrency=3)
        worker.start()
        for n in range(10):
            worker.put_threadsafe(n)
        block.expect_exactly(3)
    worker.stop(drain=True)
    assert (block.peak, worker.runs) == (3, 10)


def test_coroutines_run_side_by_side(nt, host):
    on, most = 0, 0

    async def target(item):
        nonlocal on, most
        on += 1
        most = max(most, on)
        await asyncio.sleep(0.005)
        on -= 1

    worker = nt.BackgroundQueueWorker("q", target, supervisor=host, concurrency=3)
    worker.start()
    for n in range(20):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert (most, worker.runs) == (3, 20)


def test_items_of_one_key_follow_one_another_and_others_do_not_wait(nt, host):
    order = []
    with Blocker() as block:

        def target(item):
            order.append(item)
            if item == "a1":
                block()

        worker = nt.BackgroundQueueWorker(
            "q", target, supervisor=host, concurrency=4, key=lambda item: item[0]
        )
        worker.start()
        for item in ("a1", "a2", "b1", "a3", "b2", "c1"):
            worker.put_threadsafe(item)
        wait_until(lambda: len(order) == 4)
        assert sorted(order) == ["a1", "b1", "b2", "c1"]
        assert order.index("b1") < order.index("b2")
    worker.stop(drain=True)
    assert order[4:] == ["a2", "a3"]


def test_never_two_runs_of_one_key_at_once(make):
    on, clashes = collections.Counter(), []

    def target(item):
        on[item] += 1
        if on[item] > 1:
            clashes.append(item)
        time.sleep(0.0002)
        on[item] -= 1

    worker = make(target, concurrency=4, key=lambda item: item)
    with switch_interval():
        for n in range(400):
            worker.put_threadsafe(n % 5)
        worker.stop(drain=True)
    assert clashes == []
    assert worker.runs == 400


@settings(max_examples=40)
@given(
    items=st.lists(st.tuples(st.integers(0, 4), st.integers()), max_size=60),
    concurrency=st.integers(1, 4),
    batch=st.none() | st.integers(1, 5),
)
def test_any_items_are_processed_once_and_in_order_per_key(nt, host, items, concurrency, batch):
    seen = collections.defaultdict(list)

    def target(got):
        for key, value in got if batch else [got]:
            seen[key].append(value)

    worker = nt.BackgroundQueueWorker(
        "q",
        target,
        supervisor=host,
        concurrency=concurrency,
        batch=batch,
        key=lambda item: item[0],
    )
    worker.start()
    expected = collections.defaultdict(list)
    for key, value in items:
        expected[key].append(value)
        worker.put_threadsafe((key, value))
    worker.stop(drain=True)
    assert seen == expected


def test_a_key_that_raises_is_the_putters_error(nt, host):
    worker = nt.BackgroundQueueWorker("q", print, supervisor=host, key=lambda item: item.key)
    worker.start()
    with pytest.raises(AttributeError):
        worker.put_threadsafe(5)
    worker.stop()
    worker = nt.BackgroundQueueWorker("q", print, supervisor=host, key=lambda item: [])
    worker.start()
    with pytest.raises(TypeError, match="unhashable"):
        worker.put_threadsafe(5)


def test_counters_are_exact_with_many_turns(nt, host, caplog):
    def target(item):
        if item % 2:
            raise ValueError

    worker = nt.BackgroundQueueWorker(
        "q", target, supervisor=host, concurrency=4, on_error=lambda: None
    )
    worker.start()
    with switch_interval():
        for n in range(2_000):
            worker.put_threadsafe(n)
        worker.stop(drain=True)
    assert (worker.runs, worker.errors) == (2_000, 1_000)


# Hooks, and bad input.


@pytest.mark.parametrize("options", [{}, {"q": asyncio.Queue}])
def test_hooks_are_called_around_each_get(nt, host, is_async, options):
    calls = []

    class Mine(nt.BackgroundQueueWorker):
        def before_queue_get(self):
            calls.append("before")

        def after_queue_get(self, item):
            if item is not None:
                calls.append(item)

    async def coroutine(item):
        calls.append("run")

    target = coroutine if is_async else lambda item: calls.append("run")
    worker = Mine("q", target, supervisor=host, **options)
    worker.start()
    for n in range(3):
        worker.put_threadsafe(n)
        wait_until(lambda n=n: calls.count("run") == n + 1)
    worker.stop()
    while calls[-1] == "before":
        calls.pop()
    assert [c for c in calls if c != "before"] == [0, "run", 1, "run", 2, "run"]
    assert calls[0] == "before"


def test_a_hook_that_raises_does_not_cost_the_item(nt, host, caplog):
    seen = []

    class Mine(nt.BackgroundQueueWorker):
        def after_queue_get(self, item):
            raise ValueError("in the hook")

    worker = Mine("q", seen.append, supervisor=host)
    worker.start()
    worker.put_threadsafe(1)
    worker.stop(drain=True)
    assert seen == [1]
    assert "in the hook" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"maxsize": -1}, ValueError, "maxsize must be at least 0, not -1"),
        ({"batch": 0}, ValueError, "batch must be at least 1, not 0"),
        ({"batch": 1.5}, TypeError, "batch must be a whole number, not 1.5"),
        ({"concurrency": True}, TypeError, "concurrency must be a whole number, not True"),
        ({"key": 5}, TypeError, "key must be callable, not 5"),
        ({"q": 5}, TypeError, "q must be True or a class of queues, not 5"),
        ({"q": asyncio.Queue, "key": hash}, ValueError, "key= needs the built-in queue"),
    ],
)
def test_a_constructor_says_what_is_wrong(nt, options, error, words):
    with pytest.raises(error, match=words):
        nt.BackgroundQueueWorker("q", print, **options)
