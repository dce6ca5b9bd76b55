"""Schedulers of the program: run, restarted, stopped with the supervisor."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time

import pytest
from helpers import wait_until


@pytest.fixture
def host(nt):
    supervisor = nt.TaskSupervisor("tests")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


class Scheduler:
    """An asynchronous scheduler that runs until it is stopped."""

    def __init__(self, name="mine", loop=None):
        self._name = name
        self.worker_loop = loop
        self.stops = []
        self.loops = 0
        self.thread = None
        self.running = threading.Event()
        self._end = asyncio.Event()

    async def loop(self):
        self.loops += 1
        self.thread = threading.current_thread().name
        self._asyncio_loop = asyncio.get_running_loop()
        self.running.set()
        await self._end.wait()

    def stop(self, wait=True):
        self.stops.append(wait)
        self._asyncio_loop.call_soon_threadsafe(self._end.set)


class Failing:
    """An asynchronous scheduler whose loop ends as it is told, again and again."""

    def __init__(self, outcomes):
        self.outcomes = iter(outcomes)
        self.times = []

    async def loop(self):
        self.times.append(time.monotonic())
        outcome = next(self.outcomes, None)
        if outcome is None:
            await asyncio.sleep(3600)
        elif outcome is not True:
            raise outcome

    def stop(self): ...


def test_an_asynchronous_scheduler_runs_on_the_default_aloop_until_the_stop(host):
    scheduler = Scheduler()
    assert host.register_scheduler(scheduler) is True
    assert scheduler.running.wait(10)
    assert scheduler.thread == "supervisor_tests_aloop_main"
    assert host.get_schedulers() == {"mine": scheduler}
    host.stop()
    assert scheduler.stops == [True]
    assert host.get_schedulers() == {}


@pytest.mark.parametrize("how", ["name", "aloop", "loop"])
def test_a_scheduler_names_its_loop(host, how):
    second = host.create_aloop("second")
    scheduler = Scheduler(loop={"name": "second", "aloop": second, "loop": second.loop}[how])
    host.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    assert scheduler.thread == "supervisor_tests_aloop_second"


def test_without_a_default_aloop_it_is_the_supervisors_own_loop(nt):
    supervisor = nt.TaskSupervisor("bare")
    supervisor.start()
    scheduler = Scheduler()
    supervisor.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    assert scheduler.thread == "supervisor_bare_event_loop"
    supervisor.stop()
    assert scheduler.stops == [True]


def test_a_scheduler_is_registered_once(host):
    scheduler = Scheduler()
    assert host.register_scheduler(scheduler) is True
    assert scheduler.running.wait(10)
    assert host.register_scheduler(scheduler) is False
    assert host.register_sync_scheduler(scheduler) is False
    assert scheduler.loops == 1


def test_loop_is_one_task_and_runs_in_the_context_of_who_registered_it(host):
    name = contextvars.ContextVar("name")
    seen = []

    class Mine(Scheduler):
        async def loop(self):
            seen.append(
                (name.get(), asyncio.current_task().get_coro().cr_frame.f_locals["self"])
            )
            await super().loop()

    scheduler = Mine()
    name.set("me")
    host.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    assert seen == [("me", scheduler)]


def test_unregistering_forgets_a_scheduler_which_goes_on(host):
    scheduler = Scheduler()
    host.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    assert host.unregister_scheduler(scheduler) is True
    assert host.unregister_scheduler(scheduler) is False
    assert host.get_schedulers() == {}
    assert scheduler.stops == []
    scheduler.stop()


def test_an_exception_that_ends_the_loop_is_logged_and_the_scheduler_unregistered(host, caplog):
    scheduler = Failing([ValueError("dead")])
    host.register_scheduler(scheduler)
    wait_until(lambda: not host.get_schedulers())
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.getMessage() == "the loop of scheduler Failing ended with an exception"
    assert "ValueError: dead" in record.exc_text


def test_a_loop_that_ends_by_itself_leaves_the_scheduler_registered(host):
    scheduler = Failing([True])
    host.register_scheduler(scheduler)
    wait_until(lambda: scheduler.times)
    time.sleep(0.02)
    assert list(host.get_schedulers().values()) == [scheduler]


@pytest.mark.parametrize(
    ("restart", "outcomes", "runs"),
    [
        ("on_error", [ValueError(), ValueError()], 3),
        ("on_error", [ValueError(), True], 2),
        ("always", [True, ValueError(), True], 4),
    ],
)
def test_a_loop_that_dies_is_started_again_by_its_policy(host, restart, outcomes, runs):
    scheduler = Failing(outcomes)
    host.register_scheduler(scheduler, restart=restart)
    wait_until(lambda: len(scheduler.times) == runs)
    time.sleep(0.05)
    assert len(scheduler.times) == runs


def test_a_scheduler_is_given_up_after_too_many_restarts(host, caplog):
    gone = threading.Event()
    scheduler, other = Failing([ValueError()] * 10), Scheduler()
    host.register_scheduler(other)
    host.register_scheduler(
        scheduler, restart="on_error", max_restarts=3, period=1, on_give_up=gone.set
    )
    assert gone.wait(10)
    assert len(scheduler.times) == 4
    (record,) = [r for r in caplog.records if r.levelno == logging.CRITICAL]
    assert "Failing is given up: 3 restarts within 1 s" in record.getMessage()
    assert list(host.get_schedulers().values()) == [other]


def test_an_unregistered_scheduler_is_not_restarted(host):
    scheduler = Failing([ValueError()] * 10)
    host.register_scheduler(scheduler, restart="on_error")
    wait_until(lambda: scheduler.times)
    host.unregister_scheduler(scheduler)
    time.sleep(0.02)
    seen = len(scheduler.times)
    time.sleep(0.2)
    assert len(scheduler.times) == seen


# Stopping.


class Taking:
    """Makes schedulers whose ``stop`` takes this or that."""

    def __init__(self):
        calls = self.calls = []

        class Nothing:
            def stop(self):
                calls.append("nothing")

        class Wait:
            def stop(self, wait=True):
                calls.append(("wait", wait))

        class Keywords:
            def stop(self, **kwargs):
                calls.append(("keywords", kwargs))

        class Other:
            def stop(self, timeout=5):
                calls.append(("other", timeout))

        self.all = [Nothing(), Wait(), Keywords(), Other()]


@pytest.mark.parametrize("wait", [True, False])
def test_stop_is_called_with_what_it_takes(host, wait):
    taking = Taking()
    for scheduler in taking.all:
        host.register_sync_scheduler(scheduler)
    host.stop(wait=wait)
    host.block()
    expected = ["nothing", ("wait", wait), ("keywords", {"wait": wait}), ("other", 5)]
    assert taking.calls == expected


def test_an_exception_in_a_stop_does_not_keep_others_from_stopping(host, caplog):
    class Bad:
        _name = "bad"

        def stop(self, wait):
            raise ValueError("will not")

    taking = Taking()
    host.register_sync_scheduler(Bad())
    for scheduler in taking.all:
        host.register_sync_scheduler(scheduler)
    host.stop()
    assert len(taking.calls) == 4
    assert "error while stopping scheduler bad" in caplog.text
    assert "will not" in caplog.text


def test_a_stop_may_be_a_coroutine_function(host):
    class Mine(Scheduler):
        async def stop(self, wait=True):
            await asyncio.sleep(0.01)
            self.stops.append(wait)
            self._end.set()

    scheduler = Mine()
    host.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    assert host.stop().clean
    assert scheduler.stops == [True]


def test_a_stop_that_hangs_keeps_the_supervisor_no_longer_than_its_timeout(host):
    go = threading.Event()

    class Stuck:
        def stop(self):
            go.wait(30)

    host.register_sync_scheduler(Stuck())
    began = time.monotonic()
    host.stop(timeout=0.3)
    assert time.monotonic() - began < 5
    go.set()


def test_each_scheduler_is_stopped_once(host):
    scheduler = Scheduler()
    host.register_scheduler(scheduler)
    assert scheduler.running.wait(10)
    host.stop(wait=False)
    host.stop()
    assert len(scheduler.stops) == 1


# Bad input.


def test_what_is_no_scheduler_is_refused(host):
    for scheduler, method in ((object(), "loop"), (Taking().all[0], "loop")):
        with pytest.raises(TypeError, match=f"needs a method {method}"):
            host.register_scheduler(scheduler)
    with pytest.raises(TypeError, match="needs a method stop"):
        host.register_sync_scheduler(object())
    assert host.get_schedulers() == {}


def test_a_loop_that_is_no_coroutine_function_is_reported(host, caplog):
    class Mine:
        def loop(self): ...

        def stop(self): ...

    host.register_scheduler(Mine())
    wait_until(lambda: not host.get_schedulers())
    assert "Mine" in caplog.text


def test_before_the_start_and_after_the_stop_registering_is_refused(nt):
    supervisor = nt.TaskSupervisor("resting")
    for _ in range(2):
        with pytest.raises(nt.SupervisorNotStarted, match="scheduler mine is refused"):
            supervisor.register_scheduler(Scheduler())
        with pytest.raises(nt.SupervisorNotStarted):
            supervisor.register_sync_scheduler(Scheduler())
        supervisor.start()
        supervisor.stop()


def test_an_unknown_loop_is_refused(nt, host):
    with pytest.raises(nt.UnknownAloop, match="no aloop 'nowhere'"):
        host.register_scheduler(Scheduler(loop="nowhere"))
    host.create_aloop("asleep", start=False)
    with pytest.raises(nt.AloopError, match="does not run"):
        host.register_scheduler(Scheduler(loop="asleep"))
    assert host.get_schedulers() == {}
