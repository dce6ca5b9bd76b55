"""Build the compiled core, when that is possible; all else is in pyproject.toml.

Two switches of the environment, each one of 1, true, yes, on / 0, false, no, off:

``NEOTASKER_BUILD_PURE``
    Build no extension; the wheel is ``py3-none-any``.
``NEOTASKER_BUILD_REQUIRE``
    A core that does not compile is an error. Without it the build warns, and the
    package runs on the pure core.
"""

from __future__ import annotations

import os
import platform
import warnings
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

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
            ext.extra_compile_args = ["-O3"]
        [made] = cythonize(
            [ext], build_dir=self.build_temp, language_level=3, force=True, quiet=True
        )
        ext.sources = made.sources
        super().build_extension(ext)

    def copy_extensions_to_source(self) -> None:
        """Replace the core in the source tree (an editable install) with what was built."""
        for ext in self.extensions:
            Path(self.get_ext_filename(ext.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()


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
            include_dirs=["neotasker"],
            depends=glob("neotasker/*.h") + glob("neotasker/*.pxd"),
            optional=not required,
        )
    ]


BuildCore.required = switch("NEOTASKER_BUILD_REQUIRE")
setup(
    ext_modules=extensions(switch("NEOTASKER_BUILD_PURE"), BuildCore.required),
    cmdclass={"build_ext": BuildCore},
)
