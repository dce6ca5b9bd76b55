"""What tests of workers have in common."""

from __future__ import annotations

import pytest


@pytest.fixture
def host(nt):
    """A supervisor that runs, with a default aloop."""
    supervisor = nt.TaskSupervisor("tests")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def clock(nt):
    """A clock that is turned by hand."""
    from neotasker.testing import VirtualClock

    return VirtualClock()


@pytest.fixture
def virtual(nt, clock):
    """A supervisor whose clock is turned by hand."""
    supervisor = nt.TaskSupervisor("virtual", clock=clock)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture(params=["plain", "async"])
def is_async(request):
    """Whether the target is a coroutine function."""
    return request.param == "async"
