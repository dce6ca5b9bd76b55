"""An event to wait for in the main thread."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from _thread import LockType as Lock
from _thread import allocate_lock
from functools import partial
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

from .clock import monotonic
from .seconds import acquire_within

if TYPE_CHECKING:
    import selectors
    import socket
    from collections.abc import Callable

__all__ = ["Latch"]

DAY = 86_400.0  # seconds; what sleeps on a socket takes no number that is much larger
GLANCE = 0.25  # seconds after which signals get through where they do not wake who waits
# That there is no socket to be had: the process or the machine has too many, or lacks memory.
_LACKS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
SIZE = 4096  # bytes, each for a signal or a call of `set`


class Latch:
    """An event that is set once, and lets Ctrl+C through to whoever waits for it.

    The main thread sleeps on a socket, which `set` and every signal write to: where the
    system's locks are not interrupted (Windows), or the interpreter may overlook a
    signal that comes just as it begins to wait (free-threaded builds), a lock sleeps on.
    Other threads, which no signal reaches, sleep on a lock.

    A handler that raises (as Ctrl+C does) may do so anywhere in a wait: whoever was told of
    signals before is told again nevertheless (in CPython; elsewhere nobody may be, if it
    comes at the worst of times). What else it cuts short, the collector closes.

    There is no lock that such a handler could leave taken. Who waits puts what it sleeps on
    into a dictionary and then looks at the flag; `set` sets the flag and then copies the
    dictionary. A dictionary does one thing at a time, also without the GIL, and who does the
    second sees all that was done before the first: so one of the two sees the other. What is
    to be called is taken out of its dictionary first, so that one of them calls it.
    """

    def __init__(self) -> None:
        self._flag = False
        self._bells: dict[int, ReferenceType[socket.socket]] = {}
        self._sleepers: dict[int, Lock] = {}
        self._calls: dict[int, Callable[[], object]] = {}

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._flag

    def set(self) -> None:
        """Wake all who wait, and let pass who comes."""
        self._flag = True
        for sleeper in list(self._sleepers.values()):
            with contextlib.suppress(RuntimeError):  # it was woken already
                sleeper.release()
        for refer in list(self._bells.values()):
            bell = refer()
            if bell is not None:
                _try(bell.send, b"\0")  # if it is full, or gone, it has rung
        for key in list(self._calls):
            self._call(key)

    def call_when_set(self, call: Callable[[], object]) -> Callable[[], object]:
        """Have *call* called once, by who sets it, or now; return what takes that back."""
        key = id(call)  # which is kept as long as the key
        self._calls[key] = call
        if self._flag:
            self._call(key)
        return partial(self._calls.pop, key, None)

    def _call(self, key: int) -> None:
        call = self._calls.pop(key, None)
        if call is not None:
            call()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set; return whether it is.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        if not self._flag:
            if threading.current_thread() is threading.main_thread():
                self._wait_by_socket(timeout)
            else:
                self._wait_by_lock(timeout)
        return self._flag

    def _wait_by_lock(self, timeout: float | None) -> None:
        sleeper = allocate_lock()
        sleeper.acquire()
        self._sleepers[id(sleeper)] = sleeper
        try:
            if not self._flag:
                acquire_within(sleeper, timeout)
        finally:
            del self._sleepers[id(sleeper)]

    def _wait_by_glances(self, timeout: float | None) -> None:
        """Wait by a lock that may not let signals through, and so for little at a time."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self._flag:
            left = GLANCE if deadline is None else min(deadline - monotonic(), GLANCE)
            if left <= 0:
                break
            self._wait_by_lock(left)

    def _wait_by_socket(self, timeout: float | None) -> None:
        import selectors
        import signal
        import socket

        deadline = None if timeout is None else monotonic() + timeout
        try:
            ear, bell = socket.socketpair()
            ears = _selector(ear, bell)
        except OSError as exc:
            if exc.errno not in _LACKS:
                raise  # by a handler
            self._wait_by_glances(timeout)
            return
        with ear, bell, ears as selector:
            selector.register(ear, selectors.EVENT_READ)
            bell.setblocking(False)
            number = bell.fileno()
            tell = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)
            before: list[int] = []
            after: list[int] = []
            # Each is used in one call, so that in CPython no handler comes between the change
            # and the note of it: handlers run after a call.
            change, restore = map(tell, [number]), map(tell, before)
            ours = True
            heard: list[bytes] = []
            try:
                try:
                    before.extend(change)
                except ValueError:
                    if before:
                        raise  # by a handler
                    ours = False  # not the main interpreter, which gets no signals
                    self._wait_by_lock(timeout)
                    return
                self._bells[number] = ref(bell)
                while not self._flag:
                    left = None if deadline is None else deadline - monotonic()
                    if left is not None and left <= 0:
                        break
                    if selector.select(left if left is None else min(left, DAY)):
                        heard.extend(map(ear.recv, [SIZE]))  # a handler may raise from here on
            finally:
                try:
                    after.extend(restore)
                except (OSError, ValueError):  # whose it was has closed it
                    if after:
                        raise  # by a handler
                finally:
                    if ours and not after:
                        told = signal.set_wakeup_fd(-1)
                        if told not in (-1, number):  # nothing was changed
                            signal.set_wakeup_fd(told)
                    self._bells.pop(number, None)
                    while selector.select(0):
                        heard.extend(map(ear.recv, [SIZE]))
                    signals = b"".join(heard).replace(b"\0", b"")
                    if signals and after and before[0] != -1:
                        # To a loop in this thread, which waits for us.
                        _try(os.write, before[0], signals)


def _selector(*sockets: socket.socket) -> selectors.BaseSelector:
    """Return a selector; if there is none to be had the sockets are closed."""
    import selectors

    try:
        return selectors.DefaultSelector()
    except BaseException:
        for one in sockets:
            one.close()
        raise


def _try(call: Callable[..., object], *args: object) -> None:
    """Call what is written in C and may fail; what a handler of a signal raises is raised."""
    done: list[object] = []
    try:
        done.extend(map(call, *([arg] for arg in args)))
    except OSError:
        if done:
            raise
