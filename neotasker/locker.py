"""`Locker`: a lock that does not wait for ever, as a context manager and a decorator."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, Self, TypeVar

__all__ = ["Locker"]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("neotasker")


class Locker:
    """A lock whose waiters give up after a time, and say so.

    ``with locker:`` raises `TimeoutError` then; a function that it decorates is not called,
    and None is returned in its place. In both cases the log has a critical line, and
    `critical` is called.
    """

    def __init__(
        self, mod: str = "main", timeout: float | None = 5, relative: bool = True
    ) -> None:
        """Make a locker.

        Parameters:
            mod: what it is called in the log.
            timeout: seconds to wait for the lock; None waits for ever.
            relative: whether its owner may take it again (a reentrant lock).

        Raises:
            TypeError: *timeout* is not a number.
            ValueError: it is negative, or more than a lock can wait.
        """
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
                raise TypeError(f"timeout must be seconds or None, not {timeout!r}")
            if not 0 <= timeout <= threading.TIMEOUT_MAX:
                raise ValueError(
                    f"timeout must be seconds from 0 to {threading.TIMEOUT_MAX:.0f}, or None "
                    f"to wait for ever, not {timeout!r}"
                )
        self.lock = threading.RLock() if relative else threading.Lock()
        self.mod = mod
        self.relative = relative
        self.timeout = timeout

    def critical(self) -> None:
        """Hook: called when the lock could not be had in time; override or assign it."""

    def _acquire(self, what: str) -> bool:
        if self.lock.acquire(timeout=-1 if self.timeout is None else self.timeout):
            return True
        logger.critical("%s locking broken: not free within %s s", what, self.timeout)
        self.critical()
        return False

    def __call__(self, f: Callable[P, T]) -> Callable[P, T | None]:
        """Return *f* under the lock, which returns None if that could not be had.

        Raises:
            TypeError: *f* is a coroutine function, which would run when the lock is
                released already.
        """
        if inspect.iscoroutinefunction(f):
            raise TypeError(
                f"{f!r} is a coroutine function, which a lock of threads cannot hold: use "
                "asyncio.Lock inside of it"
            )

        @wraps(f)
        def locked(*args: P.args, **kwargs: P.kwargs) -> T | None:
            if not self._acquire(f"{self.mod}/{getattr(f, '__name__', f)}"):
                return None
            try:
                return f(*args, **kwargs)
            finally:
                self.lock.release()

        return locked

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            TimeoutError: it was not free in time.
        """
        if not self._acquire(self.mod):
            raise TimeoutError(f"lock {self.mod} was not free within {self.timeout} s")
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.lock.release()
