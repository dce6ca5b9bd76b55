"""Jobs where something fails: counts that come out even, and frames that are let go of."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest
from helpers import wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor()
    supervisor.start()
    supervisor.create_aloop("loop", default=True)
    yield supervisor
    supervisor.stop(timeout=30)


@pytest.fixture
def no_log(monkeypatch):
    """Records keep the exceptions that they tell of."""
    monkeypatch.setattr(logging.getLogger("neotasker"), "disabled", True)


class Big: ...


@pytest.mark.parametrize("kind", ["coroutine", "that waits", "plain", "no coroutine", "once"])
def test_the_frames_of_a_failure_are_freed_with_it(nt, supervisor, no_log, kind):
    seen: list[weakref.ref[Big]] = []

    def fail():
        big = Big()
        seen.append(weakref.ref(big))
        raise ValueError

    async def coroutine():
        fail()

    async def waits():
        await asyncio.sleep(0.001)
        fail()

    class NoCoroutine:
        def __call__(self):
            fail()

    target = {
        "coroutine": coroutine,
        "that waits": waits,
        "plain": fail,
        "no coroutine": NoCoroutine(),
        "once": coroutine,
    }[kind]
    scheduler = supervisor.create_async_job_scheduler("jobs")
    gc.collect()
    gc.disable()
    try:
        number = {"number": 1} if kind == "once" else {}
        job = scheduler.create_threadsafe(target, interval=0.02, **number)
        wait_until(lambda: job.last_error is not None and not job.running)
        assert scheduler.stop()
        last = seen[-1]
        assert last() is not None  # kept as the latest error
        job.last_error = None
        wait_until(lambda: last() is None, timeout=2)
    finally:
        gc.enable()


def test_the_frames_of_what_wait_completed_raises_are_freed_with_it(nt, supervisor, no_log):
    seen: list[weakref.ref[Big]] = []

    def fail():
        big = Big()
        seen.append(weakref.ref(big))
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        for tasks in (
            lambda: supervisor.spawn(fail),
            lambda: [supervisor.spawn(int), supervisor.spawn(fail), supervisor.spawn(fail)],
        ):
            with pytest.raises(ValueError) as caught:
                nt.wait_completed(tasks())
            del caught
            wait_until(lambda: all(ref() is None for ref in seen), timeout=2)
    finally:
        gc.enable()


def test_a_clock_that_fails_in_a_run_leaves_no_job_running(nt):
    core = nt.core.JobCore

    class Job(core):
        def _failed(self, error):
            self.errors = [*getattr(self, "errors", []), error]

        def _fire(self):
            raise AssertionError("there is a run on")

    broken = [False]

    def now():
        if broken[0]:
            raise OSError
        return 1.0

    async def main():
        runs: list[None] = []

        async def coroutine():
            runs.append(None)

        loop = asyncio.get_running_loop()

        def make(coro, *, name, context):
            return loop.create_task(coro, name=name, context=context)

        import contextvars

        job = Job()
        ended: list[object] = []
        job_stays = lambda began, task: ended.append(task)  # noqa: E731
        type(job)._stays_on = lambda self, began, task: job_stays(began, task)
        job._stage(coroutine, "job", contextvars.Context(), (make, {}), nt.Ticker(now))
        job._ready = True
        broken[0] = True
        with pytest.raises(OSError):
            job._fire_coroutine()
        assert job._running == 0
        broken[0] = False
        job._fire_coroutine()
        assert job._running == 1
        await ended[0]
        assert runs == [None]

    asyncio.run(main())


def test_a_pooled_timer_outlives_a_pool_that_does_not_take_its_run(nt, supervisor, monkeypatch):
    runs: list[None] = []
    timer = supervisor.call_every(0.003, runs.append, None)
    wait_until(lambda: runs)
    enter = type(timer)._make
    left = [3]

    def fail(self):
        if left[0]:
            left[0] -= 1
            raise MemoryError
        return enter(self)

    monkeypatch.setattr(type(timer), "_make", fail)
    wait_until(lambda: not left[0])
    count = len(runs)
    wait_until(lambda: len(runs) > count + 2)
    assert timer.cancel()


def test_a_delayed_task_that_could_not_be_set_is_not_waited_for(nt, supervisor, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(type(supervisor.ticker), "call_later", fail)
    with pytest.raises(MemoryError):
        supervisor.put_task(print, delay=5)
    monkeypatch.undo()
    assert supervisor.stop().clean
