"""How much memory this process holds."""

from __future__ import annotations

import gc
import os
import sys

from .harness import Skip

__all__ = ["resident"]


def resident() -> int:
    """Return the bytes of memory that this process holds, garbage aside.

    What C allocates is in it, which no tracer of Python sees.

    Raises:
        Skip: the system does not tell.
    """
    gc.collect()
    try:
        with open("/proc/self/statm", encoding="ascii") as figures:
            return int(figures.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        raise Skip("the system does not tell how much memory a process holds") from None
    # The highest so far, which is what is held now in a process that only grows.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
