"""Run CPython's tests of ``concurrent.futures`` on `TaskPool`."""

from __future__ import annotations

import importlib
import sys
import unittest

MODULES = ("test_thread_pool", "test_shutdown", "test_init", "test_wait", "test_as_completed")

LEFT_OUT: dict[str, str] = {}
"""Tests that are not run, by name, each with the reason: those that look at private names
of the standard module. There are none."""

_IN_CHILD = """
import concurrent.futures as _cf
import neotasker as _nt
_cf.ThreadPoolExecutor = _cf.TaskPool = _nt.TaskPool  # the tests fill the class's name in
"""


def substitute() -> None:
    """Put `TaskPool` in the place of the standard's executor, here and in child programs."""
    from concurrent import futures

    from test.support import script_helper

    import neotasker

    futures.ThreadPoolExecutor = neotasker.TaskPool
    original = script_helper.assert_python_ok

    def assert_python_ok(option: str, code: str, *rest: str, **env: str) -> object:
        # Environment variables also keep the child from being isolated, so that it
        # finds the package where this program does.
        path = ":".join(filter(None, sys.path))
        return original(option, _IN_CHILD + code, *rest, **{"PYTHONPATH": path, **env})

    script_helper.assert_python_ok = assert_python_ok


def threads_only(suite: unittest.TestSuite) -> unittest.TestSuite:
    """Return the tests of thread pools: processes are the standard's own affair."""
    chosen = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            chosen.addTest(threads_only(test))
        elif wanted(test):
            chosen.addTest(test)
    return chosen


def wanted(test: unittest.TestCase) -> bool:
    """Return whether a test is about threads, and not left out."""
    name = type(test).__name__
    about_processes = "Process" in name or "Resources" in name
    return not about_processes and test.id().rsplit(".", 1)[-1] not in LEFT_OUT


def main(name: str) -> None:
    """Run one module of CPython's tests and exit with the outcome."""
    substitute()
    from test import support

    support.verbose = 0
    support.use_resources = ["cpu", "walltime"]
    module = importlib.import_module(f"test.test_concurrent_futures.{name}")
    suite = threads_only(unittest.defaultTestLoader.loadTestsFromModule(module))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful() or not result.testsRun)
