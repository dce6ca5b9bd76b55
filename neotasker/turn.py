"""One turn of a virtual clock: who takes its next step, and when it is over."""

from __future__ import annotations

import contextvars
import time

from .virtual import GLANCE, Works


class Turn:
    """One call of `VirtualClock.advance`.

    A step fires the timers of one moment, or wakes the loops whose time has come, and is
    taken when all that the step before set off has settled. The thread that called
    `advance` takes it, or the pool thread that has just ended the last task: that one need
    not be waited for, and runs what it fires itself, so that a moment costs no hand-over
    from one thread to another.

    Guarantees: steps are taken one at a time, each when all has settled, whoever takes
    them, and in a context of their own, as on the ticker's thread. When `run` has
    returned, no more are taken.

    Assumes: `run` is called once; `lead` is called by pool threads between two tasks, each
    time that there is no task left.

    The condition of the works protects the fields but the last two, which are the caller's.
    What a step fires runs outside it.
    """

    def __init__(self, works: Works, seconds: float) -> None:
        self._works = works
        self._changed = works.changed
        self._target = works.now + seconds
        self._context = contextvars.Context()
        self._stepping = False  # a thread takes a step; only it does
        self._again = False  # a pool thread has come meanwhile
        self._led = False  # pool threads take the steps
        self._over = False
        self._steps = 0
        self._seen = 0  # of them, by the thread that called
        self._give_up = time.monotonic() + works.patience  # when it has seen no more till then

    def run(self) -> None:
        """Take the steps that nobody else takes, until the clock stands at its target.

        Raises:
            RuntimeError: what runs does not settle.
        """
        try:
            while not self._over:
                if self._led:
                    self._watch()
                else:
                    before = self._steps
                    if self._works.settle(lambda: self._led):
                        self._step_after(before)
        finally:
            with self._changed:
                self._over = True
                self._changed.wait_for(lambda: not self._stepping, GLANCE)
        self._works.now = self._target

    def lead(self) -> None:
        """Take steps for as long as they are due, and all has settled: on a pool thread."""
        with self._changed:
            if self._over or self._stepping:
                self._again = True
                return
            if not self._led:
                self._led = True
                self._changed.notify_all()
            self._stepping = True
        try:
            while True:
                while self._works.rests() and self._step():
                    pass
                # Where tasks are left, who ends the last of them comes here again.
                if self._stop_leading(self._works.has_tasks()):
                    break
        except BaseException:
            self._again = False
            self._stop_leading(False)
            raise

    def _stop_leading(self, goes_on: bool) -> bool:
        """Let others take the steps; return False if one has come to do so meanwhile."""
        with self._changed:
            if self._again and not self._over:
                self._again = False
                return False
            self._stepping = False
            self._led = goes_on and not self._over
            if not self._led:
                self._changed.notify_all()
            return True

    def _watch(self) -> None:
        """Wait while pool threads take the steps, and see that they do."""
        with self._changed:
            self._changed.wait(GLANCE)
            moved = self._steps != self._seen
            stuck = self._stepping and not moved
            if moved:
                self._seen = self._steps
                self._give_up = time.monotonic() + self._works.patience
            elif not stuck:
                self._led = False
        if stuck:
            if time.monotonic() > self._give_up:
                raise RuntimeError(self._works.complaint())
            self._works.relieve()  # what it fires may wait for what the pool does

    def _step_after(self, steps: int) -> None:
        """Take a step, if none was taken since all had settled."""
        with self._changed:
            if self._stepping or self._led or self._steps != steps:
                return
            self._stepping = True
        try:
            self._step()
        finally:
            with self._changed:
                self._stepping = self._again = False

    def _step(self) -> bool:
        """Take one step; return False if none was left to take."""
        if self._over:
            return False
        self._over = not self._context.run(self._works.step, self._target)
        self._steps += 1
        return not self._over
