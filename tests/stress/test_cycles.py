"""A thousand starts and stops leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys
import threading

import pytest

CYCLES = 1000
WARM_UP = 100
NOISE = 300  # objects, of which a test run makes some by itself


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def measure():
    for _ in range(3):
        gc.collect()
    blocks = sys.getallocatedblocks() if hasattr(sys, "getallocatedblocks") else 0
    return {
        "threads": threading.active_count(),
        "descriptors": descriptors(),
        "objects": len(gc.get_objects()),
        "blocks": blocks,
    }


async def nothing(*_, **__):
    pass


def live(nt, supervisor):
    """One life with something of everything."""
    supervisor.start()
    aloop = supervisor.create_aloop("main", default=True)
    if not aloop:  # it came back with the supervisor
        aloop = supervisor.get_aloop("main")
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
    aloop.run_coroutine_threadsafe(nothing())
    queue = nt.BackgroundQueueWorker("queue", lambda item: None, supervisor=supervisor)
    queue.start()
    queue.put_threadsafe(1)
    interval = nt.BackgroundIntervalWorker(
        "interval", nothing, interval=60, supervisor=supervisor
    )
    interval.start()
    supervisor.call_later(3600, int)
    supervisor.put_task(int, delay=3600)
    scheduler = supervisor.create_async_job_scheduler("jobs")
    if not scheduler:  # likewise
        scheduler = supervisor.async_job_schedulers["jobs"]
        scheduler.start()
    job = scheduler.create_threadsafe(nothing, interval=60)
    report = supervisor.stop()
    job.cancel()
    assert not report.still_running


def grown(nt, make):
    before = {}
    for cycle in range(CYCLES + WARM_UP):
        if cycle == WARM_UP:
            before = measure()
        live(nt, make())
    after = measure()
    return {name: after[name] - before[name] for name in before}


def check(growth):
    assert growth["threads"] <= 0, growth
    assert growth["descriptors"] <= 0, growth
    assert growth["objects"] < NOISE, growth
    assert growth["blocks"] < 10 * NOISE, growth


@pytest.mark.slow
def test_a_thousand_supervisors_leave_nothing_behind(nt, caplog):
    caplog.set_level("CRITICAL", "neotasker")
    check(grown(nt, lambda: nt.TaskSupervisor("cycle")))


@pytest.mark.slow
def test_one_supervisor_started_a_thousand_times_grows_by_nothing(nt, caplog):
    caplog.set_level("CRITICAL", "neotasker")
    supervisor = nt.TaskSupervisor("cycles")
    check(grown(nt, lambda: supervisor))
