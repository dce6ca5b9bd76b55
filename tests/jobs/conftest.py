"""What tests of jobs have in common."""

from __future__ import annotations

import datetime

import pytest


@pytest.fixture
def clock(nt):
    """A clock that is turned by hand, on the first of January 2026."""
    from neotasker.testing import VirtualClock

    return VirtualClock(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))


@pytest.fixture
def virtual(nt, clock):
    """A supervisor whose clock is turned by hand, with a default job scheduler."""
    supervisor = nt.TaskSupervisor("virtual", clock=clock)
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    supervisor.create_async_job_scheduler("jobs", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def host(nt):
    """A supervisor that runs, with a default aloop and job scheduler."""
    supervisor = nt.TaskSupervisor("tests")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    supervisor.create_async_job_scheduler("jobs", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture(params=["async", "plain"])
def is_async(request):
    """Whether the target is a coroutine function."""
    return request.param == "async"


@pytest.fixture
def times():
    """When the job of `create` ran: seconds since the test began."""
    return []


@pytest.fixture
def create(virtual, clock, times, is_async):
    """Return what makes a job that notes when it runs."""
    start = clock.monotonic()

    def plain():
        times.append(clock.monotonic() - start)

    async def coroutine():
        plain()

    def create(**options):
        target = coroutine if is_async else plain
        return virtual.create_async_job(target=target, **options)

    return create
