"""What is asked of the library rarely: how things present themselves, and rare refusals."""

from __future__ import annotations

import concurrent.futures
import datetime
import math
import queue
import re
import threading
import time

import pytest
from cores import TREE
from helpers import run_python, wait_until


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("corners")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def nothing(*args, **kwargs):
    """Do nothing."""


# What things say of themselves.


def test_workers_aloops_and_pools_name_themselves(nt, supervisor):
    worker = nt.background_worker(nothing, name="idle", event=True, supervisor=supervisor)
    assert repr(worker) == "<BackgroundEventWorker idle inactive>"
    worker.start()
    assert repr(worker) == "<BackgroundEventWorker idle active>"
    worker.stop()
    aloop = supervisor.create_aloop("one")
    assert repr(aloop) == "<ALoop one of supervisor corners active>"
    aloop.stop()
    assert "inactive" in repr(aloop)
    supervisor.set_thread_pool(pool_size=3, reserve_normal=2, reserve_high=1)
    assert repr(supervisor.thread_pool).endswith("3+2+1>")


def test_jobs_and_their_scheduler_name_themselves(nt, supervisor):
    jobs = supervisor.create_async_job_scheduler("jobs", default=True)
    assert jobs.id == "jobs"
    assert repr(jobs) == "<AsyncJobScheduler jobs active, 0 jobs>"
    once = supervisor.create_async_job(target=nothing, timer=3600)
    often = supervisor.create_async_job(target=nothing, interval=3600, timer=3600)
    assert repr(once) == "<AsyncJob nothing once, 0 runs, active>"
    assert repr(often) == "<AsyncJob nothing every 3600 s, 0 runs, active>"
    assert len(jobs.jobs) == 2
    assert supervisor.cancel_async_job(job=once) is True
    assert supervisor.cancel_async_job(job=None) is False
    assert "done" in repr(once)
    daily = supervisor.create_async_job(target=nothing, cron="30 4 * * *", tz=datetime.UTC)
    assert "cron '30 4 * * *'" in repr(daily)


def test_timers_name_themselves(nt, supervisor):
    timer = supervisor.call_every(3600, nothing)
    assert repr(timer).endswith(
        "every 3600 s, active>".replace("3600 s", f"{timer.interval} s")
    )
    timer.cancel()
    assert repr(timer).endswith("done>")
    later = supervisor.call_later(3600, nothing)
    assert "once, active>" in repr(later)
    later.cancel()


def test_figures_print_with_their_names(nt, supervisor):
    supervisor.create_aloop("one")
    text = repr(supervisor.get_info())
    assert text.startswith("SupervisorInfo(id='corners', active=True")
    assert "AloopInfo(" in text


def test_unknown_names_of_the_package_are_attribute_errors(nt):
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nt.nonsense


# Rare refusals.


def test_job_scheduler_that_cannot_be_made_leaves_nothing(nt, supervisor):
    with pytest.raises(TypeError, match="must be a string, not 7"):
        supervisor.create_async_job_scheduler(7)
    with pytest.raises(nt.UnknownAloop):
        supervisor.create_async_job_scheduler("jobs", aloop="nowhere")
    assert supervisor.async_job_schedulers == {}
    with pytest.raises(nt.UnknownScheduler, match="no default async job scheduler"):
        supervisor.create_async_job(target=nothing)
    supervisor.create_async_job_scheduler("jobs")
    with pytest.raises(nt.UnknownScheduler, match="there are jobs"):
        supervisor.create_async_job("others", target=nothing)
    supervisor.set_default_async_job_scheduler("jobs")
    assert supervisor.default_async_job_scheduler is supervisor.async_job_schedulers["jobs"]


def test_zone_must_be_a_zone_or_its_name(nt, supervisor):
    supervisor.create_async_job_scheduler("jobs", default=True)
    with pytest.raises(TypeError, match="tz must be a zone or the name of one, not 7"):
        supervisor.create_async_job(target=nothing, cron="0 0 * * *", tz=7)
    with pytest.raises(ValueError, match="no time zone 'Nowhere/Land'"):
        supervisor.create_async_job(target=nothing, cron="0 0 * * *", tz="Nowhere/Land")


@pytest.mark.parametrize("tz", ["", "Europe/Prague", ":Europe/Prague", "Nowhere/Land"])
def test_cron_without_a_zone_goes_by_the_machines(nt, supervisor, monkeypatch, tz):
    monkeypatch.setenv("TZ", tz)
    supervisor.create_async_job_scheduler("jobs", default=True)
    job = supervisor.create_async_job(target=nothing, cron="0 0 1 1 *")
    assert job.next_run.tzinfo is not None
    assert job.next_run.astimezone(job.next_run.tzinfo).timetuple()[1:5] == (1, 1, 0, 0)


def test_clock_of_the_machine_is_that_of_time(nt):
    from neotasker.base.clock import SystemClock

    clock = SystemClock()
    assert math.isclose(clock.monotonic(), time.monotonic(), abs_tol=60)
    assert math.isclose(clock.time(), time.time(), abs_tol=60)


def test_junk_in_the_runtime_switch_is_an_error_that_says_what_to_write(nt):
    ran = run_python("import neotasker", env={"NEOTASKER_PURE_PYTHON": "perhaps"})
    assert ran.rc == 1
    assert "NEOTASKER_PURE_PYTHON='perhaps': use 1, true, yes or on" in ran.err


def test_only_a_missing_extension_falls_back_to_the_pure_core(nt):
    ran = run_python(
        """
        import sys

        class Hide:
            def __init__(self, missing):
                self.missing = missing
            def find_spec(self, name, path=None, target=None):
                if name == "neotasker._core":
                    raise ModuleNotFoundError("hidden", name=self.missing)

        sys.meta_path.insert(0, Hide("neotasker._core"))
        import neotasker
        assert not neotasker.COMPILED
        for name in [name for name in sys.modules if name.startswith("neotasker")]:
            del sys.modules[name]
        sys.meta_path[0] = Hide("libsomething")
        try:
            import neotasker
        except ModuleNotFoundError as exc:
            print(exc.name)
        """,
        env={"NEOTASKER_PURE_PYTHON": "0"},
    )
    assert (ran.rc, ran.out) == (0, "libsomething\n"), ran.err


def test_pytest_gets_a_supervisor_whose_clock_is_turned_by_hand(nt, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(virtual_supervisor):\n"
        "    calls = []\n"
        "    virtual_supervisor.call_later(3600, calls.append, 1)\n"
        "    virtual_supervisor.clock.advance(3600)\n"
        "    assert calls == [1]\n"
    )
    ran = run_python(
        """
        import sys, pytest
        plugins = ["-p", "neotasker.pytest_plugin", "-p", "no:cacheprovider"]
        sys.exit(pytest.main(["-q", *plugins, sys.argv[1]]))
        """,
        str(tmp_path / "test_it.py"),
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert ran.rc == 0, ran.out + ran.err
    assert "1 passed" in ran.out


# Waiting, and giving up.


def test_put_into_a_full_queue_gives_up_after_its_time(nt, supervisor):
    begun, gate = threading.Event(), threading.Event()

    def target(item, **kwargs):
        begun.set()
        gate.wait(30)

    worker = nt.background_worker(target, queue=True, maxsize=1, supervisor=supervisor)
    worker.start()
    try:
        worker.put_threadsafe(1)
        assert begun.wait(10)
        worker.put_threadsafe(2)
        with pytest.raises(nt.QueueFull):
            worker.put_threadsafe(3, timeout=0.01)
    finally:
        gate.set()
    worker.stop(drain=True)
    assert worker.runs == 2


def test_item_whose_key_does_not_hash_is_refused_to_who_puts_it(nt, supervisor):
    done = []

    def target(item, **kwargs):
        done.append(item)

    worker = nt.background_worker(
        target, queue=True, concurrency=2, key=lambda item: item, supervisor=supervisor
    )
    worker.start()
    with pytest.raises(TypeError, match="unhashable"):
        worker.put_threadsafe([1])
    worker.put_threadsafe((2,))
    worker.stop(drain=True)
    assert done == [(2,)]


class Moody(queue.Queue):
    """A queue of the user's whose methods fail once each."""

    def __init__(self, maxsize=0):
        super().__init__(maxsize)
        self.fails = {"empty", "get"}

    def empty(self):
        if "empty" in self.fails:
            self.fails.discard("empty")
            raise OSError("no idea")
        return super().empty()

    def get_nowait(self):
        if "get" in self.fails:
            self.fails.discard("get")
            raise OSError("not now")
        return super().get_nowait()


def test_queue_of_the_user_that_fails_is_told_of_and_used_on(nt, supervisor, caplog):
    done = []

    def target(item, **kwargs):
        done.append(item)

    worker = nt.background_worker(target, queue=Moody, supervisor=supervisor)
    worker.start()
    for item in range(3):
        worker.put_threadsafe(item)
    wait_until(lambda: worker.put_threadsafe("more") or {0, 1, 2} <= set(done))
    worker.stop(drain=True)
    assert [item for item in done if item != "more"] == [0, 1, 2]
    assert "OSError" in caplog.text


def test_jobs_with_plain_targets_run_on_anybodys_executor(nt, supervisor):
    jobs = supervisor.create_async_job_scheduler("jobs", default=True)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        supervisor.set_thread_pool(pool=executor)
        ran = threading.Event()
        job = supervisor.create_async_job(target=ran.set, interval=0.01, number=2)
        assert ran.wait(10)
        wait_until(lambda: not job.active)
        assert job.runs == 2
        supervisor.set_thread_pool()
    jobs.stop()


def test_readme_names_only_files_that_are_there():
    text = (TREE / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    assert [link for link in links if not (TREE / link).exists()] == []


def test_a_signature_that_cannot_be_read_at_once_is_read_again(nt, monkeypatch):
    import inspect

    from neotasker.base.signatures import parameters_of

    failures = [SystemError("AST constructor recursion depth mismatch")] * 3
    signature = inspect.signature

    def refuse(fn, **how):
        if failures:
            raise failures.pop()
        return signature(fn, **how)

    monkeypatch.setattr(inspect, "signature", refuse)
    assert [p.name for p in parameters_of(len)] == ["obj"]
    failures += [SystemError("again")] * 100
    assert parameters_of(len) is None
    assert [p.name for p in parameters_of(lambda a, *, b: None)] == ["a", "b"]
    failures.clear()
    assert parameters_of(7) is None
