"""The clockwork: order, cancellation, policies for what is late, and a clock of one's own."""

from __future__ import annotations

import gc
import random
import threading
import time
import weakref
from typing import Any

import pytest
from helpers import wait_until
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def ticker(nt, hand):
    ticker = nt.core.TickerCore(hand)
    yield ticker
    ticker.clear()


def test_timers_fire_in_order_of_due_time_and_then_of_setting(ticker, hand):
    fired: list[str] = []
    ticker.call_at(2, fired.append, "c")
    ticker.call_at(1, fired.append, "a")
    ticker.call_at(1, fired.append, "b")
    ticker.call_later(3, fired.append, "d")
    hand.now = 2.5
    assert ticker.tick() == 3
    assert fired == ["a", "b", "c"]
    hand.now = 3
    assert ticker.tick() == 1
    assert fired == ["a", "b", "c", "d"]
    assert ticker.fires == 4 and len(ticker) == 0


def test_a_timer_does_not_fire_early(ticker, hand):
    timer = ticker.call_at(1, int)
    hand.now = 0.999999
    assert ticker.tick() == 0
    assert timer.active and ticker.next_due == 1
    hand.now = 1
    assert ticker.tick() == 1
    assert not timer.active and timer.runs == 1 and ticker.next_due is None


def test_a_cancelled_timer_does_not_fire(ticker, hand):
    fired: list[int] = []
    timers = [ticker.call_at(n, fired.append, n) for n in range(100)]
    assert all(timer.cancel() for timer in timers[::3])
    assert not any(timer.cancel() for timer in timers[::3])
    hand.now = 100
    ticker.tick()
    assert fired == [n for n in range(100) if n % 3]
    assert timers[1].cancel() is False


def test_a_periodic_timer_keeps_its_rate_without_drift(ticker, hand):
    at: list[float] = []
    timer = ticker.call_every(0.1, lambda: at.append(hand.now))
    for step in range(1, 1001):
        hand.now = step * 0.1 + 1e-6
        ticker.tick()
    assert len(at) == 1000 == timer.runs
    assert timer.missed == 0
    assert timer.when == pytest.approx(100.1, abs=1e-6)
    assert timer.interval == pytest.approx(0.1)
    assert timer.cancel() and not timer.active


@pytest.mark.parametrize(
    ("missed", "runs", "counted", "following"),
    [("skip", 1, 49, 51.0), ("delay", 1, 49, 51.5), ("burst", 50, 0, 51.0)],
)
def test_what_follows_a_stall_of_fifty_intervals(
    ticker, hand, missed, runs, counted, following
):
    timer = ticker.call_every(1, int, missed=missed)
    hand.now = 50.5
    ticker.tick()
    assert (timer.runs, timer.missed) == (runs, counted)
    assert timer.when == pytest.approx(following)


def test_first_says_when_a_periodic_timer_begins(ticker, hand):
    timer = ticker.call_every(10, int, first=0)
    assert ticker.tick() == 1
    assert timer.when == pytest.approx(10)


def test_an_exception_in_a_callback_concerns_no_other(ticker, hand, caplog):
    fired: list[int] = []
    ticker.call_at(1, lambda: 1 / 0)
    failing = ticker.call_every(1, lambda: 1 / 0)
    ticker.call_at(2, fired.append, 1)
    for hand.now in (1, 2):
        ticker.tick()
    assert fired == [1]
    assert failing.runs == 2 and failing.active
    assert caplog.text.count("exception in timer callback") == 3
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_set_and_cancel_timers(ticker, hand):
    fired: list[str] = []

    def first():
        fired.append("first")
        second.cancel()
        ticker.call_later(0, fired.append, "third")

    ticker.call_at(1, first)
    second = ticker.call_at(1, fired.append, "second")
    hand.now = 1
    ticker.tick()
    ticker.tick()
    assert fired == ["first", "third"]


def test_a_periodic_timer_may_cancel_itself(ticker, hand):
    timer = ticker.call_every(1, lambda: timer.cancel())
    for hand.now in range(5):
        ticker.tick()
    assert timer.runs == 1


def test_clear_cancels_all(ticker, hand):
    timers = [ticker.call_later(n, int) for n in range(10)] + [ticker.call_every(1, int)]
    assert ticker.clear() == 11
    assert not any(timer.active for timer in timers)
    hand.now = 100
    assert ticker.tick() == 0


def test_callbacks_and_arguments_are_let_go(ticker, hand):
    class Thing:
        def __call__(self, *args):
            return None

    for end in ("fire", "cancel"):
        thing, argument = Thing(), Thing()
        refs = weakref.ref(thing), weakref.ref(argument)
        timer = ticker.call_later(0, thing, argument)
        del thing, argument
        gc.collect()
        assert refs[0]() is not None and refs[1]() is not None
        ticker.tick() if end == "fire" else timer.cancel()
        gc.collect()
        assert refs[0]() is None and refs[1]() is None


@pytest.mark.parametrize("when", [float("nan"), float("inf"), float("-inf")])
def test_a_time_that_is_not_finite_is_refused(ticker, when):
    with pytest.raises(ValueError, match="finite"):
        ticker.call_at(when, int)
    with pytest.raises(ValueError, match="finite"):
        ticker.call_later(when, int)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_that_is_not_positive_is_refused(ticker, interval):
    with pytest.raises(ValueError, match="positive"):
        ticker.call_every(interval, int)


def test_what_is_no_callback_or_policy_is_refused(ticker):
    with pytest.raises(TypeError, match="callable"):
        ticker.call_later(1, None)
    with pytest.raises(ValueError, match="'skip', 'delay' or 'burst'"):
        ticker.call_every(1, int, missed="never")
    assert len(ticker) == 0


def test_timers_are_made_by_the_ticker_alone(nt):
    with pytest.raises(TypeError, match="call_at"):
        nt.core.TimerCore()


# In a thread.


@pytest.fixture
def running(nt):
    ticker = nt.core.TickerCore()
    thread = threading.Thread(target=ticker.run)
    thread.start()
    yield ticker
    ticker.stop()
    thread.join()
    ticker.clear()


def test_an_earlier_timer_ends_the_wait(running):
    fired = threading.Event()
    running.call_later(3600, int)
    began = time.monotonic()
    running.call_later(0.01, fired.set)
    assert fired.wait(10)
    assert 0.01 <= time.monotonic() - began < 5


def test_a_far_timer_can_be_waited_for(running):
    timer = running.call_later(1e12, int)
    fired = threading.Event()
    running.call_later(0, fired.set)
    assert fired.wait(10)
    assert timer.active and timer.cancel()


def test_stop_ends_the_run_and_reset_allows_another(nt):
    ticker = nt.core.TickerCore()
    for _ in range(3):
        thread = threading.Thread(target=ticker.run)
        thread.start()
        fired = threading.Event()
        ticker.call_later(0, fired.set)
        assert fired.wait(10)
        ticker.stop()
        thread.join(10)
        assert not thread.is_alive()
        ticker.reset()


def test_a_saturated_tick_lets_other_threads_run(nt, running):
    for _ in range(100):
        running.call_every(1e-6, int, missed="burst")
    began = time.monotonic()
    for _ in range(20):
        threading.Event().wait(0.001)
    assert time.monotonic() - began < 60
    assert running.clear() == 100


def test_a_million_timers_half_cancelled_fire_once_each_in_order(nt, hand):
    total = 1_000_000 if nt.COMPILED else 50_000
    ticker = nt.core.TickerCore(hand)
    rng = random.Random(5)
    fired: list[float] = []
    times = [rng.random() * 1000 for _ in range(total)]
    timers = [ticker.call_at(when, fired.append, when) for when in times]
    doomed = rng.sample(range(total), total // 2)
    for n in doomed:
        assert timers[n].cancel()
    kept = sorted(set(range(total)) - set(doomed), key=times.__getitem__)
    assert len(ticker) == len(kept)
    hand.now = 1000
    assert ticker.tick() == len(kept)
    assert fired == [times[n] for n in kept]
    assert len(ticker) == 0


# Against a model.


class HeapMachine(RuleBasedStateMachine):
    """The ticker beside a list of what is due when."""

    nt: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.hand = Hand()
        self.ticker = self.nt.core.TickerCore(self.hand)
        self.pending: list[tuple[float, int, Any]] = []
        self.fired: list[int] = []
        self.made = 0

    @rule(delay=st.integers(-2, 20))
    def call_later(self, delay: int) -> None:
        timer = self.ticker.call_later(delay, self.fired.append, self.made)
        self.pending.append((self.hand.now + delay, self.made, timer))
        self.made += 1

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.pending:
            entry = data.draw(st.sampled_from(self.pending))
            self.pending.remove(entry)
            assert entry[2].cancel()

    @rule(step=st.integers(0, 5))
    def tick(self, step: int) -> None:
        self.hand.now += step
        due = sorted(entry[:2] for entry in self.pending if entry[0] <= self.hand.now)
        self.pending = [entry for entry in self.pending if entry[0] > self.hand.now]
        self.fired.clear()
        assert self.ticker.tick() == len(due)
        assert self.fired == [number for _, number in due]

    @invariant()
    def it_holds_what_is_pending(self) -> None:
        assert len(self.ticker) == len(self.pending)
        expected = min((when for when, _, _ in self.pending), default=None)
        assert self.ticker.next_due == expected
        assert all(timer.active for _, _, timer in self.pending)

    def teardown(self) -> None:
        self.ticker.clear()


def test_the_heap_agrees_with_a_sorted_list(nt):
    machine = type("Machine", (HeapMachine,), {"nt": nt})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=60, deadline=None)
    )


def test_one_hundred_thousand_timers_all_fire_and_none_early(nt):
    total = 100_000 if nt.COMPILED else 20_000
    ticker = nt.core.TickerCore()
    thread = threading.Thread(target=ticker.run)
    thread.start()
    early: list[float] = []
    start = time.monotonic() + 0.2

    def check(when):
        if time.monotonic() < when:
            early.append(when)

    for n in range(total):
        when = start + n / total / 2
        ticker.call_at(when, check, when)
    wait_until(lambda: len(ticker) == 0, timeout=60)
    ticker.stop()
    thread.join()
    assert ticker.fires == total
    assert early == []


def test_a_timer_of_the_past_rouses_nobody_who_is_awake(nt, hand):
    # A wake-up that nobody waits for would be there for whoever sleeps on that lock next.
    for _ in range(100):
        ticker = nt.core.TickerCore(hand)
        ticker.call_at(-5, int)
        assert ticker.tick() == 1
        del ticker
    with nt.TaskPool(4) as pool:
        for _ in range(100):
            assert pool.submit(pow, 2, 5).result(10) == 32
        wait_until(lambda: pool._crew.dispatcher.idle == len(pool._threads))


# Slack: by the machine's clock, as a clock that is turned by hand has no wake-ups to share.


@pytest.fixture
def real(nt):
    ticker = nt.core.TickerCore()
    yield ticker
    ticker.clear()


def sleep_until(ticker, when):
    """Sleep as the ticker's thread does, and a little longer."""
    threading.Event().wait(when - ticker.now() + 0.001)


def test_timers_within_the_slack_share_a_wake_up(real):
    real.slack = 0.05
    fired: list[int] = []
    start = real.now() + 0.01
    for n in range(20):
        real.call_at(start + n * 0.002, fired.append, n)
    timer = real.call_at(start + 10, fired.append, "later")
    assert timer.slack == 0.05
    assert real.next_due == pytest.approx(start + 0.05)
    sleep_until(real, real.next_due)
    assert real.tick() == 20
    assert fired == list(range(20))


def test_one_without_slack_takes_those_along_that_are_due(real):
    fired: list[str] = []
    start = real.now() + 0.01
    real.call_at(start, fired.append, "slack", slack=60)
    real.call_at(start + 0.01, fired.append, "strict")
    real.call_at(start + 60, fired.append, "not due", slack=60)
    assert real.next_due == pytest.approx(start + 0.01)
    sleep_until(real, real.next_due)
    assert real.tick() == 2
    assert sorted(fired) == ["slack", "strict"]


def test_slack_makes_no_timer_early_and_none_later_than_it_says(nt):
    ticker = nt.Ticker()
    fired: dict[int, float] = {}
    limits = {}
    generator = random.Random(5)
    ticker.start("slack ticker")
    try:
        for n in range(300):
            slack = generator.choice([0.0, 0.001, 0.02])
            when = ticker.now() + generator.random() * 0.2
            limits[n] = (when, when + slack)
            ticker.call_at(when, lambda n=n: fired.__setitem__(n, ticker.now()), slack=slack)
        wait_until(lambda: len(fired) == 300)
    finally:
        ticker.stop_thread()
    assert all(fired[n] >= limits[n][0] - 1e-6 for n in fired)
    late = sorted(fired[n] - limits[n][1] for n in fired)
    assert late[150] < 0.02  # the machine may be busy, but not all the time


def test_periodic_timers_do_not_drift_by_their_slack(nt):
    ticker = nt.Ticker()
    calls: list[float] = []
    ticker.start("slack ticker")
    try:
        timer = ticker.call_every(0.02, lambda: calls.append(timer.when), slack=0.015)
        first = timer.when
        wait_until(lambda: len(calls) >= 5)
    finally:
        ticker.stop_thread()
    for when in calls:  # when the next one is due
        steps = (when - first) / 0.02
        assert steps == pytest.approx(round(steps), abs=1e-3)


def test_the_tickers_own_slack_is_at_most_half_an_interval(real):
    real.slack = 1
    assert real.call_every(0.1, print).slack == pytest.approx(0.05)
    assert real.call_every(10, print).slack == 1
    assert real.call_every(10, print, slack=2).slack == 2
    assert real.call_later(10, print, slack=0).slack == 0


@pytest.mark.parametrize("slack", [-1, 3601, float("nan"), float("inf")])
def test_a_slack_out_of_range_is_refused(nt, real, slack):
    for attempt in (
        lambda: real.call_later(1, print, slack=slack),
        lambda: setattr(real, "slack", slack),
        lambda: nt.Ticker(slack=slack),
        lambda: nt.TaskSupervisor(slack=slack),
    ):
        with pytest.raises(ValueError, match="slack must be from 0 to 3600 seconds, not"):
            attempt()
    assert (real.slack, len(real)) == (0, 0)


def test_a_slack_of_an_interval_or_more_is_refused(real):
    with pytest.raises(
        ValueError, match=r"slack must be less than the interval, 0.1 s, not 0.1"
    ):
        real.call_every(0.1, print, slack=0.1)
    assert len(real) == 0


def test_a_clock_that_is_turned_by_hand_uses_no_slack(ticker, hand):
    fired: list[int] = []
    ticker.slack = 5
    ticker.call_at(1, fired.append, 1, slack=3)
    ticker.call_at(2, fired.append, 2)
    assert ticker.next_due == 1
    hand.now = 2
    ticker.tick()
    assert fired == [1, 2]


def test_the_last_of_very_many_timers_can_still_be_cancelled_and_fire(ticker, hand):
    fired: list[int] = []
    generator = random.Random(8)
    timers = [ticker.call_at(generator.random(), fired.append, n) for n in range(20_000)]
    kept = sorted(generator.sample(range(20_000), 60))
    keep = set(kept)
    for n, timer in enumerate(timers):
        if n not in keep:
            timer.cancel()
    hand.now = -1
    for _ in range(12):  # gives memory back, step by step
        ticker.tick()
    later = [ticker.call_at(2, fired.append, -n) for n in range(1, 100)]
    assert all(timers[n].cancel() for n in kept[::2])
    assert all(timer.cancel() for timer in later[::3])
    assert not any(timers[n].cancel() for n in kept[::2])
    hand.now = 3
    ticker.tick()
    expected = sorted(kept[1::2], key=lambda n: timers[n].when)
    assert fired == expected + [-n for n in range(1, 100) if (n - 1) % 3]
    assert len(ticker) == 0
