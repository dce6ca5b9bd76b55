"""Small tools of the tests: waiting without guessing, blocking on purpose, child processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, NamedTuple, Self

import pytest

__all__ = [
    "Blocker",
    "Ran",
    "near",
    "needs_late_threads",
    "run_python",
    "switch_interval",
    "wait_until",
    "wait_until_logged",
]

needs_late_threads = pytest.mark.skipif(
    (3, 12) <= sys.version_info[:3] < (3, 12, 2),
    reason="CPython 3.12.0 and 3.12.1 start no thread once the main thread has ended",
)


@contextmanager
def switch_interval(seconds: float = 1e-6) -> Iterator[None]:
    """Make the interpreter change threads that often, to shake races out."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def near(*expected: float) -> list[Any]:
    """Return what equals a list of times that differ by no more than rounding."""
    return [pytest.approx(t, abs=1e-6) for t in expected]


def wait_until(
    predicate: Callable[[], Any], timeout: float = 10, message: str | None = None
) -> Any:
    """Return the first true value of *predicate*; fail after *timeout* seconds without one."""
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while not (value := predicate()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{message or predicate} not within {timeout} s: {value!r}")
        threading.Event().wait(pause)
        pause = min(2 * pause, 0.02)
    return value


def wait_until_logged(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the end of an object was logged; PyPy leaves that to its collector."""

    def logged() -> bool:
        gc.collect()
        return text in caplog.text

    wait_until(logged)


class Blocker:
    """A target that blocks whoever calls it until it is released, and counts the callers.

    ``with Blocker() as block: pool.submit(block)``; leaving the block releases all.
    """

    def __init__(self, patience: float = 60) -> None:
        self._changed = threading.Condition()  # protects all below
        self._patience = patience
        self._passes = 0
        self._open = False
        self.running = 0
        self.peak = 0
        self.finished = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Block; return the first argument once released."""
        with self._changed:
            self.running += 1
            self.peak = max(self.peak, self.running)
            self._changed.notify_all()
            released = self._changed.wait_for(self._may_pass, self._patience)
            self.running -= 1
            self.finished += 1
            self._changed.notify_all()
        if not released:
            raise AssertionError(f"nobody released the blocker for {self._patience} s")
        return args[0] if args else None

    def _may_pass(self) -> bool:
        if self._open:
            return True
        if self._passes:
            self._passes -= 1
            return True
        return False

    def wait_running(self, count: int, timeout: float = 10) -> None:
        """Wait until at least *count* callers block at once."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.running >= count, timeout):
                raise AssertionError(
                    f"{self.running} instead of {count} running after {timeout} s"
                )

    def expect_exactly(self, count: int, quiet: float = 0.1, timeout: float = 10) -> None:
        """Wait until *count* callers block, and see that no other joins for *quiet* seconds."""
        self.wait_running(count, timeout)
        with self._changed:
            self._changed.wait_for(lambda: self.running > count, quiet)
            if self.running != count:
                raise AssertionError(f"{self.running} instead of exactly {count} running")

    def release(self, count: int | None = None) -> None:
        """Let *count* callers go; all of them, and those to come, when left out."""
        with self._changed:
            if count is None:
                self._open = True
            else:
                self._passes += count
            self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class Ran(NamedTuple):
    """How a child process ended."""

    rc: int
    out: str
    err: str


def run_python(
    code: str,
    *args: str,
    timeout: float = 60,
    env: Mapping[str, str | None] | None = None,
    stdin: str | None = None,
) -> Ran:
    """Run *code* in a fresh interpreter, on the core that is active here.

    The folder that the tests were started in is not on its path, lest it import the source
    tree in place of what is installed. A child that hangs dumps the stacks of its threads
    and ends with a return code of 1.

    Parameters:
        code: the program, indented or not.
        args: ``sys.argv[1:]`` of the program.
        timeout: seconds.
        env: variables to set beside those of this process; None takes one away.
        stdin: what the program can read; nothing when left out.
    """
    package = sys.modules.get("neotasker")
    paths = [os.environ.get("PYTHONPATH", "")]
    if package is not None and package.__file__:
        paths.insert(0, str(Path(package.__file__).parent.parent))
    path = os.pathsep.join(filter(None, paths))
    variables = {**os.environ, "PYTHONPATH": path, **(env or {})}
    # Whoever runs the tests in the background may have had Ctrl+C ignored.
    guard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    guard += f"import faulthandler; faulthandler.dump_traceback_later({timeout}, exit=True)\n"
    done = subprocess.run(
        [sys.executable, "-P", "-X", "faulthandler", "-c", guard + dedent(code), *args],
        input=stdin,
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout + 10,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# Who forks waits until the other threads of the process sleep, where the system tells:
# without the GIL a lock that is on its way between two of them stays taken in the child.
_FORKING = """
import os, sys, threading, traceback, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def others_sleep():
    for folder in Path("/proc/self/task").glob("*"):
        if int(folder.name) != threading.get_native_id():
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if state != "S":
                return False
    return True

{before}
while not others_sleep():
    pass
pid = os.fork()
if not pid:
    try:
{child}
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
{after}
"""


def run_forked(before: str, child: str, after: str, *args: str) -> Ran:
    """Run a program that forks, as `run_python` does.

    Parameters:
        before: what it does first; ``os``, ``sys`` and ``threading`` are imported.
        child: what the child does, and nothing after it; an exception makes the program fail.
        after: what the parent does when the child has ended.
        args: ``sys.argv[1:]`` of the program.
    """
    program = _FORKING.format(
        before=dedent(before), child=indent(dedent(child), " " * 8), after=dedent(after)
    )
    return run_python(program, *args)
