"""`run`, `block(signals=True)`, `with` and `async with`: a whole life in a line."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from textwrap import dedent

import pytest
from helpers import run_python

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def stopped(nt):
    """Yield a supervisor that does not run."""
    supervisor = nt.TaskSupervisor("run")
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def send_soon(stopped):
    """Yield a function that sends a signal to this process once the supervisor runs."""
    senders = []

    def send(number):
        def wait_and_send():
            while signal.getsignal(number) is before[number] or not stopped.active:
                time.sleep(0)
            os.kill(os.getpid(), number)

        senders.append(threading.Thread(target=wait_and_send))
        senders[-1].start()

    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield send
    for sender in senders:
        sender.join()
    assert before == {number: signal.getsignal(number) for number in SIGNALS}


@posix
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_run_stops_on_a_signal_and_returns_the_report(stopped, send_soon, number):
    send_soon(number)
    report = stopped.run()
    assert report.clean
    assert not stopped.active


@posix
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_block_with_signals_stops_and_returns(stopped, number):
    stopped.start()
    timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
    timer.start()
    assert stopped.block(10, signals=True) is True
    timer.join()
    assert not stopped.active


def test_block_with_signals_returns_after_its_timeout_and_stops_nothing(stopped):
    stopped.start()
    before = signal.getsignal(signal.SIGINT)
    assert stopped.block(0.01, signals=True) is False
    assert stopped.active
    assert signal.getsignal(signal.SIGINT) is before


def test_run_for_some_time(stopped):
    begun = time.monotonic()
    report = stopped.run(0.2, signals=False)
    assert report.clean
    assert time.monotonic() - begun >= 0.2
    assert not stopped.active


def test_run_of_one_that_runs_already_waits_and_stops_it(stopped):
    stopped.start()
    task = stopped.spawn(int)
    assert stopped.run(0.01, signals=False).clean
    assert task.result(0) == 0
    assert not stopped.active


@pytest.mark.parametrize("signals", [True, False])
def test_run_returns_when_somebody_stops(stopped, signals):
    stopped.start()
    stopper = threading.Timer(0.05, stopped.stop)
    stopper.start()
    assert stopped.run(signals=signals).clean
    stopper.join()


@posix
def test_run_without_signals_lets_ctrl_c_through_after_the_stop(stopped):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stopped.run(signals=False)
    timer.join()
    assert not stopped.active


@posix
def test_run_has_queue_workers_finish_what_they_hold(nt, stopped, send_soon):
    seen = []

    @nt.background_worker(queue=True, supervisor=stopped)
    def store(item, **kwargs):
        seen.append(item)

    stopped.start()
    store.start()
    for item in range(1000):
        store.put_threadsafe(item)
    send_soon(signal.SIGTERM)
    assert stopped.run().clean
    assert seen == list(range(1000))


def test_run_gives_tasks_that_wait_some_time_only(nt, stopped):
    stopped.set_thread_pool(pool_size=1, reserve_normal=0, reserve_high=0)
    stopped.start()
    begun, go = threading.Event(), threading.Event()
    stopped.spawn(lambda: (begun.set(), go.wait()))
    assert begun.wait(10)
    waiting = stopped.spawn(int)
    report = stopped.run(0, signals=False, wait=0, timeout=0.05)
    assert len(report.still_running) == 1 and not report.clean
    go.set()
    assert stopped.block(10)
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"for_": -1}, ValueError, "not -1"),
        ({"for_": float("nan")}, ValueError, "nan"),
        ({"for_": "1 h"}, TypeError, "'1 h'"),
        ({"wait": "long"}, TypeError, "wait must be True, False or seconds, not 'long'"),
        ({"timeout": -5}, ValueError, "-5"),
    ],
)
def test_run_refuses_what_are_no_seconds_and_starts_nothing(stopped, given, error, words):
    with pytest.raises(error, match=words):
        stopped.run(**given)
    assert not stopped.active


def test_run_in_a_coroutine_is_refused_in_words(stopped):
    async def main():
        stopped.run(1)

    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(main())
    assert not stopped.active


@pytest.mark.parametrize("way", ["run", "block"])
def test_signals_outside_the_main_thread_are_refused_in_words(stopped, way):
    raised = []

    def elsewhere():
        try:
            stopped.run(0) if way == "run" else stopped.block(0, signals=True)
        except RuntimeError as exc:
            raised.append(str(exc))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread only" in raised[0] and "signals=False" in raised[0]
    assert not stopped.active


def test_with_starts_and_stops(stopped):
    with stopped as supervisor:
        assert supervisor is stopped and stopped.active
        task = supervisor.spawn(int)
    assert task.result(0) == 0
    assert not stopped.active


def test_with_cancels_after_an_exception_which_gets_out(stopped):
    stopped.set_thread_pool(pool_size=1, reserve_normal=0, reserve_high=0)
    begun, go = threading.Event(), threading.Event()
    waiting = []

    def fail():
        with stopped:
            stopped.spawn(lambda: (begun.set(), go.wait()))
            assert begun.wait(10)
            waiting.append(stopped.spawn(int))
            waiting[0].add_done_callback(lambda task: go.set())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert waiting[0].cancelled()
    assert not stopped.active


def test_with_on_one_that_runs_is_refused_and_leaves_it_running(stopped):
    stopped.start()
    with pytest.raises(RuntimeError, match="runs already"), stopped:
        pass
    assert stopped.active


def test_async_with_starts_and_awaits_the_stop(nt, stopped):
    beats = []

    async def beat():
        while True:
            beats.append(stopped.active)
            await asyncio.sleep(0.005)

    async def main():
        async with stopped as supervisor:
            assert supervisor is stopped
            assert await supervisor.spawn(int) == 0
            supervisor.spawn(threading.Event().wait, 0.1)
            beating = asyncio.create_task(beat())
            await asyncio.sleep(0.01)
        assert not stopped.active
        assert False in beats  # the loop went on during the stop
        beating.cancel()

    asyncio.run(main())


def test_async_with_cancels_after_an_exception(stopped):
    async def main():
        with pytest.raises(ZeroDivisionError):
            async with stopped:
                raise ZeroDivisionError

    asyncio.run(main())
    assert not stopped.active


@posix
def test_a_second_signal_ends_the_process(nt):
    ran = run_python(
        dedent(
            """
            import os, signal, threading, time
            from neotasker import task_supervisor as s

            def send():
                time.sleep(0.1)
                os.kill(os.getpid(), signal.SIGINT)
                while s.active:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGTERM)

            s.start()
            s.spawn(threading.Event().wait)
            threading.Thread(target=send, daemon=True).start()
            s.run()
            """
        )
    )
    assert ran[0] == 128 + signal.SIGTERM
    assert "the process ends by a second signal" in ran[2]
