"""What waits goes by a clock that no tool for tests can stop."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial

import pytest
from helpers import Blocker, wait_until

NAMES = ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "perf_counter_ns")


@pytest.fixture
def frozen(nt):
    """Stop the functions of `time` wherever a module has them, as freezegun does."""
    real = {id(getattr(time, name)): getattr(time, name) for name in NAMES}
    fakes = {key: partial(int, fn()) for key, fn in real.items()}
    replaced = []
    for name, module in list(sys.modules.items()):
        ours = name == "time" or name.partition(".")[0] == "neotasker"
        for attribute, value in list(vars(module).items()) if ours and module else ():
            if id(value) in fakes and value is real[id(value)]:
                setattr(module, attribute, fakes[id(value)])
                replaced.append((module, attribute, value))
    assert time.monotonic() == time.monotonic()
    yield
    for module, attribute, value in replaced:
        setattr(module, attribute, value)


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def test_a_bounded_stop_ends_in_time_though_time_is_frozen(supervisor, frozen):
    with Blocker() as block:
        supervisor.spawn(block)
        block.wait_running(1)
        stopping = threading.Thread(target=supervisor.stop, kwargs={"timeout": 0.1})
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()


def test_every_wait_ends_in_time_though_time_is_frozen(nt, supervisor, frozen):
    from neotasker.base.latch import Latch

    reports = []
    with Blocker() as block:
        supervisor.set_thread_pool(pool_size=1, queue_size=1)
        task = supervisor.spawn(block)
        block.wait_running(1)
        supervisor.spawn(int)

        @nt.background_worker(supervisor=supervisor, q=True, maxsize=1)
        def worker(item):
            block()

        worker.start()
        worker.put_threadsafe(1)

        def waits():
            with pytest.raises(TimeoutError):
                task.result(timeout=0.05)
            assert not Latch().wait(0.05)
            assert not supervisor.block(0.05)
            with pytest.raises(nt.QueueFull):
                worker.put_threadsafe(2, timeout=0.05)
            reports.append(supervisor.stop(wait=0.05, timeout=0.1))

        waiting = threading.Thread(target=waits)
        waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()
        assert reports[0].still_running


def test_the_main_thread_wakes_in_time_though_time_is_frozen(nt, frozen):
    from neotasker.base.latch import Latch

    assert not Latch().wait(0.05)


def test_timers_and_workers_go_on_though_time_is_frozen(nt, supervisor, frozen):
    runs = []
    timer = supervisor.call_every(0.005, runs.append, "timer")
    worker = nt.background_worker(supervisor=supervisor, interval=0.005)(
        lambda **kwargs: runs.append("worker")
    )
    worker.start()
    late = supervisor.put_task(runs.append, ("late",), delay=0.01)
    late.result(10)
    wait_for = threading.Event()
    for _ in range(1000):
        if runs.count("timer") > 3 and runs.count("worker") > 3:
            break
        wait_for.wait(0.01)
    assert runs.count("timer") > 3
    assert runs.count("worker") > 3
    timer.cancel()


def test_freezegun_stops_nothing(nt):
    freezegun = pytest.importorskip("freezegun")
    supervisor = nt.TaskSupervisor("test")
    with freezegun.freeze_time("2020-01-01"), Blocker() as block:
        supervisor.start()
        supervisor.spawn(block)
        block.wait_running(1)
        stopping = threading.Thread(target=supervisor.stop, kwargs={"timeout": 0.1})
        stopping.start()
        stopping.join(10)
        assert not stopping.is_alive()
    wait_until(lambda: supervisor.stop() is not None)
