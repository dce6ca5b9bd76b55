"""What is called where hardly any stack is left raises or works, and all works afterwards."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest
from helpers import run_python, wait_until

# At the very limit no destructor, and no call that would await a coroutine, gets anywhere.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.skipif(
        sys.implementation.name != "cpython", reason="others count their stack in bytes"
    ),
]

ROOMS = range(1, 240)  # frames


def depth():
    frame, frames = sys._getframe(), 0
    while frame is not None:
        frame, frames = frame.f_back, frames + 1
    return frames


def call_at_every_depth(door):
    """Call where so few frames are left; return how many calls have raised."""

    def dive(frames):
        return door() if frames <= 0 else dive(frames - 1)

    raised = 0
    for room in ROOMS:
        try:
            dive(sys.getrecursionlimit() - depth() - room)
        except RecursionError:
            raised += 1
    return raised


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def aloop(supervisor):
    return supervisor.create_aloop("one", default=True)


async def five():
    return 5


def test_handing_work_over(supervisor, aloop):
    for door in (
        lambda: aloop.spawn_coroutine_threadsafe(five()),
        lambda: aloop.run_coroutine_threadsafe(five()),
        lambda: aloop.call_soon(int),
        lambda: supervisor.spawn(int),
        lambda: supervisor.spawn(int).result(10),
        lambda: supervisor.put_task(int),
        lambda: supervisor.put_task(int, delay=0.001),
        lambda: supervisor.call_later(0.001, int),
    ):
        call_at_every_depth(door)
        assert aloop.active
        assert aloop.spawn_coroutine_threadsafe(five()).result(10) == 5
        called = threading.Event()
        aloop.call_soon(called.set)
        assert called.wait(10)
        assert supervisor.spawn(pow, 2, 3).result(10) == 8
        assert supervisor.put_task(pow, (2, 3), delay=0.001).result(10) == 8
        called.clear()
        supervisor.call_later(0.001, called.set)
        assert called.wait(10)
    assert supervisor.stop().clean


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize(
    "options",
    [
        {"q": True},
        {"q": True, "concurrency": 2},
        {"q": True, "maxsize": 1000},
        {"q": asyncio.Queue},
        {"e": True},
        {"e": True, "debounce": 0.001},
        {"interval": 3600},
    ],
    ids=str,
)
def test_giving_a_worker_something_to_do(nt, supervisor, aloop, options, is_async):
    runs = []

    def plain(*args, **kwargs):
        runs.append(args)

    async def coroutine(*args, **kwargs):
        runs.append(args)

    worker = nt.background_worker(supervisor=supervisor, **options)(
        coroutine if is_async else plain
    )
    worker.start()

    def door():
        if "q" in options:
            worker.put_threadsafe("any")
        else:
            worker.trigger_threadsafe()

    raised = call_at_every_depth(door)
    wait_until(lambda: not worker._life.host.thread_pool.active)
    if "q" in options:
        for item in range(5):
            worker.put_threadsafe(item)
        worker.stop(drain=True)
        accepted = len(ROOMS) - raised
        assert sorted(args for args in runs if args != ("any",)) == [(n,) for n in range(5)]
        assert len(runs) - 5 >= accepted
    else:
        before = len(runs)
        worker.trigger_threadsafe()
        wait_until(lambda: len(runs) > before)
        worker.stop()
    assert worker.is_stopped()
    assert supervisor.stop().clean


def test_an_async_worker_on_a_loop_of_the_program(nt, supervisor):
    runs = []

    async def main():
        @nt.background_worker(supervisor=supervisor, q=True)
        async def worker(item):
            runs.append(item)

        worker.start(_loop=asyncio.get_running_loop())
        await asyncio.to_thread(call_at_every_depth, lambda: worker.put_threadsafe("any"))
        worker.put_threadsafe("last")
        async with asyncio.timeout(10):
            while "last" not in runs:
                await asyncio.sleep(0.001)
        return await supervisor.astop()

    assert asyncio.run(main()).clean


def test_jobs(supervisor, aloop):
    runs = []

    async def job():
        runs.append(1)

    jobs = supervisor.create_async_job_scheduler("jobs", default=True)
    call_at_every_depth(lambda: supervisor.create_async_job(target=job))
    call_at_every_depth(lambda: supervisor.create_async_job(target=job, interval=60).cancel())
    wait_until(lambda: not jobs.jobs)
    before = len(runs)
    supervisor.create_async_job(target=job)
    wait_until(lambda: len(runs) > before)


def test_starts_and_stops(nt, supervisor, aloop):
    @nt.background_worker(supervisor=supervisor, q=True)
    def worker(item):
        pass

    def cycle():
        worker.start()
        worker.stop(wait=False)

    call_at_every_depth(cycle)
    worker.stop()
    wait_until(lambda: supervisor.get_schedulers() == {})
    call_at_every_depth(aloop.stop)
    aloop.stop()
    aloop.start()
    assert aloop.run_coroutine_threadsafe(five()) == 5
    call_at_every_depth(supervisor.stop)
    supervisor.stop()
    call_at_every_depth(supervisor.start)
    supervisor.start()
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    assert aloop.run_coroutine_threadsafe(five()) == 5


def test_an_endless_recursion_leaves_the_loop_open(nt):
    ran = run_python(
        """
        from neotasker import ALoop
        aloop = ALoop("one")
        aloop.start()
        def endless():
            aloop.call_soon(int)
            endless()
        try:
            endless()
        except RecursionError:
            pass
        async def five():
            return 5
        print(aloop.active, aloop.run_coroutine_threadsafe(five()))
        aloop.stop()
        """
    )
    assert (ran.rc, ran.out, ran.err) == (0, "True 5\n", "")
