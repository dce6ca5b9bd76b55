"""Who takes the steps of a virtual clock, and that it makes no difference."""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import sys
import threading
from concurrent import futures
from functools import partial

import pytest
from helpers import run_python, switch_interval, wait_until


@pytest.fixture
def clock(nt):
    from neotasker.testing import VirtualClock

    return VirtualClock(patience=20)


@pytest.fixture(params=[1, 2, 5])
def supervisor(nt, clock, request):
    supervisor = nt.TaskSupervisor(id="virtual", clock=clock)
    supervisor.set_thread_pool(pool_size=request.param, reserve_normal=0, reserve_high=0)
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def tick_tasks(supervisor, done):
    """Have a task run each second, so that pool threads take the steps."""
    return supervisor.call_every(1, done.append, 1)


def test_what_is_due_runs_in_order_whoever_turns(supervisor, clock):
    seen: list[tuple[str, float]] = []
    for name, interval in (("one", 1), ("two", 2), ("three", 3)):
        supervisor.call_every(
            interval, lambda name=name: seen.append((name, clock.monotonic()))
        )
    supervisor.ticker.call_every(1.5, lambda: seen.append(("tick", clock.monotonic())))
    for _ in range(30):
        clock.advance(2)
    assert [when for _, when in seen] == sorted(when for _, when in seen)
    for name, interval in (("one", 1), ("two", 2), ("three", 3), ("tick", 1.5)):
        times = [when for who, when in seen if who == name]
        assert times == [interval * n for n in range(1, int(60 / interval) + 1)]


def test_a_moment_costs_no_handover_between_threads(nt, supervisor, clock):
    """The thread that ran the task takes the next step, and runs what it fires."""
    steps: list[int] = []
    supervisor.ticker.call_every(1, lambda: steps.append(threading.get_ident()))
    done: list[int] = []
    tick_tasks(supervisor, done)
    clock.advance(1000)
    assert len(steps) == len(done) == 1000
    assert steps.count(threading.get_ident()) < 500


def test_a_callback_may_wait_for_the_pool_in_any_way(supervisor, clock):
    size = supervisor.thread_pool.sizes.pool_size
    done: list[int] = []
    tick_tasks(supervisor, done)
    seen: list[float] = []

    def meet():
        barrier = threading.Barrier(size + 1)  # all that the pool may run, and this thread
        for _ in range(size):
            supervisor.spawn(barrier.wait, 20)
        barrier.wait(20)
        assert supervisor.spawn(pow, 2, 3).result(20) == 8
        seen.append(clock.monotonic())

    supervisor.ticker.call_every(10, meet)
    clock.advance(35)
    assert seen == [10, 20, 30]
    assert len(done) == 35
    dispatcher = supervisor.thread_pool._crew.dispatcher
    wait_until(lambda: dispatcher.threads <= size)
    assert dispatcher.wait_drained(10)
    supervisor.spawn(int).result(10)


def test_a_callback_that_never_returns_is_reported(nt):
    from neotasker.testing import VirtualClock

    clock = VirtualClock(patience=0.2)
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    done: list[int] = []
    tick_tasks(supervisor, done)
    gate = threading.Event()
    stuck: list[int] = []

    def block():
        if threading.current_thread() is not threading.main_thread():
            stuck.append(1)
            gate.wait(30)

    supervisor.ticker.call_every(1, block)
    with pytest.raises(RuntimeError, match="did not settle"):
        clock.advance(1000)
    before = clock.monotonic()
    assert stuck == [1]
    gate.set()
    clock.advance(2)
    assert clock.monotonic() == before + 2
    supervisor.stop(cancel_tasks=True)


def test_timers_fire_in_a_context_of_their_own(supervisor, clock):
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    seen: list[str] = []
    done: list[int] = []
    tick_tasks(supervisor, done)
    supervisor.ticker.call_every(1, lambda: seen.append(variable.get()))
    clock.advance(20)
    assert seen == ["none"] * 20


def test_a_callback_that_raises_does_not_stop_the_turn(supervisor, clock, caplog):
    done: list[int] = []
    tick_tasks(supervisor, done)

    def fail():
        raise ZeroDivisionError("on purpose")

    supervisor.ticker.call_every(7, fail)
    clock.advance(70)
    assert len(done) == 70
    assert len(caplog.records) == 10
    assert "on purpose" in caplog.text


def test_a_turn_within_a_turn_is_refused(supervisor, clock):
    refused: list[str] = []
    done: list[int] = []
    tick_tasks(supervisor, done)

    def turn():
        try:
            clock.advance(1)
        except RuntimeError as exc:
            refused.append(str(exc))

    supervisor.ticker.call_every(1, turn)
    clock.advance(10)
    assert len(refused) == 10
    assert all("already" in text for text in refused)


def test_supervisors_on_one_clock_are_turned_together(nt, supervisor, clock):
    """Also where the tasks of one run in a foreign executor."""
    seen: list[tuple[str, float]] = []
    with futures.ThreadPoolExecutor(1) as executor:
        others = [nt.TaskSupervisor(clock=clock), nt.TaskSupervisor(clock=clock)]
        others[1].thread_pool = executor
        for other in others:
            other.start()
        for name, one in (("one", supervisor), ("two", others[0]), ("foreign", others[1])):
            one.call_every(1, lambda name=name: seen.append((name, clock.monotonic())))
        clock.advance(50)
        for name in ("one", "two", "foreign"):
            assert [when for who, when in seen if who == name] == list(range(1, 51))
        assert [when for _, when in seen] == sorted(when for _, when in seen)
        for other in others:
            other.stop(cancel_tasks=True)


def test_a_supervisor_that_comes_or_goes_during_a_turn(nt, supervisor, clock):
    seen: list[float] = []
    done: list[int] = []
    tick_tasks(supervisor, done)

    def come():
        other = nt.TaskSupervisor(clock=clock)
        other.start()
        other.call_every(1, lambda: seen.append(clock.monotonic()))
        supervisor.call_later(5.5, partial(other.stop, cancel_tasks=True))

    supervisor.call_later(10, come)
    clock.advance(100)
    assert seen == [11, 12, 13, 14, 15]
    assert len(done) == 100


@pytest.fixture
def interruptible(nt):
    """Let Ctrl+C be heard, which who runs the tests in the background may have had ignored."""
    if not nt.COMPILED and sys.version_info >= (3, 14):
        pytest.skip("`with` a lock of Python may be interrupted with the lock taken there")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no signal reaches one thread there")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_turn_and_the_next_goes_on(nt, clock, supervisor):
    done: list[float] = []
    main = threading.main_thread()

    def note():
        done.append(clock.monotonic())
        if len(done) == 50:
            signal.pthread_kill(main.ident, signal.SIGINT)

    supervisor.call_every(1, note)
    with pytest.raises(KeyboardInterrupt):
        clock.advance(1e6)
    stopped = clock.monotonic()
    assert stopped < 1e6
    clock.advance(10)
    assert clock.monotonic() == stopped + 10
    # It may have struck the step that the main thread was in, and taken its place.
    assert done == sorted(set(done))
    assert done[-10:] == [stopped + n for n in range(1, 11)]
    assert len(done) >= int(stopped) + 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_by_what_is_fired_ends_alone(nt):
    code = """
        import os, threading, warnings
        import neotasker as nt
        from neotasker.testing import VirtualClock

        warnings.simplefilter("ignore", DeprecationWarning)
        clock = VirtualClock()
        supervisor = nt.TaskSupervisor(clock=clock)
        supervisor.start()
        done = []
        supervisor.call_every(1, done.append, 1)
        main = os.getpid()
        codes = []

        def fork():
            if threading.current_thread() is threading.main_thread():
                return
            pid = os.fork()
            if pid:
                codes.append(os.waitpid(pid, 0)[1])

        supervisor.ticker.call_every(10, fork)
        clock.advance(95)
        supervisor.stop(cancel_tasks=True)
        assert len(done) == 95
        assert len(codes) > 0
        print(set(codes))
    """
    ran = run_python(code)
    assert ran.rc == 0, ran.out + ran.err
    assert ran.out.strip() == "{0}"


def lead_in_the_pool(supervisor):
    """Have a pool thread take the steps, with no task after the first moments."""
    for n in range(200):
        supervisor.call_later(0.1 + n / 1000, int)


def interrupt_main_thread():
    """Interrupt who called `advance`, if that is another thread; return whether it was."""
    if threading.current_thread() is threading.main_thread():
        return False
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="no signal reaches one thread there")
@pytest.mark.usefixtures("interruptible")
def test_a_turn_that_was_interrupted_has_ended(nt, clock):
    """Also where what falls due later needs no task: nobody turns the clock any more."""
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    lead_in_the_pool(supervisor)
    release = threading.Event()
    inside: list[float] = []
    overlaps: list[float] = []
    late: list[float] = []
    struck: list[float] = []
    fired: list[float] = []

    def tick():
        now = clock.monotonic()
        fired.append(now)
        if inside:
            overlaps.append(now)
        inside.append(now)
        if now % 50 == 0 and not struck:
            struck.append(now)
            if interrupt_main_thread():
                release.wait(20)
                late.append(clock.monotonic())
            else:  # the machine is busy, and no pool thread came to lead
                struck.clear()
                lead_in_the_pool(supervisor)
        inside.remove(now)

    supervisor.ticker.call_every(1, tick)
    try:
        with pytest.raises(KeyboardInterrupt):
            clock.advance(2000)
        [moment] = struck
        assert inside == [moment]
        assert supervisor.spawn(pow, 2, 3).result(10) == 8  # another serves in its place
        timer = threading.Timer(0.05, release.set)
        timer.start()
        clock.advance(5)  # waits for the one that was given up
        timer.join()
        assert late == [moment]
        assert clock.monotonic() == moment + 5
        supervisor.spawn(int).result(10)
        assert clock.monotonic() == moment + 5
        assert overlaps == []
        assert fired == [float(n) for n in range(1, int(moment) + 6)]
    finally:
        release.set()
        supervisor.stop(cancel_tasks=True)


def test_a_moment_that_never_settles_is_reported(nt):
    """Each task sets off another, in a supervisor that pool threads had just found at rest."""
    from neotasker.testing import VirtualClock

    clock = VirtualClock(patience=0.3)
    one, two = nt.TaskSupervisor(clock=clock), nt.TaskSupervisor(clock=clock)
    one.start()
    two.start()
    ends = threading.Event()

    def ping():
        if not ends.is_set():
            two.spawn(pong)

    def pong():
        if not ends.is_set():
            one.spawn(ping)

    one.spawn(ping)
    with pytest.raises(RuntimeError, match="did not settle"):
        clock.advance(5)
    ends.set()
    clock.advance(5)
    one.stop()
    two.stop()


def test_each_moment_has_the_whole_patience(nt):
    from neotasker.testing import VirtualClock

    clock = VirtualClock(patience=0.6)
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    pause = threading.Event()
    supervisor.call_later(1, pause.wait, 0.45)
    supervisor.ticker.call_later(2, pause.wait, 0.45)
    supervisor.call_later(3, pause.wait, 0.45)
    clock.advance(4)
    assert clock.monotonic() == 4
    supervisor.stop()


@pytest.mark.parametrize("how", ["drained", "shut down"])
def test_a_callback_may_wait_for_all_that_the_pool_does(nt, clock, how):
    supervisor = nt.TaskSupervisor(clock=clock)
    supervisor.start()
    lead_in_the_pool(supervisor)
    pool = nt.TaskPool(2)
    dispatcher = supervisor.thread_pool._crew.dispatcher
    seen: list[object] = []
    pause = threading.Event()

    def wait():
        supervisor.spawn(pause.wait, 0.1)
        if how == "drained":
            seen.append(dispatcher.wait_drained(10))
        else:
            task = pool.submit(pause.wait, 0.1)
            pool.shutdown(wait=True)
            seen.append(task.done())

    for when in (10, 20):
        supervisor.ticker.call_later(when, wait)
    clock.advance(30)
    pool.shutdown()
    assert seen == ([True, True] if how == "drained" else [True])
    supervisor.stop()


def test_a_supervisor_that_was_started_again_is_turned(nt, clock, supervisor):
    """Timers are cleared by its stop; those of its next life fire."""
    seen: list[float] = []
    for life in range(3):
        supervisor.call_every(1, lambda: seen.append(clock.monotonic()))
        clock.advance(10)
        assert seen == [life * 10 + n for n in range(1, 11)]
        seen.clear()
        supervisor.stop(cancel_tasks=True)
        supervisor.start()


def test_a_stop_does_not_wait_for_the_turn(nt, clock, supervisor):
    other = nt.TaskSupervisor(clock=clock)
    other.start()
    lead_in_the_pool(other)
    stopped: list[float] = []
    reports: list[object] = []
    over = threading.Event()

    def stop():
        reports.append(other.stop(cancel_tasks=True))
        stopped.append(clock.monotonic())
        over.set()

    thread = threading.Thread(target=stop)

    def tick():
        if clock.monotonic() == 10:
            thread.start()
        over.wait(0.001)  # gives the stop time, as long as it is not over

    supervisor.ticker.call_every(1, tick)
    clock.advance(3000)
    thread.join()
    assert stopped[0] < 3000
    assert not reports[0].still_running


def test_a_clock_without_patience_turns_what_rests(nt):
    from neotasker.testing import VirtualClock

    clock = VirtualClock(patience=0)
    clock.advance(1)
    assert clock.monotonic() == 1


def test_turns_of_two_threads_never_turn_the_clock_back(nt, clock):
    seen: list[float] = []
    refused: list[RuntimeError] = []

    def turn(seconds):
        for _ in range(300):
            try:
                clock.advance(seconds)
            except RuntimeError as exc:
                refused.append(exc)
            seen.append(clock.monotonic())

    with switch_interval(1e-6), futures.ThreadPoolExecutor(2) as threads:
        done = [threads.submit(turn, seconds) for seconds in (100, 10)]
        before = 0.0
        while not all(one.done() for one in done):
            now = clock.monotonic()
            assert now >= before
            before = now
    for one in done:
        one.result()
    assert all("already" in str(exc) for exc in refused)


# The core.


def test_on_drained_is_called_when_the_last_task_has_ended(nt):
    calls: list[tuple[int, int, int]] = []
    with nt.TaskPool(3) as pool:
        dispatcher = pool._crew.dispatcher
        gate = threading.Event()
        first, second = pool.submit(gate.wait), pool.submit(gate.wait)
        dispatcher.set_on_drained(
            lambda: calls.append((dispatcher.active, dispatcher.waiting, dispatcher.idle))
        )
        assert not calls
        gate.set()
        futures.wait([first, second])
        wait_until(lambda: calls)
        assert all(call[:2] == (0, 0) for call in calls)
        dispatcher.set_on_drained(None)
        wait_until(lambda: dispatcher.idle == dispatcher.threads)
        calls.clear()
        pool.submit(int).result(10)
        assert dispatcher.wait_drained(10)
        wait_until(lambda: dispatcher.idle == dispatcher.threads)
        assert not calls


@pytest.mark.parametrize("size", [1, 3])
def test_a_thread_in_on_drained_serves_nobody_until_relieved(nt, size):
    gate, inside = threading.Event(), threading.Event()

    def hold():
        inside.set()
        gate.wait(20)

    with nt.TaskPool(size) as pool:
        dispatcher = pool._crew.dispatcher
        dispatcher.set_on_drained(hold)
        pool.submit(int).result(10)
        assert inside.wait(10)
        dispatcher.set_on_drained(None)
        barrier = threading.Barrier(size)
        tasks = [pool.submit(barrier.wait, 20) for _ in range(size)]
        dispatcher.relieve()
        dispatcher.relieve()
        done, late = futures.wait(tasks, 10)
        assert not late
        gate.set()
        wait_until(lambda: dispatcher.threads <= size)
        assert dispatcher.wait_drained(10)
        assert {task.result() for task in done} == set(range(size))


def test_an_error_in_on_drained_is_logged_and_the_thread_serves_on(nt, caplog):
    def fail():
        raise ZeroDivisionError("on purpose")

    with nt.TaskPool(1) as pool:
        pool._crew.dispatcher.set_on_drained(fail)
        for n in range(3):
            assert pool.submit(pow, n, 2).result(10) == n * n
            wait_until(lambda n=n: len(caplog.records) == n + 1)
        pool._crew.dispatcher.set_on_drained(None)


def test_on_drained_may_wait_for_tasks_of_its_pool(nt):
    results: list[int] = []

    def ask():
        while len(results) < 20:
            results.append(pool.submit(pow, 2, 3).result(10))

    with nt.TaskPool(1) as pool:
        dispatcher = pool._crew.dispatcher
        dispatcher.set_on_drained(ask)
        pool.submit(int)
        wait_until(lambda: len(results) == 20)
        dispatcher.set_on_drained(None)
        wait_until(lambda: dispatcher.threads <= 1)
        assert dispatcher.wait_drained(10)
        assert dispatcher.figures()["active"] == 0
    assert results == [8] * 20


@pytest.mark.parametrize("how", ["held", "relieved"])
def test_who_waits_for_the_last_task_is_told_though_a_thread_is_in_on_drained(nt, how):
    gate, inside = threading.Event(), threading.Event()

    def hold():
        inside.set()
        gate.wait(20)

    with nt.TaskPool(1) as pool:
        dispatcher = pool._crew.dispatcher
        dispatcher.set_on_drained(hold)
        pool.submit(int).result(10)
        assert inside.wait(10)
        dispatcher.set_on_drained(None)
        if how == "relieved":
            dispatcher.relieve()
        assert dispatcher.wait_drained(10)
        gate.set()


def test_who_waits_for_the_last_task_is_told_when_a_thread_steps_back(nt):
    """Between two tasks it waited for the last one, and so was aside when that ended."""
    gate = threading.Event()
    with nt.TaskPool(1) as pool:
        dispatcher = pool._crew.dispatcher
        dispatcher.set_on_drained(lambda: pool.submit(gate.wait, 20).result(20))
        pool.submit(int).result(10)
        wait_until(lambda: dispatcher.resting)
        dispatcher.set_on_drained(None)
        with futures.ThreadPoolExecutor(1) as other:
            drained = other.submit(dispatcher.wait_drained, 10)
            wait_until(lambda: drained.running())
            gate.set()
            assert drained.result(20)


def test_a_log_that_fails_costs_no_thread(nt, monkeypatch):
    failed: list[str] = []

    def fail(*args, **kwargs):
        failed.append("log")
        raise MemoryError

    def report():
        raise ZeroDivisionError

    with nt.TaskPool(1) as pool:
        dispatcher = pool._crew.dispatcher
        monkeypatch.setattr(logging.getLogger("neotasker"), "exception", fail)
        dispatcher.set_on_drained(report)
        for n in range(3):
            assert pool.submit(pow, n, 2).result(10) == n * n
            wait_until(lambda n=n: len(failed) == n + 1)
        dispatcher.set_on_drained(None)
        assert dispatcher.threads == 1
