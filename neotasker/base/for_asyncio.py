"""What asyncio is told of a future that has ended with a `StopIteration`.

A coroutine cannot be given that exception: asyncio raises inside, before CPython 3.13, and
whoever awaits the future waits for ever. From then on it makes a `RuntimeError` of it, as is
done here on all versions.
"""

from __future__ import annotations

from concurrent.futures import Future
from types import FunctionType
from typing import Any

__all__ = ["told_to"]

_MODULE = "asyncio.futures"


def told_to(fn: Any, future: Future[Any], error: StopIteration) -> Any:
    """Return what the done-callback *fn* is to be called with: *future*, or what stands for it.

    It is the future itself unless *fn* is that with which asyncio copies the outcome into a
    future of its own (`asyncio.wrap_future`, ``loop.run_in_executor``).

    Parameters:
        error: how the future has ended.
    """
    if type(fn) is FunctionType and fn.__module__ == _MODULE:
        return _Failed(future, error)
    return future


class _Failed:
    """A future that has ended with a `RuntimeError` in place of a `StopIteration`."""

    def __init__(self, future: Future[Any], error: StopIteration) -> None:
        self._future = future
        self._error = error

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def exception(self) -> BaseException:
        self._future.exception()  # somebody has asked for it
        error = RuntimeError(
            "StopIteration interacts badly with generators and cannot be raised into a Future"
        )
        error.__cause__ = error.__context__ = self._error
        return error

    def result(self) -> Any:
        raise self.exception()

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        return True, False, None, self.exception()
