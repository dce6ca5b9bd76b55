"""The floors of the house: imports point only to lower floors.

`FLOORS` is the table of ``docs/design.md``, section 3; whoever moves a wall moves both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from cores import PACKAGE, TREE

FLOORS = {
    0: {
        "errors.py",
        "priority.py",
        "progress.py",
        "latch.py",
        "restarts.py",
        "cron.py",
        "signatures.py",
        "localproxy.py",
        "locker.py",
    },
    1: {"_core.pyx", "_platform.h", "_core_py.py", "_core.pyi"},
    2: {"_accel.py", "_core_py.pyi"},
    3: {"task.py", "clock.py", "virtual.py"},
    4: {
        "ticker.py",
        "turn.py",
        "tasktable.py",
        "crew.py",
        "launcher.py",
        "aloop.py",
        "loopclock.py",
        "host.py",
    },
    5: {"pool.py", "aloops.py", "lives.py", "runs.py", "job.py"},
    6: {
        "timers.py",
        "watch.py",
        "info.py",
        "process.py",
        "processes.py",
        "registry.py",
        "jobs.py",
        "workers/base.py",
        "workers/stores.py",
        "workers/turns.py",
    },
    7: {"stop.py", "job_table.py", "workers/continuous.py", "workers/drain.py"},
    8: {
        "workers/interval.py",
        "workers/event.py",
        "workers/threadqueue.py",
        "workers/loopqueue.py",
        "life.py",
    },
    9: {"legacy.py", "workers/queue.py"},
    10: {"supervisor.py", "workers/__init__.py", "functions.py", "tasks.py"},
    11: {"__init__.py", "f.py"},
    12: {"testing.py", "cli.py", "embed.py"},
    13: {"pytest_plugin.py", "__main__.py"},
}
FLOOR_OF = {entry: floor for floor, entries in FLOORS.items() for entry in entries}

HOUSE = TREE / PACKAGE
FILES = sorted(
    path.relative_to(HOUSE).as_posix()
    for path in HOUSE.rglob("*")
    if path.suffix in {".py", ".pyi", ".pyx", ".pxd", ".h"}
)

_PYX_FROM = re.compile(r"^\s*from\s+(\.*)([\w.]*)\s+c?import\s+\(?([^#\n]*)", re.MULTILINE)
_PYX_IMPORT = re.compile(r"^\s*c?import\s+(neotasker[\w.]*)", re.MULTILINE)
_ROW = re.compile(r"^\|\s*(\d+)\s*\|([^|]*)\|", re.MULTILINE)


def _imports(file: str) -> Iterator[tuple[str, str]]:
    """Yield what a file imports from the package: ``(module, name)``, both may be empty."""
    if file.endswith(".h"):
        return
    text = (HOUSE / file).read_text(encoding="utf-8")
    here = [PACKAGE, *file.split("/")[:-1]]

    def absolute(level: int, module: str) -> str | None:
        base = here[: len(here) - level + 1] if level else []
        full = ".".join([*base, module] if module else base)
        if full != PACKAGE and not full.startswith(f"{PACKAGE}."):
            return None
        return full.removeprefix(PACKAGE).removeprefix(".")

    if file.endswith((".pyx", ".pxd")):
        found = [
            (len(dots), module, re.findall(r"\w+", names))
            for dots, module, names in _PYX_FROM.findall(text)
        ]
        found += [(0, module, []) for module in _PYX_IMPORT.findall(text)]
    else:
        found = []
        for node in ast.walk(ast.parse(text, file)):
            if isinstance(node, ast.ImportFrom):
                found.append((node.level, node.module or "", [a.name for a in node.names]))
            elif isinstance(node, ast.Import):
                found += [(0, alias.name, []) for alias in node.names]
    for level, module, names in found:
        target = absolute(level, module)
        if target is not None:
            for name in names or [""]:
                yield target, name


def _target(module: str, name: str) -> str:
    """Return the file that ``from neotasker.module import name`` gets its name from."""
    parts = [*module.split("."), name] if module else [name]
    for length in range(len(parts), 0, -1):
        path = "/".join(part for part in parts[:length] if part)
        for candidate in (f"{path}.py", f"{path}.pyx", f"{path}/__init__.py"):
            if path and (HOUSE / candidate).exists():
                return candidate
    return "__init__.py"


@pytest.mark.parametrize("file", FILES)
def test_imports_point_to_lower_floors(file):
    assert file in FLOOR_OF, f"{file} has no floor: give it one in docs/design.md"
    wrong = sorted(
        f"{file} (floor {FLOOR_OF[file]}) imports {target} (floor {FLOOR_OF.get(target)})"
        for target in {_target(*found) for found in _imports(file)}
        if target != file and FLOOR_OF[target] >= FLOOR_OF[file]
    )
    assert not wrong, "\n".join(wrong)


def test_documented_table_is_the_one_held_here():
    text = (TREE / "docs" / "design.md").read_text(encoding="utf-8")
    documented: dict[int, set[str]] = {}
    for floor, cell in _ROW.findall(text):
        documented.setdefault(int(floor), set()).update(re.findall(r"`([\w./]+)`", cell))
    assert documented == FLOORS


def test_table_names_only_what_exists():
    missing = sorted(entry for entry in FLOOR_OF if not (HOUSE / entry).exists())
    assert not missing, f"docs/design.md names what is not there: {', '.join(missing)}"
