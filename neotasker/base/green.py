"""Whether gevent or eventlet has put threads of its own in the place of the system's."""

from __future__ import annotations

import sys

__all__ = ["at_import", "is_patched_late", "need_threads", "patcher_of"]

# By name, as neither is imported here: the module, and what it says of a module's name.
_PATCHERS = {
    "gevent": ("gevent.monkey", "is_module_patched", {}),
    "eventlet": ("eventlet.patcher", "is_monkey_patched", {"threading": "thread"}),
}


def patcher_of(module: str) -> str | None:
    """Return who has patched *module*, None if nobody has."""
    for name, (home, ask, names) in _PATCHERS.items():
        patcher = sys.modules.get(home)
        if patcher is not None and getattr(patcher, ask)(names.get(module, module)):
            return name
    return None


at_import = patcher_of("threading")
"""Who had patched `threading` when the package was imported, None if nobody had."""


def is_patched_late() -> bool:
    """Return whether threads have become green after the package was imported."""
    return at_import is None and patcher_of("threading") is not None


def need_threads(what: str = "a wait") -> None:
    """Refuse what would wait for threads that have become green meanwhile.

    Raises:
        RuntimeError: `threading` was patched after the package was imported.
    """
    if is_patched_late():
        raise RuntimeError(
            f"{what} might never end: {patcher_of('threading')} has patched threading after "
            "neotasker was imported, which goes by threads of the system since; patch first, "
            "at the very beginning of the program, and import neotasker after that"
        )
