"""Import paths of files that have moved: ``neotasker.stop`` is ``neotasker.lifecycle.stop``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["HOMES", "find_spec"]

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


class _Loader:
    """Gives the module that is there already, or is imported under its own name."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module; the import system is about to call it by the older name."""
        module = import_module(self._home)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Let the module go by its own name again; its code has run."""
        module.__spec__ = self._spec


def find_spec(
    fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
) -> ModuleSpec | None:
    """Answer the import system; the package has it ask here when all others know nothing."""
    package, _, name = fullname.partition(".")
    home = HOMES.get(name) if package == PACKAGE else None
    if home is None:
        return None
    return ModuleSpec(fullname, _Loader(f"{PACKAGE}.{home}"))  # type: ignore[arg-type]
