"""The public path of a class or function, whichever room it is in; and modules cut in parts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

__all__ = ["PartedModule", "also_known_as", "known_as", "parted"]

T = TypeVar("T", bound=Callable[..., object])


def known_as(module: str) -> Callable[[T], T]:
    """Give a class or function the module under which the world knows it.

    That is what reprs, logs and pickles carry, so files may move without a word to anybody.

    Parameters:
        module: the full name; it can be imported, and gives the module of the definition
            unless there is another one of that name.
    """

    def mark(thing: T) -> T:
        line = vars(thing).get("__firstlineno__")
        elsewhere = sys.modules.get(module) not in (None, sys.modules[thing.__module__])
        thing.__module__ = module
        # From Python 3.13 on that makes a class forget its line, by which its source is found.
        if line is not None and not elsewhere:
            thing.__firstlineno__ = line  # type: ignore[attr-defined]
        return thing

    return mark


def also_known_as(older: str, home: str) -> None:
    """Let a module be imported by the path that it had: the last line of its file.

    The last, for whoever imports the older path meanwhile does not wait, as the import system
    waits by the name that it was asked for: it would get a module without half of its names.

    Parameters:
        older: the full name of the path.
        home: the full name of the module.
    """
    sys.modules.setdefault(older, sys.modules[home])


class PartedModule(ModuleType):
    """A module of which parts have moved to others: it is asked, and told, for them too.

    What is assigned covers what a part had; to delete it brings that back, as it does where
    a name of an instance covers one of its class. Tests that patch a module go by that.
    """

    def __getattr__(self, name: str) -> Any:
        for part in self._that_have(name):
            return vars(part)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds what is inside of a package here; that is no part's.
        inside = isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}"
        parts = [] if inside else self._that_have(name)
        for part in parts:
            vars(self)["_covered"].setdefault((part, name), vars(part)[name])
            setattr(part, name, value)
        if name in vars(self) or not parts:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        parts = self._that_have(name)
        for part in parts:
            if (part, name) in vars(self)["_covered"]:
                setattr(part, name, vars(self)["_covered"].pop((part, name)))
            else:
                delattr(part, name)
        if name in vars(self) or not parts:
            super().__delattr__(name)

    def _that_have(self, name: str) -> list[ModuleType]:
        if name.startswith("__"):
            return []
        parts = map(import_module, vars(self)["_parts"])
        return [part for part in parts if name in vars(part)]


def parted(module: str, *parts: str) -> None:
    """Let a module answer for names that are in others now, and pass on what is assigned.

    Parameters:
        module: the full name.
        parts: the full names of the others, which are imported when they are asked.
    """
    made = sys.modules[module]
    vars(made).update(_parts=parts, _covered={})
    made.__class__ = PartedModule
