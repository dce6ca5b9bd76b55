"""Build the compiled core, when that is possible; all else is in pyproject.toml.

Three switches of the environment, each one of 1, true, yes, on / 0, false, no, off:

``NEOTASKER_BUILD_PURE``
    Build no extension; the wheel is ``py3-none-any``.
``NEOTASKER_BUILD_REQUIRE``
    A core that does not compile is an error. Without it the build warns, and the
    package runs on the pure core.
``NEOTASKER_BUILD_SYMBOLS``
    Keep what debuggers and profilers read: three times the size.

``SOURCE_DATE_EPOCH`` (seconds since the epoch) makes sdist and wheel the same byte for
byte, whenever, wherever and by whom they are built with the same tools.
"""

from __future__ import annotations

import gzip
import os
import platform
import sys
import tarfile
import tempfile
import warnings
from glob import glob
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

SOURCE = "neotasker/_core.pyx"
ON = ("1", "true", "yes", "on")
OFF = ("0", "false", "no", "off", "")


def switch(name: str) -> bool:
    value = os.environ.get(name, "")
    word = value.strip().lower()
    if word not in ON + OFF:
        raise SystemExit(f"{name}={value!r}: use 1, true, yes or on, or 0, false, no or off")
    return word in ON


class BuildCore(build_ext):
    """Compile the core; unless it is required, go on without it when that fails."""

    required = False
    symbols = False

    def build_extension(self, ext: Extension) -> None:
        # Always from scratch: what an earlier build left would be packed as if it were of
        # this one, with another Cython, other headers, or a compiler that is gone.
        target = Path(self.get_ext_fullpath(ext.name))
        target.unlink(missing_ok=True)
        try:
            self._compile(ext)
        except Exception as exc:
            target.unlink(missing_ok=True)
            reason = f"the compiled core of neotasker could not be built: {exc}"
            if self.required:
                raise SystemExit(f"{reason} (NEOTASKER_BUILD_REQUIRE is set)") from exc
            # A Python warning, not one of the command's: installers pass it on to the user.
            warnings.warn(f"{reason}; the pure Python core will run", stacklevel=2)

    def _compile(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        if self.compiler.compiler_type != "msvc":
            # Debugging symbols are half of the size, and name the folder of the build.
            ext.extra_compile_args = [*self._optimization(), "-g" if self.symbols else "-g0"]
        if sys.platform == "linux" and not self.symbols:
            ext.extra_link_args = ["-Wl,-s"]
        [made] = cythonize(
            [ext], build_dir=self.build_temp, language_level=3, force=True, quiet=True
        )
        ext.sources = made.sources
        super().build_extension(ext)

    def _optimization(self) -> list[str]:
        """Return the compiler's options for speed.

        The core says of each error that it is unlikely. A compiler that can be told to be
        sure of that makes code as fast, and a fifth smaller.
        """
        sure = ["-O2", "--param", "builtin-expect-probability=100"]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "empty.c")
            source.write_text("")
            try:
                self.compiler.compile([str(source)], folder, extra_postargs=[*sure, "-Werror"])
            except Exception:
                return ["-O3"]
        return sure

    def copy_extensions_to_source(self) -> None:
        """Replace the core in the source tree (an editable install) with what was built."""
        for ext in self.extensions:
            Path(self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()


class PackSources(sdist):
    """Pack the sources without a trace of who packs them; of when, with SOURCE_DATE_EPOCH."""

    def make_archive(  # the signature is setuptools'
        self,
        base_name: Any,
        format: str,
        root_dir: Any = None,
        base_dir: str | None = None,
        owner: str | None = None,
        group: str | None = None,
    ) -> str:
        moment = source_date()
        if moment is None or format != "gztar" or base_dir is None or root_dir is not None:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.mtime = moment
            return member

        target = Path(f"{base_name}.tar.gz")
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            open(target, "wb") as file,
            gzip.GzipFile("", "wb", mtime=moment, fileobj=file) as packed,
            tarfile.open(mode="w", fileobj=packed, format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=anonymous)  # which sorts what folders hold
        return str(target)


class PackWheel(bdist_wheel):
    """Pack the wheel with the same modes under every umask."""

    def write_wheelfile(self, wheelfile_base: str, *args: Any, **kwargs: Any) -> None:
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        for path in Path(wheelfile_base).parent.rglob("*"):  # what is about to be packed
            if path.is_file():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def source_date() -> int | None:
    value = os.environ.get("SOURCE_DATE_EPOCH", "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise SystemExit(f"SOURCE_DATE_EPOCH={value!r}: give whole seconds since the epoch")
    return int(value)


def extensions(pure: bool, required: bool) -> list[Extension]:
    if pure and required:
        raise SystemExit(
            "NEOTASKER_BUILD_PURE and NEOTASKER_BUILD_REQUIRE contradict each other: set one"
        )
    if pure:
        return []
    if platform.python_implementation() != "CPython":
        if required:
            raise SystemExit(
                "NEOTASKER_BUILD_REQUIRE is set, but the compiled core is for CPython only, "
                f"not for {platform.python_implementation()}"
            )
        return []
    return [
        Extension(
            "neotasker._core",
            [SOURCE],
            include_dirs=["neotasker/core"],
            depends=[*sorted(glob("neotasker/core/*.pxi")), "neotasker/core/_platform.h"],
            optional=not required,
        )
    ]


BuildCore.required = switch("NEOTASKER_BUILD_REQUIRE")
BuildCore.symbols = switch("NEOTASKER_BUILD_SYMBOLS")
setup(
    ext_modules=extensions(switch("NEOTASKER_BUILD_PURE"), BuildCore.required),
    cmdclass={"bdist_wheel": PackWheel, "build_ext": BuildCore, "sdist": PackSources},
)
