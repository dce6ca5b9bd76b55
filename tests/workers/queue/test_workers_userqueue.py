"""Queue workers whose items wait in a queue of the program's class."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import queue
import threading
import time

import pytest
from helpers import Blocker, switch_interval, wait_until

CLASSES = [
    asyncio.Queue,
    asyncio.PriorityQueue,
    queue.Queue,
    queue.PriorityQueue,
    queue.SimpleQueue,
]


@pytest.fixture
def make(nt, host, is_async):
    """Return what makes and starts a queue worker of a plain function."""

    def make(fn, q, **options):
        async def coroutine(item):
            return fn(item)

        target = coroutine if is_async else fn
        worker = nt.BackgroundQueueWorker("q", target, supervisor=host, q=q, **options)
        worker.start()
        return worker

    return make


@pytest.fixture(params=CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def cls(request):
    return request.param


class Job:
    """An item of older programs: it compares with the stop mark None."""

    def __init__(self, urgency):
        self.urgency = urgency

    def __lt__(self, other):
        return other is None or self.urgency < other.urgency

    def __gt__(self, other):
        return other is not None and self.urgency > other.urgency


def test_all_items_are_processed_in_order(make, cls):
    seen = []
    worker = make(seen.append, cls)
    for n in range(500):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert seen == list(range(500))
    assert (worker.runs, worker.unprocessed) == (500, [])
    assert isinstance(worker.get_queue_obj(), cls)


def test_items_of_many_threads_are_processed_once_each(make, cls):
    seen = []
    worker = make(seen.append, cls)
    threads = [
        threading.Thread(
            target=lambda number=number: [
                worker.put_threadsafe((n, number)) for n in range(100)
            ]
        )
        for number in range(4)
    ]
    with switch_interval(1e-5):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        worker.stop(drain=True)
    assert sorted(seen) == [(n, number) for n in range(100) for number in range(4)]


def test_a_stop_meets_puts_and_keeps_the_order(make, cls):
    for _ in range(30):
        seen = []
        worker = make(seen.append, cls)
        with switch_interval():
            for n in range(40):
                worker.put_threadsafe(n)
            worker.stop(drain=True)
        assert seen == list(range(40))


def test_each_item_starts_an_idle_worker(make, cls):
    seen = []
    worker = make(seen.append, cls)
    for n in range(50):
        worker.put_threadsafe(n)
        wait_until(lambda n=n: len(seen) == n + 1)


def test_coroutines_put(make, cls, host):
    seen = []
    worker = make(seen.append, cls)

    async def put(start):
        for n in range(start, start + 20):
            await worker.put(n)

    host.get_aloop("main").run_coroutine_threadsafe(put(0))
    asyncio.run(put(20))
    worker.stop(drain=True)
    assert seen == list(range(40))


@pytest.mark.parametrize("cls", [asyncio.PriorityQueue, queue.PriorityQueue])
def test_the_queue_says_what_comes_next(nt, host, is_async, cls):
    seen = []
    begun, go = threading.Event(), threading.Event()

    def plain(item):
        seen.append(item.urgency)
        begun.set()
        go.wait(10)

    async def coroutine(item):
        seen.append(item.urgency)
        begun.set()
        while not go.is_set():
            await asyncio.sleep(0.001)

    target = coroutine if is_async else plain
    worker = nt.BackgroundQueueWorker("q", target, supervisor=host, q=cls)
    worker.start()
    worker.put_threadsafe(Job(50))
    assert begun.wait(10)
    for urgency in (7, 3, 9, 1, 5):
        worker.put_threadsafe(Job(urgency))
    wait_until(lambda: worker.get_queue_obj().qsize() == 5)
    go.set()
    wait_until(lambda: len(seen) == 6)
    assert seen == [50, 1, 3, 5, 7, 9]


def test_what_a_stop_leaves_is_kept_in_the_order_of_the_queue(nt, host, cls, caplog):
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker("q", block, supervisor=host, q=cls)
        worker.start()
        worker.put_threadsafe(0)
        block.wait_running(1)
        for n in range(1, 21):
            worker.put_threadsafe(n)
        stopper = threading.Thread(target=worker.stop)
        stopper.start()
        wait_until(lambda: not worker.is_active())
    stopper.join(10)
    assert worker.is_stopped()
    assert worker.unprocessed == list(range(1, 21))
    assert "worker q stopped with 20 items unprocessed" in caplog.text
    with pytest.raises(nt.WorkerNotStarted, match="was stopped"):
        worker.put_threadsafe(1)


def test_none_is_put_like_an_item_and_stops_the_worker_when_it_is_taken(make, cls):
    seen = []
    worker = make(lambda item: seen.append(item.urgency), cls)
    for item in (Job(1), Job(2), None):
        worker.put_threadsafe(item)
    assert worker.wait_until_stop(10)
    assert seen == [1, 2]
    assert not worker.is_active()
    worker.put_threadsafe(None)


@pytest.mark.parametrize("cls", [asyncio.Queue, asyncio.PriorityQueue])
def test_a_stop_puts_the_mark_into_the_queue(make, cls):
    marks = []

    class Mine(cls):
        def _put(self, item):
            if item is None:
                marks.append(item)
            super()._put(item)

    worker = make(lambda item: None, Mine)
    worker.put_threadsafe(Job(1))
    wait_until(lambda: worker.runs == 1)
    time.sleep(0.02)
    worker.stop()
    assert marks == [None]
    assert worker.unprocessed == []


@pytest.mark.parametrize("items", [[], [3, 1, 2]])
def test_items_that_do_not_compare_with_the_mark_do_no_harm(nt, host, items):
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker("q", block, supervisor=host, q=asyncio.PriorityQueue)
        worker.start()
        if items:
            worker.put_threadsafe(0)
            block.wait_running(1)
        for item in items:
            worker.put_threadsafe(item)
        time.sleep(0.02)
        worker.stop(wait=False)
    assert worker.wait_until_stop(10)
    assert worker.unprocessed == sorted(items)


def test_an_item_that_does_not_compare_is_reported_and_the_worker_goes_on(make, caplog):
    first, go = threading.Event(), threading.Event()

    def target(item):
        first.set()
        go.wait(0.2)

    worker = make(target, asyncio.PriorityQueue)
    worker.put_threadsafe(0)
    assert first.wait(10)
    for item in (1, "text"):
        worker.put_threadsafe(item)
    wait_until(lambda: "'<' not supported between instances of" in caplog.text)
    go.set()
    assert worker.errors
    assert worker.is_active()


# Other classes.


class Plain:
    """A class with the methods of a queue for coroutines, and nothing of the standard's."""

    def __init__(self):
        self.items = collections.deque()
        self.there = asyncio.Event()
        self.done = 0

    async def put(self, item):
        self.items.append(item)
        self.there.set()

    async def get(self):
        while not self.items:
            self.there.clear()
            await self.there.wait()
        return self.items.popleft()

    def empty(self):
        return not self.items

    def task_done(self):
        self.done += 1


class Bare:
    """The least that 0.0.41 asked for, and it keeps the stop mark to itself."""

    def __init__(self):
        self.items = collections.deque()
        self.there = asyncio.Event()

    async def put(self, item):
        if item is not None:
            self.items.append(("put", item))
            self.there.set()

    async def get(self):
        while not self.items:
            self.there.clear()
            await self.there.wait()
        return self.items.popleft()


@pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"batch": 4}])
def test_a_class_of_its_own_is_called_for_every_item(make, options):
    seen = []
    batch = "batch" in options
    worker = make(lambda got: seen.extend(got if batch else [got]), Plain, **options)
    for n in range(100):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert sorted(seen) == list(range(100))
    wait_until(lambda: worker.get_queue_obj().done >= 100)


def test_a_class_may_keep_the_mark_to_itself(make):
    seen = []
    worker = make(seen.append, Bare)
    worker.put_threadsafe(1)
    wait_until(lambda: seen == [("put", 1)])
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 2
    assert worker.is_stopped()


def test_an_overridden_put_or_get_of_a_standard_class_is_called(make):
    class Mine(asyncio.Queue):
        async def put(self, item):
            await super().put(("put", item))

        async def get(self):
            return ("got", await super().get())

    seen = []
    worker = make(seen.append, Mine)
    worker.put_threadsafe(1)
    asyncio.run(worker.put(2))
    wait_until(lambda: len(seen) == 2)
    assert sorted(seen) == [("got", ("put", 1)), ("got", ("put", 2))]
    worker.stop()


@pytest.mark.parametrize("cls", CLASSES[:4])
def test_what_is_put_into_the_queue_itself_is_processed(make, host, cls):
    seen = []
    worker = make(seen.append, cls)
    its_queue = worker.get_queue_obj()

    async def put():
        its_queue.put_nowait(1)
        outcome = its_queue.put(2)
        if outcome is not None:
            await outcome

    host.get_aloop("main").run_coroutine_threadsafe(put())
    wait_until(lambda: seen == [1, 2])
    worker.stop()


def test_join_returns_when_all_is_processed(make, host):
    worker = make(lambda item: time.sleep(0.001), asyncio.Queue)
    for n in range(20):
        worker.put_threadsafe(n)

    async def join():
        while not worker.runs:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(worker.get_queue_obj().join(), 10)
        return worker.runs

    assert host.get_aloop("main").run_coroutine_threadsafe(join()) == 20


@pytest.mark.parametrize("cls", CLASSES[:4])
def test_a_bound_of_the_class_is_kept(nt, host, cls):
    with Blocker() as block:
        worker = nt.BackgroundQueueWorker("q", block, supervisor=host, q=cls, maxsize=2)
        worker.start()
        worker.put_threadsafe(0)
        block.wait_running(1)
        worker.put_threadsafe(1)
        worker.put_threadsafe(2)
        with pytest.raises(nt.QueueFull, match="is full"):
            worker.put_threadsafe(3, timeout=0.05)

        async def put():
            late = asyncio.ensure_future(worker.put(4))
            await asyncio.sleep(0.02)
            assert not late.done()
            block.release()
            await asyncio.wait_for(late, 10)

        asyncio.run(put())
    worker.stop(drain=True)
    assert worker.runs == 4


def test_a_get_that_raises_is_tried_again_after_a_while(make, caplog):
    class Mine(asyncio.Queue):
        failed = False

        async def get(self):
            if not type(self).failed:
                type(self).failed = True
                raise OSError("not now")
            return await super().get()

    seen = []
    worker = make(seen.append, Mine)
    worker.put_threadsafe(1)
    wait_until(lambda: seen == [1])
    assert "not now" in caplog.text
    worker.stop()


def test_a_queue_without_put_is_refused(nt, host):
    worker = nt.BackgroundQueueWorker("q", print, supervisor=host, q=dict)
    with pytest.raises(TypeError, match="needs a method put"):
        worker.start()
    assert not worker.is_active()


class Inline(concurrent.futures.Executor):
    """Runs what it is given where it is given, as an executor of others may."""

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("direct", [False, True], ids=["worker", "queue"])
def test_a_put_whose_turn_begins_in_it_does_not_wait_for_the_queue(nt, host, direct):
    seen = []
    worker = nt.BackgroundQueueWorker(
        "q", seen.append, q=queue.Queue, supervisor=host, pool=Inline()
    )
    worker.start()
    put = worker.get_queue_obj().put if direct else worker.put_threadsafe
    for n in range(20):
        put(n)
    wait_until(lambda: len(seen) == 20)
    worker.stop()
    assert seen == [*range(20)]
