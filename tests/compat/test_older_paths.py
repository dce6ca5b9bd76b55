"""Import paths of files that have moved go on working, and names keep the module they had."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
import typing
from unittest import mock

import pytest
from helpers import run_python

# What the world knows each name by: reprs, logs and pickles of older programs carry it.
KNOWN_AS = {
    "ALoop": "aloop",
    "AsyncJob": "job",
    "AsyncJobScheduler": "jobs",
    "BackgroundAsyncWorker": "workers.continuous",
    "BackgroundEventWorker": "workers.event",
    "BackgroundIntervalWorker": "workers.interval",
    "BackgroundQueueWorker": "workers.queue",
    "BackgroundWorker": "workers.continuous",
    "ExecutorPool": "pool",
    "FunctionCollection": "functions",
    "Lane": "pool",
    "LocalProxy": "localproxy",
    "Locker": "locker",
    "Priority": "priority",
    "ProcessPool": "processes",
    "StopReport": "stop",
    "Task": "task",
    "TaskCollection": "functions",
    "TaskPool": "pool",
    "TaskStatus": "task",
    "TaskSupervisor": "supervisor",
    "TaskType": "progress",
    "Ticker": "ticker",
    "background_task": "tasks",
    "background_worker": "workers",
    "co_mp_apply": "tasks",
    "wait_completed": "tasks",
}
ALSO = [("stop", "StillRunning"), ("info", "SupervisorInfo"), ("timers", "PooledTimer")]


@pytest.mark.parametrize(("name", "module"), KNOWN_AS.items())
def test_a_public_name_keeps_its_module_and_can_be_imported_from_there(nt, name, module):
    thing = getattr(nt, name)
    assert thing.__module__ == f"neotasker.{module}"
    assert getattr(importlib.import_module(thing.__module__), name) is thing


@pytest.mark.parametrize(("module", "name"), ALSO)
def test_so_do_those_that_are_only_in_modules(nt, module, name):
    found = importlib.import_module(f"neotasker.{module}")
    assert getattr(found, name).__module__ == f"neotasker.{module}"
    assert getattr(nt, module) is found


def test_every_older_path_gives_the_module_itself(nt):
    from neotasker.compat.older_paths import HOMES

    for older, home in HOMES.items():
        module = importlib.import_module(f"neotasker.{older}")
        assert module is importlib.import_module(f"neotasker.{home}"), older
        assert module.__name__ == module.__spec__.name == f"neotasker.{home}"
        assert sys.modules[f"neotasker.{older}"] is module


def test_what_is_assigned_by_an_older_path_is_seen_by_the_library(nt, monkeypatch):
    older = importlib.import_module("neotasker.stop")
    monkeypatch.setattr(older, "_GRACE", 7.0)
    assert nt.lifecycle.stop._GRACE == 7.0


def test_a_module_that_never_was_is_not_found(nt):
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        importlib.import_module("neotasker.nothing")
    with pytest.raises(AttributeError, match="nothing"):
        nt.nothing  # noqa: B018


def test_pickles_name_the_public_module(nt):
    report = nt.StopReport(cancelled=2)
    data = pickle.dumps(report)
    assert b"neotasker.stop" in data and b"lifecycle" not in data
    assert pickle.loads(data).cancelled == 2


def test_a_pickle_of_an_older_version_is_read_before_anything_else_is_imported(nt):
    info = nt.TaskSupervisor("pickled").get_info()
    ran = run_python(
        """
        import pickle, sys
        info = pickle.loads(bytes.fromhex(sys.argv[1]))
        print(type(info).__module__, info.id)
        """,
        pickle.dumps(info).hex(),
    )
    assert ran.out.split() == ["neotasker.info", "pickled"], ran.err


# These are known by the name of a package, where the import system has no line of theirs.
IN_PACKAGES = {"AsyncJobScheduler", "BackgroundQueueWorker", "ExecutorPool", "Lane", "TaskPool"}


@pytest.mark.parametrize("name", sorted(KNOWN_AS.keys() - IN_PACKAGES))
def test_the_source_of_a_public_name_is_found(nt, name):
    source = inspect.getsource(getattr(nt, name))
    assert f"class {name}" in source or f"def {name}" in source


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, "__init__") for name in ("ALoop", "AsyncJob", "Lane", "StopReport", "Task")),
    ],
)
def test_type_hints_can_be_read(nt, name, method):
    typing.get_type_hints(getattr(getattr(nt, name), method), include_extras=True)


# Names that are in another file than the rest of the module that they were in.
CUT = [
    ("aloop", "ForeignLoop", "loops.port"),
    ("cli", "LIMIT", "cli.run"),
    ("jobs", "clock_for", "jobs.scheduler"),
    ("life", "_PATIENCE", "pool.threads"),
    ("pool", "_NORMAL_LANE", "pool.pool"),
    ("registry", "BACKOFF_CAP", "base.restarts"),
    ("runs", "PoolRuns", "workers.in_pool"),
    ("runs", "_RETRY", "workers.in_pool"),
    ("timers", "DelayedTasks", "timing.delays"),
    ("timers", "check_delay", "base.seconds"),
    ("workers.base", "running_loop", "loops.port"),
    ("workers.queue", "_whole", "workers.queue.worker"),
    ("workers.turns", "_QUANTUM", "workers.queue.pace"),
]


@pytest.mark.parametrize(("older", "name", "home"), CUT)
def test_what_was_cut_from_a_module_is_found_and_assigned_there(
    nt, monkeypatch, older, name, home
):
    module = importlib.import_module(f"neotasker.{older}")
    part = importlib.import_module(f"neotasker.{home}")
    before = getattr(part, name)
    assert getattr(module, name) is before
    with monkeypatch.context() as patch:
        patch.setattr(module, name, "other")
        assert getattr(part, name) == getattr(module, name) == "other"
    with mock.patch.object(module, name, "another"):
        assert getattr(part, name) == "another"
    assert getattr(part, name) is before and getattr(module, name) is before


def test_a_name_that_a_cut_module_never_had_stays_its_own(nt):
    module = importlib.import_module("neotasker.runs")
    with pytest.raises(AttributeError, match="nothing"):
        module.nothing  # noqa: B018
    module.nothing = 1
    assert module.nothing == 1 and not hasattr(nt.workers.in_pool, "nothing")
    del module.nothing
    assert not hasattr(module, "nothing")


def test_the_older_path_of_the_pure_core_gives_it_whichever_core_runs(nt):
    pure = importlib.import_module("neotasker._core_py")
    assert pure.COMPILED is False
    assert pure.Dispatcher is importlib.import_module("neotasker.core.dispatcher").Dispatcher
    assert {pure.TaskCore, pure.TimerCore, pure.Mailbox, pure.SerialCore, pure.JobCore}


def test_looking_for_a_module_imports_nothing(nt):
    # The import system looks under a lock that each import takes: two threads could wait for
    # one another.
    ran = run_python(
        """
        import sys, neotasker
        before = set(sys.modules)
        finder = next(f for f in sys.meta_path if f.__module__.startswith("neotasker."))
        for name in ("cron", "job", "_core_py", "workers.drain", "nothing"):
            print(finder.find_spec(f"neotasker.{name}") is not None, end=" ")
        print(set(sys.modules) - before or "none")
        """
    )
    assert ran.out.split() == ["True", "True", "True", "True", "False", "none"], ran.err


@pytest.mark.parametrize(
    ("older", "home", "last"),
    [
        ("job", "jobs.job", "_count"),
        ("tasks", "compat.background", "co_mp_apply"),
        ("processes", "pool.processes", "ProcessPool"),
    ],
)
def test_an_older_path_waits_for_a_module_that_another_thread_imports(nt, older, home, last):
    ran = run_python(
        f"""
        import importlib, sys, threading
        import neotasker
        inside, seen = threading.Event(), threading.Event()

        def watch(frame, event, arg):
            if event == "call" and frame.f_code.co_name == "known_as":
                inside.set()
                seen.wait(0.3)

        def first():
            sys.setprofile(watch)
            importlib.import_module("neotasker.{home}")
            inside.set()

        def second():
            inside.wait()
            print(hasattr(importlib.import_module("neotasker.{older}"), "{last}"))
            seen.set()

        threads = [threading.Thread(target=each) for each in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """
    )
    assert ran.out.split() == ["True"], ran.err
