"""Child processes: a fresh interpreter for what must not share one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .folders import MODERN, TREE
from .harness import Skip, Wrong

__all__ = ["fresh", "python"]

TIME_LIMIT = 90.0
"""Seconds after which a child is taken to hang."""


def python(
    *arguments: str,
    paths: Sequence[Path] = (),
    environment: dict[str, str] | None = None,
    pipe: int | None = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start an interpreter of this kind, which finds this tree, and peers after it.

    Parameters:
        arguments: of the command line.
        paths: searched before this tree.
        environment: variables to set beside those of this process.
        pipe: what standard output is connected to.
    """
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = [*map(str, paths), str(TREE), *filter(None, before), str(MODERN)]
    return subprocess.Popen(
        # Without -P the current folder comes before all of these.
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(search), **(environment or {})},
        stdout=pipe,
        text=True,
    )


def fresh(
    function: Callable[..., Any],
    *arguments: Any,
    paths: Sequence[Path] = (),
    environment: dict[str, str] | None = None,
) -> Any:
    """Call a function of a module in a fresh interpreter and return what it returns.

    Parameters:
        function: of the top level of a module.
        arguments: as JSON has them, as is the result.
        paths: where the child looks for modules first.
        environment: variables to set in the child.

    Raises:
        Skip, Wrong: the function has, in the child.
        RuntimeError: the child failed otherwise.
        TimeoutError: the child did not end.
    """
    child = python(
        "-m",
        "benchmarks.processes",
        function.__module__,
        function.__name__,
        json.dumps(arguments),
        paths=paths,
        environment=environment,
    )
    try:
        output, _ = child.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise TimeoutError(f"{function.__name__} did not end in {TIME_LIMIT:.0f} s") from None
    if child.returncode:
        raise RuntimeError(f"{function.__name__} ended with {child.returncode} in a child")
    answer = json.loads(output)
    if "result" in answer:
        return answer["result"]
    kind, text = answer["error"]
    raise {"Skip": Skip, "Wrong": Wrong}.get(kind, RuntimeError)(text)


def measured(subject: str, quick: bool, environment: dict[str, str]) -> Iterator[Any]:
    """Measure a subject in a fresh interpreter; yield its records as they come.

    Raises:
        RuntimeError: the child failed.
    """
    flags = ["--quick"] if quick else []
    child = python("-m", "benchmarks.measure", subject, *flags, environment=environment)
    assert child.stdout is not None
    try:
        with child.stdout:
            for line in child.stdout:
                yield json.loads(line)
        if child.wait():
            raise RuntimeError(f"the process that measured it ended with {child.returncode}")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def _answer(module: str, name: str, arguments: str) -> None:
    """Do in the child what `fresh` asks for."""
    from importlib import import_module

    answers = sys.stdout
    sys.stdout = sys.stderr  # what the measured code prints is no answer
    try:
        answer = {"result": getattr(import_module(module), name)(*json.loads(arguments))}
    except (Skip, Wrong) as exc:
        answer = {"error": (type(exc).__name__, str(exc))}
    except Exception as exc:
        traceback.print_exc()
        answer = {"error": ("", f"{type(exc).__name__}: {exc}")}
    json.dump(answer, answers)
    answers.flush()
    os._exit(0)  # whatever a peer left running


if __name__ == "__main__":
    _answer(*sys.argv[1:])
