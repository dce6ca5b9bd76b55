"""Which interpreter, on which machine: what a figure has to be read with."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "Interpreter",
    "Where",
    "cpython",
    "free_threaded",
    "machine",
    "pure_core",
    "with_gil",
]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """What decides which bar holds."""

    implementation: str
    version: tuple[int, int]
    free_threaded: bool
    compiled: bool

    @classmethod
    def here(cls) -> Interpreter:
        """Return what this process runs on, with the core that it would import."""
        from neotasker.core import COMPILED

        return cls(
            platform.python_implementation(), sys.version_info[:2], not gil_enabled(), COMPILED
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Interpreter:
        """Return what `to_json` was called on."""
        return cls(**{**data, "version": tuple(data["version"])})

    def to_json(self) -> dict[str, Any]:
        """Return the fields in types that JSON has."""
        return asdict(self)

    def __str__(self) -> str:
        threads = ", free-threaded" if self.free_threaded else ""
        core = "compiled" if self.compiled else "pure"
        major, minor = self.version
        return f"{self.implementation} {major}.{minor}{threads}, {core} core"


Where = Callable[[Interpreter], bool]
"""Says on which interpreters a bar holds."""


def gil_enabled() -> bool:
    """Return whether threads of this process take turns."""
    probe: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return probe()


def with_gil(here: Interpreter) -> bool:
    """Hold on every CPython with the GIL, on the compiled core."""
    return here.implementation == "CPython" and here.compiled and not here.free_threaded


def cpython(*versions: tuple[int, int]) -> Where:
    """Hold on these versions of CPython with the GIL, on the compiled core."""
    return lambda here: with_gil(here) and here.version in versions


def free_threaded(here: Interpreter) -> bool:
    """Hold without the GIL, on the compiled core."""
    return here.free_threaded and here.compiled


def pure_core(here: Interpreter) -> bool:
    """Hold on the pure core of a CPython with the GIL."""
    return here.implementation == "CPython" and not here.compiled and not here.free_threaded


def machine() -> dict[str, Any]:
    """Return what the figures depend on beside the interpreter."""
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 2)
    return facts


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
