"""The suite on every interpreter that is there: ``make test-all``, or ``nox``.

Interpreters are looked for in this order: the paths in NEOTASKER_PYTHONS (separated like the
folders of PATH), names on PATH (python3.14, python3.13t, pypy3.11), the versions of pyenv. Each
must say itself that it is the one that is wanted: a name may belong to a stub.

Each is given a fresh environment with a wheel that is built by it, compiled (the suite then
runs on both cores) or pure. ``nox -- ARGUMENTS`` hands arguments to pytest, and
``nox -s "suite(3.14-pure)" table`` chooses. The last session prints a table; it fails if an
interpreter is missing and NEOTASKER_ALL=1 is set.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nox

nox.options.sessions = ["suite", "table"]
nox.options.error_on_missing_interpreters = False

WANTED = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "pypy3.11")
WELCOME = ("3.14t", "3.15t")
"""Those that are tested if they are there, and not missed if they are not."""

TARGETS = [
    (version, core)
    for version in WANTED + WELCOME
    for core in (("pure",) if version.startswith("pypy") else ("compiled", "pure"))
]

# Prints the version as it is written above, and whether an environment can be made with it.
WHO = """
import sys, sysconfig
import ensurepip, venv
pypy = "pypy" if sys.implementation.name == "pypy" else ""
bare = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(pypy + "%d.%d" % sys.version_info[:2] + bare)
"""

TREE = Path(__file__).resolve().parent
ALL = os.environ.get("NEOTASKER_ALL", "").strip().lower() in ("1", "true", "yes", "on")


class Outcome(NamedTuple):
    """What became of one target."""

    result: str
    seconds: float
    said: str
    """The last line of pytest."""


outcomes: dict[tuple[str, str], Outcome] = {}


def candidates(version: str) -> Iterator[Path]:
    """Yield where an interpreter of that version might be."""
    for entry in os.environ.get("NEOTASKER_PYTHONS", "").split(os.pathsep):
        if entry.strip():
            yield Path(entry.strip()).expanduser()
    name = version if version.startswith("pypy") else f"python{version}"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for end in ("", ".exe"):
            yield Path(folder) / f"{name}{end}"
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    for pattern in ("bin/python3", "bin/pypy3", "python.exe"):
        yield from sorted(root.glob(f"*/{pattern}"), reverse=True)


@functools.cache
def who(path: Path) -> str:
    """Return the version of an interpreter; nothing if it is none, or cannot be used."""
    try:
        done = subprocess.run(
            [path, "-c", WHO], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@functools.cache
def interpreter(version: str) -> Path | None:
    """Return an interpreter of that version, or None if there is none."""
    for path in candidates(version):
        if path.is_file() and who(path) == version:
            return path
    return None


@nox.session(python=False)
@nox.parametrize(
    ("version", "core"), TARGETS, ids=[f"{version}-{core}" for version, core in TARGETS]
)
def suite(session: nox.Session, version: str, core: str) -> None:
    """Run the suite on one interpreter, with a wheel that has the compiled core or has not."""
    found = interpreter(version)
    if found is None:
        outcomes[version, core] = Outcome("MISSING", 0.0, "")
        session.skip(f"no Python {version} was found; NEOTASKER_PYTHONS can name it")
    began = time.monotonic()
    outcomes[version, core] = Outcome("FAILED", 0.0, "it could not be installed")
    home = TREE / ".nox" / f"{version}-{core}"
    session.run(str(found), "-m", "venv", "--clear", str(home), external=True, silent=True)
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    python, log = str(scripts / "python"), home / "pytest.log"

    pure = core == "pure"
    env = {
        "NEOTASKER_BUILD_PURE": "1" if pure else "0",
        "NEOTASKER_BUILD_REQUIRE": "0" if pure else "1",
        "NEOTASKER_PURE_PYTHON": "1" if pure else "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # Of hypothesis not every interpreter has a compiled wheel; the last pure one will do.
        "PIP_ONLY_BINARY": "hypothesis",
        "PYTHONPATH": "",
    }
    pip = (python, "-m", "pip", "install", "--quiet")
    session.run(*pip, "--upgrade", "pip>=25.1", external=True, env=env)
    extras = () if version.endswith("t") else ("--group", "test-extras")
    session.run(*pip, ".", "--group", "test", *extras, external=True, env=env)

    # Its own script, not -m: that would put the tree before what was installed.
    arguments = session.posargs or ["tests", "-m", "not slow"]
    command = [str(scripts / "pytest"), *arguments]
    session.log(" ".join(command))
    try:
        with subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            with log.open("w", encoding="utf-8") as copy:
                for line in process.stdout:
                    print(line, end="", flush=True)
                    copy.write(line)
    finally:
        passed = process.returncode == 0
        seconds = time.monotonic() - began
        outcomes[version, core] = Outcome("ok" if passed else "FAILED", seconds, summary(log))
    if not passed:
        session.error(f"pytest ended with {process.returncode}")


def summary(log: Path) -> str:
    """Return what pytest said at last, without its decoration."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    for line in reversed(lines):
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).strip("= ")
        if re.search(r"\d+ (passed|failed|error)", text):
            return re.sub(r" in [\d.]+s.*", "", text)
    return "no summary: it did not come to its end"


@nox.session(python=False)
def table(session: nox.Session) -> None:
    """Print what became of all that was chosen."""
    if not outcomes:
        session.skip("no interpreter was chosen")
    print(f"\n{'interpreter':<12}{'core':<10}{'result':<9}{'time':>7}  suite")
    print("-" * 78)
    for (version, core), (result, seconds, said) in outcomes.items():
        spent = f"{seconds:.0f} s" if seconds else "–"
        print(f"{version:<12}{core:<10}{result:<9}{spent:>7}  {said}")
    print("-" * 78)
    missing = sorted(
        {version for (version, _), outcome in outcomes.items() if outcome.result == "MISSING"}
    )
    missed = [version for version in missing if version in WANTED]
    if missed:
        print(f"MISSING: {', '.join(missed)}. Nothing is known of these: install them, or name")
        print("them in NEOTASKER_PYTHONS.")
        if ALL:
            session.error(f"NEOTASKER_ALL is set, and {', '.join(missed)} could not be tested")
    failed = [f"{v}-{c}" for (v, c), outcome in outcomes.items() if outcome.result == "FAILED"]
    if failed:
        session.error(f"failed: {', '.join(failed)}")
    print(f"{sum(outcome.result == 'ok' for outcome in outcomes.values())} green")
