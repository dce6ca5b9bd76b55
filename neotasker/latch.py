"""An event to wait for in the main thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING
from weakref import ReferenceType, ref

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["Latch"]


class Latch:
    """An event that is set once, and lets Ctrl+C through to whoever waits for it.

    The main thread sleeps on a socket, which `set` and every signal write to: where the
    system's locks are not interrupted (Windows), or the interpreter may overlook a
    signal that comes just as it begins to wait (free-threaded builds), an event sleeps on.

    A handler that raises (as Ctrl+C does) may do so anywhere in a wait: whoever was told of
    signals before is told again nevertheless (in CPython; elsewhere nobody may be, if it
    comes at the worst of times). What else it cuts short, the collector closes.

    There is no lock that such a handler could leave taken. The main thread puts its socket
    into the dictionary and then looks at the event; `set` sets the event and then copies the
    dictionary: as each of the two takes one step that is not divided, one sees the other.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._bells: dict[int, ReferenceType[socket.socket]] = {}

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._event.is_set()

    def set(self) -> None:
        """Wake all who wait, and let pass who comes."""
        self._event.set()
        for refer in list(self._bells.values()):
            bell = refer()
            if bell is not None:
                _try(bell.send, b"\0")  # if it is full, or gone, it has rung

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set; return whether it is.

        Parameters:
            timeout: seconds; None waits for ever.
        """
        if self._event.is_set() or threading.current_thread() is not threading.main_thread():
            return self._event.wait(timeout)
        return self._wait_by_socket(timeout)

    def _wait_by_socket(self, timeout: float | None) -> bool:
        import selectors
        import signal
        import socket

        deadline = None if timeout is None else time.monotonic() + timeout
        ear, bell = socket.socketpair()
        with ear, bell, selectors.DefaultSelector() as selector:
            selector.register(ear, selectors.EVENT_READ)
            ear.setblocking(False)
            bell.setblocking(False)
            number = bell.fileno()
            tell = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)
            before: list[int] = []
            after: list[int] = []
            # Each is used in one call, so that in CPython no handler comes between the change
            # and the note of it: handlers run after a call.
            change, restore = map(tell, [number]), map(tell, before)
            ours = True
            heard = b""
            try:
                try:
                    before.extend(change)
                except ValueError:
                    if before:
                        raise  # by a handler
                    ours = False  # not the main interpreter, which gets no signals
                    return self._event.wait(timeout)
                self._bells[number] = ref(bell)
                while not self._event.is_set():
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    if selector.select(left):
                        heard += _all_of(ear)  # a handler that raises does so from here on
            finally:
                try:
                    after.extend(restore)
                except (OSError, ValueError):  # whose it was has closed it
                    if after:
                        raise  # by a handler
                finally:
                    if ours and not after:
                        signal.set_wakeup_fd(-1)
                    self._bells.pop(number, None)
                    signals = (heard + _all_of(ear)).replace(b"\0", b"")
                    # To a loop in this thread, which waits for us.
                    if signals and before and before[0] != -1:
                        _try(os.write, before[0], signals)
        return self._event.is_set()


def _all_of(ear: socket.socket) -> bytes:
    """Return what a socket that does not block has got."""
    heard = b""
    with contextlib.suppress(BlockingIOError):
        while piece := ear.recv(4096):
            heard += piece
    return heard


def _try(call: Callable[..., object], *args: object) -> None:
    """Call what is written in C and may fail; what a handler of a signal raises is raised."""
    done: list[object] = []
    try:
        done.extend(map(call, *([arg] for arg in args)))
    except OSError:
        if done:
            raise
