"""The ticker where something fails: odd numbers, clocks, interrupts, and who lets go of it."""

from __future__ import annotations

import gc
import math
import sys
import threading
import time
import weakref
from decimal import Decimal
from fractions import Fraction

import pytest
from helpers import wait_until


@pytest.fixture
def hand():
    return [0.0]


@pytest.fixture
def ticker(nt, hand):
    return nt.timing.ticker.Ticker(lambda: hand[0])


class Real:
    """A number as numpy has them."""

    def __float__(self):
        return 0.5


class Index:
    def __index__(self):
        return 2


DOORS = {
    "call_at": lambda ticker, value: ticker.call_at(value, int).when,
    "call_later": lambda ticker, value: ticker.call_later(value, int).when,
    "call_every": lambda ticker, value: ticker.call_every(value, int).interval,
    "first": lambda ticker, value: ticker.call_every(5, int, first=value).when,
    "slack": lambda ticker, value: ticker.call_later(5, int, slack=value).slack,
    "the ticker's slack": lambda ticker, value: setattr(ticker, "slack", value),
    "the clock": lambda ticker, value: type(ticker)(lambda: value).now(),
}
VALUES = [
    Decimal("0.5"), Fraction(1, 2), Real(), Index(), 1, 0, -1, 10**400, -(10**400), 1e300,
    -1e300, 1e-6, 9.9e-7, 1e-9, 5e-324, -0.0, math.nan, math.inf, -math.inf, Decimal("nan"),
    "0.5", b"0.5", bytearray(b"1"), True, False, None, [], 1j, object, 1 / 3, 0.7,
]  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "value", VALUES, ids=lambda value: repr(value).partition(" object at ")[0]
)
def test_both_cores_take_the_same_numbers(both_cores, door, value):
    outcomes = []
    for core in both_cores:
        ticker = core.package.Ticker(lambda: 0.0)
        try:
            outcomes.append(("returned", DOORS[door](ticker, value)))
        except Exception as exc:
            outcomes.append((type(exc).__name__, str(exc)))
    assert outcomes[0][0] == outcomes[1][0]
    # The compiled core keeps whole nanoseconds.
    exact = not isinstance(outcomes[0][1], float)
    expected = outcomes[1][1] if exact else pytest.approx(outcomes[1][1], abs=1e-9)
    assert outcomes[0][1] == expected
    is_no_number = isinstance(value, (str, bytes, bytearray, bool, complex))
    if is_no_number:
        assert outcomes[0][0] == "TypeError" and repr(value) in outcomes[0][1]


@pytest.mark.parametrize("name", ["when", "interval", "slack", "runs", "missed", "active"])
def test_what_a_timer_shows_cannot_be_set(ticker, name):
    for timer in (ticker.call_later(1, int), ticker.call_every(1, int)):
        getattr(timer, name)
        with pytest.raises(AttributeError):
            setattr(timer, name, 3)


def test_a_timer_that_no_ticker_has_made_does_nothing(nt):
    kind = nt.timing.ticker.Timer
    timer = kind.__new__(kind)
    with pytest.raises(AttributeError):
        timer.cancel()
    for name in ("when", "interval", "slack", "runs", "missed", "active"):
        with pytest.raises(AttributeError):
            getattr(timer, name)


@pytest.mark.parametrize("interval", [0, -1, 9e-7, 1e-9, 5e-324, math.nan, math.inf])
def test_an_interval_below_a_microsecond_is_refused(nt, interval):
    with pytest.raises(ValueError, match="interval must be"):
        nt.Ticker().call_every(interval, int)
    with pytest.raises(ValueError, match="interval must be"):
        nt.BackgroundIntervalWorker("w", print, interval=interval)
    supervisor = nt.TaskSupervisor()
    supervisor.start()
    supervisor.create_aloop("loop", default=True)
    scheduler = supervisor.create_async_job_scheduler("jobs")
    with pytest.raises(ValueError, match="interval must be"):
        scheduler.create_threadsafe(print, interval=interval)
    supervisor.stop()


def test_one_microsecond_is_kept_and_lets_others_through(nt):
    ticker = nt.Ticker()
    ticker.start("ticker")
    fires: list[None] = []
    try:
        quick = [
            ticker.call_every(1e-6, int, missed=missed) for missed in ("burst", "skip", "delay")
        ]
        slow = ticker.call_every(0.005, fires.append, None)
        wait_until(lambda: len(fires) > 10)
        assert all(timer.runs for timer in quick) and slow.runs > 10
    finally:
        assert ticker.stop_thread(20)


def test_what_a_timer_makes_up_for_leaves_others_their_turn(ticker, hand):
    fired: list[str] = []
    ticker.call_every(1, lambda: fired.append("burst"), missed="burst")
    ticker.call_every(1000, lambda: fired.append("rare"))
    ticker.call_later(5000, lambda: fired.append("once"))
    hand[0] = 5000.5
    ticker.tick()
    assert fired.count("burst") == 1000 and "once" in fired
    while "burst" in fired[-1:] or len(fired) < 5000:
        if not ticker.tick():
            break
    assert fired.count("burst") == 5000
    assert fired.count("once") == 1 and fired.count("rare") == 1


def test_a_burst_of_less_is_made_up_for_in_one_tick(ticker, hand):
    timer = ticker.call_every(1, int, missed="burst")
    hand[0] = 999.5
    assert ticker.tick() == 999 == timer.runs and timer.missed == 0


def test_an_owner_its_ticker_and_its_timer_are_freed_together(nt):
    class Owner:
        def __init__(self, periodic):
            self.ticker = nt.Ticker()
            call = self.ticker.call_every if periodic else self.ticker.call_later
            self.timers = [call(3600, self.poll, self) for _ in range(3)]
            self.timers[0].cancel()

        def poll(self, owner): ...

    for periodic in (False, True):
        owner = Owner(periodic)
        seen = weakref.ref(owner)
        del owner
        gc.collect()
        assert seen() is None


def test_a_dropped_ticker_lets_go_of_what_its_timers_hold(nt):
    class Thing: ...

    thing = Thing()
    seen = weakref.ref(thing)
    ticker = nt.Ticker()
    timers = [
        ticker.call_later(3600, lambda thing: None, thing),
        ticker.call_every(1, id, thing),
    ]
    del ticker, thing
    gc.collect()
    if hasattr(gc, "get_threshold") and nt.COMPILED:
        assert seen() is None
        assert [timer.cancel() for timer in timers] == [False, False]
        assert not any(timer.active for timer in timers)
    del timers
    gc.collect()
    assert seen() is None


def test_a_timer_that_is_kept_keeps_nothing_that_has_fired(ticker, hand):
    class Thing: ...

    thing = Thing()
    seen = weakref.ref(thing)
    timer = ticker.call_later(1, lambda thing: None, thing)
    gc.collect()
    assert seen() is not None and gc.get_referrers(thing)
    del thing
    hand[0] = 2
    ticker.tick()
    gc.collect()
    assert seen() is None and not timer.active


def test_timers_are_cancelled_while_their_ticker_goes(nt):
    for _ in range(30):
        ticker = nt.Ticker()
        timers = [ticker.call_later(3600, int) for _ in range(200)]
        gate = threading.Barrier(3)

        def cancel(part, gate=gate):
            gate.wait()
            for timer in part:
                timer.cancel()

        threads = [threading.Thread(target=cancel, args=(timers[n::2],)) for n in range(2)]
        for thread in threads:
            thread.start()
        gate.wait()
        del ticker
        for thread in threads:
            thread.join()
        assert not any(timer.active for timer in timers)


def test_a_clock_that_fails_does_not_end_the_thread(nt, caplog):
    broken = [False]

    def now():
        if broken[0]:
            raise OSError("no clock")
        return time.monotonic()

    ticker = nt.Ticker(now)
    ticker.start("ticker")
    fires: list[None] = []
    try:
        ticker.call_every(0.002, fires.append, None)
        wait_until(lambda: fires)
        broken[0] = True
        wait_until(lambda: "started again" in caplog.text)
        broken[0] = False
        count = len(fires)
        wait_until(lambda: len(fires) > count)
        broken[0] = True
    finally:
        assert ticker.stop_thread(10)


def test_whatever_line_a_tick_is_interrupted_at_each_timer_fires_once(both_cores):
    """Only the pure core has lines; the other is interrupted in nothing but its calls."""
    package = both_cores[1].package
    core = both_cores[1].modules
    files = {core["neotasker.core.ticker"].__file__, core["neotasker.core.heap"].__file__}
    for periodic in (False, True):
        for line in range(1, 60):
            hand = [0.0]
            ticker = package.Ticker(lambda hand=hand: hand[0])
            fired: list[int] = []
            for n in range(3):
                if periodic:
                    ticker.call_every(10 + n, fired.append, n)
                else:
                    ticker.call_later(n, fired.append, n)
            hand[0] = 15.0
            _interrupt(ticker.tick, files, line)
            ticker.tick()
            assert fired == [0, 1, 2], (periodic, line)
            assert len(ticker) == (3 if periodic else 0)


def test_whatever_line_a_setting_is_interrupted_at_the_timer_is_in_or_out(both_cores):
    package = both_cores[1].package
    core = both_cores[1].modules
    files = {core["neotasker.core.ticker"].__file__, core["neotasker.core.heap"].__file__}
    for line in range(1, 60):
        hand = [0.0]
        ticker = package.Ticker(lambda hand=hand: hand[0])
        fired: list[int] = []
        raised = _interrupt(lambda: ticker.call_later(1, fired.append, 1), files, line)  # noqa: B023
        assert len(ticker) in ((0, 1) if raised else (1,))
        ticker.call_later(1, fired.append, 2)
        hand[0] = 2
        ticker.tick()
        assert fired[-1] == 2 and len(fired) == 1 + (not raised or fired[0] == 1)
        assert len(ticker) == 0


def _interrupt(call, files, line):
    """Call, and raise at that line of the files; return whether it was raised."""
    count = [0]

    def trace(frame, event, arg):
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            count[0] += 1
            if count[0] == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
