"""The typed surface of the pure core: that of `_core.pyi`."""

from ._core import COMPILED as COMPILED
from ._core import Dispatcher as Dispatcher
from ._core import EagerStart as EagerStart
from ._core import FutureCore as FutureCore
from ._core import JobCore as JobCore
from ._core import Mailbox as Mailbox
from ._core import SerialCore as SerialCore
from ._core import Submitter as Submitter
from ._core import Tally as Tally
from ._core import TaskCore as TaskCore
from ._core import TickerCore as TickerCore
from ._core import TimerCore as TimerCore

__all__ = [
    "COMPILED",
    "Dispatcher",
    "EagerStart",
    "FutureCore",
    "JobCore",
    "Mailbox",
    "SerialCore",
    "Submitter",
    "Tally",
    "TaskCore",
    "TickerCore",
    "TimerCore",
]
