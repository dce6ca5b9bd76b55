"""The core: what every task, timer and run goes through, twice.

The compiled parts (``*.pxi``) are one extension, ``neotasker._core``; each stands beside its
twin in Python (``*.py``). This file is the one place that chooses between the two.

``NEOTASKER_PURE_PYTHON`` (1, true, yes, on / 0, false, no, off) forces the twin.
Where gevent or eventlet has patched `threading` before, it is used as well. Else only a
missing extension falls back to it: one that is there and cannot be loaded raises, for a
broken install must not pass as a slow one.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..base import green

__all__ = [
    "COMPILED",
    "Dispatcher",
    "EagerStart",
    "FutureCore",
    "JobCore",
    "Mailbox",
    "SerialCore",
    "Submitter",
    "Tally",
    "TaskCore",
    "TickerCore",
    "TimerCore",
]

_SWITCH = "NEOTASKER_PURE_PYTHON"
_WAY_OUT = f"set {_SWITCH}=1 in the environment to use the pure core, which can be"
_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


def _wants_pure() -> bool:
    value = os.environ.get(_SWITCH, "")
    try:
        return _WORDS[value.strip().lower()]
    except KeyError:
        raise ValueError(
            f"{_SWITCH}={value!r}: use 1, true, yes or on, or 0, false, no or off"
        ) from None


def _has_green_threads() -> bool:
    """Return whether threads are not those of the system: the compiled core knows no others."""
    patcher = green.at_import
    if patcher is not None:
        logging.getLogger("neotasker").debug(
            "the pure core is used: %s has patched threading, which the compiled one goes past",
            patcher,
        )
    return patcher is not None


def _load_compiled() -> Any:
    """Return the extension, None if there is none.

    Raises:
        ImportError: it is there and cannot be loaded.
    """
    name = f"{__package__.rpartition('.')[0]}._core"
    try:
        found: Any = import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name != name:
            raise
        return None
    except ImportError as exc:
        raise ImportError(f"{exc}; {_WAY_OUT}", name=name, path=exc.path) from exc
    if found.os is not os:
        raise ImportError(
            f"{name} was loaded by an interpreter of this process that has ended, and cannot "
            f"be loaded again; {_WAY_OUT}",
            name=name,
        )
    return found


if TYPE_CHECKING:
    from .._core import (
        COMPILED,
        Dispatcher,
        EagerStart,
        FutureCore,
        JobCore,
        Mailbox,
        SerialCore,
        Submitter,
        Tally,
        TaskCore,
        TickerCore,
        TimerCore,
    )
else:
    _pure = _wants_pure()
    _core = None if _has_green_threads() or _pure else _load_compiled()
    if _core is None:
        from .dispatcher import Dispatcher
        from .eager import EagerStart
        from .future import FutureCore
        from .job import JobCore
        from .lanes import Submitter
        from .mailbox import Mailbox
        from .serial import SerialCore, Tally
        from .task import TaskCore
        from .ticker import TickerCore
        from .timer import TimerCore

        COMPILED = False
    else:
        COMPILED = _core.COMPILED
        Dispatcher = _core.Dispatcher
        EagerStart = _core.EagerStart
        FutureCore = _core.FutureCore
        JobCore = _core.JobCore
        Mailbox = _core.Mailbox
        SerialCore = _core.SerialCore
        Submitter = _core.Submitter
        Tally = _core.Tally
        TaskCore = _core.TaskCore
        TickerCore = _core.TickerCore
        TimerCore = _core.TimerCore
