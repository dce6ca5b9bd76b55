"""Finalizers and signal handlers may use the library in the middle of itself.

A hook stands for them. It puts, triggers, submits, cancels and waits at each point of an
operation in turn; after each, every item and task is accounted for.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from helpers import wait_until
from hooks import Points, hook_at, hook_at_collection

PATIENCE = 20  # seconds
RANDOM_RUNS = 10_000  # on each core


class Scene:
    """A supervisor with what operations and the hook use, and the account of it."""

    def __init__(self, nt, queue, **options):
        self.nt = nt
        self.folder = str(Path(nt.__file__).parent)
        self.host = host = nt.TaskSupervisor("reentry")
        host.start()
        self.aloop = host.create_aloop("main", default=True)
        self.seen = Counter()
        self.put = Counter()
        self.refused = Counter()
        self.running = 0
        self.most = 0
        self.runs = 0  # of the event worker
        self.number = 0
        self.tasks = []
        target = self.coroutine if queue == "async" else self.plain
        self.worker = nt.BackgroundQueueWorker("items", target, supervisor=host, **options)
        self.worker.start()
        self.event = nt.BackgroundEventWorker(
            "events", self.count, supervisor=host, poll_delay=0
        )
        self.event.start()

    def plain(self, item):
        self.running += 1
        self.most = max(self.most, self.running)
        self.seen[item] += 1
        self.running -= 1

    async def coroutine(self, item):
        self.seen[item] += 1

    def count(self):
        self.runs += 1

    # Operations.

    def next(self):
        self.number += 1
        return self.number

    def do_put(self):
        item = self.next()
        try:
            self.worker.put_threadsafe(item)
        except (self.nt.WorkerNotStarted, self.nt.QueueFull):
            self.refused[item] += 1
        else:
            self.put[item] += 1

    def do_submit(self):
        ran = []
        task = self.host.spawn(ran.append, 1)
        self.tasks.append((task, ran))
        return task

    def do_cancel(self):
        self.do_submit().cancel()

    def do_trigger(self):
        before = self.runs
        self.event.trigger_threadsafe()
        self.tasks.append((before, None))

    def do_resize(self):
        self.host.set_thread_pool(max_size=random.randint(2, 6))

    def do_spawn(self):
        ran = []

        async def coroutine():
            ran.append(1)

        self.tasks.append((self.aloop.spawn_coroutine_threadsafe(coroutine()), ran))

    def do_call_later(self):
        ran = []
        done = threading.Event()

        def call():
            ran.append(1)
            done.set()

        self.host.call_later(0, call)
        self.tasks.append((done, ran))

    def do_stop(self):
        self.worker.stop(wait=False, drain=True)

    # The hook.

    def hook(self, frame):
        self.do_put()
        self.do_trigger()
        self.do_cancel()
        task = self.do_submit()
        # In the pure core a thread may be kept from waiting by its own lock: see there.
        if not frame.f_code.co_filename.startswith(f"{self.folder}/core/"):
            task.result(PATIENCE)

    # The account.

    def settle(self, where):
        """See that nothing hangs, is lost or done twice."""
        for task, ran in self.tasks:
            if isinstance(task, int):
                wait_until(lambda before=task: self.runs > before, PATIENCE, where)
            elif isinstance(task, threading.Event):
                assert task.wait(PATIENCE), where
                assert ran == [1], where
            elif not task.cancelled():
                task.result(PATIENCE)
                assert ran == [1], where
        self.tasks.clear()
        if not self.worker.is_active():
            assert self.worker.wait_until_stop(PATIENCE), where
            for item in self.worker.unprocessed:
                self.seen[item] += 1
            self.worker.start()
        wait_until(lambda: len(self.seen) >= len(self.put), PATIENCE, where)
        self.do_put()  # the worker lives
        wait_until(lambda: len(self.seen) >= len(self.put), PATIENCE, where)
        wait_until(lambda: not self.running, PATIENCE, where)
        assert self.seen == self.put, where
        assert self.most <= 1 or self.worker._concurrency > 1, where
        self.seen.clear()
        self.put.clear()


QUEUES = {
    "plain": {},
    "async": {},
    "bounded": {"maxsize": 4},
    "keyed": {"concurrency": 3, "key": lambda item: item % 3},
    "of the program": {"q": __import__("queue").Queue},
    "of asyncio": {"q": asyncio.Queue},
}
OPERATIONS = ("put", "submit", "trigger", "stop", "resize", "spawn", "cancel", "call_later")
CASES = [("put", queue) for queue in QUEUES] + [("stop", queue) for queue in QUEUES]
CASES += [(name, "plain") for name in OPERATIONS if name not in ("put", "stop")]


@pytest.fixture
def scene(nt, request):
    name, queue = request.param
    scene = Scene(nt, queue, **QUEUES[queue])
    scene.operation = getattr(scene, f"do_{name}")
    yield scene
    scene.host.stop(cancel_tasks=True)


def run_hooked(scene, at, everywhere=False):
    """Do the operation with the hook at one point; return how many points there were."""
    points = Points(scene.folder, scene.hook, at)
    with hook_at(points, everywhere):
        scene.operation()
    scene.settle(points.place)
    return points


@pytest.mark.parametrize("scene", CASES, indirect=True, ids="-".join)
def test_a_hook_at_each_point_of_an_operation_loses_and_doubles_nothing(scene):
    at = 1
    while run_hooked(scene, at).place:
        at += 1
    assert at > 1 or scene.nt.COMPILED


@pytest.mark.parametrize("scene", CASES, indirect=True, ids="-".join)
def test_a_hook_in_any_thread_loses_and_doubles_nothing(scene):
    for _ in range(50):
        run_hooked(scene, random.randint(1, 60), everywhere=True)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="another collector")
@pytest.mark.parametrize("scene", CASES, indirect=True, ids="-".join)
def test_a_hook_at_each_run_of_the_collector_loses_and_doubles_nothing(scene):
    """As a finalizer comes: nearly each allocation of an operation is a point in turn."""
    at = 0
    reached = True
    while reached:
        at += 1
        with hook_at_collection(scene.hook, at) as runs:
            scene.operation()
        reached = len(runs) == at
        scene.settle(f"run {at} of the collector")
    assert at > 1


@pytest.mark.slow
@pytest.mark.hang_limit(900)
@pytest.mark.parametrize(
    "scene", [(name, "plain") for name in OPERATIONS], indirect=True, ids="-".join
)
def test_ten_thousand_hooks_at_random_points_lose_and_double_nothing(scene):
    for _ in range(RANDOM_RUNS):
        run_hooked(scene, random.randint(1, 60), everywhere=True)
