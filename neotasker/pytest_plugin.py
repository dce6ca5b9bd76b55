"""The fixtures that pytest finds when the package is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .supervisor import TaskSupervisor


@pytest.fixture
def virtual_supervisor() -> Iterator[TaskSupervisor]:
    """A started supervisor on a `VirtualClock`, which is its ``clock``; stopped at the end."""
    from . import TaskSupervisor
    from .testing import VirtualClock

    supervisor = TaskSupervisor(id="virtual", clock=VirtualClock())
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)
