"""One turn of a virtual clock: who takes its next step, and when it is over."""

from __future__ import annotations

import contextvars

from ..base.clock import monotonic
from ..core import Dispatcher
from .virtual import Works


class Turn:
    """One call of `VirtualClock.advance`.

    A step fires the timers of one moment, or wakes the loops whose time has come, and is
    taken when all that the step before set off has settled. The thread that called
    `advance` takes it, or the pool thread that has just ended the last task: that one need
    not be waited for, and runs what it fires itself, so that a moment costs no hand-over
    from one thread to another.

    Guarantees: steps are taken one at a time, each when all has settled, whoever takes
    them, and in a context of their own, as on the ticker's thread. When `run` has
    returned, or raised, no more are begun.

    Assumes: `run` is called once; `lead` is called by pool threads between two tasks, each
    time that there is no task left.

    The lock of the works protects the fields. What a step fires runs outside it.
    """

    def __init__(self, works: Works, seconds: float) -> None:
        self._works = works
        self._target = works.now + seconds
        self._context = contextvars.Context()
        self._again = False  # a pool thread has come while another took a step
        self._led = False  # pool threads take the steps
        self._over = False
        self._steps = 0
        self._moved = monotonic()  # when a step began or ended
        self._error: BaseException | None = None  # of a pool thread's step

    def run(self) -> None:
        """Take the steps that nobody else takes, until the clock stands at its target.

        Raises:
            RuntimeError: what runs does not settle.
        """
        try:
            while not self._over:
                steps = self._steps
                self._works.let_go()
                if self._led:
                    self._watch(steps)
                elif self._works.settle(self._called_off):
                    self._step_after(steps)
                elif self._late():
                    raise RuntimeError(self._works.complaint())
                if self._error is not None:
                    raise self._error
        finally:
            self._end()
        self._works.now = max(self._works.now, self._target)

    def lead(self, dispatcher: Dispatcher) -> None:
        """Take steps for as long as they are due, and all has settled: on a pool thread.

        Parameters:
            dispatcher: whose thread it is; it leads no longer than that needs it.
        """
        with self._works.lock:
            if self._over or self._works.stepping:
                self._again = True
                return
            self._works.stepping = True
            if not self._led:
                self._led = True
                self._works.ring()
        try:
            while True:
                while not dispatcher.leaving and self._works.rests() and self._step():
                    pass
                # Where tasks are left, who ends the last of them comes here again.
                if self._stop_leading(self._works.has_tasks()):
                    break
        except BaseException as exc:  # for who called `advance`
            with self._works.lock:
                self._error = exc
                self._works.stepping = self._led = self._again = False
                self._works.ring()

    def _stop_leading(self, goes_on: bool) -> bool:
        """Let others take the steps; return False if one has come to do so meanwhile."""
        with self._works.lock:
            if self._again and not self._over:
                self._again = False
                return False
            self._works.stepping = False
            self._led = goes_on and not self._over
            if not self._led:
                self._works.ring()
            return True

    def _watch(self, steps: int) -> None:
        """Wait while pool threads take the steps, and see that they do."""
        self._works.wait(lambda: not self._led)
        with self._works.lock:
            stands = self._steps == steps
            stuck = stands and self._works.stepping
            if stands and not stuck:
                self._led = False
        if stuck:
            if self._late():
                raise RuntimeError(self._works.complaint())
            self._works.relieve()  # what it fires may wait for what the pool does

    def _called_off(self) -> bool:
        return self._led or self._late()

    def _late(self) -> bool:
        """Return whether there was no step for longer than the patience."""
        return monotonic() > self._moved + self._works.patience

    def _step_after(self, steps: int) -> None:
        """Take a step, if none was taken since all had settled."""
        mine = False
        try:
            with self._works.lock:
                mine = not (self._works.stepping or self._led or self._steps != steps)
                self._works.stepping |= mine
            if mine:
                self._step()
        finally:
            if mine:
                with self._works.lock:
                    self._works.stepping = self._again = False

    def _step(self) -> bool:
        """Take one step; return False if none was left to take."""
        with self._works.lock:
            if self._over:
                return False
            self._moved = monotonic()
        taken = self._context.run(self._works.step, self._target)
        with self._works.lock:
            self._moved = monotonic()
            self._steps += 1
            if not taken:
                self._over = True
            return not self._over

    def _end(self) -> None:
        """Have no more steps taken, and let others serve in place of who is stuck in one."""
        self._works.let_go()
        with self._works.lock:
            self._over = True
        if not self._works.wait(lambda: not self._works.stepping):
            self._works.relieve()
