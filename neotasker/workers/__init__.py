"""Workers: each runs one target again and again, in its own way."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from .continuous import BackgroundAsyncWorker, BackgroundWorker
    from .event import BackgroundEventWorker
    from .interval import BackgroundIntervalWorker
    from .queue.worker import BackgroundQueueWorker

__all__ = [
    "BackgroundAsyncWorker",
    "BackgroundEventWorker",
    "BackgroundIntervalWorker",
    "BackgroundQueueWorker",
    "BackgroundWorker",
    "background_worker",
]

debug = False
"""Whether ``set_debug`` has turned debug messages on."""

# Imported when they are first asked for: few programs have workers of each kind.
_HOMES = {
    "BackgroundAsyncWorker": "continuous",
    "BackgroundEventWorker": "event",
    "BackgroundIntervalWorker": "interval",
    "BackgroundQueueWorker": "queue.worker",
    "BackgroundWorker": "continuous",
}

_TIMED = ("interval", "i", "delay", "delay_after", "delay_before")


@overload
def background_worker(fn: Callable[..., Any], /, **kwargs: Any) -> Any: ...


@overload
def background_worker(
    fn: None = None, /, **kwargs: Any
) -> Callable[[Callable[..., Any]], Any]: ...


def background_worker(fn: Callable[..., Any] | None = None, /, **kwargs: Any) -> Any:
    """Make a worker of a function: bare, or with arguments.

    Parameters:
        fn: the target.
        kwargs: ``q=`` or ``queue=`` (True, or a class) make a `BackgroundQueueWorker`,
            ``e=`` or ``event=`` a `BackgroundEventWorker`, ``interval=``, ``delay=`` or
            ``delay_before=`` a `BackgroundIntervalWorker`; without these an async
            function makes a `BackgroundAsyncWorker`, another one a `BackgroundWorker`.
            All are handed on to the worker, whose name is that of the function unless
            ``name=`` is given.

    Returns:
        The worker, or a decorator that makes it.

    Raises:
        TypeError: *fn* cannot be called.
    """

    def decorate(target: Callable[..., Any]) -> Any:
        if not callable(target):
            raise TypeError(f"a worker is made of something callable, not of {target!r}")
        kind = _kind(_choose(target, kwargs))
        name = kwargs.get("name")
        if name is None:
            name = getattr(target, "__name__", None)
        others = {key: value for key, value in kwargs.items() if key != "name"}
        return kind(name, target, **others)

    return decorate if fn is None else decorate(fn)


def _choose(target: Callable[..., Any], kwargs: dict[str, Any]) -> str:
    """Return the name of the class that *kwargs* ask for."""
    if kwargs.get("q") or kwargs.get("queue"):
        return "BackgroundQueueWorker"
    if kwargs.get("e") or kwargs.get("event"):
        return "BackgroundEventWorker"
    if any(kwargs.get(name) is not None for name in _TIMED):
        return "BackgroundIntervalWorker"
    from .call import is_async

    return "BackgroundAsyncWorker" if is_async(target) else "BackgroundWorker"


def _kind(name: str) -> type[BackgroundWorker]:
    kind: type[BackgroundWorker] = globals().get(name) or __getattr__(name)
    return kind


def __getattr__(name: str) -> Any:
    """Import a class of workers."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value
