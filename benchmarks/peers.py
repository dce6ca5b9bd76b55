"""Packages to measure against: where they are kept, how they come there, who has them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from .folders import ANCESTOR, MODERN, TOOLS
from .harness import Skip
from .interpreter import gil_enabled
from .processes import fresh

__all__ = ["ANCESTOR", "MODERN", "ancestor", "install", "load", "versions"]

_WANTED = ("uvloop", "apscheduler<4", "aiosched==0.0.25")
_BUILT = ("fastthreadpool==1.7.0",)  # does not name what its build needs
_NAMES = ("uvloop", "apscheduler", "aiosched", "fastthreadpool")
_BUILD_NEEDS = ("setuptools", "wheel", "Cython")


def install() -> list[str]:
    """Fetch the peers with pip; return the names of those that could not be had."""
    missing = [name for name in _WANTED if not _pip(MODERN, name)]
    if _pip(TOOLS, *_BUILD_NEEDS):
        options = ("--no-deps", "--no-build-isolation")
        missing += [name for name in _BUILT if not _pip(MODERN, *options, name)]
    else:
        missing += _BUILT
    if not _pip(ANCESTOR, "neotasker==0.0.41"):
        missing.append("neotasker==0.0.41")
    return missing


def _pip(target: Path, *arguments: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOOLS),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(
        [*command, "--target", str(target), *arguments], env=environment, check=False
    )
    return done.returncode == 0


def load(name: str) -> ModuleType:
    """Import a peer.

    Raises:
        Skip: it is not there, or would bring the GIL back into this process.
    """
    package = name.partition(".")[0]
    if package not in sys.modules and not gil_enabled():
        try:
            free = fresh(keeps_gil_off, name)
        except RuntimeError:
            free = True  # it is not there, which is said below
        if not free:
            raise Skip(f"{package} would turn the GIL on")
    try:
        return import_module(name)
    except ImportError as exc:
        raise Skip(f"{package} is not installed here (--peers fetches it)") from exc


def keeps_gil_off(name: str) -> bool:
    """Return whether the GIL is still off once a module is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which says just that
        import_module(name)
    return not gil_enabled()


def ancestor() -> Path:
    """Return where neotasker 0.0.41 is.

    Raises:
        Skip: it is not there.
    """
    if not (ANCESTOR / "neotasker").is_dir():
        raise Skip("neotasker 0.0.41 is not here (--peers fetches it)")
    return ANCESTOR


def versions() -> dict[str, str]:
    """Return the versions of neotasker, its ancestor and the peers that are here."""
    import neotasker

    found = {"neotasker": neotasker.__version__}
    for folder in (ANCESTOR, MODERN):
        for package in metadata.distributions(path=[str(folder)]):
            name = package.metadata["Name"].lower()
            if name in _NAMES:
                found[name] = package.version
            elif name == "neotasker":
                found["its ancestor"] = package.version
    for name in _NAMES:  # what is installed comes before what was fetched
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
