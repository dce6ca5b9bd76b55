"""How the turns of a queue worker are counted, and its life ends with the last."""

from __future__ import annotations

from _thread import start_new_thread
from concurrent.futures import Executor
from typing import Any

from ...base.report import Reporter
from ...host import Host
from ..call import Call
from ..in_loop import LoopRuns
from ..life import Life
from .tokens import Tokens

__all__ = ["CountedLife"]

logger = Reporter("neotasker")

_RETRY = 1.0  # seconds until a turn that the pool would not take is handed to it again


def _take(tokens: list[None]) -> bool:
    """Take a token out of a list; return False if it is empty."""
    try:
        tokens.pop()
    except IndexError:
        return False
    return True


class CountedLife(Life):
    """A life of several turns at once: how many there are, and when the last has ended.

    A *turn* fetches items until there is none, or its quantum is over: in a thread of the
    pool, or on the loop.

    Guarantees: at most *width* runs at once; what was fetched is run, or given back when
    the life is closed. The life ends when the last turn has, whatever waits to begin: a
    turn that has not begun is void, unless the life drains. All this holds whatever a
    finalizer, signal handler or another thread does between any two steps.

    No lock is needed for that, and none would do: a reentrant one does not keep out the
    thread that has it. Two rules take its place. A turn needs one of *width* tokens, which
    goes from hand to hand by one operation each: free, queued while the turn is about to be,
    taken from there by who begins it. And who changes something leaves word
    first, then looks: a put adds its item, then tries for a token; a turn puts its token
    back, then looks for items; a turn notes that it has begun, then looks whether the life
    is closed; a close says that it is, then looks for turns that have begun. Of two that
    meet one sees the other, and if both do no harm is done: what follows, a turn that finds
    nothing or the end of a life that has ended, may come twice.

    Assumes: ``append`` and ``pop`` of lists are atomic, and order what is before and after.
    """

    __slots__ = (
        "_batch",
        "_executor",
        "_free",
        "_interrupted",
        "_main_done",
        "_on",
        "_on_loop",
        "_putting",
        "_queued",
        "_threads",
        "_unclosed",
        "_unended",
        "_width",
        "drains",
        "driver",
    )

    def __init__(
        self,
        worker: Any,
        host: Host,
        call: Call,
        width: int,
        batch: int | None,
        port: Any,
        executor: Executor | None,
    ) -> None:
        """Make a life.

        Parameters:
            worker, host, call: see `Life`.
            width: how many turns there may be at once.
            batch: the most items that a run gets, as a list; None: one, as it is.
            port: the way into the loop, for an async target.
            executor: in place of the host's pool, for a plain one.
        """
        super().__init__(worker, host, call)
        self.drains = False  # closed, and to process what it holds
        self._free = Tokens(width)  # a turn that is on or about to be has taken one
        self._queued: list[None] = []  # one for each turn that is about to be
        self._on: list[None] = []  # one for each turn that has begun
        self._putting: list[None] = []  # one for each put that is under way
        self._unclosed = Tokens(1)
        self._unended = Tokens(1)
        self._width = width
        self._batch = batch
        self._executor = executor
        self._interrupted: list[Any] = []  # items whose run was cancelled
        self._threads: list[int] = []  # those of the turns in the pool
        self._main_done = False  # the worker's task has ended
        self._on_loop = port is not None  # where the turns are
        self.driver: LoopRuns | None = None
        if port is not None:
            self.driver = LoopRuns(port, worker.loop, self)

    # For the kinds to fill in.

    def _ready(self) -> bool:
        """Return whether there is something to fetch that nobody is fetching."""
        raise NotImplementedError

    def enter(self) -> None:
        """Make a turn that is queued begin soon: from any thread."""
        raise NotImplementedError

    @property
    def _title(self) -> str:
        return self.worker._title

    # Turns begin and end.

    def engage(self) -> None:
        """See that a turn fetches what there is."""
        if self.begun and (self.open or self.drains) and self._free.move(self._queued):
            try:
                self.enter()
            except BaseException:  # whatever has come of that; it needs a fresh stack
                start_new_thread(self._enter_again, ())
                raise

    def _enter_again(self) -> None:
        """Do what may be half done. A turn that is entered twice begins once."""
        try:
            self.enter()
        except BaseException as exc:
            self._lose_turn(exc)

    def _engage_if_ready(self) -> None:
        """See that a turn fetches what there is, if there is anything."""
        if self._ready():
            self.engage()

    def _on_turn_done(self, task: Any) -> None:
        if task.cancelled():
            self._lose_turn(None)
        elif (error := task.exception()) is not None:  # an executor would not run it
            self._lose_turn(error)

    def _lose_turn(self, exc: BaseException | None) -> None:
        """Account for a turn that has not begun, and will not."""
        if not _take(self._queued):
            return
        self._free.put()
        if self.open:
            if self.host.active:
                if exc is not None:
                    logger.error("worker %s: its run was refused: %s", self._title, exc)
                self.host.ticker.call_later(_RETRY, self.engage)
        elif self._free.all_back():
            self.drains = False  # there is nobody to do it
        self._look_over()

    def _begin_turn(self) -> bool:
        """Mark a turn as begun; return False if it is void, as the life is closed."""
        if not _take(self._queued):
            return False  # it was entered twice
        self._on.append(None)
        if self.open or self.drains:
            return True
        self._on.pop()
        self._free.put()
        self._look_over()
        return False

    def _pause_turn(self) -> bool:
        """Queue a turn that is on once more; return False if it is not to begin again."""
        self._on.pop()
        if self.open or self.drains:
            self._queued.append(None)
            return True
        self._free.put()
        self._look_over()
        return False

    def _leave(self) -> bool:
        """End a turn; return False if there is more for it to do."""
        self._on.pop()
        self._free.put()
        # Who comes from now on finds the token; who came before has left word.
        if (self.open or self.drains) and self._ready() and self._free.take():
            self._on.append(None)
            return False
        self._look_over()
        return True

    def _is_over(self) -> bool:
        """Return whether nothing more will be processed."""
        if self.open or self._putting or self._on:
            return False
        return not self.drains or (self._free.all_back() and not self._ready())

    def _look_over(self) -> None:
        """End the life if it is over: after each step that may be the last."""
        if not self._is_over():
            return
        if self.driver is None or self._main_done or self.driver.is_loose():
            self.end()
        else:
            self.driver.wake_threadsafe()

    def finish(self) -> None:
        """End with the worker's task: in the loop."""
        if self.open:
            logger.warning("worker %s: its task was cancelled", self._title)
            self.stop_worker()
        self.drains = False
        self._main_done = True
        if self._is_over():
            self.end()

    # Life.

    @property
    def turns(self) -> int:
        """How many turns are on or about to be."""
        return self._free.taken

    @property
    def on(self) -> int:
        """How many turns have begun."""
        return len(self._on)

    def begin(self) -> None:
        """Set out, or end if the worker was stopped before it came to that."""
        self.begun = True  # first: who closes asks whether there will be anybody to drain
        self.after = None
        if self.open or self.drains:
            self._begin()
        else:
            self.end()

    def _begin(self) -> None:
        if self.driver is not None:
            self.driver.begin()
        if self.drains or self._ready():  # items may have come, if this life follows another
            self.engage()

    def close(self, drain: bool = False) -> None:
        """Let no run begin from now on; end at once if none is on."""
        if not self.open or not self._unclosed.take():
            return
        self._prepare_close(drain)  # first, as it is asked for when the life is not open
        self.open = False
        self._on_close()
        if self.after is None and self._is_idle():
            self.end()

    def _prepare_close(self, drain: bool) -> None:
        self.drains = drain and (self.begun or self.after is not None)

    def _is_idle(self) -> bool:
        if self.driver is not None and not self.driver.is_loose():
            return False
        return not self.drains and self._is_over()

    def _on_close(self) -> None:
        if self.drains and self.begun and self._free.move(self._queued):
            self.enter()
        elif self.driver is not None and self.driver.task is not None:
            self.driver.wake_threadsafe()

    def hurry(self) -> None:
        """Drain no more."""
        if self.open or not self.drains:
            return
        self.drains = False
        self._look_over()

    def end(self) -> None:
        """Tell everybody that the last run has ended."""
        if self._unended.take():
            super().end()

    def current_task(self) -> Any:
        """Return something true while a turn is on or about to be, else None."""
        return None if self._free.all_back() else self
