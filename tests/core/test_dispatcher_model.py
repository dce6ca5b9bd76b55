"""The dispatcher, driven by hypothesis against a model of the admission rule.

The model is a few lists: what waits in each lane, what runs. After every step the
pool must run exactly what the rule of the reserves says, no more and no less.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from helpers import wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

CRITICAL, HIGH, NORMAL, LOW = range(4)


class Job:
    """A task that runs until it is let go, and says when it runs."""

    def __init__(self, number: int, lane: int) -> None:
        self.number = number
        self.lane = lane
        self.gate = threading.Event()
        self.started = threading.Event()
        self.task: Any = None

    def __call__(self) -> int:
        self.started.set()
        self.gate.wait()
        return self.number

    def __repr__(self) -> str:
        return f"job {self.number} in lane {self.lane}"


class DispatcherMachine(RuleBasedStateMachine):
    """A pool beside the model of it."""

    nt: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (2, 1, 1)
        self.pool = self.nt.TaskPool(pool_size=2, reserve_normal=1, reserve_high=1)
        priorities = (
            self.nt.TASK_CRITICAL,
            self.nt.TASK_HIGH,
            self.nt.TASK_NORMAL,
            self.nt.TASK_LOW,
        )
        self.lanes = [self.pool.lane(priority) for priority in priorities]
        self.waiting: list[list[Job]] = [[], [], [], []]
        self.running: list[Job] = []
        self.made = 0
        self.ended: list[Job] = []
        self.cancelled: list[Job] = []

    def limit(self, lane: int) -> float:
        size, normal, high = self.sizes
        if not size or lane == CRITICAL:
            return float("inf")
        return size + (normal if lane <= NORMAL else 0) + (high if lane <= HIGH else 0)

    def admit(self) -> None:
        """Start in the model what the rule lets start."""
        while True:
            lane = next((n for n in range(4) if self.waiting[n]), None)
            if lane is None or len(self.running) >= self.limit(lane):
                return
            self.running.append(self.waiting[lane].pop(0))

    @rule(lane=st.integers(0, 3))
    def submit(self, lane: int) -> None:
        job = Job(self.made, lane)
        self.made += 1
        self.waiting[lane].append(job)
        job.task = self.lanes[lane].submit(job)
        self.admit()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.running))
        self.running.remove(job)
        self.ended.append(job)
        job.gate.set()
        assert job.task.result(20) == job.number
        self.admit()

    @precondition(lambda self: any(self.waiting))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from([job for lane in self.waiting for job in lane]))
        self.waiting[job.lane].remove(job)
        self.cancelled.append(job)
        assert job.task.cancel()
        self.admit()

    @rule(sizes=st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)))
    def resize(self, sizes: tuple[int, int, int]) -> None:
        self.sizes = sizes
        self.pool.resize(pool_size=sizes[0], reserve_normal=sizes[1], reserve_high=sizes[2])
        self.admit()

    @invariant()
    def what_should_run_runs_and_nothing_else(self) -> None:
        for job in self.running:
            assert job.started.wait(20), f"{job} should run"
        dispatcher = self.pool._crew.dispatcher
        wait_until(lambda: dispatcher.active == len(self.running))
        for lane in self.waiting:
            for job in lane:
                assert not job.started.is_set(), f"{job} should wait"
        figures = dispatcher.figures()
        assert figures["waiting"] == [len(lane) for lane in self.waiting]

    def teardown(self) -> None:
        for job in [*self.running, *(job for lane in self.waiting for job in lane)]:
            job.gate.set()
        self.pool.shutdown()
        figures = self.pool._crew.dispatcher.figures()
        assert sum(figures["submitted"]) == self.made
        assert sum(figures["cancelled"]) == len(self.cancelled)
        assert sum(figures["completed"]) == self.made - len(self.cancelled)
        assert not any(job.started.is_set() for job in self.cancelled)


@pytest.mark.hang_limit(300)
def test_the_pool_runs_exactly_what_the_reserves_admit(nt):
    machine = type("Machine", (DispatcherMachine,), {"nt": nt})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
