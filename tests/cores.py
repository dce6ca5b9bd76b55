"""The package, loaded once per core into one process.

Both copies live side by side; `activate` says which of them ``import neotasker``,
lazy relative imports, pickle and child processes get. Outside of it the name is not in
``sys.modules`` at all, and nothing may put it there: a third copy would share the one
extension module that a process can hold, but not the exceptions that it raises.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PACKAGE = "neotasker"
NAMES = ("compiled", "pure")
TREE = Path(__file__).resolve().parent.parent

RUNTIME_SWITCH = "NEOTASKER_PURE_PYTHON"
REQUIRE_SWITCH = "NEOTASKER_BUILD_REQUIRE"
_TRUE = ("1", "true", "yes", "on")


def is_on(switch: str) -> bool:
    """Return whether a switch of the environment is on; junk is for its owner to refuse."""
    return os.environ.get(switch, "").strip().lower() in _TRUE


WANTED = ("pure",) if is_on(RUNTIME_SWITCH) else NAMES
REQUIRED = is_on(REQUIRE_SWITCH)


@dataclass(frozen=True)
class Core:
    """One copy of the package: its modules by name, those that tests import later included."""

    name: str
    modules: dict[str, ModuleType]

    @property
    def package(self) -> ModuleType:
        """The package ``neotasker`` of this copy."""
        return self.modules[PACKAGE]

    @property
    def core(self) -> ModuleType:
        """Its core: the extension ``_core``, or the package ``core``, which is then pure."""
        tail = "_core" if self.name == "compiled" else "core"
        return self.modules[f"{PACKAGE}.{tail}"]


@functools.cache
def load(name: str) -> Core | None:
    """Return the copy on that core; None where the compiled core is not built.

    Raises:
        RuntimeError: the compiled core is older than its source.
    """
    modules: dict[str, ModuleType] = {}
    with _installed(modules, pure=name == "pure"):
        package = importlib.import_module(PACKAGE)
    if package.COMPILED is not (name == "compiled"):
        if name == "compiled":
            return None
        raise RuntimeError(f"{RUNTIME_SWITCH}=1, and yet COMPILED is {package.COMPILED!r}")
    core = Core(name, modules)
    if name == "compiled":
        _refuse_stale(core.core)
    return core


@contextmanager
def activate(core: Core) -> Iterator[ModuleType]:
    """Make ``import neotasker`` mean that copy, here and in child processes."""
    with _installed(core.modules, pure=core.name == "pure"):
        yield core.package


@contextmanager
def _installed(modules: dict[str, ModuleType], *, pure: bool) -> Iterator[None]:
    stray = _take_out()
    if stray:
        raise RuntimeError(
            f"{', '.join(sorted(stray))} imported outside of the fixture nt: take the "
            "package from nt, or import it inside a test that uses nt"
        )
    before = os.environ.pop(RUNTIME_SWITCH, None)
    if pure:
        os.environ[RUNTIME_SWITCH] = "1"
    sys.modules.update(modules)
    try:
        yield
    finally:
        modules.update(_take_out())
        os.environ.pop(RUNTIME_SWITCH, None)
        if before is not None:
            os.environ[RUNTIME_SWITCH] = before


def _take_out() -> dict[str, ModuleType]:
    ours = [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in ours}


def _refuse_stale(core: ModuleType) -> None:
    """Refuse an extension in the tree that was compiled from an earlier state of it.

    What was installed from a wheel has no sources beside it.
    """
    binary = Path(str(core.__file__))
    parts = binary.parent / "core"
    sources = [*binary.parent.glob("_core.pyx"), *parts.glob("*.pxi"), *parts.glob("*.h")]
    newer = [p.name for p in sources if p.stat().st_mtime > binary.stat().st_mtime]
    if newer:
        raise RuntimeError(
            f"{binary.name} is older than {', '.join(sorted(newer))}: "
            "build it again (make test, or pip install -e .)"
        )
