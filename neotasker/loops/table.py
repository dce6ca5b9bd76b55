"""The table of a supervisor's aloops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal

from ..base import green
from ..base.clock import Clock
from ..base.report import Reporter
from ..errors import AloopError, SupervisorNotStarted, UnknownAloop
from .aloop import ALoop, LoopFactory

__all__ = ["OWN_LOOP", "AloopTable"]

OWN_LOOP = "__supervisor__"
"""The name that the supervisor's own loop answers to."""

logger = Reporter("neotasker")


class AloopTable:
    """The aloops of one supervisor by name, the default one, and the supervisor's own.

    Guarantees: a name is taken by one aloop only, from `create` on. Between `close` and
    `open` none starts by `create` or `start`.

    The lock protects the table and the default; no aloop is started or stopped under it.
    """

    def __init__(self, supervisor_id: str, clock: Clock, on_end: Callable[[], object]) -> None:
        """Make an empty table.

        Parameters:
            supervisor_id: whose aloops these are.
            clock: what the loops go by, if it can make them do so (``adopt``).
            on_end: called whenever an aloop has ended.
        """
        self._id = supervisor_id
        self._clock = clock
        self._on_end = on_end
        self._lock = threading.RLock()
        self._none_starts = threading.Condition(self._lock)
        self._starting = 0
        self._by_name: dict[str, ALoop] = {}
        self._default: ALoop | None = None
        self._closed = False  # the supervisor stops what there is
        self._ended = False  # the process has no main thread any more
        self.own = ALoop(
            OWN_LOOP,
            supervisor_id,
            loop_factory=self._by_the_clock(None),
            thread_name=f"supervisor_{supervisor_id}_event_loop",
        )

    def _by_the_clock(self, factory: LoopFactory | None) -> LoopFactory | None:
        """Return a factory of loops that go by the clock."""
        adopt = getattr(self._clock, "adopt", None)
        if adopt is None or (factory is not None and not callable(factory)):
            return factory
        return lambda: adopt((factory or asyncio.SelectorEventLoop)())

    def create(
        self,
        name: str,
        daemon: bool,
        start: bool,
        default: bool,
        loop_factory: LoopFactory | None,
    ) -> ALoop | Literal[False]:
        """Make an aloop; see ``TaskSupervisor.create_aloop``."""
        if not isinstance(name, str):
            raise TypeError(f"the name of an aloop must be a string, not {name!r}")
        if name == OWN_LOOP:
            raise AloopError(
                f"the name {OWN_LOOP!r} is that of the supervisor's own loop, it is reserved: "
                "choose another"
            )
        prefix = "supervisor" if self._id == "default" else f"supervisor_{self._id}"
        factory = self._by_the_clock(loop_factory)
        aloop = ALoop(name, self._id, daemon, factory, f"{prefix}_aloop_{name}")
        aloop.on_end = self._on_end
        with self._lock:
            self._check_open(name)
            if self._by_name.setdefault(name, aloop) is not aloop:
                logger.error("supervisor %s aloop %s already exists", self._id, name)
                return False
        if start:
            try:
                self.start(aloop)
            except BaseException:
                with self._lock:
                    del self._by_name[name]
                raise
        if default:
            with self._lock:
                self._default = aloop
        return aloop

    def start(self, aloop: ALoop) -> bool:
        """Start an aloop, unless the supervisor is stopping them.

        Raises:
            SupervisorNotStarted: it is.
        """
        with self._lock:
            self._check_open(aloop.name)
            self._starting += 1
        try:
            return aloop.start()
        finally:
            with self._lock:
                self._starting -= 1
                closed = self._closed or self._ended
                self._none_starts.notify_all()
            if closed:  # who closed may have given up waiting for this one
                aloop.ask_stop(cancel=True)

    def close(self, timeout: float) -> None:
        """Let no aloop start until `open`: those that run now are all that there are.

        Parameters:
            timeout: seconds to wait for those that are being started, in whose loop
                factories anything may go on.
        """
        with self._lock:
            self._closed = True
            self._none_starts.wait_for(lambda: not self._starting, timeout)

    def end(self) -> None:
        """Let no aloop start ever again: the process ends, and nobody would stop it."""
        with self._lock:
            self._ended = True

    def open(self) -> None:
        """Let aloops start again."""
        with self._lock:
            self._closed = False

    def _check_open(self, name: str) -> None:
        patcher = green.patcher_of("threading")
        if patcher is not None:
            raise AloopError(
                f"supervisor {self._id}: aloop {name} is refused: the threads are those of "
                f"{patcher}, all in one of the system, which runs one loop: that of the "
                "supervisor; leave the aloop out to use it"
            )
        if self._ended:
            raise RuntimeError(
                f"supervisor {self._id}: aloop {name} cannot start: the main thread of the "
                "process has ended, and with it what would stop the aloop; start it before that"
            )
        if self._closed:
            raise SupervisorNotStarted(
                f"supervisor {self._id} is stopping, aloop {name} is refused: make it when "
                "stop() has returned"
            )

    def find(self, name: str) -> ALoop | None:
        """Return the aloop of that name, or None with a line in the log."""
        with self._lock:
            aloop = self._by_name.get(name)
        if aloop is None:
            logger.error("supervisor %s aloop %s not found", self._id, name)
        return aloop

    def get(self, name: str | None) -> ALoop | None:
        """Return the aloop of that name, the default one for None; None if there is none."""
        with self._lock:
            return self._default if name is None else self._by_name.get(name)

    def all(self) -> dict[str, ALoop]:
        """Return the aloops by name: a copy, without the supervisor's own."""
        with self._lock:
            return dict(self._by_name)

    def running(self) -> list[ALoop]:
        """Return the aloops that run, without the supervisor's own."""
        return [aloop for aloop in self.all().values() if aloop.active]

    def set_default(self, aloop: ALoop | str | None) -> None:
        """Set the aloop that is used when none is named; None: no more.

        Raises:
            UnknownAloop: there is none of that name.
            TypeError: it is neither an aloop nor a name.
        """
        if isinstance(aloop, str):
            aloop = self.named(aloop)
        elif aloop is not None and not isinstance(aloop, ALoop):
            raise TypeError(f"an aloop or the name of one is needed, not {aloop!r}")
        with self._lock:
            self._default = aloop

    def named(self, name: str) -> ALoop:
        """Return the aloop of that name.

        Raises:
            UnknownAloop: there is none; the message names those that there are.
        """
        if name == OWN_LOOP:
            return self.own
        with self._lock:
            aloop = self._by_name.get(name)
            known = sorted(self._by_name)
        if aloop is None:
            there = f"there are {', '.join(known)}" if known else "there are none"
            raise UnknownAloop(
                f"supervisor {self._id} has no aloop {name!r} ({there}): "
                f"make it with create_aloop({name!r})"
            )
        return aloop

    def resolve(
        self, loop: ALoop | str | asyncio.AbstractEventLoop | None
    ) -> ALoop | asyncio.AbstractEventLoop:
        """Return the aloop or loop that *loop* means, which runs if it is an aloop.

        None means the default aloop, or else the supervisor's own loop.

        Raises:
            UnknownAloop: there is no aloop of that name.
            AloopError: the aloop does not run.
            TypeError: it is none of the above.
        """
        if loop is None:
            aloop = self.get(None) or self.own
        elif isinstance(loop, str):
            aloop = self.named(loop)
        elif isinstance(loop, ALoop):
            aloop = loop
        elif isinstance(loop, asyncio.AbstractEventLoop):
            for known in (*self.all().values(), self.own):
                if known.get_loop() is loop:
                    return known
            return loop
        else:
            raise TypeError(f"an aloop, its name or an asyncio loop is needed, not {loop!r}")
        if not aloop.active:
            way = "start()" if aloop is self.own else f"start_aloop({aloop.name!r})"
            raise AloopError(
                f"supervisor {self._id} aloop {aloop.name} does not run: call {way} first"
            )
        return aloop

    def abandon(self) -> None:
        """Free the lock in a forked child; the aloops see to themselves."""
        self._lock = threading.RLock()
        self._none_starts = threading.Condition(self._lock)
        self._starting = 0
        self._closed = self._ended = False
