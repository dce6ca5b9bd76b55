"""Tasks that wait for tasks of their own pool: no size of the pool deadlocks."""

from __future__ import annotations

import threading
from concurrent import futures

import pytest
from helpers import Blocker, wait_until

DEPTH = 1000


@pytest.mark.parametrize("width", [1, 2])
def test_a_recursion_of_waiting_tasks_finishes_on_a_small_pool(nt, width):
    depth = DEPTH if width == 2 else 50
    with nt.TaskPool(width, idle_timeout=0.1) as pool:

        def descend(n):
            return 0 if n == 0 else 1 + pool.submit(descend, n - 1).result()

        assert pool.submit(descend, depth).result(100) == depth
        pool._crew.dispatcher.wait_drained(10)
        wait_until(lambda: len(pool._threads) <= width)


def test_a_task_that_waits_for_another_gives_its_place_back(nt):
    with nt.TaskPool(1) as pool, Blocker() as block:

        def outer():
            return pool.submit(block, "inner").result()

        task = pool.submit(outer)
        block.wait_running(1)
        assert pool.active == 1
        assert pool._crew.dispatcher.resting == 1
        block.release()
        assert task.result(10) == "inner"
        assert pool._crew.dispatcher.resting == 0


@pytest.mark.parametrize("how", ["wait", "as_completed", "exception", "map"])
def test_the_other_ways_of_waiting_give_the_place_back_too(nt, how):
    with nt.TaskPool(1) as pool:

        def outer():
            if how == "map":
                return list(pool.map(abs, range(5)))
            inner = [pool.submit(abs, n) for n in range(5)]
            if how == "wait":
                done, _ = futures.wait(inner)
                return sorted(task.result() for task in done)
            if how == "as_completed":
                return sorted(task.result() for task in futures.as_completed(inner))
            return [n for n, task in enumerate(inner) if task.exception() is None]

        assert pool.submit(outer).result(20) == [0, 1, 2, 3, 4]


def test_hard_caps_do_not_deadlock_when_every_task_waits(nt):
    with nt.TaskPool(4) as pool:

        def parent(n):
            children = [pool.submit(child, n, m) for m in range(4)]
            return sum(task.result() for task in children)

        def child(n, m):
            return pool.submit(lambda: n * m).result()

        parents = [pool.submit(parent, n) for n in range(50)]
        assert [task.result(60) for task in parents] == [6 * n for n in range(50)]


def test_waiting_for_a_task_of_another_pool_keeps_the_place(nt):
    with nt.TaskPool(1) as one, nt.TaskPool(1) as other, Blocker() as block:
        inner = other.submit(block, 1)
        outer = one.submit(inner.result)
        wait_until(lambda: one._crew.dispatcher.resting == 1)
        late = one.submit(int)
        assert not futures.wait([late], 0.05).done
        assert one.active == 1
        block.release()
        assert outer.result(10) == 1


def test_a_wait_that_times_out_takes_the_place_again(nt):
    with nt.TaskPool(1) as pool, Blocker() as block:

        def outer():
            inner = pool.submit(block)
            while not inner.running():
                with pytest.raises(TimeoutError):
                    inner.result(0.01)
            return pool.active

        assert pool.submit(outer).result(10) == 2
        block.release()
        assert pool._crew.dispatcher.wait_drained(10)
        assert pool.active == 0


def test_shutdown_waits_for_tasks_that_wait(nt):
    release = threading.Event()
    pool = nt.TaskPool(1)

    def outer():
        return pool.submit(lambda: (release.wait(), 5)[1]).result()

    task = pool.submit(outer)
    wait_until(lambda: pool._crew.dispatcher.resting == 1)
    threading.Timer(0.05, release.set).start()
    pool.shutdown()
    assert task.result(0) == 5
