"""Times in seconds, as callers give them: checked, and turned into what waits take."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["check_delay", "seconds", "wait_seconds"]


def seconds(name: str, value: Any, least: float = 0.0, above: bool = False) -> float:
    """Return *value* as a finite number of seconds.

    Parameters:
        name: what it is called, for the error.
        value: a number, or text that reads as one.
        least: the smallest value.
        above: whether the value must be more than that.

    Raises:
        TypeError: it is no number.
        ValueError: it is too small, or not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    if not math.isfinite(number) or number < least or (above and number == least):
        bound = f"more than {least:g}" if above else f"at least {least:g}"
        raise ValueError(f"{name} must be {bound} seconds, and finite, not {value!r}")
    return number


def check_delay(delay: float) -> float:
    """Return *delay* as seconds from now.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    if isinstance(delay, bool) or not isinstance(delay, (int, float)):
        raise TypeError(f"delay must be seconds, not {delay!r}")
    if not 0 <= delay < math.inf:
        raise ValueError(f"delay must be seconds from 0, and finite, not {delay!r}")
    return float(delay)


def wait_seconds(wait: bool | float) -> float | None:
    """Return how many seconds *wait* allows: None for True, else a number; 0 for False.

    Raises:
        TypeError: it is neither a bool nor a number.
        ValueError: it is negative or not a number of seconds.
    """
    if wait is True:
        return None
    if not isinstance(wait, (int, float)):
        raise TypeError(f"wait must be True, False or seconds, not {wait!r}")
    if not 0 <= wait < math.inf:
        raise ValueError(f"wait must be True, False or seconds from 0, not {wait!r}")
    return float(wait)
