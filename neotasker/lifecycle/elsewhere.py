"""`Elsewhere`: what a supervisor has on loops that it does not own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Event
from typing import Any

from ..base.clock import monotonic
from ..loops.port import ForeignLoop, running_loop
from .registry import Registry
from .whereabouts import Stacks, stack_of_task, title_of_task

__all__ = ["Elsewhere"]

_GLANCE = 0.005  # seconds between two looks whether the tasks have ended


class Elsewhere:
    """What runs of a supervisor's workers, jobs and schedulers on loops of the program.

    Such a loop is not the supervisor's to stop, nor are its tasks to wait for without end:
    who runs it may be the one that waits for the stop.

    Assumes: made as the stop begins, while all of them are still known.
    """

    def __init__(
        self, registry: Registry, job_schedulers: Iterable[Any], now: Callable[[], float]
    ) -> None:
        """Take note of what there is.

        Parameters:
            registry: of the schedulers.
            job_schedulers: those of jobs.
            now: the clock of the ticker.
        """
        self._now = now
        self._ports = registry.foreign_ports()
        for scheduler in job_schedulers:
            self._ports += scheduler._foreign_ports()
        self._told: dict[asyncio.Task[Any], object] = {}  # who has cancelled them
        self.loops = [port.loop for port in self._ports]

    def __contains__(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether something of the supervisor lives on *loop*."""
        return loop is not None and any(loop is other for other in self.loops)

    def has_caller(self) -> bool:
        """Return whether the task that asks is one of those."""
        if running_loop() is None:
            return False
        me = asyncio.current_task()
        return any(me in port.tasks() for port in self._ports)

    def tasks(self) -> Iterator[tuple[ForeignLoop, asyncio.Task[Any], float | None]]:
        """Give the tasks that have not ended, and since when they run, if known."""
        for port in self._ports:
            for task, since in port.tasks().items():
                if not task.done():
                    yield port, task, since if isinstance(since, float) else None

    def settle(self, seconds: float) -> None:
        """Wait for the tasks, as long as their loops run, but no longer than that."""
        deadline = monotonic() + seconds
        pause = Event()
        while any(not port.rests for port, _, _ in self.tasks()) and monotonic() < deadline:
            pause.wait(_GLANCE)

    def cancel(self) -> int:
        """Have the tasks cancelled, each once; return how many of them are told now."""
        told = 0
        me = object()  # among those who cancel at the same time
        for port, task, _ in self.tasks():
            if not port.rests and self._told.setdefault(task, me) is me:
                told += port.post(partial(_cancel, task))
        return told

    def still_running(
        self, stack_of: Stacks
    ) -> Iterator[tuple[str, float | None, Callable[[], str]]]:
        """Give name, age and a function that returns the stack, of each task."""
        now = self._now()
        for port, task, since in list(self.tasks()):
            name = f"{port.name}: {title_of_task(task)}"
            age = None if since is None else max(0.0, now - since)
            yield name, age, partial(_stack, task, port, stack_of)


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def _stack(task: asyncio.Task[Any], port: ForeignLoop, stack_of: Stacks) -> str:
    if asyncio.current_task(port.loop) is task:  # it does not wait: it keeps the loop
        return stack_of.around(task)
    return stack_of_task(task)
