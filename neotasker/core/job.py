"""Runs of a job, where it is a coroutine that an interval makes due.

**Guarantees**, **assumes**: see `JobCore`.

The compiled twin is ``job.pxi``; neither leaves anything out.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import suppress

__all__ = ["JobCore"]


class JobCore:
    """A job's own runs, where it is a coroutine on a loop that has nothing but an interval.

    Guarantees: a run is a task of its own, in a copy of the job's context, that begins
    where it is made; what ends at once costs no pass of the loop.

    Assumes: `_fire_coroutine` is called in the thread of the loop whose tasks are made by
    what `_stage` was given. ``_ready`` says that the job is armed; where it is not, there is a
    run on, or tasks cannot begin at once, ``_fire`` of the subclass is asked.
    """

    __slots__ = ("_began", "_lasted", "_ready", "_running", "_staged", "runs")

    def __init__(self):
        self.runs = 0
        self._running = 0
        self._ready = False
        self._began = None  # when the latest run did, by the ticker's clock
        self._lasted = None

    @property
    def last_duration(self):
        """How many seconds the latest run that has ended took, or None."""
        return self._lasted

    @last_duration.setter
    def last_duration(self, value):
        self._lasted = value

    def _stage(self, call, name, context, maker, ticker):
        """Take what a run needs.

        Parameters:
            maker: what makes tasks of one loop that begin to run where they are made, and
                its options; None: there is no such thing.
        """
        make, options = maker or (None, None)
        self._staged = call, name, context, make, options, ticker.now

    def _fire_coroutine(self):
        """Do what `_fire` does where `_stage` was given options: in one piece."""
        call, name, context, make, options, now = self._staged
        if not self._ready or self._running or make is None:
            self._fire()
            return
        self.runs += 1
        self._running = 1
        coro = task = error = None
        on = False
        try:
            self._began = began = now()
            try:
                coro = call()
                task = make(coro, name=name, context=context.copy(), **options)
            except BaseException as exc:
                # Without this frame, which holds what holds the exception.
                error = exc.with_traceback(exc.__traceback__.tb_next)
                with suppress(BaseException):  # it may be no coroutine
                    coro.close()
            else:
                on = not task.done()
                if on:
                    self._stays_on(began, task)  # sees to the rest, also where it raises
                elif not task.cancelled():
                    error = task.exception()
            if error is not None and not isinstance(error, CancelledError):
                self._failed(error)
            if not on:
                self._lasted = now() - began
        finally:
            if not on:
                self._running = 0
            # The frames of a coroutine that fails in its first step lead to this one.
            self = call = coro = task = error = None
