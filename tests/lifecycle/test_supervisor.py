"""The supervisor: its pool, its aloops, its figures, and what it refuses."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import os
import pickle
import signal
import threading
import uuid
from concurrent import futures

import pytest
from helpers import Blocker, wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def flood():
    with Blocker() as flood:
        yield flood


async def returns(value):
    return value


# The first steps.


def test_the_default_supervisor_is_made_at_import(nt):
    assert nt.task_supervisor.id == "default"
    assert isinstance(nt.task_supervisor, nt.TaskSupervisor)
    assert not nt.task_supervisor.active
    assert nt.spawn == nt.task_supervisor.spawn


def test_a_supervisor_without_id_gets_a_random_uuid(nt):
    first, second = nt.TaskSupervisor(), nt.TaskSupervisor()
    assert first.id != second.id
    assert str(uuid.UUID(first.id)) == first.id


def test_id_and_its_older_name_mean_the_same(nt):
    assert nt.TaskSupervisor("a").id == "a"
    assert nt.TaskSupervisor(id="b").id == "b"
    assert nt.TaskSupervisor(supervisor_id="c").id == "c"
    with pytest.raises(TypeError, match="give one of them"):
        nt.TaskSupervisor(id="a", supervisor_id="b")


def test_spawn_runs_a_call_and_gives_a_standard_future(supervisor, nt):
    task = supervisor.spawn(pow, 2, exp=5)
    assert isinstance(task, nt.Task)
    assert isinstance(task, futures.Future)
    assert task.result(10) == 32
    assert task.priority is nt.TASK_NORMAL


def test_spawn_is_the_submit_of_the_pool_itself(nt):
    supervisor = nt.TaskSupervisor("test")
    assert supervisor.spawn == supervisor.thread_pool.submit
    assert type(supervisor.spawn) is type(supervisor.thread_pool.submit)


def test_start_twice_and_the_state(nt):
    supervisor = nt.TaskSupervisor("test")
    assert not supervisor.active
    assert supervisor.start() is True
    assert supervisor.start() is False
    assert supervisor.active
    assert supervisor.stop().clean
    assert not supervisor.active


def test_threads_are_named_after_the_supervisor(supervisor):
    supervisor.spawn(int).result(10)
    supervisor.create_aloop("one")
    names = {thread.name for thread in threading.enumerate()}
    assert {
        "supervisor_test_pool_0",
        "supervisor_test_ticker",
        "supervisor_test_event_loop",
        "supervisor_test_aloop_one",
    } <= names


def test_aloop_threads_of_the_default_supervisor_go_without_its_id(nt):
    supervisor = nt.TaskSupervisor("default")
    aloop = supervisor.create_aloop("one")
    assert aloop.thread.name == "supervisor_aloop_one"
    supervisor.stop()


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_are_daemons_only_when_asked(nt, daemon):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start(daemon=daemon)
    supervisor.spawn(int).result(10)
    ours = [t for t in threading.enumerate() if t.name.startswith("supervisor_test_")]
    assert len(ours) == 3
    assert {t.daemon for t in ours} == {daemon}
    supervisor.stop()


def test_supervisors_live_side_by_side(nt):
    first, second = nt.TaskSupervisor("a"), nt.TaskSupervisor("b")
    first.start()
    second.start()
    names = [s.spawn(threading.current_thread).result(10).name for s in (first, second)]
    assert names == ["supervisor_a_pool_0", "supervisor_b_pool_0"]
    first.stop()
    assert second.spawn(pow, 2, 3).result(10) == 8
    second.stop()


def test_a_subclass_may_add_attributes_and_override_spawn(nt):
    class Mine(nt.TaskSupervisor):
        timeout_critical = 20

        def __init__(self):
            self.early = 1
            super().__init__("mine")
            self.spawned = 0

        def spawn(self, fn, *args):
            self.spawned += 1
            return self.thread_pool.submit(fn, *args)

    mine = Mine()
    mine.anything = 5
    mine.start()
    assert mine.spawn(pow, 2, 3).result(10) == 8
    assert (mine.spawned, mine.early, mine.anything) == (1, 1, 5)
    mine.stop()


def test_block_wakes_when_the_supervisor_stops(nt):
    supervisor = nt.TaskSupervisor("test")
    assert supervisor.block() is True  # does not run
    supervisor.start()
    assert supervisor.block(timeout=0.01) is False
    woken = threading.Event()
    thread = threading.Thread(target=lambda: (supervisor.block(), woken.set()))
    thread.start()
    assert not woken.wait(0.05)
    supervisor.stop()
    assert woken.wait(10)
    thread.join()


def test_block_in_the_main_thread_wakes_too(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    assert supervisor.block(timeout=0.01) is False
    stopper = threading.Timer(0.02, supervisor.stop)
    stopper.start()
    assert supervisor.block(timeout=10) is True
    stopper.join()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_block_hands_signals_on_to_a_loop_in_the_main_thread(nt):
    supervisor = nt.TaskSupervisor("test")

    async def main():
        got = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, got.set)
        supervisor.start()
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        supervisor.block(timeout=0.1)
        supervisor.stop()
        await asyncio.wait_for(got.wait(), 10)

    asyncio.run(main())
    assert not supervisor.active


# What it refuses.


def test_use_before_start_says_what_to_do(nt):
    supervisor = nt.TaskSupervisor("test")
    lane = supervisor.lane(nt.TASK_HIGH)
    uses = [
        lambda: supervisor.spawn(int),
        lambda: supervisor.thread_pool.submit(int),
        lambda: lane.submit(int),
        lambda: supervisor.put_task(int),
        lambda: supervisor.put_task(int, delay=1),
        lambda: supervisor.call_later(1, int),
        lambda: supervisor.call_every(1, int),
        lambda: supervisor.create_async_job_scheduler("one"),
        lambda: supervisor.resolve_aloop(None),
    ]
    for _ in range(2):
        for use in uses:
            with pytest.raises(nt.SupervisorNotStarted, match=r"supervisor test .*start\(\)"):
                use()
        supervisor.start()
        assert lane.submit(pow, 2, 3).result(10) == 8
        supervisor.stop()
    assert isinstance(nt.SupervisorNotStarted("x"), RuntimeError)


def test_a_target_that_cannot_run_in_a_thread_is_named(supervisor):
    async def coro():
        pass

    for wrong, match in ((5, "callable, not 5"), (coro, "coroutine function")):
        for use in (
            lambda fn: supervisor.spawn(fn),
            lambda fn: supervisor.put_task(fn),
            lambda fn: supervisor.put_task(fn, delay=1),
            lambda fn: supervisor.call_later(1, fn),
            lambda fn: supervisor.call_every(1, fn),
        ):
            with pytest.raises(TypeError, match=match):
                use(wrong)
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


def test_an_unknown_priority_is_named_with_those_there_are(supervisor):
    for use in (
        lambda: supervisor.lane(77),
        lambda: supervisor.put_task(int, priority=77),
        lambda: supervisor.put_task(int, priority=77, delay=1),
        lambda: supervisor.call_later(1, int, priority=77),
        lambda: supervisor.call_every(1, int, priority="high"),
    ):
        with pytest.raises(ValueError, match=r"unknown priority .*TASK_HIGH"):
            use()
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf")])
def test_a_bad_delay_is_named(supervisor, delay):
    with pytest.raises(ValueError, match="delay must be"):
        supervisor.put_task(int, delay=delay)
    with pytest.raises(ValueError, match="delay must be"):
        supervisor.call_later(delay, int)
    with pytest.raises(TypeError, match="delay must be"):
        supervisor.call_later("soon", int)


def test_a_callback_must_be_callable(supervisor):
    with pytest.raises(TypeError, match="callback must be callable, not 5"):
        supervisor.put_task(int, callback=5)


# The pool.


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ({"max_size": -1}, ValueError),
        ({"max_size": 0}, ValueError),
        ({"max_size": 2.5}, TypeError),
        ({"max_size": "many"}, TypeError),
        ({"min_size": 5, "max_size": 4}, ValueError),
        ({"min_size": -1}, ValueError),
        ({"min_size": "most"}, ValueError),
        ({"pool_size": -1}, ValueError),
        ({"pool_size": True}, TypeError),
        ({"pool_size": 4, "reserve_high": -1}, ValueError),
        ({"max_size": 4, "reserve_normal": 2, "reserve_high": 2}, ValueError),
        ({"queue_size": 0}, ValueError),
        ({"when_full": "drop"}, ValueError),
        ({"idle_timeout": -1}, ValueError),
        ({"pool": 5}, TypeError),
    ],
)
def test_bad_sizes_are_refused_and_change_nothing(supervisor, sizes, error):
    supervisor.set_thread_pool(pool_size=3)
    with pytest.raises(error):
        supervisor.set_thread_pool(**sizes)
    assert supervisor.get_info().pool["pool_size"] == 3
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


def test_the_default_width_is_cpu_count_times_five(nt):
    supervisor = nt.TaskSupervisor("test")
    info = supervisor.get_info().pool
    assert info["pool_size"] == info["max_size"] == nt.base.priority.default_width()
    assert (info["reserve_normal"], info["reserve_high"], info["min_size"]) == (0, 0, 0)


def test_min_size_threads_start_with_the_supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.set_thread_pool(min_size="max", max_size=4)
    assert len(supervisor.thread_pool._threads) == 0
    supervisor.start()
    assert len(supervisor.thread_pool._threads) == 4
    supervisor.stop()
    assert len(supervisor.thread_pool._threads) == 0
    supervisor.start()
    assert len(supervisor.thread_pool._threads) == 4
    supervisor.stop()


def test_sizes_change_while_running_and_lose_nothing(supervisor, nt, flood):
    supervisor.set_thread_pool(pool_size=2)
    spawn, lane, pool = supervisor.spawn, supervisor.lane(nt.TASK_LOW), supervisor.thread_pool
    tasks = [spawn(flood, n) for n in range(8)]
    flood.expect_exactly(2)
    supervisor.set_thread_pool(pool_size=4, reserve_high=1)
    flood.expect_exactly(4)
    tasks += [lane.submit(flood, n) for n in range(8, 10)]
    supervisor.set_thread_pool(pool_size=1)
    assert supervisor.thread_pool is pool
    assert supervisor.spawn == spawn
    flood.release()
    assert [task.result(10) for task in tasks] == list(range(10))


def test_reserves_hold_through_the_lanes_of_a_supervisor(supervisor, nt, flood):
    supervisor.set_thread_pool(pool_size=4, reserve_normal=2, reserve_high=2)
    for priority, running in ((nt.TASK_LOW, 4), (nt.TASK_NORMAL, 6), (nt.TASK_HIGH, 8)):
        for _ in range(10):
            supervisor.put_task(flood, priority=priority)
        flood.expect_exactly(running)
    task = supervisor.put_task(pow, (2, 3), priority=nt.TASK_CRITICAL)
    assert task.result(10) == 8
    assert flood.running == 8


def test_queue_size_of_a_supervisor(supervisor, nt, flood):
    supervisor.set_thread_pool(pool_size=1, queue_size=2, when_full="raise")
    for _ in range(3):
        supervisor.put_task(flood)
        flood.wait_running(1)
    with pytest.raises(nt.QueueFull, match="queue_size"):
        supervisor.put_task(flood)
    # What was accepted before enters all the same.
    assert supervisor.enqueue(flood, (1,), None, nt.TASK_NORMAL).time_queued is not None


def test_a_client_cannot_shut_the_pool_down(supervisor, caplog):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(supervisor.thread_pool)
        return await asyncio.to_thread(pow, 2, 3)

    assert asyncio.run(main()) == 8
    with supervisor.thread_pool as pool:
        pool.shutdown()
    assert "its stop() ends it" in caplog.text or "belongs to a supervisor" in caplog.text
    assert supervisor.spawn(pow, 2, 3).result(10) == 8


# put_task.


def test_put_task_takes_arguments_callback_and_id(supervisor, nt):
    seen = threading.Event()
    got = []

    def callback(task):
        got.append((task.id, task.result()))
        seen.set()

    task = supervisor.put_task(
        functools.partial(pow, 2), (5,), {"mod": 7}, callback=callback, task_id="mine"
    )
    assert task.result(10) == 4
    assert seen.wait(10)
    assert got == [("mine", 4)]
    assert task.status is nt.TaskStatus.COMPLETED
    assert supervisor.put_task(int).id != supervisor.put_task(int).id


def test_a_task_carries_the_context_of_its_submitter(supervisor):
    var = contextvars.ContextVar("var", default="none")
    var.set("mine")
    assert supervisor.put_task(var.get).result(10) == "mine"
    assert supervisor.put_task(var.get, delay=0.01).result(10) == "mine"


def test_lanes_are_executors_for_others(supervisor, nt):
    lane = supervisor.lane(nt.TASK_HIGH)
    assert isinstance(lane, futures.ThreadPoolExecutor)
    assert list(lane.map(abs, [-1, -2])) == [1, 2]

    async def main():
        return await asyncio.get_running_loop().run_in_executor(lane, pow, 2, 3)

    assert asyncio.run(main()) == 8


# Aloops.


def test_an_aloop_is_made_found_and_stopped_by_name(supervisor):
    aloop = supervisor.create_aloop("one")
    assert aloop.active
    assert supervisor.get_aloop("one") is aloop
    assert supervisor.get_aloops() == supervisor.aloops == {"one": aloop}
    assert supervisor.get_aloop("two") is None
    assert supervisor.get_aloop() is None
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1
    assert supervisor.stop_aloop("one") is True
    assert not aloop.active
    assert supervisor.start_aloop("one") is True
    assert aloop.run_coroutine_threadsafe(returns(2)) == 2


def test_an_aloop_may_be_started_later(supervisor, nt):
    aloop = supervisor.create_aloop("one", start=False)
    assert not aloop.active
    with pytest.raises(nt.AloopError, match=r"start_aloop\('one'\)"):
        aloop.spawn_coroutine_threadsafe(returns(1))
    supervisor.start_aloop("one")
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1


def test_a_taken_name_is_an_error_in_the_log_and_false(supervisor, caplog):
    aloop = supervisor.create_aloop("one")
    assert supervisor.create_aloop("one", default=True) is False
    assert "aloop one already exists" in caplog.text
    assert supervisor.get_aloop("one") is aloop
    assert supervisor.default_aloop is None


@pytest.mark.parametrize("use", ["start_aloop", "stop_aloop"])
def test_an_unknown_aloop_is_an_error_in_the_log_and_false(supervisor, caplog, use):
    assert getattr(supervisor, use)("nobody") is False
    assert "aloop nobody not found" in caplog.text


def test_the_name_of_the_own_loop_is_reserved(supervisor, nt):
    with pytest.raises(nt.AloopError, match="reserved"):
        supervisor.create_aloop("__supervisor__")
    with pytest.raises(nt.AloopError, match="reserved"):
        supervisor.create_async_job_scheduler("__supervisor__")
    with pytest.raises(TypeError, match="must be a string"):
        supervisor.create_aloop(5)


def test_an_aloop_that_cannot_start_leaves_its_name_free(supervisor):
    with pytest.raises(ZeroDivisionError):
        supervisor.create_aloop("one", loop_factory=lambda: 1 / 0)
    assert supervisor.create_aloop("one").active


def test_the_default_aloop_is_set_by_object_and_by_name(supervisor, nt):
    one = supervisor.create_aloop("one", default=True)
    two = supervisor.create_aloop("two")
    assert supervisor.get_aloop() is supervisor.default_aloop is one
    supervisor.set_default_aloop("two")
    assert supervisor.default_aloop is two
    supervisor.set_default_aloop(one)
    assert supervisor.default_aloop is one
    supervisor.default_aloop = two
    assert supervisor.get_aloop() is two
    assert supervisor.get_aloop(default=False) is None
    with pytest.raises(nt.UnknownAloop, match=r"no aloop 'three' .*one, two"):
        supervisor.set_default_aloop("three")
    with pytest.raises(TypeError, match="needed, not 5"):
        supervisor.set_default_aloop(5)
    assert supervisor.default_aloop is two


def test_what_names_a_loop_is_resolved(supervisor, nt):
    own = supervisor.resolve_aloop(None)
    assert own.thread.name == "supervisor_test_event_loop"
    assert supervisor.resolve_aloop("__supervisor__") is own
    one = supervisor.create_aloop("one", default=True)
    assert supervisor.resolve_aloop(None) is one
    assert supervisor.resolve_aloop("one") is supervisor.resolve_aloop(one) is one
    assert supervisor.resolve_aloop(one.get_loop()) is one
    with pytest.raises(nt.UnknownAloop, match="no aloop 'two'"):
        supervisor.resolve_aloop("two")
    with pytest.raises(TypeError, match="needed, not 5"):
        supervisor.resolve_aloop(5)
    two = supervisor.create_aloop("two", start=False)
    for idle in (two, "two"):
        with pytest.raises(nt.AloopError, match="start_aloop"):
            supervisor.resolve_aloop(idle)

    async def main():
        loop = asyncio.get_running_loop()
        return supervisor.resolve_aloop(loop) is loop

    assert asyncio.run(main())


def test_aloops_may_be_made_before_start(nt):
    supervisor = nt.TaskSupervisor("test")
    aloop = supervisor.create_aloop("one", default=True)
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1
    supervisor.start()
    assert supervisor.resolve_aloop(None) is aloop
    supervisor.stop()
    assert not aloop.active


# Looking.


def test_the_info_is_plain_and_pickles(supervisor, nt):
    supervisor.set_thread_pool(pool_size=2, reserve_high=1, queue_size=9)
    supervisor.create_aloop("one", default=True)
    supervisor.put_task(int, priority=nt.TASK_HIGH).result(10)
    wait_until(lambda: not supervisor.thread_pool.active)
    info = pickle.loads(pickle.dumps(supervisor.get_info()))
    assert (info.id, info.active) == ("test", True)
    assert (info.aloops["one"].active, info.aloops["one"].default) == (True, True)
    assert info.schedulers == info.async_job_schedulers == {}
    pool = info.pool
    assert (pool["pool_size"], pool["reserve_high"], pool["queue_size"]) == (2, 1, 9)
    assert pool["submitted"] == {"CRITICAL": 0, "HIGH": 1, "NORMAL": 0, "LOW": 0}
    assert pool["completed"]["HIGH"] == 1
    assert pool["waiting"]["LOW"] == 0
    assert pool["wait_seconds"]["HIGH"] >= 0
    assert (pool["active"], pool["threads"]) == (0, 1)


def test_the_info_leaves_out_what_is_not_asked_for(supervisor):
    info = supervisor.get_info(aloops=False, schedulers=False, async_job_schedulers=False)
    assert set(info.__dict__) == {"id", "active", "pool"}
    assert pickle.loads(pickle.dumps(info.__dict__))["id"] == "test"


def test_unlimited_sizes_are_none_in_the_info(supervisor):
    supervisor.set_thread_pool(pool_size=0)
    assert supervisor.get_info().pool["max_size"] is None


def test_start_and_stop_are_logged(nt, caplog):
    with caplog.at_level(logging.INFO, "neotasker"):
        supervisor = nt.TaskSupervisor("test")
        supervisor.start()
        supervisor.stop()
    assert "supervisor test started" in caplog.text
    assert "supervisor test stopped" in caplog.text


def test_a_supervisor_that_nobody_holds_goes(nt):
    import gc
    import weakref

    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    supervisor.spawn(int).result(10)
    supervisor.stop()
    gone = weakref.ref(supervisor)
    del supervisor
    assert wait_until(lambda: (gc.collect(), gone() is None)[1])
