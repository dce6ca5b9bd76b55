"""The command line."""

from __future__ import annotations

from ..base.known_as import parted
from .run import main

__all__ = ["main"]

parted(__name__, "neotasker.cli.run")
