"""What a function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["parameters_of"]

_TRIES = 20


def parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters of *fn*, or None if it does not say."""
    for _ in range(_TRIES):
        try:
            return list(inspect.signature(fn).parameters.values())
        except (TypeError, ValueError):
            return None
        except SystemError:
            # Signatures of builtins are text that is parsed, and CPython 3.11 fails where
            # two threads parse at once: https://github.com/python/cpython/issues/106905
            continue
    return None
