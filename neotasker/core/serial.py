"""Runs of a worker, one after another.

**Guarantees**, **assumes**: see `SerialCore`.

The compiled twin, ``serial.pxi``, has bytes that are exchanged in place of sets.
"""

from __future__ import annotations

from contextvars import Context
from threading import get_ident

from ..base.targets import INERT

__all__ = ["SerialCore", "Tally"]


class Tally:
    """The counters of a worker, over all its lives."""

    __slots__ = ("errors", "missed", "runs")

    def __init__(self):
        self.runs = 0
        self.missed = 0
        self.errors = 0


class SerialCore:
    """The tokens that keep runs of a worker one after another, and those in the pool.

    Guarantees: never two runs at once. Who finds the worker busy leaves word of what is
    due, and the run that is on sees to it when it ends.

    Two tokens keep that without a lock. ``idle`` is there while no run is on or claimed;
    who takes it has claimed a run. ``queued`` is there from then on until the run begins;
    who takes it begins the run, or makes it void. Word is left before ``idle`` is looked
    at, and looked for after it was put back; so one of the two sees the other. ``pending``
    is such a word: a run is wanted that begins from now on. Here they are sets, whose
    operations are atomic and ordered; in the compiled core they are bytes that are
    exchanged.

    Who fails between taking a token and the step that puts it back gives the claim back, and
    leaves the ticker an errand: to see to the word that others have left meanwhile. A run
    puts ``idle`` back whatever comes out of it.

    Assumes: `_stage` was called before there is a run. A life has `want`, `failed`,
    `returned`, `after_run`, `settle`, `enter_at` and `fire_while_busy`, and `on_run` if it
    has no spacing; a subclass has `enter_taken`, and `enter_slowly` for a pool that does
    not take the run as it is.
    ``owed`` is protected by the life's lock.
    """

    __slots__ = (
        "_checks",
        "_errands",
        "_idle",
        "_kwargs",
        "_lane",
        "_late",
        "_life",
        "_now",
        "_open",
        "_paces",
        "_pending",
        "_queued",
        "_run",
        "_spacing",
        "_tally",
        "_task",
        "_thread",
        "not_before",
        "owed",
    )

    def __init__(self):
        self._idle = {None}
        self._queued = set()
        self._pending = set()
        self._open = True
        self._late = False
        self._task = None
        self._thread = 0
        self.owed = 0
        self.not_before = 0.0  # by the clock; touched by who has claimed a run

    def _stage(self, life, tally, run, kwargs, lane, clock, *, checks, paces, spacing):
        """Take what runs need.

        Parameters:
            run, kwargs: what is called, and its keywords.
            lane: of the pool that they are made in, or None.
            spacing: least seconds between the beginnings of two prompted runs; None: the
                life sees to what is pending or late as a run begins, in `on_run`.
        """
        self._life = life
        self._tally = tally
        self._run = run
        self._kwargs = kwargs
        self._lane = lane
        self._now = clock.now
        # Of the host's ticker. A life on something smaller has none.
        self._errands = getattr(getattr(life, "host", None), "ticker", None)
        self._checks = checks
        self._paces = paces
        self._spacing = spacing

    @property
    def idle(self):
        """Whether no run is on or claimed."""
        return bool(self._idle)

    @property
    def queued(self):
        """Whether a claimed run has not begun."""
        return bool(self._queued)

    @property
    def pending(self):
        """Whether a run is wanted that begins from now on."""
        return bool(self._pending)

    @pending.setter
    def pending(self, value):
        if value:
            self._pending.add(None)
        else:
            self._pending.clear()

    @property
    def open(self):
        """Whether runs may begin."""
        return self._open

    @open.setter
    def open(self, value):
        self._open = value

    @property
    def late(self):
        """Whether something fell due and did not begin at once."""
        return self._late

    @late.setter
    def late(self, value):
        self._late = value

    @property
    def thread(self):
        """The identifier of the thread that the run is on in, or 0."""
        return self._thread

    @thread.setter
    def thread(self, value):
        self._thread = value

    @property
    def task(self):
        """The latest run, or what makes all of them, or None."""
        return self._task

    @task.setter
    def task(self, value):
        self._task = value

    def take_idle(self):
        """Take what says that no run is on; return False if it was not there."""
        return take_token(self._idle)

    def put_idle(self):
        """Put it back."""
        self._idle.add(None)

    def take_queued(self):
        """Begin or make void the claimed run; return False if there is none."""
        return take_token(self._queued)

    def put_queued(self):
        """Have a run claimed that is to begin."""
        self._queued.add(None)

    def claim(self):
        """Claim a run, to be entered; return False if one is on its way or on."""
        if not take_token(self._idle):
            return False
        self._queued.add(None)
        return True

    def give_back(self):
        """Give back a claim that could not be entered, and have left words seen to."""
        try:
            self._queued.pop()
        except KeyError:
            pass
        else:
            self._idle.add(None)
        errands = self._errands
        if errands is not None and (self.owed or self._pending or not self._open):
            errands._do_later(self._life.settle)

    def prompt(self, hold=False):
        """Have a run begin that begins from now on, if none is to, or `not_before`.

        Returns:
            Whether one was claimed that is yet to be entered when it is due; with *hold*
            the caller is to do so in any case.
        """
        self._pending.add(None)
        if not self._life.begun and not self._life.want():
            return False
        if not self._idle:
            return False
        mine = []
        try:
            # In one call: no handler of a signal comes between taking and knowing it.
            mine.extend(map(_pop, (self._idle,)))
            self._queued.add(None)
            mine.append(None)
            # What the run before has set is looked at now that it has ended.
            if hold or (self.not_before and self.not_before > self._now()):
                return True
            self.enter()
        except BaseException as exc:
            if not mine and type(exc) is KeyError:
                return False
            # As `give_back` does, but without a call of Python: near the limit of recursion
            # there is none to be had.
            if mine:
                entered = len(mine) > 1
                try:
                    self._queued.pop()
                    entered = False
                except KeyError:
                    pass
                if not entered:
                    self._idle.add(None)
                errands = self._errands
                if errands is not None:
                    errands._errands.append(self._life.settle)
                    try:  # noqa: SIM105
                        errands._parker.release()
                    except RuntimeError:  # it is awake
                        pass
            raise
        return False

    def trigger(self):
        """Prompt a run, to begin when it is due; return False if none may begin."""
        if not self._open:
            return False
        if self.prompt():
            try:
                self._life.enter_at(self.not_before)
            except BaseException:
                self.give_back()
                raise
        return True

    def answer(self):
        """See to what is pending or late as a run begins that makes up for it."""
        if self._spacing is None:
            self._life.on_run()
            return
        self._pending.clear()
        self._late = False
        if self._spacing:
            self.not_before = self._now() + self._spacing

    def fire(self):
        """Make a run due: on the tick, or in the loop."""
        try:
            self._idle.pop()
        except KeyError:
            self._life.fire_while_busy()
            return
        if self._lane is None:
            self.enter_taken()
        else:
            self._queued.add(None)
            self.enter()

    def enter(self):
        """Hand the claimed run to the pool, or give the claim back and raise."""
        try:
            self._enter()
        except BaseException:
            self.give_back()
            raise

    def _enter(self):
        lane = self._lane
        if lane is not None and lane._dispatcher._launcher is None:
            dispatcher = lane._dispatcher
            # In an empty context: a run is not to see that of who triggers it.
            task = Context().run(dispatcher.make, self.turn, (), None, lane._lane)
            try:
                dispatcher.enqueue(task)
                self._task = task
                return
            except (RuntimeError, MemoryError):  # runs may yet be let in while workers stop
                task.cancel()
        self.enter_slowly()

    def turn(self):
        """Make the claimed run: in a thread of the pool."""
        try:
            self._queued.pop()
        except KeyError:
            return  # void
        life = self._life
        begun = False
        try:
            if self._open:
                begun = True
                if self._pending or self._late:
                    self.answer()
                self._tally.runs += 1
                self._thread = get_ident()
                try:
                    result = self._run(**self._kwargs)
                except BaseException:
                    life.failed()
                else:
                    if result is False or self._checks or type(result) not in INERT:
                        life.returned(result)
        finally:
            self._thread = 0
            try:
                if begun and self._paces:
                    life.after_run()
            finally:
                self._idle.add(None)
                if self.owed or self._pending or not self._open:
                    life.settle()


_pop = set.pop


def take_token(tokens):
    """Take the token out of a set; return False if it is empty."""
    try:
        tokens.pop()
    except KeyError:
        return False
    return True
