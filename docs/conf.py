"""The documentation: `make docs` builds it, and fails on a warning or a broken link."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
# The pure core: its classes have signatures that can be read, and nothing is compiled first.
os.environ["NEOTASKER_PURE_PYTHON"] = "1"
sys.path.insert(0, str(TREE))

_metadata = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "neotasker"
author = "the neotasker developers"
project_copyright = author
version = release = _metadata["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # what docstrings put in single backticks
nitpicky = False
# Pages that are there in some states of the tree only are found by patterns.
suppress_warnings = ["toc.empty_glob"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures that say how to call it are the docstrings'
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"neotasker {release}"
html_show_sourcelink = False
html_copy_source = False
