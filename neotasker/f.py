"""The collections of `neotasker.functions`, under the name that older programs import."""

from __future__ import annotations

from .functions import FunctionCollection, TaskCollection

__all__ = ["FunctionCollection", "TaskCollection"]
