"""What type checkers say of the package: the same that it does."""

from __future__ import annotations

import importlib.util
import re
import rlcompleter
import subprocess
import sys

import pytest
from cores import TREE

PROGRAM = TREE / "tests" / "build" / "typed_program.py"


def needs_mypy(test):
    """Mark a test that takes its time, and a type checker."""
    missing = importlib.util.find_spec("mypy") is None
    for mark in (
        pytest.mark.slow,
        pytest.mark.hang_limit(300),
        pytest.mark.skipif(missing, reason="mypy is not installed"),
    ):
        test = mark(test)
    return test


def _run(*module: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, module)],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_typed_program_uses_every_public_name(nt):
    used = set(re.findall(r"\w+", PROGRAM.read_text(encoding="utf-8")))
    assert sorted(set(nt.__all__) - used) == []


def test_tab_completes_every_public_name_and_no_other(nt):
    assert dir(nt) == sorted(nt.__all__)
    found = rlcompleter.Completer({"neotasker": nt}).attr_matches("neotasker.")
    assert {name.removeprefix("neotasker.").rstrip("()") for name in found} == set(nt.__all__)


@needs_mypy
def test_a_program_that_uses_every_public_name_is_well_typed():
    _run("mypy", "--strict", PROGRAM)


@needs_mypy
def test_the_types_are_those_of_the_package_as_it_runs():
    if not [*TREE.glob("neotasker/_core.*.so"), *TREE.glob("neotasker/_core.*.pyd")]:
        pytest.skip("the compiled core is not built")
    _run("mypy.stubtest", "neotasker", "--allowlist", PROGRAM.with_name("stubtest_allowed.txt"))
