"""`known_as`: the public path of a class or function, whichever room its file is in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

__all__ = ["known_as"]

T = TypeVar("T", bound=Callable[..., object])


def known_as(module: str) -> Callable[[T], T]:
    """Give a class or function the module under which the world knows it.

    That is what reprs, logs and pickles carry, so files may move without a word to anybody.

    Parameters:
        module: the full name; it can be imported, and gives the module of the definition
            unless there is another one of that name.
    """

    def mark(thing: T) -> T:
        home = sys.modules[thing.__module__]
        thing.__module__ = module
        sys.modules.setdefault(module, home)
        return thing

    return mark
