"""What holds for every test: one suite on both cores, and guards against hangs and leaks."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator
from types import ModuleType

import cores
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "neotasker",
    deadline=None,  # a machine that is busy with something else is no failure
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("neotasker")

_LEAK_PATIENCE = 5.0
_TESTS_PER_FREEZE = 50
_real_stderr = -1
_tests_by_core: Counter[str] = Counter()
_tests_begun = 0


# Other loops.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--uvloop",
        action="store_true",
        help="aloops run uvloop where the test says nothing else",
    )


@pytest.fixture(autouse=True, scope="session")
def _default_loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make ``asyncio.new_event_loop``, which aloops call, make loops of uvloop if told so."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--uvloop"):
            import uvloop

            patch.setattr(asyncio, "new_event_loop", uvloop.new_event_loop)
        yield


# Both cores.


@pytest.fixture(params=cores.WANTED)
def nt(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The package ``neotasker``, on each core in turn."""
    with cores.activate(_loaded(request.param)) as package:
        yield package


@pytest.fixture
def both_cores() -> tuple[cores.Core, cores.Core]:
    """Both copies of the package, compiled first, none of them active: to compare them."""
    if "compiled" not in cores.WANTED:
        pytest.skip(f"{cores.RUNTIME_SWITCH} is set: there is one core only")
    return _loaded("compiled"), _loaded("pure")


def _loaded(name: str) -> cores.Core:
    core = cores.load(name)
    if core is None:
        reason = "the compiled core is not built (pip install -e . builds it where it can)"
        if cores.REQUIRED:
            pytest.fail(f"{reason}, and {cores.REQUIRE_SWITCH} is set", pytrace=False)
        pytest.skip(reason)
    return core


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    params = getattr(getattr(item, "callspec", None), "params", {})
    report.core = params.get("nt", "none")
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Not as it is made: that may be in another process.
    if report.when == "call" and not report.skipped:
        _tests_by_core[report.core] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran = ", ".join(
        f"{label}: {_tests_by_core[key]}"
        for key, label in (("compiled", "compiled"), ("pure", "pure"), ("none", "both/none"))
    )
    terminalreporter.write_sep("-", f"tests run on each core: {ran}")


def pytest_collection_finish() -> None:
    _keep_out_of_collections()


def _keep_out_of_collections() -> None:
    # Each test collects garbage at its end, and need not look at what lives as long as the
    # suite. That grows: with modules that are loaded later, reports and caches.
    gc.collect()
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


# Hangs.


def pytest_configure() -> None:
    global _real_stderr
    _real_stderr = os.dup(2)  # capturing is suspended at this point
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what runs in the background, and child processes inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global _tests_begun
    _arm(item)
    _tests_begun += 1
    if _tests_begun % _TESTS_PER_FREEZE == 0:  # nothing of a test is alive here
        _keep_out_of_collections()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    # pytest disarms its own guard when a test fails, and that is when a teardown hangs.
    _arm(item)


def _arm(item: pytest.Item) -> None:
    marker = item.get_closest_marker("hang_limit")
    (seconds,) = marker.args if marker else (float(item.config.getini("faulthandler_timeout")),)
    faulthandler.dump_traceback_later(seconds, exit=True, file=_real_stderr)


# Leaks.


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread running, or garbage that complains when it goes."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    deadline = time.monotonic() + _LEAK_PATIENCE
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        if not isinstance(thread, threading._DummyThread):  # those cannot be joined
            thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread for thread in left if thread.is_alive()]
    if left:
        pytest.fail("\n".join(["threads left behind:", *map(_describe, left)]), pytrace=False)


def _describe(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (no stack)\n"
    return f"{thread.name} (daemon={thread.daemon}):\n{stack}"
