"""`Call`: what a worker runs in one life; and what its target takes."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from typing import Any

from ..base.signatures import parameters_of, why_not_called
from ..base.targets import INERT, is_async

__all__ = [
    "INERT",
    "Call",
    "call_with_item",
    "check_arguments",
    "check_callable",
    "is_async",
    "keywords_of",
]


class Call:
    """What a worker runs in one life: target, keywords, context, and how.

    Runs see the context variables of who started the worker: those of a plain target each in
    a copy of their own, those of an async one in the one context of the worker's task.
    """

    __slots__ = ("bound", "checks_result", "context", "kwargs", "priority", "run", "timeout")

    def __init__(
        self,
        run: Callable[..., Any],
        kwargs: dict[str, Any],
        priority: int,
        positional: int = 0,
        checks_result: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.run = run
        self.kwargs = kwargs
        self.priority = priority
        self.checks_result = checks_result  # whether process_result was overridden
        self.timeout = timeout
        self.context = contextvars.copy_context()
        self.bound = _bind(run, kwargs, positional)
        """The target with its keywords."""

    def run_in_copy(self) -> Any:
        """Make a run in its own copy of the context."""
        return self.context.copy().run(self.bound)

    @property
    def kwargs_elsewhere(self) -> dict[str, Any]:
        """The keywords for a run in another process, where the worker cannot follow."""
        return {name: value for name, value in self.kwargs.items() if name != "_worker"}


def _bind(run: Callable[..., Any], kwargs: dict[str, Any], positional: int) -> Any:
    """Return *run* with its keywords; the usual ones spelled out, which is twice as fast."""
    if not kwargs:
        return run
    if kwargs.keys() != {"_worker", "_name", "o"}:
        return partial(run, **kwargs)
    worker, name, o = kwargs["_worker"], kwargs["_name"], kwargs["o"]
    if positional:
        return lambda item: run(item, _worker=worker, _name=name, o=o)
    return lambda: run(_worker=worker, _name=name, o=o)


def check_callable(what: str, value: Any) -> None:
    """Raise TypeError, naming *what*, unless *value* can be called."""
    if not callable(value):
        raise TypeError(f"{what} must be callable, not {value!r}")


def call_with_item(
    run: Callable[..., Any], args: tuple[Any, ...], item: Any, /, **kwargs: Any
) -> Any:
    """Call a target with an item before the arguments of the start."""
    return run(item, *args, **kwargs)


def keywords_of(fn: Callable[..., Any], positional: int) -> frozenset[str] | None:
    """Return the keywords that *fn* takes, or None if it takes any, or does not say.

    The first *positional* parameters are not counted, as they are given otherwise.
    """
    parameters = parameters_of(fn)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    ordered = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = [p for p in ordered[positional:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    named += [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    return frozenset(p.name for p in named)


def check_arguments(
    title: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse at the start a target that no run could call.

    Parameters:
        title: the worker's, for people to read.
        fn: the target.
        args: what a run gives by position, or something in its place.
        kwargs: what it gives by name.

    Raises:
        TypeError: the target does not take that.
    """
    reason = why_not_called(fn, args, kwargs)
    if reason is None:
        return
    parameters = parameters_of(fn)
    if parameters and parameters[0].name in ("self", "cls"):
        way = "it is a method without its object: give the method of one (thing.method)"
    else:
        way = "give start() what is missing, or the parameters a default"
    raise TypeError(
        f"worker {title}: no run could call its target, {fn!r}: {reason}. {way.capitalize()}"
    )
