"""What sleeps in the main thread lets signals through, and leaves no trace of it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers import switch_interval

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs an interval timer")


class Struck(OSError):
    """Raised by a signal's handler wherever the main thread is, as TimeoutError often is."""


@pytest.fixture
def strike():
    """Let SIGALRM raise in the main thread."""

    def raise_struck(number, frame):
        raise Struck

    before = signal.signal(signal.SIGALRM, raise_struck)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def listener():
    """Have a socket that signals are told to, as an event loop has."""
    ear, bell = socket.socketpair()
    with ear, bell:
        ear.setblocking(False)
        bell.setblocking(False)
        before = signal.set_wakeup_fd(bell.fileno())
        yield ear, bell
        signal.set_wakeup_fd(before)


def wait_until_struck(latch, microseconds):
    """Wait, and be struck so long after it began to."""
    try:
        signal.setitimer(signal.ITIMER_REAL, microseconds * 1e-6)
        latch.wait(microseconds * 0.5e-6)
        for _ in range(10):
            time.sleep(0.001)
    except Struck:
        pass


def test_a_handler_that_raises_anywhere_in_a_wait_leaves_no_trace(nt, strike, listener):
    ear, bell = listener
    latch = nt.base.latch.Latch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # struck as a pair was made or closed
        for microseconds in range(1, 500):
            wait_until_struck(latch, microseconds)
            told = signal.set_wakeup_fd(bell.fileno())
            if sys.implementation.name == "cpython":
                assert told == bell.fileno(), microseconds
            bell.send(b"\0")
            assert ear.recv(10).strip(bytes([signal.SIGALRM])) == b"\0"  # no byte of its own
        gc.collect()
    assert not latch.wait(0)
    assert len(latch._bells) < 3  # those that were struck as they were let go
    latch.set()
    assert latch.wait(0)


def test_a_listener_that_is_closed_meanwhile_is_not_set_again(nt, strike):
    latch = nt.base.latch.Latch()
    ear, bell = socket.socketpair()
    with ear:
        with bell:
            bell.setblocking(False)
            before = signal.set_wakeup_fd(bell.fileno())
            signal.signal(signal.SIGALRM, lambda number, frame: (bell.close(), latch.set()))
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert latch.wait(10)
        assert signal.set_wakeup_fd(before) == -1


def test_whoever_waits_as_it_is_set_is_woken(nt):
    with switch_interval(1e-6), ThreadPoolExecutor(5) as executor:
        for _ in range(200):
            latch = nt.base.latch.Latch()
            start = threading.Barrier(6)

            def wait(latch=latch, start=start):
                start.wait()
                return latch.wait(20)

            def set_it(latch=latch, start=start):
                start.wait()
                latch.set()

            waiting = [executor.submit(wait) for _ in range(4)]
            executor.submit(set_it)
            assert wait() is True  # in the main thread
            assert [future.result(20) for future in waiting] == [True] * 4
            assert latch.is_set() and not latch._sleepers and not latch._bells


def test_a_wait_that_is_not_answered_ends_in_time(nt):
    latch = nt.base.latch.Latch()
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(latch.wait, 0.01).result(10) is False
        assert executor.submit(latch.wait, -1).result(10) is False
        month = executor.submit(latch.wait, 30 * 86_400)
        for timeout in (0, -1, 0.01):
            assert latch.wait(timeout) is False
        threading.Timer(0.05, latch.set).start()
        assert latch.wait(30 * 86_400) is True
        assert month.result(10) is True
    assert latch.wait() is True


def test_a_signal_meanwhile_is_told_to_who_was_told_before(nt, listener):
    ear, _ = listener
    latch = nt.base.latch.Latch()
    before = signal.signal(signal.SIGALRM, lambda number, frame: latch.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert latch.wait(10)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ear.recv(10) == bytes([signal.SIGALRM])
