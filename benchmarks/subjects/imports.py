"""How long ``import neotasker`` takes."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from ..harness import Pair, Run, Side, Subject, at_most, check
from ..processes import python

# As programs do: some names are imported when they are first asked for.
STATEMENT = "from neotasker import TaskSupervisor, background_worker, spawn, task_supervisor"
BENEATH = "import asyncio, concurrent.futures.thread, uuid, logging"

subject = Subject("imports", "the import in a fresh interpreter")

_PROGRAM = """
import sys, time
start = time.perf_counter()
{statement}
elapsed = time.perf_counter() - start
assert {module!r} in sys.modules
print(elapsed)
"""


def _side(statement: str, module: str, bytecode: str) -> Side:
    program = _PROGRAM.format(statement=statement, module=module)
    environment = {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}

    def side(size: int) -> float:
        # The child gets nothing imported but this: the harness itself imports a lot.
        child = python("-c", program, environment=environment)
        output, _ = child.communicate(timeout=60)
        check(child.returncode == 0, f"{statement!r} failed")
        return float(output)

    return side


@subject.row("import neotasker, main names touched", BENEATH, at_most(1.25), compare="part")
def standard(run: Run) -> Pair:
    # Compiled by the round that warms up, whatever was compiled before.
    with TemporaryDirectory() as bytecode:
        return run.alternate(
            _side(STATEMENT, "neotasker.pool", bytecode),
            _side(BENEATH, "concurrent.futures.thread", bytecode),
            1,
            rounds=15,
        )
