"""Parkers: who sleeps, and who is woken.

A parker is a lock that is held: whoever acquires it sleeps until another thread releases it.

**Guarantees**: a release wakes the one thread that sleeps on the parker, also if it came first.

**Assumes**: who takes a parker out of a list releases it, once.

The compiled twin, ``parking.pxi``, keeps parkers to use them again, and lets others run in
loops that call nothing of Python.
"""

from __future__ import annotations

import threading
from time import sleep

__all__ = ["contend", "make_parker", "this_thread"]

this_thread = threading.local()
"""``dispatcher``: the one that this thread serves; ``place``: as what."""


def contend(acquire):
    """Take a lock that another thread holds, in the hot path.

    A thread that blocked on it would own the lock before it gets the GIL back, and so
    make the next one block too, and so on for ever: a convoy that costs two switches of
    threads per task. This one asks again when it has the GIL.
    """
    while not acquire(False):
        sleep(0)


def make_parker():
    """Return a lock that is held: whoever acquires it sleeps until another releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock
