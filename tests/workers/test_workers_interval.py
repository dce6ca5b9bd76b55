"""Interval workers: fixed rate, fixed delay, what is missed, triggers."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest
from helpers import Blocker, switch_interval, wait_until


class Runs:
    """A target that notes the clock's time of each run, and can be made to take longer."""

    def __init__(self, clock, is_async):
        self.clock = clock
        self.times = []
        self.durations = {}  # by number of the run
        self.target = self.coroutine if is_async else self.plain
        self.resume = threading.Semaphore(0)

    def plain(self):
        number = len(self.times)
        self.times.append(self.clock.monotonic())
        if number in self.durations:
            assert self.resume.acquire(timeout=10)

    async def coroutine(self):
        number = len(self.times)
        self.times.append(self.clock.monotonic())
        if number in self.durations:
            await asyncio.sleep(self.durations[number])


@pytest.fixture
def runs(clock, is_async):
    return Runs(clock, is_async)


@pytest.fixture
def make(nt, virtual, runs):
    def make(**options):
        return nt.BackgroundIntervalWorker("x", runs.target, supervisor=virtual, **options)

    return make


# When it runs.


def test_a_fixed_rate_begins_at_once_and_does_not_drift(make, clock, runs):
    worker = make(interval=0.1)
    worker.start()
    clock.advance(100)
    assert runs.times == [pytest.approx(n * 0.1) for n in range(1001)]
    assert worker.runs == 1001
    assert worker.missed == 0


def test_a_fixed_delay_begins_at_once(make, clock, runs):
    worker = make(delay=5)
    worker.start()
    clock.advance(12)
    assert runs.times == [pytest.approx(t) for t in (0, 5, 10)]


def test_the_delay_is_one_second_when_nothing_is_given(make, clock, runs):
    worker = make()
    assert (worker.delay, worker.keep_interval) == (1, False)
    worker.start()
    clock.advance(2.5)
    assert runs.times == [pytest.approx(t) for t in (0, 1, 2)]


def test_delay_before_comes_before_each_run(make, clock, runs):
    make(delay_before=3).start()
    clock.advance(10)
    assert runs.times == [pytest.approx(t) for t in (3, 6, 9)]


def test_delays_before_and_after_add_up(make, clock, runs):
    make(delay_before=3, delay=2).start()
    clock.advance(14)
    assert runs.times == [pytest.approx(t) for t in (3, 8, 13)]


def test_an_interval_may_be_preceded_by_a_delay(make, clock, runs):
    make(delay_before=3, interval=2).start()
    clock.advance(8)
    assert runs.times == [pytest.approx(t) for t in (3, 5, 7)]


def test_a_delay_of_zero_is_paced_by_the_poll_delay(make, clock, runs):
    worker = make(delay=0, poll_delay=0.5)
    worker.start()
    clock.advance(1.25)
    assert runs.times == [pytest.approx(t) for t in (0, 0.5, 1.0)]


def test_a_delay_is_counted_from_the_end_of_the_run(nt, virtual, clock):
    times = []

    async def target():
        times.append(clock.monotonic())
        await asyncio.sleep(2)

    nt.BackgroundIntervalWorker("x", target, delay=1, supervisor=virtual).start()
    clock.advance(7)
    assert times == [pytest.approx(t) for t in (0, 3, 6)]


def test_start_may_set_the_times_anew(make, clock, runs):
    worker = make(interval=1)
    for start, expected in (
        ({"_interval": 2}, [0, 2]),
        ({"_delay": 1}, [0, 1, 2, 3]),
        ({"_delay_before": 2}, [2]),
        ({"_interval": 3, "_delay_before": 0}, [0, 3]),
    ):
        began = clock.monotonic()
        runs.times.clear()
        worker.start(**start)
        clock.advance(3.5)
        worker.stop()
        assert [t - began for t in runs.times] == [pytest.approx(t) for t in expected], start


def test_the_delay_may_be_changed_while_it_runs(make, clock, runs):
    worker = make(delay=1)
    worker.start()
    clock.advance(1.5)
    worker.delay = 10
    clock.advance(20)
    assert runs.times == [pytest.approx(t) for t in (0, 1, 2, 12)]


def test_a_delay_that_makes_no_sense_does_not_stop_the_worker(make, clock, runs, caplog):
    worker = make(delay=1)
    worker.start()
    worker.delay = "soon"
    clock.advance(2.5)
    assert len(runs.times) == 3
    assert "worker x: " in caplog.text and "taken as 1.0 s" in caplog.text


def test_jitter_is_added_to_due_times_that_do_not_drift(make, clock, runs):
    worker = make(interval=1, jitter=0.5)
    worker.start()
    clock.advance(1000.6)
    assert len(runs.times) == 1001
    late = [t - n for n, t in enumerate(runs.times)]
    assert all(0 <= seconds <= 0.5 for seconds in late)
    assert 0.2 < sum(late) / len(late) < 0.3
    assert max(late) > 0.45


def test_jitter_is_added_to_pauses(make, clock, runs):
    make(delay=1, jitter=1).start()
    clock.advance(1000)
    pauses = [b - a for a, b in itertools.pairwise(runs.times)]
    assert all(1 <= pause <= 2 for pause in pauses)
    assert 1.4 < sum(pauses) / len(pauses) < 1.6


def test_a_thousand_workers_run_on_time(nt, virtual, clock, is_async):
    all_runs = [Runs(clock, is_async) for _ in range(1000)]
    for runs in all_runs:
        nt.BackgroundIntervalWorker(None, runs.target, interval=0.1, supervisor=virtual).start()
    clock.advance(0.95)
    assert all(len(runs.times) == 10 for runs in all_runs)


# What is missed.


def stall(runs, clock, make, virtual, is_async, **options):
    """Let the first of a worker's runs take fifty of its intervals, which are a second."""
    runs.durations[0] = 50
    worker = make(interval=1, **options)
    worker.start()
    if is_async:
        clock.advance(49.5)
        assert len(runs.times) == 1
        clock.advance(0.75)
        return worker
    # A blocked thread of the pool would keep the clock waiting: so the tick is moved by hand.
    wait_until(lambda: runs.times)
    ticker = virtual.ticker
    for _ in range(50):
        clock._works.now += 1
        ticker.tick()
    clock._works.now += 0.25
    runs.resume.release()
    clock.advance(0)
    return worker


@pytest.mark.parametrize(
    ("policy", "late", "missed", "after"),
    [
        ("skip", 1, 49, [51, 52, 53]),
        ("delay", 1, 49, [51.25, 52.25, 53.25]),
        ("burst", 50, 0, [51, 52, 53]),
    ],
)
def test_a_worker_that_was_stalled_for_fifty_intervals(
    make, clock, virtual, runs, is_async, policy, late, missed, after
):
    worker = stall(runs, clock, make, virtual, is_async, missed=policy)
    assert len(runs.times) == 1 + late
    assert worker.missed == missed
    clock.advance(3)
    expected = [t - (0.25 if is_async and policy == "delay" else 0) for t in after]
    assert runs.times[1 + late :] == [pytest.approx(t) for t in expected]
    assert worker.missed == missed


def test_what_was_missed_is_made_up_for_one_after_the_other(nt, host):
    """After a stall a burst of runs at once floods the callee; so they come one by one."""
    on, most = 0, 0
    first = threading.Event()

    def target():
        nonlocal on, most
        on += 1
        most = max(most, on)
        if not first.is_set():
            first.set()
            time.sleep(0.2)
        on -= 1

    worker = nt.BackgroundIntervalWorker(
        "x", target, interval=0.01, missed="burst", supervisor=host
    )
    worker.start()
    wait_until(lambda: worker.runs > 21)
    worker.stop()
    assert (most, worker.missed) == (1, 0)


def test_a_slow_worker_goes_on_and_says_what_it_missed(nt, virtual, clock):
    """Elsewhere one reads "maximum number of running instances reached", and runs vanish."""
    times = []

    async def target():
        times.append(clock.monotonic())
        await asyncio.sleep(2.5)

    worker = nt.BackgroundIntervalWorker("x", target, interval=1, supervisor=virtual)
    worker.start()
    clock.advance(20.25)
    assert times == [pytest.approx(n * 2.5) for n in range(9)]
    assert worker.runs + worker.missed in (20, 21)  # one may be due behind the one that is on


def test_a_late_run_is_not_dropped(nt, host):
    """Elsewhere runs that are 1.2 s late are dropped, as the default grace is one second."""
    host.set_thread_pool(pool_size=1)
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=100, supervisor=host)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        worker.start()
        time.sleep(1.3)
        assert worker.runs == 0
    wait_until(lambda: worker.runs == 1)


def test_a_worker_runs_once_when_the_pool_was_stuck(nt, host):
    host.set_thread_pool(pool_size=1)
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=0.01, supervisor=host)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        worker.start()
        wait_until(lambda: worker.missed >= 20)
        assert worker.runs == 0
        missed = worker.missed
    wait_until(lambda: worker.runs >= 5)
    assert worker.missed <= missed + 5


def test_never_two_runs_at_once(nt, host, is_async):
    on, most = 0, 0

    def enter(change):
        nonlocal on, most
        on += change
        most = max(most, on)

    async def coroutine():
        enter(1)
        await asyncio.sleep(0.002)
        enter(-1)

    def plain():
        enter(1)
        time.sleep(0.002)
        enter(-1)

    worker = nt.BackgroundIntervalWorker(
        "x", coroutine if is_async else plain, interval=0.001, supervisor=host
    )
    stop = time.monotonic() + 0.5
    with switch_interval():
        worker.start()
        while time.monotonic() < stop:
            worker.trigger_threadsafe()
            time.sleep(0.0001)
        worker.stop()
    assert most == 1


# Triggers.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interval": 10}, [0, 4, 14, 24]),
        ({"delay": 10}, [0, 4, 14, 24]),
        ({"delay_before": 10}, [4, 14, 24]),
    ],
)
def test_a_trigger_makes_it_run_now_and_counts_from_there(make, clock, runs, options, expected):
    worker = make(**options)
    worker.start()
    clock.advance(4)
    assert worker.trigger_threadsafe() is True
    clock.advance(21)
    assert runs.times == [pytest.approx(t) for t in expected]


@pytest.mark.parametrize("options", [{"interval": 10}, {"delay": 10}])
def test_skip_begins_a_new_phase_without_a_run(make, clock, runs, options):
    worker = make(**options)
    worker.start()
    clock.advance(4)
    assert worker.trigger_threadsafe(skip=True) is True
    clock.advance(21)
    assert runs.times == [pytest.approx(t) for t in (0, 14, 24)]
    assert worker.missed == 0


@pytest.mark.parametrize("options", [{"interval": 100}, {"delay": 100}])
def test_a_trigger_during_a_run_means_one_more_run(nt, host, is_async, options):
    begun = threading.Semaphore(0)
    go = threading.Event()

    async def coroutine():
        begun.release()
        while not go.is_set():
            await asyncio.sleep(0.001)

    def plain():
        begun.release()
        go.wait(10)

    worker = nt.BackgroundIntervalWorker(
        "x", coroutine if is_async else plain, supervisor=host, **options
    )
    worker.start()
    assert begun.acquire(timeout=10)
    for force in (False, True, False):
        worker.trigger_threadsafe(force=force)
    go.set()
    assert begun.acquire(timeout=10)
    assert not begun.acquire(timeout=0.05)
    assert worker.runs == 2


def test_a_coroutine_may_trigger(make, clock, virtual, runs):
    worker = make(interval=1000)
    worker.start()
    clock.advance(1)
    future = virtual.get_aloop("main").spawn_coroutine_threadsafe(worker.trigger())
    clock.advance(1)
    assert future.result(timeout=10) is True
    assert runs.times == [pytest.approx(0), pytest.approx(1)]


def test_a_worker_triggers_itself(nt, host, is_async):
    def plain(_worker):
        if _worker.runs < 5:
            _worker.trigger_threadsafe()

    async def coroutine(_worker):
        if _worker.runs < 5:
            await _worker.trigger()

    worker = nt.BackgroundIntervalWorker(
        "x", coroutine if is_async else plain, interval=1000, supervisor=host
    )
    worker.start()
    wait_until(lambda: worker.runs == 5)
    worker.stop()
    assert worker.runs == 5


def test_a_trigger_before_the_start_is_refused_and_after_a_stop_in_vain(nt, host):
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=1000, supervisor=host)
    for trigger in (worker.trigger_threadsafe, lambda: asyncio.run(worker.trigger())):
        with pytest.raises(nt.WorkerNotStarted, match=r"worker x was not started: call start"):
            trigger()
    worker.start()
    wait_until(lambda: worker.runs)
    worker.stop()
    assert worker.trigger_threadsafe() is False
    assert worker.trigger_threadsafe(skip=True) is False
    assert worker.runs == 1


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"interval": 0}, ValueError, "interval must be more than 0 seconds, .* not 0"),
        ({"interval": -1}, ValueError, "interval must be more than 0 seconds, .* not -1"),
        ({"interval": float("nan")}, ValueError, "interval must be more than 0"),
        ({"interval": float("inf")}, ValueError, "and finite, not inf"),
        ({"interval": "soon"}, TypeError, "interval must be a number of seconds, not 'soon'"),
        ({"delay": -1}, ValueError, "delay must be at least 0 seconds, .* not -1"),
        ({"delay_before": -2}, ValueError, "delay_before must be at least 0 seconds"),
        ({"delay": 1, "jitter": -1}, ValueError, "jitter must be at least 0 seconds"),
        ({"interval": 1, "delay": 2}, ValueError, r"both interval \(1\) and delay \(2\)"),
        ({"interval": 1, "missed": "x"}, ValueError, "'skip', 'delay' or 'burst', not 'x'"),
    ],
)
def test_a_constructor_says_what_is_wrong(nt, options, error, words):
    with pytest.raises(error, match=words):
        nt.background_worker(**options)(lambda: None)


@pytest.mark.parametrize(
    ("start", "error"),
    [
        ({"_interval": 0}, ValueError),
        ({"_delay": "x"}, TypeError),
        ({"_interval": 1, "_delay": 2}, ValueError),
    ],
)
def test_start_says_what_is_wrong(nt, host, start, error):
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=1, supervisor=host)
    with pytest.raises(error):
        worker.start(**start)
    assert not worker.is_active()
    assert worker.start()
    assert worker.delay == 1


def test_numbers_may_be_given_as_text(nt):
    assert nt.BackgroundIntervalWorker(interval="0.5").delay == 0.5


# Stopping.


def test_nothing_is_due_after_a_stop(make, clock, virtual, runs):
    workers = [make(interval=1), make(delay=1), make(delay_before=1, jitter=1)]
    for worker in workers:
        worker.start()
    clock.advance(5)
    for worker in workers:
        worker.stop()
    before = len(runs.times)
    clock.advance(10)
    assert len(runs.times) == before
    assert len(virtual.ticker) == 1  # the watch over tasks that wait too long


def test_a_stop_makes_a_run_void_that_has_not_begun(nt, host):
    """The pool may be stuck for ever: the stop does not wait for a place in it."""
    host.set_thread_pool(pool_size=1)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=1, supervisor=host)
        worker.start()
        worker.stop()
        assert worker.is_stopped()
    host.spawn(int).result(timeout=10)
    assert worker.runs == 0


def test_a_stop_without_waiting_from_its_own_run_returns_at_once(nt, host, is_async):
    took = []

    def target(_worker):
        began = time.monotonic()
        _worker.stop(wait=False)
        took.append(time.monotonic() - began)

    async def coroutine(_worker):
        target(_worker)

    worker = nt.BackgroundIntervalWorker(
        "x", coroutine if is_async else target, delay=1, supervisor=host
    )
    worker.start()
    assert worker.wait_until_stop(10)
    assert took[0] < 0.5


# On the machine's clock.


def test_async_workers_keep_to_the_machines_clock(nt, host):
    times = []

    async def target():
        times.append(time.monotonic())

    worker = nt.BackgroundIntervalWorker("x", target, interval=0.02, supervisor=host)
    worker.start()
    wait_until(lambda: len(times) > 25)
    worker.stop()
    late = [t - times[0] - n * 0.02 for n, t in enumerate(times)]
    assert min(late) > -0.01
    assert sorted(late)[len(late) // 2] < 0.01


def test_workers_of_one_loop_wait_with_one_timer_of_it(nt, host):
    async def target(): ...

    loop = host.get_aloop("main").get_loop()
    if not hasattr(loop, "_scheduled"):
        pytest.skip("this loop does not tell what it waits for")
    workers = [
        nt.BackgroundIntervalWorker(n, target, interval=100, supervisor=host) for n in range(50)
    ]
    for worker in workers:
        worker.start()
    wait_until(lambda: all(worker.runs for worker in workers))
    assert len([h for h in loop._scheduled if not h.cancelled()]) <= 1


def test_a_sooner_timer_is_seen_by_a_loop_that_sleeps(nt, host):
    ran = threading.Event()

    async def slow(): ...

    async def quick():
        ran.set()

    first = nt.BackgroundIntervalWorker("slow", slow, delay_before=1000, supervisor=host)
    first.start()
    time.sleep(0.05)
    second = nt.BackgroundIntervalWorker("quick", quick, delay_before=0.05, supervisor=host)
    began = time.monotonic()
    second.start()
    assert ran.wait(10)
    assert 0.045 < time.monotonic() - began < 5


def test_a_loop_with_a_clock_of_its_own_is_driven_by_the_ticker(nt, virtual, clock):
    """A loop that the program runs does not know of the supervisor's virtual clock."""
    seen = []

    async def target():
        seen.append(clock.monotonic())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        worker = nt.BackgroundIntervalWorker(
            "x", target, delay_before=50, supervisor=virtual, loop=loop
        )
        worker.start()
        wait_until(worker.is_started)
        clock.advance(49)
        assert seen == []
        clock.advance(2)
        wait_until(lambda: seen)
        worker.stop()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# Slack.


def test_slack_is_the_workers_own_or_the_supervisors(nt, is_async):
    supervisor = nt.TaskSupervisor("slack", slack=0.2)
    supervisor.start()
    supervisor.create_aloop("main", default=True)

    async def coroutine(**kwargs): ...

    try:
        target = coroutine if is_async else lambda **kwargs: None
        for options, expected in (
            ({"interval": 5}, 0.2),
            ({"interval": 5, "slack": 1}, 1),
            ({"interval": 5, "slack": 0}, 0),
            ({"delay_before": 5, "slack": 7}, 7),
            ({"delay_before": 5}, 0.2),
        ):
            worker = nt.BackgroundIntervalWorker(fn=target, supervisor=supervisor, **options)
            worker.start()
            timer = wait_until(lambda worker=worker: worker._life.timer)
            assert timer.slack == pytest.approx(expected), options
            worker.stop()
    finally:
        supervisor.stop()


def test_workers_with_slack_run_each_time(nt, host, is_async):
    count = 0

    def plain(**kwargs):
        nonlocal count
        count += 1

    async def coroutine(**kwargs):
        plain()

    worker = nt.BackgroundIntervalWorker(
        fn=coroutine if is_async else plain, interval=0.01, slack=0.005, supervisor=host
    )
    worker.start()
    wait_until(lambda: worker.runs >= 10)
    worker.stop()
    assert count == worker.runs


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"interval": 1, "slack": 1}, ValueError, "slack must be less than the interval, 1 s"),
        ({"slack": -1}, ValueError, "slack must be at least 0 seconds"),
        ({"slack": 3601}, ValueError, "slack must be at most 3600 seconds, not 3601"),
        ({"slack": "much"}, TypeError, "slack must be a number of seconds, not 'much'"),
    ],
)
def test_a_slack_that_makes_no_sense_is_refused(nt, options, error, words):
    with pytest.raises(error, match=words):
        nt.BackgroundIntervalWorker(fn=print, **options)
