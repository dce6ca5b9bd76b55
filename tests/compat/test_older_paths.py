"""Import paths of files that have moved go on working, and names keep the module they had."""

from __future__ import annotations

import importlib
import pickle
import sys

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


def test_type_hints_of_public_classes_can_be_read(nt):
    import typing

    for name in ("StopReport", "Task", "ALoop", "AsyncJob"):
        typing.get_type_hints(getattr(nt, name).__init__, include_extras=True)
