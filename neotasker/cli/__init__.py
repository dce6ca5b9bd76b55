"""The command line."""

from __future__ import annotations

from .run import main

__all__ = ["main"]
