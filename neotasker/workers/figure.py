"""`Figure`: a value that a worker's class computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Figure"]


class Figure:
    """A value that a class computes, and an attribute of the instance may cover.

    Subclasses of workers set attributes of any name; a property would forbid it.
    """

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, worker: Any, owner: type | None = None) -> Any:
        return self if worker is None else self._compute(worker)
