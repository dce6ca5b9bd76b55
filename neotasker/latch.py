"""An event to wait for in the main thread."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    import socket

__all__ = ["Latch"]


class Latch:
    """An event that is set once, and lets Ctrl+C through to whoever waits for it.

    The main thread sleeps on a socket, which `set` and every signal write to: where the
    system's locks are not interrupted (Windows), or the interpreter may overlook a
    signal that comes just as it begins to wait (free-threaded builds), an event sleeps on.

    A handler that raises (as Ctrl+C does) may do so anywhere in a wait: whoever was told of
    signals before is told again nevertheless (in CPython; elsewhere nobody may be, if it
    comes at the worst of times). What else it cuts short, the collector closes.

    The lock protects the set of those sockets.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.RLock()
        self._bells: WeakSet[socket.socket] = WeakSet()

    def is_set(self) -> bool:
        """Return whether it was set."""
        return self._event.is_set()

    def set(self) -> None:
        """Wake all who wait, and let pass who comes."""
        self._event.set()
        with self._lock:
            bells = list(self._bells)
        for bell in bells:
            with contextlib.suppress(OSError):  # full, or gone: then it has rung
                bell.send(b"\0")

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
            bell.setblocking(False)
            heard = b""
            before: list[int] = []
            tell = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)
            change = map(tell, [bell.fileno()])
            try:
                try:
                    # One call for the change and the note of what was before: in CPython a
                    # handler that raises does not come between.
                    before.extend(change)
                except ValueError:  # not the main interpreter, which gets no signals
                    return self._event.wait(timeout)
                with self._lock:
                    self._bells.add(bell)
                while not self._event.is_set():
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    if selector.select(left):
                        heard += ear.recv(4096)  # a handler that raises does so from here on
            finally:
                try:
                    signal.set_wakeup_fd(before[0])  # at once: handlers come after a call
                except (IndexError, OSError, ValueError):  # no note of it, or closed meanwhile
                    with contextlib.suppress(ValueError):
                        signal.set_wakeup_fd(-1)
                finally:
                    with self._lock:
                        self._bells.discard(bell)
                    signals = heard.replace(b"\0", b"")
                    if signals and before[0] != -1:  # a loop in this thread, which waits for us
                        with contextlib.suppress(OSError):
                            os.write(before[0], signals)
        return self._event.is_set()
