"""What tests of queue workers have in common."""

from __future__ import annotations

import asyncio
import threading

import pytest


@pytest.fixture
def make(nt, host, is_async):
    """Return what makes and starts a queue worker of a plain function."""

    def make(fn, **options):
        async def coroutine(item):
            return fn(item)

        target = coroutine if is_async else fn
        worker = nt.BackgroundQueueWorker("q", target, supervisor=host, **options)
        worker.start()
        return worker

    return make


class Gate:
    """A target that notes its items, and holds each until it is opened."""

    def __init__(self, is_async):
        self.items = []
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.target = self.coroutine if is_async else self.plain

    def plain(self, item):
        self.items.append(item)
        self.begun.release()
        assert self.open.wait(10)

    async def coroutine(self, item):
        self.items.append(item)
        self.begun.release()
        while not self.open.is_set():
            await asyncio.sleep(0.001)


@pytest.fixture
def gate(is_async):
    """A target that is held until it is opened; it is when the test ends."""
    gate = Gate(is_async)
    yield gate
    gate.open.set()


@pytest.fixture
def held(nt, host, gate):
    """Return what makes a worker that holds its first item, and some items behind it."""

    def held(items, first="first", **options):
        worker = nt.BackgroundQueueWorker("q", gate.target, supervisor=host, **options)
        worker.start()
        if first is not None:
            worker.put_threadsafe(first)
            assert gate.begun.acquire(timeout=10)
        for item in items:
            worker.put_threadsafe(item)
        return worker

    return held
