"""The documentation: `make docs` builds it, and fails on a warning or a broken link."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

TREE = Path(__file__).resolve().parent.parent
# The pure core: its classes have signatures that can be read, and nothing is compiled first.
os.environ["NEOTASKER_PURE_PYTHON"] = "1"
sys.path.insert(0, str(TREE))

_metadata = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "neotasker"
author = "the neotasker developers"
project_copyright = author
version = release = _metadata["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # what docstrings put in single backticks
nitpicky = False
suppress_warnings = ["ref.python"]  # a name in backticks that several classes have

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures that say how to call it are the docstrings'
autodoc_default_options = {"members": True, "show-inheritance": True}
html_theme = "furo"
html_title = f"neotasker {release}"
html_show_sourcelink = False
html_copy_source = False

_SECTIONS = Config(napoleon_use_rtype=False, napoleon_use_ivar=True)


def _read_sections(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Read the sections (Parameters, Returns, Raises) of a docstring.

    Those of properties have none; the extension would take "Seconds: …" for a type.
    """
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, _SECTIONS, app, what, name, obj, options).lines()


def setup(app: Sphinx) -> None:
    """Connect what this project needs beside its extensions."""
    app.connect("autodoc-process-docstring", _read_sections)
