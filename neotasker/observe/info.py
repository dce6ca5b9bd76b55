"""What `TaskSupervisor.get_info` returns: plain objects that pickle."""

from __future__ import annotations

from typing import Any

from ..base.known_as import also_known_as, known_as
from ..base.priority import LANES, UNLIMITED
from ..loops.aloop import ALoop
from ..pool.pool import TaskPool
from ..pool.task import Task

__all__ = ["AloopInfo", "SchedulerInfo", "SupervisorInfo", "pool_figures"]

_PER_LANE = (
    "waiting",
    "submitted",
    "started",
    "completed",
    "failed",
    "cancelled",
    "wait_seconds",
)


@known_as("neotasker.info")
class _Plain:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({values})"


@known_as("neotasker.info")
class SupervisorInfo(_Plain):
    """A supervisor at one moment.

    Attributes:
        id, active: as of the supervisor.
        aloops: `AloopInfo` by name.
        schedulers: `SchedulerInfo` by name.
        async_job_schedulers: `SchedulerInfo` by name.
        pool: sizes and figures, see `pool_figures`.
        mp_pool: the same of the pool of processes, where there is one.
        tasks: by id, where they were asked for.
    """

    id: str
    active: bool
    aloops: dict[str, AloopInfo]
    schedulers: dict[str, SchedulerInfo]
    async_job_schedulers: dict[str, SchedulerInfo]
    pool: dict[str, Any]
    mp_pool: dict[str, Any]
    tasks: dict[str, Task[Any]]

    # As atasker calls it.

    @property
    def started(self) -> bool:
        """Whether the supervisor takes work."""
        return self.active

    @property
    def thread_pool_size(self) -> int:
        """Places in the pool for tasks of all lanes; 0: no limit."""
        return int(self.pool["pool_size"])

    @property
    def thread_reserve_normal(self) -> int:
        """Places more for NORMAL and above."""
        return int(self.pool["reserve_normal"])

    @property
    def thread_reserve_high(self) -> int:
        """Places more for HIGH and above."""
        return int(self.pool["reserve_high"])

    @property
    def thread_tasks_count(self) -> int:
        """How many tasks run in threads."""
        return int(self.pool["active"])

    @property
    def mp_tasks_count(self) -> int:
        """How many tasks run in processes."""
        figures = self.__dict__.get("mp_pool")
        return 0 if figures is None else int(figures["active"])


@known_as("neotasker.info")
class AloopInfo(_Plain):
    """An aloop at one moment."""

    name: str
    active: bool
    daemon: bool
    default: bool
    thread: str | None
    tasks: int

    @classmethod
    def of(cls, aloop: ALoop, default: bool) -> AloopInfo:
        """Return what there is to say of an aloop."""
        return cls(
            name=aloop.name,
            active=aloop.active,
            daemon=aloop.daemon,
            default=default,
            thread=None if aloop.thread is None else aloop.thread.name,
            tasks=len(aloop.tasks()),
        )


@known_as("neotasker.info")
class SchedulerInfo(_Plain):
    """A worker, job scheduler or other scheduler at one moment; None where it does not say."""

    name: str
    type: str
    active: bool | None
    runs: int | None
    missed: int | None
    errors: int | None

    @classmethod
    def of(cls, name: str, scheduler: Any) -> SchedulerInfo:
        """Return what there is to say of a scheduler."""
        is_active = getattr(scheduler, "is_active", None)
        active = is_active() if callable(is_active) else getattr(scheduler, "active", None)
        kind = type(scheduler)
        counters = {
            counter: value if isinstance(value, int) else None
            for counter in ("runs", "missed", "errors")
            for value in (getattr(scheduler, counter, None),)
        }
        return cls(
            name=name,
            type=f"{kind.__module__}.{kind.__qualname__}",
            active=active if isinstance(active, bool) else None,
            **counters,
        )


def pool_figures(pool: TaskPool) -> dict[str, Any]:
    """Return the sizes and counters of a pool.

    Returns:
        ``pool_size``, ``reserve_normal``, ``reserve_high``, ``min_size``, ``max_size``
        and ``queue_size`` (None: no limit), ``executor`` (None: own threads), ``active``
        tasks, ``threads``, ``idle`` threads; and, each by lane: ``waiting`` tasks, those
        ever ``submitted``, ``started``, ``completed``, ``failed``, ``cancelled``, and
        ``wait_seconds``, the time that those which started have waited in all.
    """
    sizes = pool.sizes
    figures = pool._crew.dispatcher.figures()
    result = {
        "pool_size": sizes.pool_size,
        "reserve_normal": sizes.reserve_normal,
        "reserve_high": sizes.reserve_high,
        "min_size": sizes.min_size,
        "max_size": None if sizes.max_size == UNLIMITED else sizes.max_size,
        "queue_size": pool.queue_size,
        "executor": None if pool.executor is None else repr(pool.executor),
    }
    for name, value in figures.items():
        if name in _PER_LANE:
            value = {lane.name: value[index] for index, lane in enumerate(LANES)}
        result[name] = value
    return result


also_known_as("neotasker.info", __name__)
