"""Where this tree is, and where the peers are kept."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["ANCESTOR", "MODERN", "TOOLS", "TREE"]

TREE = Path(__file__).resolve().parent.parent

_HOME = (
    TREE
    / "build"
    / "benchmark-peers"
    / f"{sys.implementation.cache_tag}{getattr(sys, 'abiflags', '')}"
)

MODERN = _HOME / "modern"
"""What lives beside neotasker; searched after all else."""

ANCESTOR = _HOME / "ancestor"
"""neotasker 0.0.41, whose package has the name of this one: for child processes only."""

TOOLS = _HOME / "tools"
"""What builds the peers that do not say what they need for it."""
