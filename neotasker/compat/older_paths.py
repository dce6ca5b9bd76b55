"""Import paths of files that have moved: ``neotasker.stop`` is ``neotasker.lifecycle.stop``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

from ..base.known_as import PartedModule, parted

__all__ = ["HOMES", "PARTS", "OlderPaths"]

PACKAGE = __name__.partition(".")[0]

HOMES = {
    "_accel": "core",
    "aloop": "loops.aloop",
    "aloops": "loops.table",
    "clock": "base.clock",
    "crew": "pool.threads",
    "cron": "timing.cron",
    "info": "observe.info",
    "job": "jobs.job",
    "job_table": "jobs.table",
    "latch": "base.latch",
    "launcher": "pool.launcher",
    "legacy": "compat.older_names",
    "life": "lifecycle.start",
    "lives": "workers.life",
    "loopclock": "timing.loopclock",
    "priority": "base.priority",
    "process": "lifecycle.exit",
    "processes": "pool.processes",
    "progress": "base.progress",
    "registry": "lifecycle.registry",
    "restarts": "base.restarts",
    "runs": "workers.in_loop",
    "signatures": "base.signatures",
    "stop": "lifecycle.stop",
    "task": "pool.task",
    "tasks": "compat.background",
    "tasktable": "pool.by_id",
    "ticker": "timing.ticker",
    "timers": "timing.pooled_timer",
    "turn": "timing.advance",
    "virtual": "timing.virtual",
    "watch": "observe.watch",
    "workers.drain": "workers.queue.drain",
    "workers.loopqueue": "workers.queue.on_loops",
    "workers.stores": "workers.queue.stores",
    "workers.threadqueue": "workers.queue.on_threads",
    "workers.turns": "workers.queue.turns",
}
"""Where the file of a module is now, by the name that it had."""


PARTS = {
    "_core_py": (
        *("core.dispatcher", "core.ticker", "core.job", "core.eager", "core.mailbox"),
        *("core.serial", "core.task", "core.timer", "core.places", "core.lanes"),
        *("core.future", "core.heap", "core.parking"),
    ),
    "life": ("pool.threads",),
    "lives": ("workers.call",),
    "registry": ("base.restarts",),
    "runs": ("workers.in_pool",),
    "workers.turns": ("workers.queue.pace",),
}
"""Modules that were cut: where the rest of each is now. ``_core_py`` was the pure core."""


class _Loader:
    """Gives the module that is there already, or is imported under its own name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module; the import system is about to call it by the older name."""
        # Another thread may be about to import the package, which nobody waits for that finds
        # it in `sys.modules`; half of what the module needs would not be there.
        import_module(PACKAGE)
        home = HOMES.get(self._name)
        if home is None:
            self._spec = spec
            return PartedModule(spec.name, "The pure core, of which each part has a file now.")
        module = import_module(f"{PACKAGE}.{home}")
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Let the module go by its own name again; its code has run."""
        module.__spec__ = self._spec
        if self._name in PARTS:
            parted(f"{PACKAGE}.{self._name}", *(f"{PACKAGE}.{p}" for p in PARTS[self._name]))
        if self._name not in HOMES:
            module.COMPILED = False  # type: ignore[attr-defined]


class OlderPaths:
    """Finds modules that have moved, when the import system finds none of that name.

    The import system asks under a lock that every import of the process takes. Nothing is
    imported or waited for there, or two threads might wait for one another for ever.
    """

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer the import system, as a finder of ``sys.meta_path``."""
        package, _, name = fullname.partition(".")
        if package != PACKAGE or not (name in HOMES or name in PARTS):
            return None
        return ModuleSpec(fullname, _Loader(name))  # type: ignore[arg-type]
