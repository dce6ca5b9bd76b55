"""Times in seconds, as callers give them: checked, and turned into what waits take."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .clock import monotonic

if TYPE_CHECKING:  # it takes long to make such a class
    from typing import Protocol

    class _Lock(Protocol):
        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...


__all__ = [
    "SHORTEST",
    "acquire_within",
    "check_delay",
    "epoch_of",
    "interval_seconds",
    "is_alive",
    "join_within",
    "real_seconds",
    "seconds",
    "too_short",
    "wait_in_parts",
    "wait_seconds",
]

SHORTEST = 1e-6
"""The shortest interval, in seconds: no timer keeps a shorter one."""


def real_seconds(name: str, value: Any) -> float:
    """Return a real number of any type as a float; one that is too large is infinite.

    Parameters:
        name: what it is called, for the error.
        value: the number; text and bools are none.

    Raises:
        TypeError: it is no real number.
    """
    if type(value) is float:
        return value
    if not isinstance(value, (bool, str, bytes, bytearray)):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
        except (TypeError, ValueError):
            pass
    raise TypeError(f"{name} must be a number of seconds, not {value!r}")


def too_short(name: str, value: Any) -> str:
    """Return what to say of an interval that is out of range."""
    return (
        f"{name} must be positive and finite seconds, and at least {SHORTEST:f} (a "
        f"microsecond), not {value!r}"
    )


def interval_seconds(name: str, value: Any) -> float:
    """Return *value* as the seconds of an interval.

    Raises:
        TypeError: it is no number.
        ValueError: it is less than a microsecond, or not finite.
    """
    number = seconds(name, value, above=True)
    if number < SHORTEST:
        raise ValueError(too_short(name, value))
    return number


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
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    if not math.isfinite(number) or number < least or (above and number == least):
        bound = f"more than {least:g}" if above else f"at least {least:g}"
        raise ValueError(f"{name} must be {bound} seconds, and finite, not {value!r}")
    return number


def check_delay(delay: Any) -> float:
    """Return *delay* as seconds from now.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative or not finite.
    """
    number = real_seconds("delay", delay)
    if not 0 <= number < math.inf:
        raise ValueError(f"delay must be seconds from 0, and finite, not {delay!r}")
    return number


def wait_seconds(wait: Any) -> float | None:
    """Return how many seconds *wait* allows: None for True, else a number; 0 for False.

    Raises:
        TypeError: it is neither a bool nor a number.
        ValueError: it is negative or not a number of seconds.
    """
    if wait is True:
        return None
    if wait is False:
        return 0.0
    if isinstance(wait, (str, bytes, bytearray)):
        raise TypeError(f"wait must be True, False or seconds, not {wait!r}")
    try:
        number = real_seconds("wait", wait)
    except TypeError:
        raise TypeError(f"wait must be True, False or seconds, not {wait!r}") from None
    if not 0 <= number < math.inf:
        raise ValueError(f"wait must be True, False or seconds from 0, not {wait!r}")
    return number


def epoch_of(moment: Any) -> float | None:
    """Return a datetime, or seconds since the epoch, as such seconds; None stays None.

    Raises:
        TypeError: it is neither.
    """
    import datetime  # few programs need it, and it is slow to import

    if isinstance(moment, datetime.datetime):
        return moment.timestamp()
    if moment is None:
        return None
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        raise TypeError(f"until must be a datetime or seconds since the epoch, not {moment!r}")
    return float(moment)


# Waits. What the system's locks take is bounded: by 49 days on Windows, by 292 years
# elsewhere. A wait may last longer, and then is made in parts.


def acquire_within(lock: _Lock, timeout: float | None) -> bool:
    """Take a lock, whatever the time is that it may take; return whether it was taken.

    Parameters:
        timeout: seconds; None waits for ever, none or less does not wait.
    """
    if timeout is None:
        return lock.acquire()
    return wait_in_parts(lambda part: lock.acquire(timeout=part), timeout)


def is_alive(thread: threading.Thread) -> bool:
    """Return whether a thread was started and has not ended.

    Up to CPython 3.12 the standard's way takes a lock that all threads of the process need to
    begin. A signal handler that runs inside and starts a thread would wait for ever.
    """
    lock = getattr(thread, "_tstate_lock", None)
    return thread.is_alive() if lock is None else bool(lock.locked())


def join_within(thread: threading.Thread, timeout: float | None) -> bool:
    """Wait for the end of a thread; return whether it has come.

    Parameters:
        timeout: seconds; None waits for ever, none or less does not wait.
    """
    if timeout is None:
        thread.join()
        return True

    def has_ended(part: float) -> bool:
        thread.join(part)
        return not is_alive(thread)

    return wait_in_parts(has_ended, timeout)


def wait_in_parts(wait: Callable[[float], object], timeout: float) -> bool:
    """Call *wait* with the seconds that it may take until it returns something true.

    Parameters:
        wait: a wait of the system's, which takes no number of seconds but those to
            ``threading.TIMEOUT_MAX``.
        timeout: seconds in all, however many; none or less looks once.

    Returns:
        Whether it did so in time.

    Raises:
        ValueError: the timeout is NaN.
    """
    if timeout != timeout:
        raise ValueError(f"a timeout must be a number of seconds, not {timeout!r}")
    longest = threading.TIMEOUT_MAX
    if timeout <= longest:
        return bool(wait(max(0.0, timeout)))
    deadline = monotonic() + timeout
    left = timeout
    while left > 0:
        if wait(min(left, longest)):
            return True
        left = deadline - monotonic()
    return False
