"""Priorities, and the arithmetic of the reserves.

A reserve is what teletraffic engineering calls *trunk reservation*: places that
only the lanes above may use. LOW may start a task while fewer than ``pool_size``
run, NORMAL has ``reserve_normal`` places more, HIGH ``reserve_high`` more than
that, and CRITICAL starts always.
"""

from __future__ import annotations

import enum
import os
from typing import Final, Literal

from .known_as import also_known_as, known_as

__all__ = [
    "LANES",
    "TASK_CRITICAL",
    "TASK_HIGH",
    "TASK_LOW",
    "TASK_NORMAL",
    "UNLIMITED",
    "PoolSizes",
    "Priority",
    "default_width",
    "lane_of",
]


@known_as("neotasker.priority")
class Priority(enum.IntEnum):
    """Priority of a task: the smaller the number, the more urgent (values of atasker)."""

    CRITICAL = 0
    HIGH = 50
    NORMAL = 100
    LOW = 200


TASK_CRITICAL: Final = Priority.CRITICAL
TASK_HIGH: Final = Priority.HIGH
TASK_NORMAL: Final = Priority.NORMAL
TASK_LOW: Final = Priority.LOW

LANES: Final = (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)
"""The priorities in the order in which the dispatcher serves their lanes."""

UNLIMITED: Final = 2**31 - 1
"""Stands for "no limit" where the core counts places or threads."""

_LANE_BY_VALUE: Final = {int(priority): lane for lane, priority in enumerate(LANES)}


def lane_of(priority: int) -> int:
    """Return the index in `LANES` of a priority, given as `Priority` or as its number.

    Raises:
        ValueError: there is no such priority.
    """
    try:
        return _LANE_BY_VALUE[priority]
    except (KeyError, TypeError):
        known = ", ".join(f"TASK_{p.name} ({int(p)})" for p in LANES)
        raise ValueError(f"unknown priority {priority!r}: use one of {known}") from None


def default_width() -> int:
    """Return the pool size of a supervisor that was given none: CPU count × 5."""
    return (os.cpu_count() or 1) * 5


def _count(name: str, value: object, least: int) -> int:
    """Return *value* as a whole number of at least *least*, or say what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    return int(value)


class PoolSizes:
    """The sizes of a pool, resolved: what may run, and on how many threads.

    ``pool_size=0`` takes all limits off. ``max_size`` is then `UNLIMITED` unless
    it was given.
    """

    __slots__ = ("max_size", "min_size", "pool_size", "reserve_high", "reserve_normal")

    def __init__(
        self,
        pool_size: int,
        reserve_normal: int,
        reserve_high: int,
        min_size: int,
        max_size: int,
    ) -> None:
        self.pool_size = pool_size
        self.reserve_normal = reserve_normal
        self.reserve_high = reserve_high
        self.min_size = min_size
        self.max_size = max_size

    @property
    def limits(self) -> tuple[int, int, int, int]:
        """Return how many tasks may run at once for a lane to start one more, per lane."""
        if not self.pool_size:
            return (UNLIMITED,) * 4
        normal = self.pool_size + self.reserve_normal
        return (UNLIMITED, normal + self.reserve_high, normal, self.pool_size)

    @classmethod
    def resolve(
        cls,
        *,
        pool_size: int | None = None,
        reserve_normal: int | None = None,
        reserve_high: int | None = None,
        min_size: int | Literal["max"] | None = None,
        max_size: int | None = None,
        width: int | None = None,
    ) -> PoolSizes:
        """Fill in what was left out.

        Parameters:
            pool_size: places for all lanes; 0 takes all limits off.
            reserve_normal: places for NORMAL and above; none when left out.
            reserve_high: places for HIGH and above; none when left out.
            min_size: threads that are always there, or ``'max'`` for all of them.
            max_size: the most threads; ``pool_size`` plus the reserves when left out.
            width: the pool size when neither it nor ``max_size`` is given;
                CPU count × 5 when left out.

        Raises:
            TypeError: a size is not a whole number.
            ValueError: a size is negative, or the sizes contradict one another.
        """
        normal = 0 if reserve_normal is None else _count("reserve_normal", reserve_normal, 0)
        high = 0 if reserve_high is None else _count("reserve_high", reserve_high, 0)
        most = None if max_size is None else _count("max_size", max_size, 1)
        if pool_size is not None:
            places = _count("pool_size", pool_size, 0)
        elif most is not None:
            places = most - normal - high
            if places < 1:
                raise ValueError(
                    f"max_size ({most}) leaves no place beside the reserves "
                    f"({normal} + {high}): raise max_size or lower the reserves"
                )
        else:
            places = default_width() if width is None else _count("width", width, 1)
        if most is None:
            most = places + normal + high if places else UNLIMITED
        if min_size == "max":
            least = most if most != UNLIMITED else default_width()
        elif isinstance(min_size, str):
            raise ValueError(f"min_size must be a whole number or 'max', not {min_size!r}")
        else:
            least = 0 if min_size is None else _count("min_size", min_size, 0)
        if least > most:
            raise ValueError(
                f"min_size ({least}) can not be larger than max_size ({most}): "
                "lower min_size or raise max_size"
            )
        return cls(places, normal, high, least, most)


also_known_as("neotasker.priority", __name__)
