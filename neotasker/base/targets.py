"""What becomes of a call of a target: whether it runs, or only makes something to run."""

from __future__ import annotations

import sys
from functools import partial
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from types import GetSetDescriptorType as _Descriptor
from typing import Any, Literal

__all__ = [
    "INERT",
    "NOT_PLAIN",
    "Kind",
    "check_callback",
    "check_called",
    "check_task",
    "close_unseen",
    "is_async",
    "kind_of_target",
    "see_to_result",
]

Kind = Literal["plain", "async", "awaitable", "generator", "async generator"]
"""What a call does: runs; makes a coroutine, or is said to; makes a generator that is to be
awaited (``types.coroutine``); makes a generator, or an async one, and runs nothing."""

INERT = frozenset((type(None), bool, int, float, str, bytes, list, tuple, dict, set))
"""Types of results that wait for nobody to run them."""

NOT_PLAIN = 0x3A0
"""The flags of functions whose calls make something, and run nothing."""

_GENERATOR, _COROUTINE, _ITERABLE_COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200

_MOST = 50  # partials of partials, and objects whose __call__ is an object

# The attributes by which it is said that a call makes a coroutine, and where their value is.
# Who has not imported the module has not marked anything with it.
_MARKS = (
    ("_is_coroutine_marker", "inspect", "_is_coroutine_mark"),
    ("_is_coroutine", "asyncio.coroutines", "_is_coroutine"),
)


def kind_of_target(fn: Any) -> Kind:
    """Return what a call of *fn* does, as far as it can be told without one.

    Attributes of *fn* are not asked for, but for those of functions, methods and partials:
    a proxy answers anything, or goes to another machine for it. What counts is what the
    interpreter would call. So a plain wrapper around an async function is plain.
    """
    for _ in range(_MOST):
        kind = type(fn)
        if kind is FunctionType:
            return _kind_of_function(fn)
        if kind is MethodType:
            fn = fn.__func__
            continue
        if _is_marked(_attributes_of(fn)):
            return "async"
        call = _find_call(kind)
        if call is _PARTIAL_CALL:
            fn = fn.func
        elif call is _STATIC_CALL:
            fn = fn.__func__
        elif type(call) is FunctionType:
            return _kind_of_function(call)
        elif issubclass(type(call), (staticmethod, classmethod)):
            fn = call.__func__
        elif call is None or type(call).__module__ == "builtins":
            return "plain"
        else:
            fn = call
    return "plain"


def _find_call(kind: type) -> Any:
    """Return what the type has for a call of its objects, as it stands in the class."""
    for base in kind.__mro__:
        call = base.__dict__.get("__call__")
        if call is not None:
            return call
    return None


_PARTIAL_CALL = _find_call(partial)
_STATIC_CALL = _find_call(staticmethod)


def _attributes_of(fn: Any) -> Any:
    """Return the dictionary of an object without a call of its own code, or None."""
    for base in type(fn).__mro__:
        descriptor = base.__dict__.get("__dict__")
        if descriptor is not None:
            return descriptor.__get__(fn) if type(descriptor) is _Descriptor else None
    return None


def _kind_of_function(fn: FunctionType) -> Kind:
    flags = fn.__code__.co_flags
    if flags & _COROUTINE:
        return "async"
    if flags & _ASYNC_GENERATOR:
        return "async generator"
    if flags & _ITERABLE_COROUTINE:
        return "awaitable"
    if _is_marked(fn.__dict__):
        return "async"
    return "generator" if flags & _GENERATOR else "plain"


def _is_marked(attributes: Any) -> bool:
    """Return whether attributes say that a call makes a coroutine."""
    if type(attributes) is not dict or not attributes:
        return False
    for attribute, module, name in _MARKS:
        given = attributes.get(attribute)
        if given is not None and given is getattr(sys.modules.get(module), name, attributes):
            return True
    return False


def is_async(fn: Any) -> bool:
    """Return whether a call of *fn* makes something that is to be awaited."""
    return kind_of_target(fn) in ("async", "awaitable")


def check_called(what: str, fn: Any) -> Kind:
    """Refuse a target whose calls would run nothing, whoever awaits them; return its kind.

    Raises:
        TypeError: *fn* cannot be called, or is a generator function, or an async one.
    """
    if not callable(fn):
        raise TypeError(f"{what} must be callable, not {fn!r}")
    kind = kind_of_target(fn)
    if kind == "generator":
        raise TypeError(
            f"{what} is a generator function, {fn!r}: a call of it only makes a generator, and "
            "nothing of it would run. Take the yield out, or give a function that iterates it"
        )
    if kind == "async generator":
        raise TypeError(
            f"{what} is an async generator function, {fn!r}: a call of it only makes a "
            "generator, and nothing of it would run. Take the yield out, or give an async "
            "function that iterates it (async for)"
        )
    return kind


def check_callback(fn: Any) -> None:
    """Refuse what a timer cannot call.

    Raises:
        TypeError: *fn* cannot be called, or calls of it would run nothing.
    """
    if check_called("the callback of a timer", fn) != "plain":
        raise TypeError(
            f"{fn!r} is a coroutine function, which a timer cannot await: give it to a job or "
            "an interval worker, or have the timer call a function that gives its coroutine to "
            "an aloop (aloop.spawn_coroutine_threadsafe)"
        )


def check_task(fn: Any) -> None:
    """Refuse what a pool thread cannot call, at once and not when its time has come.

    Raises:
        TypeError: *fn* cannot be called, is a coroutine function, or an async generator
            function.
    """
    if not callable(fn):
        raise TypeError(f"the target must be callable, not {fn!r}")
    kind = kind_of_target(fn)
    if kind in ("async", "awaitable"):
        raise TypeError(
            f"{fn!r} is a coroutine function, which a pool thread cannot await: "
            "give its coroutine to an aloop (aloop.spawn_coroutine_threadsafe)"
        )
    if kind == "async generator":
        raise TypeError(
            f"{fn!r} is an async generator function, which a pool thread cannot iterate: give "
            "a coroutine that does (async for) to an aloop (aloop.spawn_coroutine_threadsafe)"
        )


def close_unseen(result: Any) -> str | None:
    """Close what a plain target has returned in place of doing it, where nobody will see it.

    Returns:
        What it is, in words; None if it is a result like any other, a future, or something
        that somebody runs already.
    """
    kind = type(result)
    if kind in INERT:
        return None
    if kind is CoroutineType or kind is GeneratorType:
        from inspect import CORO_CREATED, GEN_CREATED, getcoroutinestate, getgeneratorstate

        if kind is CoroutineType:
            begun = getcoroutinestate(result) != CORO_CREATED
        else:
            begun = getgeneratorstate(result) != GEN_CREATED
        if begun:
            return None
        result.close()
        return "a coroutine" if kind is CoroutineType else "a generator"
    if kind is AsyncGeneratorType:
        return "an async generator"
    if not hasattr(kind, "__await__") or hasattr(kind, "add_done_callback"):
        return None
    if hasattr(kind, "send") and hasattr(kind, "close"):
        try:
            result.close()
        except BaseException:
            return "a coroutine"
    return "an awaitable"


def see_to_result(owner: Any, title: str, fn: Any, result: Any, log: Any) -> None:
    """Close what a plain target has returned in place of running it, and say so once.

    Parameters:
        owner: whose target it is; it has an attribute ``_told_of_result``.
        title: the owner, for people to read.
        fn, result: the target, and what it has returned.
        log: where that is said.
    """
    what = close_unseen(result)
    if what is not None and not owner._told_of_result:
        owner._told_of_result = True
        log.error(
            "%s: %r has returned %s, which nobody will run: make it an async function where "
            "these are taken, or have it give its coroutine to an aloop "
            "(aloop.spawn_coroutine_threadsafe)",
            title,
            fn,
            what,
        )
