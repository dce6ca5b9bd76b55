"""Stopping where loops of the program are: from inside of them, and what of ours runs there."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time

import pytest
from helpers import Blocker, run_python, wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True, timeout=10)


class Scheduler:
    """Runs on the loop that it was made in, until it is stopped."""

    def __init__(self):
        self.worker_loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self.ended = False

    async def loop(self):
        await self._end.wait()
        self.ended = True

    def stop(self):
        self.worker_loop.call_soon_threadsafe(self._end.set)


class AsyncScheduler(Scheduler):
    async def stop(self):
        await asyncio.sleep(0.01)
        self._end.set()


def settle_in(nt, supervisor, kind):
    """Have something live on the loop that runs; return what tells of its end."""
    loop = asyncio.get_running_loop()
    if kind == "job":
        jobs = supervisor.create_async_job_scheduler("jobs", aloop=loop)

        async def job():
            pass

        jobs.create_threadsafe(job, interval=0.01)
        return lambda: not jobs.active
    if kind in ("scheduler", "scheduler with async stop"):
        mine = Scheduler() if kind == "scheduler" else AsyncScheduler()
        supervisor.register_scheduler(mine)
        return lambda: mine.ended
    options = {
        "continuous": {},
        "interval": {"interval": 0.01},
        "queue": {"q": True},
        "wide queue": {"q": True, "concurrency": 3},
        "queue of asyncio": {"q": asyncio.Queue},
        "event": {"e": True},
    }[kind]

    @nt.background_worker(supervisor=supervisor, **options)
    async def worker(*args, **kwargs):
        await asyncio.sleep(0)

    worker.start(_loop=loop)
    return worker.is_stopped


KINDS = (
    "continuous",
    "interval",
    "queue",
    "wide queue",
    "queue of asyncio",
    "event",
    "job",
    "scheduler",
    "scheduler with async stop",
)


async def until(predicate):
    async with asyncio.timeout(10):
        while not predicate():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", [{}, {"timeout": 5}, {"wait": 5}, {"wait": False}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_stop_in_a_loop_of_the_program_returns_and_goes_on(nt, supervisor, kind, how):
    async def main():
        ended = settle_in(nt, supervisor, kind)
        await asyncio.sleep(0.02)
        supervisor.stop(**how)
        assert not supervisor.active
        await until(lambda: ended() and repr(supervisor).endswith("stopped>"))

    asyncio.run(main())
    assert supervisor.stop().clean


@pytest.mark.parametrize("kind", KINDS)
def test_astop_awaits_the_end_and_lets_the_loop_go_on(nt, supervisor, kind):
    async def main():
        ended = settle_in(nt, supervisor, kind)
        await asyncio.sleep(0.02)
        report = await supervisor.astop()
        assert ended()
        assert report.clean, str(report)
        return report

    assert asyncio.run(main()) is supervisor.stop()


@pytest.mark.parametrize("kind", ["interval", "job", "scheduler with async stop"])
def test_stop_in_a_thread_that_the_loop_does_not_wait_for_waits(nt, supervisor, kind):
    async def main():
        ended = settle_in(nt, supervisor, kind)
        await asyncio.sleep(0.02)
        report = await asyncio.to_thread(supervisor.stop)
        assert ended()
        return report

    assert asyncio.run(main()).clean


def test_stop_in_a_callback_of_the_loop_returns(nt, supervisor):
    async def main():
        ended = settle_in(nt, supervisor, "interval")
        asyncio.get_running_loop().call_soon(supervisor.stop)
        await until(ended)
        return await supervisor.astop()

    assert asyncio.run(main()).clean


def test_a_second_stop_in_the_loop_does_not_wait_either(nt, supervisor):
    async def main():
        settle_in(nt, supervisor, "scheduler with async stop")
        settle_in(nt, supervisor, "interval")
        await asyncio.sleep(0.02)
        for _ in range(3):
            supervisor.stop()
            await asyncio.sleep(0)
        return await supervisor.astop()

    assert asyncio.run(main()).clean


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
@pytest.mark.parametrize(
    "install",
    [
        "signal.signal(signal.SIGTERM, lambda *_: s.stop())",
        "asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, s.stop)",
    ],
)
def test_stop_in_a_signal_handler_of_the_loop_returns(nt, install):
    ran = run_python(
        f"""
        import asyncio, os, signal
        from neotasker import background_worker, task_supervisor as s
        @background_worker(interval=0.01)
        async def tick():
            pass
        async def main():
            s.start()
            tick.start(_loop=asyncio.get_running_loop())
            {install}
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            while not tick.is_stopped():
                await asyncio.sleep(0.01)
            print((await s.astop()).clean)
        asyncio.run(main())
        """
    )
    assert (ran.rc, ran.out, ran.err) == (0, "True\n", "")


def test_stop_waits_in_a_loop_on_which_nothing_of_it_lives(nt, supervisor):
    with Blocker() as block:

        async def main():
            task = supervisor.spawn(block)
            block.wait_running(1)
            threading.Timer(0.05, block.release).start()
            report = supervisor.stop()
            assert task.done()
            return report

        assert asyncio.run(main()).clean


def test_stop_in_a_loop_says_once_that_there_is_astop(nt, supervisor, caplog):
    async def main():
        settle_in(nt, supervisor, "event")
        with caplog.at_level(logging.INFO, "neotasker"):
            for _ in range(3):
                supervisor.stop()
                await supervisor.astop()
                supervisor.start()
                settle_in(nt, supervisor, "event")
            await supervisor.astop()

    asyncio.run(main())
    (line,) = [r.getMessage() for r in caplog.records if "astop" in r.getMessage()]
    assert line.startswith(
        "supervisor test: stop() was called in a loop that it would wait for"
    )


def test_start_in_a_loop_that_a_stop_waits_for_is_refused(nt, supervisor):
    async def main():
        settle_in(nt, supervisor, "scheduler with async stop")
        await asyncio.sleep(0.02)
        supervisor.stop()
        with pytest.raises(nt.SupervisorNotStarted, match="is stopping"):
            supervisor.start()
        await supervisor.astop()
        assert supervisor.start()
        await supervisor.astop()

    asyncio.run(main())


def test_a_loop_that_is_left_at_rest_does_not_hold_up_the_stop(nt, supervisor):
    loop = asyncio.new_event_loop()

    async def main():
        for kind in ("interval", "queue", "job", "scheduler", "scheduler with async stop"):
            settle_in(nt, supervisor, kind)
        await asyncio.sleep(0.02)
        supervisor.stop()

    loop.run_until_complete(main())
    report = supervisor.stop()
    assert report.duration < 30
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()


# astop from elsewhere.


def test_astop_takes_what_stop_takes(nt, supervisor):
    async def main():
        with pytest.raises(TypeError, match="wait must be"):
            await supervisor.astop(wait="soon")
        with pytest.raises(ValueError, match="delay must be"):
            await supervisor.astop(timeout=-1)
        assert supervisor.active
        supervisor.set_thread_pool(pool_size=1)
        with Blocker() as block:
            supervisor.spawn(block)
            waiting = supervisor.spawn(block)
            block.wait_running(1)
            report = await supervisor.astop(cancel_tasks=True, timeout=0.1)
            assert waiting.cancelled()
            assert report.cancelled == 1
            assert len(report.still_running) == 1
        await supervisor.astop()

    asyncio.run(main())


def test_astop_without_wait_returns_while_the_stop_goes_on(supervisor):
    async def main():
        with Blocker() as block:
            supervisor.spawn(block)
            block.wait_running(1)
            report = await supervisor.astop(wait=False)
            assert len(report.still_running) == 1
        assert (await supervisor.astop()).clean

    asyncio.run(main())


def test_astop_on_an_aloop_returns_at_once(supervisor):
    aloop = supervisor.create_aloop("one")
    report = aloop.run_coroutine_threadsafe(supervisor.astop())
    assert not report.clean
    assert supervisor.stop().clean


@pytest.mark.parametrize("kind", ["interval", "queue", "job", "scheduler"])
def test_astop_in_a_run_that_the_stop_waits_for_returns_at_once(nt, supervisor, kind):
    reports = []

    async def main():
        loop = asyncio.get_running_loop()
        if kind == "job":
            jobs = supervisor.create_async_job_scheduler("jobs", aloop=loop)

            async def job():
                reports.append(await supervisor.astop())

            jobs.create_threadsafe(job)
        elif kind == "scheduler":

            class Mine(Scheduler):
                async def loop(self):
                    reports.append(await supervisor.astop())

            supervisor.register_scheduler(Mine())
        else:
            options = {"interval": 0.01} if kind == "interval" else {"q": True}

            @nt.background_worker(supervisor=supervisor, **options)
            async def worker(*args, **kwargs):
                reports.append(await supervisor.astop())

            worker.start(_loop=loop)
            if kind == "queue":
                worker.put_threadsafe(1)
        await until(lambda: reports)
        return await supervisor.astop()

    assert asyncio.run(main()).clean
    assert len(reports) == 1


def test_a_cancelled_astop_leaves_the_stop_to_go_on(supervisor):
    async def main():
        with Blocker() as block:
            supervisor.spawn(block)
            block.wait_running(1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(supervisor.astop(), 0.05)
            assert not supervisor.active
        assert (await supervisor.astop()).clean

    asyncio.run(main())


def test_astop_of_what_does_not_run_returns_the_last_report(nt):
    supervisor = nt.TaskSupervisor("test")
    assert asyncio.run(supervisor.astop()).clean
    supervisor.start()
    report = supervisor.stop()
    assert asyncio.run(supervisor.astop()) is report


def test_many_await_one_stop(supervisor):
    async def main():
        return await asyncio.gather(*(supervisor.astop() for _ in range(5)))

    first, *others = asyncio.run(main())
    assert all(report is first for report in others)


# The report.


@pytest.fixture
def loop():
    """A loop of the program, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop

    async def end():
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("bound", [{"timeout": 0.2}, {"wait": 0.2}], ids=str)
@pytest.mark.parametrize(
    "kind", ["interval", "queue", "wide queue", "event", "continuous", "job"]
)
def test_a_run_on_a_loop_of_the_program_is_in_the_report(nt, supervisor, loop, kind, bound):
    running = threading.Event()

    async def slow(*args, **kwargs):
        running.set()
        await asyncio.sleep(3600)

    if kind == "job":
        jobs = supervisor.create_async_job_scheduler("jobs", aloop=loop)
        jobs.create_threadsafe(slow, name="slow")
    else:
        options = {
            "interval": {"interval": 0.01},
            "queue": {"q": True},
            "wide queue": {"q": True, "concurrency": 2},
            "event": {"e": True},
            "continuous": {},
        }[kind]
        worker = nt.background_worker(supervisor=supervisor, **options)(slow)
        worker.start(_loop=loop)
        if "queue" in kind:
            worker.put_threadsafe(1)
        elif kind == "event":
            worker.trigger_threadsafe()
    assert running.wait(10)
    report = supervisor.stop(**bound)
    assert not report.clean
    assert report.duration < 10
    found = [run for run in report.still_running if "asyncio.sleep(3600)" in run.stack]
    assert found, str(report)
    assert "slow" in found[0].name
    assert 0 <= found[0].age < 60


@pytest.mark.parametrize("number", [1, 3])  # the first may be begun by the task, or for it
def test_a_run_that_keeps_the_loop_is_reported_with_the_stack_of_its_thread(
    nt, supervisor, loop, number
):
    ran = []
    with Blocker() as block:

        async def greedy(**kwargs):
            ran.append(None)
            if len(ran) == number:
                block()

        worker = nt.background_worker(supervisor=supervisor, interval=0.01)(greedy)
        worker.start(_loop=loop)
        block.wait_running(1)
        report = supervisor.stop(timeout=0.2)
        (run,) = report.still_running
        assert "in greedy" in run.stack
        assert "wait_for" in run.stack


def test_what_idles_on_a_loop_of_the_program_leaves_the_report_clean(nt, supervisor, loop):
    async def idle(*args, **kwargs):
        pass

    for options in ({"interval": 3600}, {"q": True}, {"e": True}):
        nt.background_worker(supervisor=supervisor, **options)(idle).start(_loop=loop)
    supervisor.create_async_job_scheduler("jobs", aloop=loop)
    for how in ({}, {"timeout": 5}, {"cancel_tasks": True}):
        report = supervisor.stop(**how)
        assert report.clean, str(report)
        supervisor.start()


def test_cancel_tasks_cancels_runs_on_a_loop_of_the_program(nt, supervisor, loop):
    ends = []
    running = threading.Event()

    async def slow(**kwargs):
        running.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ends.append(True)

    nt.background_worker(supervisor=supervisor, interval=0.01)(slow).start(_loop=loop)
    assert running.wait(10)
    report = supervisor.stop(cancel_tasks=True)
    assert ends == [True]
    assert report.cancelled == 1
    assert report.still_running == []


def test_a_second_stop_may_cancel_what_the_first_waits_for(nt, supervisor, loop):
    running = threading.Event()

    async def slow(**kwargs):
        running.set()
        await asyncio.sleep(3600)

    nt.background_worker(supervisor=supervisor, interval=0.01)(slow).start(_loop=loop)
    assert running.wait(10)
    first = threading.Thread(target=supervisor.stop)
    first.start()
    wait_until(lambda: not supervisor.active)
    report = supervisor.stop(cancel_tasks=True)
    first.join()
    assert (report.cancelled, report.still_running) == (1, [])


@pytest.mark.parametrize("bound", [{"timeout": 0.2}, {"wait": 0.2}], ids=str)
def test_a_scheduler_whose_stop_blocks_is_in_the_report(supervisor, bound):
    with Blocker() as block:

        class Stuck:
            name = "stuck"

            def stop(self):
                block()

        supervisor.register_sync_scheduler(Stuck())
        began = time.monotonic()
        report = supervisor.stop(**bound)
        assert time.monotonic() - began < 10
        assert not report.clean
        (stop,) = report.still_running
        assert "stuck" in stop.name
        assert 0.1 < stop.age < 10
        assert "block()" in stop.stack


def test_a_scheduler_whose_loop_goes_on_after_its_stop_is_in_the_report(supervisor, loop):
    running = threading.Event()

    class Stubborn:
        def __init__(self):
            self.worker_loop = loop

        async def loop(self):
            running.set()
            await asyncio.sleep(3600)

        def stop(self):
            pass

    supervisor.register_scheduler(Stubborn())
    assert running.wait(10)
    report = supervisor.stop()
    (run,) = report.still_running
    assert "Stubborn" in run.name
    assert "asyncio.sleep(3600)" in run.stack
