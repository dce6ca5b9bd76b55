"""Parkers: who sleeps, and who is woken.

A parker is a lock that is held: whoever acquires it sleeps until another thread releases it.

**Guarantees**: a release wakes the one thread that sleeps on the parker, also if it came first.

**Assumes**: who takes a parker out of a list releases it, once.

The compiled twin, ``parking.pxi``, keeps parkers to use them again, and lets others run in
loops that call nothing of Python.
"""

from __future__ import annotations

import threading
from _thread import LockType
from collections import deque
from contextlib import suppress
from operator import index
from time import sleep

__all__ = [
    "contend",
    "is_main_thread",
    "make_parker",
    "release_due",
    "this_thread",
    "wait_limit",
]

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


def is_main_thread():
    """Return whether this is the thread in which Ctrl+C strikes."""
    return threading.get_ident() == threading.main_thread().ident


def make_parker():
    """Return a lock that is held: whoever acquires it sleeps until another releases it."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def release_due(due):
    """Release the parkers in a queue, and take them out of it.

    Each is taken out and released in one call, so that in CPython no handler of a signal
    comes between, which may raise: whoever is in the queue is told, if not by this thread
    then by the next.
    """
    while due:
        # Until it is empty; or one was released before.
        with suppress(IndexError, RuntimeError):
            deque(map(LockType.release, iter(due.popleft, None)), maxlen=0)


def wait_limit(timeout):
    """Return a timeout as a lock takes it, in seconds: -1 for ever, 0 not at all.

    As the standard has it, what is not above 0 is no time, nan among it; as it has it not, what
    is longer than a lock can wait is as long as that.

    Parameters:
        timeout: an int or a float of seconds; None waits for ever.

    Raises:
        TypeError: it is something else.
    """
    if timeout is None:
        return -1
    kind = type(timeout)
    try:
        if not timeout > 0:
            return 0
        if kind is not float and not isinstance(timeout, float):
            timeout = index(timeout)
    except TypeError:
        raise TypeError(
            f"a timeout is an int or a float of seconds, or None, not {timeout!r}"
        ) from None
    return min(timeout, threading.TIMEOUT_MAX)
