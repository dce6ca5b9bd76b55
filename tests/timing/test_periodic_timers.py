"""Timers that fire again and again, thousands of them: beside a model that sorts them."""

from __future__ import annotations

import gc
import heapq
import random
import weakref
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)


class Both:
    """A ticker and its model, which are told the same. Times are whole seconds."""

    def __init__(self, nt: Any) -> None:
        self.now = 0
        self.ticker = nt.core.TickerCore(lambda: self.now)
        self.fired: list[int] = []
        self.timers: dict[int, Any] = {}  # those that are active, by number
        self.heap: list[tuple[int, int, int]] = []  # due, serial, number
        self.interval: list[int | None] = []  # by number, and so are the others
        self.policy: list[str] = []
        self.due: list[int] = []
        self.runs: list[int] = []
        self.missed: list[int] = []
        self.serial = 0

    def _set(self, number: int, due: int) -> None:
        self.serial += 1
        self.due[number] = due
        heapq.heappush(self.heap, (due, self.serial, number))

    def set(self, first: int, interval: int | None = None, policy: str = "skip") -> None:
        number = len(self.interval)
        if interval is None:
            timer = self.ticker.call_later(first, self.fired.append, number)
        else:
            timer = self.ticker.call_every(
                interval, self.fired.append, number, first=first, missed=policy
            )
        self.timers[number] = timer
        self.interval.append(interval)
        self.policy.append(policy)
        self.due.append(0)
        self.runs.append(0)
        self.missed.append(0)
        self._set(number, self.now + first)

    def cancel(self, number: int) -> None:
        timer = self.timers.pop(number)
        assert timer.cancel() and not timer.active
        assert not timer.cancel()

    def turn(self, seconds: int) -> None:
        """Turn the clock on, and let both fire what is due."""
        self.now += seconds
        expected = []
        while self.heap and self.heap[0][0] <= self.now:
            due, _, number = heapq.heappop(self.heap)
            if number not in self.timers:
                continue
            expected.append(number)
            interval = self.interval[number]
            if interval is None:
                del self.timers[number]
                continue
            self.runs[number] += 1
            late = (self.now - due) // interval
            if self.policy[number] == "burst":
                self._set(number, due + interval)
                continue
            self.missed[number] += late
            if late and self.policy[number] == "delay":
                self._set(number, self.now + interval)
            else:
                self._set(number, due + (late + 1) * interval)
        self.fired.clear()
        assert self.ticker.tick() == len(expected)
        assert self.fired == expected

    def compare(self) -> None:
        """Compare all that can be seen."""
        assert len(self.ticker) == len(self.timers)
        due = [self.due[number] for number in self.timers]
        assert self.ticker.next_due == min(due, default=None)
        for number, timer in self.timers.items():
            assert timer.active and timer.when == self.due[number]
            assert (timer.runs, timer.missed) == (self.runs[number], self.missed[number])


class PeriodicMachine(RuleBasedStateMachine):
    """What one would do with timers, in any order."""

    nt: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.both = Both(self.nt)

    @rule(
        first=st.integers(-2, 8),
        interval=st.sampled_from([1, 3, 3, 3, 7, None]),
        policy=st.sampled_from(["skip", "skip", "delay", "burst"]),
        count=st.sampled_from([1, 1, 5, 40]),
    )
    def set(self, first: int, interval: int | None, policy: str, count: int) -> None:
        for n in range(count):
            self.both.set(first + n % 3, interval, policy)

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.both.timers:
            self.both.cancel(data.draw(st.sampled_from(sorted(self.both.timers))))

    @rule(keep=st.integers(2, 5))
    def cancel_most(self, keep: int) -> None:
        for number in list(self.both.timers):
            if number % keep:
                self.both.cancel(number)

    @rule(step=st.sampled_from([0, 1, 1, 1, 2, 5, 30]))
    def turn(self, step: int) -> None:
        self.both.turn(step)

    @invariant()
    def they_agree(self) -> None:
        self.both.compare()

    def teardown(self) -> None:
        self.both.ticker.clear()
        assert len(self.both.ticker) == 0


def test_periodic_timers_agree_with_a_sorted_list(nt):
    machine = type("Machine", (PeriodicMachine,), {"nt": nt})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=80, stateful_step_count=40, deadline=None)
    )


@pytest.mark.parametrize("intervals", [1, 3, 500])
def test_thousands_of_periodic_timers_fire_in_order_whatever_happens(nt, intervals):
    both = Both(nt)
    chance = random.Random(intervals)
    policies = ["skip", "delay", "burst"]

    def set_some(count: int) -> None:
        for _ in range(count):
            interval = 100 + chance.randrange(intervals)
            both.set(chance.randrange(2 * interval), interval, chance.choice(policies))

    set_some(4000)
    for step in (1, 17, 1, 90, 130, 5, 400, 1, 99, 100):
        both.turn(step)
        both.set(chance.randrange(5))
        for number in chance.sample(sorted(both.timers), 100):
            both.cancel(number)
    both.compare()
    set_some(2000)
    for _ in range(4):
        both.turn(chance.randrange(60))
    for number in chance.sample(sorted(both.timers), len(both.timers) - 40):
        both.cancel(number)  # so few are left that memory is given back
    both.compare()
    for _ in range(8):
        both.turn(chance.randrange(90))
        both.compare()
    set_some(100)
    for _ in range(8):
        both.turn(chance.randrange(90))
    both.compare()
    assert both.ticker.clear() == len(both.timers)
    assert len(both.ticker) == 0 and not any(t.active for t in both.timers.values())


class Target:
    """A callback that can be watched."""

    def __call__(self) -> None:
        pass


@pytest.mark.parametrize("way", ["cancel", "clear"])
def test_callbacks_of_timers_that_wait_in_line_are_let_go(nt, way):
    now = [0.0]
    ticker = nt.core.TickerCore(lambda: now[0])
    targets = [Target() for _ in range(100)]
    watched = [weakref.ref(target) for target in targets]
    timers = [ticker.call_every(10, target) for target in targets]
    del targets
    for now[0] in (10, 20):
        assert ticker.tick() == 100
    assert len(ticker) == 100
    if way == "cancel":
        assert all(timer.cancel() for timer in timers)
        assert ticker.next_due is None
    else:
        assert ticker.clear() == 100
    gc.collect()
    assert not any(watch() is not None for watch in watched)


def test_a_stall_that_mixes_the_phases_leaves_them_in_order(nt):
    both = Both(nt)
    for phase in range(50):
        both.set(phase, 50)
    both.turn(49)
    both.turn(75)  # half of them are now due after the others, who were before them
    for _ in range(150):
        both.turn(1)
        assert len(both.fired) == 1
    both.compare()
    assert both.missed == [1] * 25 + [0] * 25
