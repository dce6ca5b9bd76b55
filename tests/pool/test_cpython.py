"""CPython's own tests of ``concurrent.futures``, with `TaskPool` as the executor.

They run where the interpreter carries its test suite, as programs of their own: the
module ``cpython_suite`` puts `TaskPool` in the place of ``ThreadPoolExecutor`` there, in
the children of those tests as well.
"""

from __future__ import annotations

import importlib.util
import sys
from concurrent import futures
from pathlib import Path

import pytest
from cpython_suite import LEFT_OUT, MODULES
from helpers import run_python

ABSENT = importlib.util.find_spec("test") is None or (
    importlib.util.find_spec("test.test_concurrent_futures") is None
)


def run_suite(module: str) -> tuple[str, int, str]:
    here = str(Path(__file__).parent)
    code = f"""
        import sys
        sys.path.insert(0, {here!r})
        import cpython_suite
        cpython_suite.main({module!r})
    """
    ran = run_python(code, timeout=200)
    return module, ran.rc, ran.out + ran.err


@pytest.mark.skipif(ABSENT, reason=f"Python {sys.version_info[:2]} carries no test suite here")
@pytest.mark.hang_limit(240)
def test_cpython_tests_pass_with_task_pool(nt):
    # Side by side: they sleep for most of their time.
    with futures.ThreadPoolExecutor(len(MODULES)) as executor:
        ended = list(executor.map(run_suite, MODULES))
    for module, rc, output in ended:
        assert rc == 0, f"{module}\n{output}"
        assert "Ran 0 tests" not in output and "Ran " in output, f"{module}\n{output}"


def test_every_test_left_out_has_a_reason():
    assert all(len(reason) > 20 for reason in LEFT_OUT.values())
