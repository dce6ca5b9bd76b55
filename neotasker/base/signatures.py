"""What a function takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from inspect import Parameter, Signature
from types import FunctionType, MethodType
from typing import Any

__all__ = ["parameters_of", "why_not_called"]

_TRIES = 20
_MOST = 50  # partials of partials, and objects whose __call__ is an object

_ANY_KEYWORD, _ANY_POSITIONAL = inspect.CO_VARKEYWORDS, inspect.CO_VARARGS
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def parameters_of(fn: Callable[..., Any]) -> list[Parameter] | None:
    """Return the parameters that a call of *fn* is held to, or None if it does not say.

    What a wrapper says of itself (``__wrapped__``, ``__signature__``) is not asked for: the
    interpreter does not, either.
    """
    return _parameters_of(fn, _MOST)


def why_not_called(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Return why a call with these arguments would fail; None if it would not, or may not."""
    parameters = parameters_of(fn)
    if parameters is None:
        return None
    try:
        Signature(parameters, __validate_parameters__=False).bind(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return None


def _parameters_of(fn: Any, depth: int) -> list[Parameter] | None:
    kind = type(fn)
    if kind is FunctionType:
        return _of_function(fn)
    if not depth or not callable(fn):
        return None
    if kind is MethodType:
        return _without_first(_parameters_of(fn.__func__, depth - 1))
    if issubclass(kind, type):
        return _ask(fn)
    classes = [base for base in kind.__mro__ if "__call__" in base.__dict__]
    call = classes[0].__dict__["__call__"]
    if call is partial.__call__:
        inner = _parameters_of(fn.func, depth - 1)
        return None if inner is None else _of_partial(inner, fn.args, fn.keywords)
    if call is staticmethod.__call__:
        return _parameters_of(fn.__func__, depth - 1)
    if type(call) is FunctionType:
        return _without_first(_of_function(call))
    wraps_another = issubclass(type(call), (staticmethod, classmethod))
    return None if wraps_another or type(call).__module__ != "builtins" else _ask(fn)


def _of_function(fn: FunctionType) -> list[Parameter]:
    """Read the parameters from the code, which is what a call goes by."""
    code = fn.__code__
    names = code.co_varnames
    count, only = code.co_argcount, code.co_kwonlyargcount
    defaults = fn.__defaults__ or ()
    needed = count - len(defaults)
    parameters = [
        Parameter(
            _named(names[at]),
            Parameter.POSITIONAL_ONLY
            if at < code.co_posonlyargcount
            else Parameter.POSITIONAL_OR_KEYWORD,
            default=defaults[at - needed] if at >= needed else Parameter.empty,
        )
        for at in range(count)
    ]
    rest = count + only
    if code.co_flags & _ANY_POSITIONAL:
        parameters.append(Parameter(names[rest], Parameter.VAR_POSITIONAL))
        rest += 1
    by_name = fn.__kwdefaults__ or {}
    for name in names[count : count + only]:
        default = by_name.get(name, Parameter.empty)
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default))
    if code.co_flags & _ANY_KEYWORD:
        parameters.append(Parameter(names[rest], Parameter.VAR_KEYWORD))
    return parameters


def _named(name: str) -> str:
    """Return a name that may stand for a parameter: those of comprehensions are none."""
    return name if name.isidentifier() else f"implicit{name[1:]}"


def _without_first(parameters: list[Parameter] | None) -> list[Parameter] | None:
    """Leave out what is given to a method by itself."""
    if parameters and parameters[0].kind in _POSITIONAL:
        return parameters[1:]
    return parameters


def _of_partial(
    inner: list[Parameter], args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> list[Parameter]:
    """Leave out what a partial gives by position; what it gives by name has a default."""
    left = len(args)
    parameters: list[Parameter] = []
    by_name = False
    for parameter in inner:
        if parameter.kind in _POSITIONAL:
            if left:
                left -= 1
                continue
            if parameter.name in keywords and parameter.kind is not Parameter.POSITIONAL_ONLY:
                by_name = True
            if by_name and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD:
                parameter = parameter.replace(kind=Parameter.KEYWORD_ONLY)
        elif parameter.kind is Parameter.VAR_POSITIONAL and by_name:
            continue
        if parameter.name in keywords and parameter.kind is Parameter.KEYWORD_ONLY:
            parameter = parameter.replace(default=keywords[parameter.name])
        parameters.append(parameter)
    return parameters


def _ask(fn: Callable[..., Any]) -> list[Parameter] | None:
    """Ask a builtin function or a class."""
    for _ in range(_TRIES):
        try:
            return list(inspect.signature(fn, follow_wrapped=False).parameters.values())
        except (TypeError, ValueError):
            return None
        except SystemError:
            # Signatures of builtins are text that is parsed, and CPython 3.11 fails where
            # two threads parse at once: https://github.com/python/cpython/issues/106905
            continue
    return None
