"""The build: what the switches do, what is installed, and what is packed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from cores import TREE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.hang_limit(400),
    pytest.mark.skipif(
        importlib.util.find_spec("pip") is None, reason="the builds are made by pip"
    ),
]

ON_CPYTHON = platform.python_implementation() == "CPython"
needs_cpython = pytest.mark.skipif(not ON_CPYTHON, reason="the compiled core is for CPython")
needs_unix_compiler = pytest.mark.skipif(
    os.name == "nt", reason="CC chooses the compiler only where it is called like Unix's"
)
needs_compiler = pytest.mark.skipif(
    not ON_CPYTHON or shutil.which((sysconfig.get_config_var("CC") or "cl").split()[0]) is None,
    reason="no compiler",
)
IGNORED = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.pyd", "*.sqlite*"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the source tree, as a build leaves its traces where it runs."""
    copy = tmp_path_factory.mktemp("tree") / "neotasker"
    shutil.copytree(TREE, copy, ignore=IGNORED)
    return copy


def _run(*command: object, cwd: Path, **switches: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("NEOTASKER_")}
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**env, **switches},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=380,
    )


def _pip(*command: object, cwd: Path, **switches: str) -> subprocess.CompletedProcess[str]:
    # What builds is installed here already: to fetch it for each case would take minutes.
    plain = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    return _run("-m", "pip", "-v", *command, *plain, cwd=cwd, **switches)


def _wheel(tree: Path, out: Path, **switches: str) -> Path:
    done = _pip("wheel", "-w", out, tree, cwd=out, **switches)
    assert done.returncode == 0, done.stdout
    (wheel,) = out.glob("*.whl")
    return wheel


def _unpack(wheel: Path, where: Path) -> Path:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(where)
    return where


def _has_symbols(folder):
    (core,) = (folder / "neotasker").glob("_core.*.*")
    return b".symtab" in core.read_bytes()


def _compiled(where: Path, **switches: str) -> str:
    code = "import neotasker; print(neotasker.__file__, neotasker.COMPILED)"
    # Without site: the finder of an editable install would lend the core of the tree.
    done = _run("-S", "-c", code, cwd=where, PYTHONPATH=str(where), **switches)
    assert done.returncode == 0, done.stdout
    file, compiled = done.stdout.split()
    assert Path(file).resolve().is_relative_to(where.resolve())
    return compiled


@needs_cpython
@needs_unix_compiler
def test_install_without_a_compiler_warns_and_runs_on_the_pure_core(tree, tmp_path):
    done = _pip("install", "--target", tmp_path, tree, cwd=tmp_path, CC="/bin/false")
    assert done.returncode == 0, done.stdout
    assert "core of neotasker could not be built" in done.stdout
    assert "/bin/false" in done.stdout
    assert _compiled(tmp_path) == "False"
    assert not list(tmp_path.rglob("_core.*.*"))


@needs_cpython
@needs_unix_compiler
def test_required_core_that_does_not_compile_fails_the_install(tree, tmp_path):
    switches = {"NEOTASKER_BUILD_REQUIRE": "1", "CC": "/bin/false"}
    done = _pip("install", "--target", tmp_path, tree, cwd=tmp_path, **switches)
    assert done.returncode != 0
    assert "could not be built" in done.stdout
    assert "NEOTASKER_BUILD_REQUIRE is set" in done.stdout
    assert not (tmp_path / "neotasker").exists()


def test_pure_build_is_one_wheel_for_all(tree, tmp_path):
    wheel = _wheel(tree, tmp_path, NEOTASKER_BUILD_PURE="yes", CC="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert _compiled(_unpack(wheel, tmp_path / "unpacked")) == "False"


SWITCHES = ("NEOTASKER_BUILD_PURE", "NEOTASKER_BUILD_REQUIRE", "NEOTASKER_BUILD_SYMBOLS")


@pytest.mark.parametrize("name", SWITCHES)
def test_junk_in_a_switch_fails_the_build_and_says_what_to_write(tree, tmp_path, name):
    done = _run("setup.py", "--name", cwd=tree, **{name: "maybe"})
    assert done.returncode != 0
    assert f"{name}='maybe': use 1, true, yes or on, or 0, false, no or off" in done.stdout


@pytest.mark.parametrize("word", ["0", "False", "NO", "off", ""])
def test_switch_takes_any_word_for_off(tree, word):
    done = _run("setup.py", "--name", cwd=tree, NEOTASKER_BUILD_PURE=word)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "neotasker"), done.stdout


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON"])
def test_both_switches_contradict_each_other(tree, word):
    switches = dict.fromkeys(("NEOTASKER_BUILD_PURE", "NEOTASKER_BUILD_REQUIRE"), word)
    done = _run("setup.py", "--name", cwd=tree, **switches)
    assert done.returncode != 0
    assert "contradict" in done.stdout


@needs_compiler
def test_wheel_is_made_from_the_sdist_and_each_holds_what_it_should(tree, tmp_path):
    backend = "from setuptools.build_meta import build_sdist as b; import sys; b(sys.argv[1])"
    done = _run("-c", backend, tmp_path, cwd=tree)
    assert done.returncode == 0, done.stdout
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    wanted = {
        *("CHANGES.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"),
        *("pyproject.toml", "setup.py"),
        *("neotasker/_core.pyx", "neotasker/_core.pyi", "neotasker/py.typed"),
        *("docs/design.md", "examples/host_monitor.py", "tests/conftest.py"),
        *(
            f"neotasker/core/{part.name}"
            for end in ("pxi", "h")
            for part in (tree / "neotasker" / "core").glob(f"*.{end}")
        ),
    }
    assert wanted <= names, wanted - names
    assert any(name.startswith("benchmarks/") for name in names)
    assert not [name for name in names if name.endswith((".c", ".so", ".pyd", ".pyc"))]

    (tmp_path / "out").mkdir()
    wheel = _wheel(sdist, tmp_path / "out", NEOTASKER_BUILD_REQUIRE="1")
    assert wheel.stat().st_size < 600_000
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {"neotasker/_core.pyi", "neotasker/py.typed"} <= names
    assert not [name for name in names if name.endswith((".pyx", ".pxi", ".h", ".c", ".pxd"))]
    assert not [name for name in names if name.split("/")[0].startswith(("tests", "docs"))]
    unpacked = _unpack(wheel, tmp_path / "unpacked")
    assert not _has_symbols(unpacked)
    assert _compiled(unpacked) == "True"
    assert _compiled(unpacked, NEOTASKER_PURE_PYTHON="1") == "False"


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are apart from the core")
def test_symbols_stay_in_where_they_are_asked_for(tree, tmp_path):
    wheel = _wheel(tree, tmp_path, NEOTASKER_BUILD_REQUIRE="1", NEOTASKER_BUILD_SYMBOLS="1")
    unpacked = _unpack(wheel, tmp_path / "unpacked")
    assert _has_symbols(unpacked)
    assert _compiled(unpacked) == "True"


@needs_compiler
def test_builds_of_the_same_moment_are_the_same_byte_for_byte(tree, tmp_path):
    code = (
        "import os, sys; os.umask(int(sys.argv[1], 8))\n"
        "import setuptools.build_meta as backend; getattr(backend, sys.argv[2])(sys.argv[3])"
    )
    made = []
    for umask in ("022", "002"):
        copy, out = tmp_path / f"tree{umask}", tmp_path / f"out{umask}"
        shutil.copytree(tree, copy, ignore=IGNORED, copy_function=shutil.copyfile)
        out.mkdir()
        switches = {"NEOTASKER_BUILD_REQUIRE": "1", "SOURCE_DATE_EPOCH": "1700000000"}
        for build in ("build_sdist", "build_wheel"):
            done = _run("-c", code, umask, build, out, cwd=copy, **switches)
            assert done.returncode == 0, done.stdout
        made.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert len(made[0]) == 2
    assert made[0] == made[1]


def test_sdist_does_not_say_who_packed_it(tree, tmp_path):
    backend = "from setuptools.build_meta import build_sdist as b; import sys; b(sys.argv[1])"
    done = _run("-c", backend, tmp_path, cwd=tree, SOURCE_DATE_EPOCH="1700000000")
    assert done.returncode == 0, done.stdout
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        members = packed.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mtime for m in members} == {1700000000}


def test_junk_in_source_date_fails_the_sdist_and_says_what_to_give(tree, tmp_path):
    command = ("setup.py", "sdist", "--dist-dir", tmp_path)
    done = _run(*command, cwd=tree, SOURCE_DATE_EPOCH="yesterday")
    assert done.returncode != 0
    assert "SOURCE_DATE_EPOCH='yesterday': give whole seconds" in done.stdout


@needs_compiler
def test_failed_build_packs_nothing_of_the_one_before(tree, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, ignore=IGNORED)
    (copy / "neotasker" / "_core.pyx").write_text("COMPILED = True\n", encoding="utf-8")
    for out in ("good", "bad"):
        (tmp_path / out).mkdir()
    good = _wheel(copy, tmp_path / "good")
    assert _holds_a_core(good)
    (copy / "neotasker" / "_core.pyx").write_text("this is no Cython\n", encoding="utf-8")
    bad = _wheel(copy, tmp_path / "bad")
    assert not _holds_a_core(bad)


def _holds_a_core(wheel: Path) -> bool:
    with zipfile.ZipFile(wheel) as packed:
        return any(name.endswith((".so", ".pyd")) for name in packed.namelist())
