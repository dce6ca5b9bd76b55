"""Aloops: coroutines from other threads, cancelling, stopping, and loops gone wrong."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from concurrent import futures

import pytest
from helpers import run_forked, run_python, switch_interval, wait_until


def factories():
    try:
        import uvloop
    except ImportError:
        return [None]
    return [None, uvloop.new_event_loop]


@pytest.fixture(params=factories(), ids=lambda factory: "uvloop" if factory else "asyncio")
def aloop(nt, request):
    aloop = nt.ALoop("one", "test", loop_factory=request.param)
    aloop.start()
    yield aloop
    aloop.stop(cancel_tasks=True)


async def forever():
    await asyncio.Event().wait()


async def returns(value):
    return value


def test_a_coroutine_gives_its_result_to_another_thread(aloop):
    async def slow(value):
        await asyncio.sleep(0.001)
        return value

    assert aloop.spawn_coroutine_threadsafe(returns(1)).result(10) == 1
    assert aloop.spawn_coroutine_threadsafe(slow(2)).result(10) == 2
    assert aloop.run_coroutine_threadsafe(slow(3)) == 3


def test_a_coroutine_gives_its_exception_to_another_thread(aloop):
    async def fails():
        raise ZeroDivisionError("at once")

    async def fails_later():
        await asyncio.sleep(0)
        raise ZeroDivisionError("later")

    for coro in (fails(), fails_later()):
        future = aloop.spawn_coroutine_threadsafe(coro)
        assert isinstance(future.exception(10), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        aloop.run_coroutine_threadsafe(fails())


def test_the_future_is_a_standard_future(aloop):
    future = aloop.spawn_coroutine_threadsafe(returns(7))
    assert isinstance(future, futures.Future)
    assert futures.wait([future], 10).done == {future}
    seen = []
    future.add_done_callback(lambda f: seen.append(f.result()))
    assert seen == [7]
    assert aloop.run_coroutine_threadsafe(asyncio.wait_for(returns_of(future), 10)) == 7


async def returns_of(future):
    return await future


def test_coroutines_run_in_the_order_in_which_they_were_handed_over(aloop):
    order = []

    async def note(n):
        order.append(n)

    for future in [aloop.spawn_coroutine_threadsafe(note(n)) for n in range(1000)]:
        future.result(10)
    assert order == list(range(1000))


def test_every_coroutine_of_many_threads_runs_once(aloop):
    results = []

    def spawn(base):
        mine = [aloop.spawn_coroutine_threadsafe(returns(base + n)) for n in range(2000)]
        results.extend(future.result(30) for future in mine)

    with switch_interval():
        threads = [threading.Thread(target=spawn, args=(k * 2000,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == list(range(8000))


def test_coroutines_carry_the_context_of_who_spawned_them(aloop):
    var = contextvars.ContextVar("var", default="none")

    async def read():
        first = var.get()
        await asyncio.sleep(0)
        return first, var.get()

    var.set("mine")
    assert aloop.run_coroutine_threadsafe(read()) == ("mine", "mine")


def test_a_coroutine_runs_as_the_current_task(aloop):
    async def task():
        async with asyncio.timeout(10):
            return asyncio.current_task() is not None

    assert aloop.run_coroutine_threadsafe(task()) is True


def test_a_task_factory_of_the_loop_is_used(aloop):
    made = []

    def factory(loop, coro, **kwargs):
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def install():
        asyncio.get_running_loop().set_task_factory(factory)

    aloop.run_coroutine_threadsafe(install())
    assert aloop.run_coroutine_threadsafe(returns(5)) == 5
    assert len(made) == 1


def test_the_loop_holds_what_was_spawned(aloop):
    """Loops hold tasks weakly: a coroutine that nobody waits for must not vanish."""
    done = threading.Event()
    waiting = []

    async def fire_and_forget():
        future = asyncio.get_running_loop().create_future()
        waiting.append(weakref.ref(future))
        started.set()
        await future
        done.set()

    started = threading.Event()
    aloop.spawn_coroutine_threadsafe(fire_and_forget())
    assert started.wait(10)
    gc.collect()
    future = waiting[0]()
    assert future is not None
    aloop.call_soon(future.set_result, None)
    assert done.wait(10)


def test_create_task_in_the_loop_is_held_too(aloop):
    done = threading.Event()

    async def work():
        await asyncio.sleep(0.01)
        done.set()

    aloop.call_soon(lambda: aloop.create_task(work(), name="mine"))
    gc.collect()
    assert done.wait(10)


def test_call_soon_calls_in_the_loops_thread(aloop):
    seen = threading.Event()
    where = []
    aloop.call_soon(
        lambda *args: (where.append((threading.current_thread(), args)), seen.set()), 1
    )
    assert seen.wait(10)
    assert where == [(aloop.thread, (1,))]


def test_an_exception_in_call_soon_is_logged_and_the_loop_goes_on(aloop, caplog):
    aloop.call_soon(lambda: 1 / 0)
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1
    assert "ZeroDivisionError" in caplog.text


# Cancelling.


def test_cancelling_the_future_cancels_the_coroutine(aloop):
    started, cancelled = threading.Event(), threading.Event()

    async def work():
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    future = aloop.spawn_coroutine_threadsafe(work())
    assert started.wait(10)
    assert future.cancel()
    assert future.cancelled()
    assert cancelled.wait(10)
    with pytest.raises(futures.CancelledError):
        future.result()
    assert future.cancel()


def test_a_cancelled_future_stays_cancelled_whatever_the_coroutine_does(aloop, caplog):
    started = threading.Event()

    async def stubborn(outcome):
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if outcome is not None:
                raise outcome from None

    for outcome in (None, ZeroDivisionError("late")):
        started.clear()
        future = aloop.spawn_coroutine_threadsafe(stubborn(outcome))
        assert started.wait(10)
        future.cancel()
        aloop.run_coroutine_threadsafe(asyncio.sleep(0.01))
        assert future.cancelled()
    assert "late" in caplog.text


def test_stop_waits_until_a_cancelled_coroutine_has_ended(nt):
    """Cancel returns before the coroutine has ended; stop must not."""
    aloop = nt.ALoop("one", "test")
    aloop.start()
    started = threading.Event()
    ended = []

    async def slow_to_end():
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            ended.append(True)

    future = aloop.spawn_coroutine_threadsafe(slow_to_end())
    assert started.wait(10)
    assert future.cancel()
    assert not ended
    aloop.stop()
    assert ended == [True]


def test_a_coroutine_that_cancels_itself_gives_a_cancelled_future(aloop):
    async def gives_up():
        raise asyncio.CancelledError

    future = aloop.spawn_coroutine_threadsafe(gives_up())
    with pytest.raises(futures.CancelledError):
        future.result(10)


def test_done_coroutine_cannot_be_cancelled(aloop):
    future = aloop.spawn_coroutine_threadsafe(returns(1))
    assert future.result(10) == 1
    assert not future.cancel()


# Bad input.


@pytest.mark.parametrize("wrong", [None, 5, "coro", int])
def test_what_is_not_a_coroutine_is_named(aloop, wrong):
    with pytest.raises(TypeError, match="a coroutine is needed"):
        aloop.spawn_coroutine_threadsafe(wrong)
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1


def test_a_coroutine_function_is_told_to_be_called(aloop):
    with pytest.raises(TypeError, match="call it first"):
        aloop.spawn_coroutine_threadsafe(forever)


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf")])
def test_bad_wait_is_refused_and_the_aloop_runs_on(aloop, wait):
    with pytest.raises(ValueError, match="wait must be"):
        aloop.stop(wait)
    with pytest.raises(TypeError, match="wait must be"):
        aloop.stop("soon")
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1


def test_loop_factory_must_make_a_loop(nt):
    with pytest.raises(TypeError, match="loop_factory"):
        nt.ALoop("one", loop_factory=5)
    aloop = nt.ALoop("one", loop_factory=lambda: 5)
    with pytest.raises(TypeError, match="not 5"):
        aloop.start()
    assert not aloop.active


def test_run_in_the_own_thread_raises_instead_of_hanging(nt, aloop):
    async def inside():
        inner = returns(1)
        with pytest.raises(nt.AloopError, match="wait for itself"):
            aloop.run_coroutine_threadsafe(inner)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await inner
        return "went on"

    assert aloop.run_coroutine_threadsafe(inside()) == "went on"


def test_a_coroutine_given_to_an_aloop_that_does_not_run_is_closed(nt):
    aloop = nt.ALoop("one", "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            for give in (aloop.spawn_coroutine_threadsafe, aloop.run_coroutine_threadsafe):
                coro = returns(1)
                with pytest.raises(nt.AloopError, match="start"):
                    give(coro)
                with pytest.raises(RuntimeError, match="cannot reuse"):
                    coro.send(None)
            with pytest.raises(nt.AloopError):
                aloop.call_soon(int)
            aloop.start()
            aloop.stop()
        gc.collect()


# Life.


def test_names_threads_and_state(nt):
    aloop = nt.ALoop("one", "test", daemon=True)
    assert (aloop.name, aloop.active, aloop.get_loop()) == ("one", False, None)
    assert aloop.start() is True
    assert aloop.start() is False
    assert aloop.active
    assert aloop.thread.name == "supervisor_test_aloop_one"
    assert aloop.thread.daemon
    loop = aloop.get_loop()
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert loop.is_running()
    aloop.stop()
    assert (aloop.active, aloop.get_loop()) == (False, None)
    assert loop.is_closed()
    assert not aloop.thread.is_alive()


def test_stop_before_start_and_twice_is_harmless(nt):
    aloop = nt.ALoop("one", "test")
    aloop.stop()
    aloop.start()
    aloop.stop()
    aloop.stop()
    assert not aloop.active


def test_an_aloop_can_be_started_again(nt):
    aloop = nt.ALoop("one", "test")
    for n in range(3):
        aloop.start()
        assert aloop.run_coroutine_threadsafe(returns(n)) == n
        aloop.stop()
    assert not aloop.active


def test_stop_waits_for_the_coroutines(aloop):
    done = []

    async def work():
        await asyncio.sleep(0.05)
        done.append(1)

        async def child():
            await asyncio.sleep(0.05)
            done.append(2)

        aloop.create_task(child())

    future = aloop.spawn_coroutine_threadsafe(work())
    aloop.stop()
    assert done == [1, 2]
    assert future.done()


def test_stop_with_cancel_tasks_cancels_at_once(aloop):
    future = aloop.spawn_coroutine_threadsafe(forever())
    aloop.stop(cancel_tasks=True)
    assert future.cancelled()
    assert aloop.cancelled == 1


def test_stop_with_seconds_cancels_after_them(aloop):
    quick = aloop.spawn_coroutine_threadsafe(asyncio.sleep(0.01, "done"))
    future = aloop.spawn_coroutine_threadsafe(forever())
    began = time.monotonic()
    aloop.stop(wait=0.1)
    assert 0.1 <= time.monotonic() - began < 2
    assert future.cancelled()
    assert quick.result() == "done"


def test_stop_without_wait_returns_and_lets_coroutines_end(aloop, nt):
    release = threading.Event()

    async def work():
        while not release.is_set():
            await asyncio.sleep(0.001)
        return "done"

    future = aloop.spawn_coroutine_threadsafe(work())
    thread = aloop.thread
    aloop.stop(wait=False)
    assert not aloop.active
    assert thread.is_alive()
    with pytest.raises(nt.AloopError):
        aloop.spawn_coroutine_threadsafe(returns(1))
    release.set()
    assert future.result(10) == "done"
    thread.join(10)
    assert not thread.is_alive()


def test_an_aloop_may_be_started_while_its_former_run_winds_up(nt):
    aloop = nt.ALoop("one", "test")
    aloop.start()
    first = aloop.thread
    old = aloop.spawn_coroutine_threadsafe(forever())
    aloop.stop(wait=False)
    aloop.start()
    assert aloop.run_coroutine_threadsafe(returns(2)) == 2
    old.cancel()
    first.join(10)
    assert not first.is_alive()
    assert aloop.active
    aloop.stop()


def test_stop_from_the_own_thread_does_not_deadlock(aloop):
    async def stops():
        aloop.stop(wait=True)
        await asyncio.sleep(0.01)
        return "ended"

    assert aloop.run_coroutine_threadsafe(stops()) == "ended"
    aloop.thread.join(10)
    assert not aloop.thread.is_alive()


def test_stop_from_the_own_thread_with_seconds_cancels_after_them(aloop):
    blocked = aloop.spawn_coroutine_threadsafe(forever())

    async def stops():
        aloop.stop(wait=0.05)

    aloop.run_coroutine_threadsafe(stops())
    with pytest.raises(futures.CancelledError):
        blocked.result(10)
    aloop.thread.join(10)
    assert not aloop.thread.is_alive()


def test_asynchronous_generators_and_the_default_executor_are_shut_down(aloop):
    closed = []

    async def generator():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    kept = []

    async def use():
        agen = generator()
        kept.append(agen)
        await agen.__anext__()
        return await asyncio.to_thread(threading.current_thread)

    thread = aloop.run_coroutine_threadsafe(use())
    aloop.stop()
    assert closed == [True]
    assert not thread.is_alive()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("at_once", [True, False])
def test_what_would_end_a_program_ends_the_coroutine_only(aloop, error, at_once):
    async def fails():
        if not at_once:
            await asyncio.sleep(0)
        raise error("from a coroutine")

    future = aloop.spawn_coroutine_threadsafe(fails())
    assert isinstance(future.exception(10), error)
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1


# A loop that somebody else stopped or closed.


def test_a_loop_stopped_behind_our_back_is_noticed(nt, aloop, caplog):
    future = aloop.spawn_coroutine_threadsafe(forever())
    loop = aloop.get_loop()
    loop.call_soon_threadsafe(loop.stop)
    with pytest.raises(futures.CancelledError):
        future.result(10)
    aloop.thread.join(10)
    assert not aloop.active
    assert "stopped or closed by somebody else" in caplog.text
    with pytest.raises(nt.AloopError):
        aloop.spawn_coroutine_threadsafe(returns(1))
    aloop.stop()
    aloop.start()
    assert aloop.run_coroutine_threadsafe(returns(1)) == 1


def test_a_call_to_a_loop_that_was_stopped_does_not_hang(nt, aloop):
    """The call ends, one way or the other: with a result, cancelled, or refused."""
    loop = aloop.get_loop()
    ended = 0

    def call():
        nonlocal ended
        for _ in range(2000):
            try:
                aloop.spawn_coroutine_threadsafe(returns(1)).result(10)
            except (nt.AloopError, futures.CancelledError):
                ended += 1

    threads = [threading.Thread(target=call) for _ in range(3)]
    with switch_interval():
        for thread in threads:
            thread.start()
        loop.call_soon_threadsafe(loop.stop)
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert ended
    assert not aloop.active


def test_a_loop_stopped_while_it_winds_up_is_wound_up_all_the_same(nt):
    aloop = nt.ALoop("one", "test")
    aloop.start()
    loop = aloop.get_loop()

    async def work():
        await asyncio.sleep(0.02)
        loop.stop()
        await asyncio.sleep(0.02)
        return "done"

    future = aloop.spawn_coroutine_threadsafe(work())
    aloop.stop()
    assert future.result(0) == "done"
    assert not aloop.thread.is_alive()


def test_stop_races_with_spawn_and_no_future_is_left(nt):
    for _ in range(8):
        aloop = nt.ALoop("one", "test")
        aloop.start()
        handed = []

        def spawn(aloop=aloop, handed=handed):
            try:
                while True:
                    handed.append(aloop.spawn_coroutine_threadsafe(asyncio.sleep(0.0005)))
            except nt.AloopError:
                pass

        with switch_interval():
            threads = [threading.Thread(target=spawn) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(0.005)
            aloop.stop()
            for thread in threads:
                thread.join()
        assert all(future.done() for future in handed)


# What is left behind.


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="others do not count")
@pytest.mark.parametrize("at_once", [True, False])
def test_a_coroutine_that_fails_leaves_its_frame_to_nobody(aloop, at_once):
    class Big:
        pass

    held = []

    async def fails():
        big = Big()
        held.append(weakref.ref(big))
        if not at_once:
            await asyncio.sleep(0)
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        assert isinstance(aloop.spawn_coroutine_threadsafe(fails()).exception(10), ValueError)
        wait_until(lambda: held[0]() is None)
        with contextlib.suppress(ValueError):
            aloop.run_coroutine_threadsafe(fails())
        wait_until(lambda: held[1]() is None)
    finally:
        gc.enable()


def test_a_runtime_error_of_the_loop_does_not_shut_it(nt):
    class Moody(asyncio.SelectorEventLoop):
        moody = False

        def call_soon_threadsafe(self, *args, **kwargs):
            if self.moody:
                raise RuntimeError("not now")
            return super().call_soon_threadsafe(*args, **kwargs)

    aloop = nt.ALoop("one", "test", loop_factory=Moody)
    aloop.start()
    aloop.loop.moody = True
    with pytest.raises(RuntimeError, match="not now"):
        aloop.spawn_coroutine_threadsafe(returns(1))
    with pytest.raises(RuntimeError, match="not now"):
        aloop.call_soon(int)
    aloop.loop.moody = False
    assert aloop.run_coroutine_threadsafe(returns(2)) == 2
    aloop.stop()


# Loops of others.


def test_a_foreign_loop_has_the_face_of_an_aloop(nt):
    async def main():
        loop = asyncio.get_running_loop()
        port = nt.loops.port.ForeignLoop(loop)
        assert port.active
        assert port.get_loop() is loop

        def elsewhere():
            return port.run_coroutine_threadsafe(returns(5))

        assert await asyncio.to_thread(elsewhere) == 5
        with pytest.raises(nt.AloopError, match="wait for itself"):
            port.run_coroutine_threadsafe(returns(1))
        seen = asyncio.Event()
        port.call_soon(seen.set)
        await asyncio.wait_for(seen.wait(), 10)
        return port

    port = asyncio.run(main())
    assert not port.active
    with pytest.raises(nt.AloopError, match="closed"):
        port.spawn_coroutine_threadsafe(returns(1))


def test_what_waits_for_a_foreign_loop_ends_when_that_is_closed(nt):
    loop = asyncio.new_event_loop()
    port = nt.loops.port.ForeignLoop(loop)
    future = port.spawn_coroutine_threadsafe(returns(1))
    loop.close()
    with pytest.raises(nt.AloopError):
        port.call_soon(int)
    with pytest.raises(futures.CancelledError):
        future.result(0)
    with pytest.raises(TypeError, match="asyncio loop"):
        nt.loops.port.ForeignLoop(5)


# Forks.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_finds_its_aloops_inactive(nt):
    ran = run_forked(
        """
        import asyncio
        from neotasker import ALoop
        aloop = ALoop("one", "test")
        aloop.start()
        async def work(value):
            return value
        pending = aloop.spawn_coroutine_threadsafe(asyncio.sleep(3))
        """,
        """
        assert not aloop.active
        assert pending.cancelled()
        aloop.stop()
        aloop.start()
        assert aloop.run_coroutine_threadsafe(work(1)) == 1
        aloop.stop()
        """,
        """
        assert aloop.run_coroutine_threadsafe(work(2)) == 2
        aloop.stop(cancel_tasks=True)
        """,
    )
    assert (ran.rc, ran.err) == (0, "")


FORKS = """
import asyncio, os, sys, time, warnings
warnings.simplefilter("ignore")
from neotasker import background_worker, task_supervisor as s
s.start()
aloop = s.create_aloop("one", default=True)
parent = os.getpid()
children = []

def note(what):
    if os.getpid() != parent:
        os.write(1, what.encode())
        os._exit(1)

def fork():
    pid = os.fork()
    if pid:
        children.append(pid)
    return pid

async def at_once():
    return fork()

async def later():
    await asyncio.sleep(0.01)
    return fork()

async def and_waits():
    pid = await later()
    await asyncio.sleep(0.01)
    note("it went on")
    return pid

async def beside(n):
    note("another began")
    await asyncio.sleep(0.03)
    note("another went on")
    return n
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    "how",
    [
        "aloop.spawn_coroutine_threadsafe(at_once())",
        "aloop.spawn_coroutine_threadsafe(later())",
        "aloop.spawn_coroutine_threadsafe(and_waits())",
        "aloop.call_soon(fork)",
        "s.create_async_job_scheduler('jobs').create_threadsafe(at_once)",
        "background_worker(interval=60)(later).start()",
        "background_worker(interval=60)(at_once).start()",
    ],
)
def test_a_child_that_a_coroutine_forked_ends_when_it_lets_go_of_the_loop(nt, how):
    ran = run_python(
        FORKS
        + f"""
aloop.call_soon(time.sleep, 0.05)  # so that all that follows comes in at once
forking = {how}
if hasattr(forking, "add_done_callback"):
    forking.add_done_callback(lambda _: note("a callback was called"))
others = [aloop.spawn_coroutine_threadsafe(beside(n)) for n in range(5)]
assert [other.result(10) for other in others] == list(range(5))
while not children:
    time.sleep(0.01)
assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
assert aloop.run_coroutine_threadsafe(beside(7)) == 7
print(s.stop(timeout=10).clean)
"""
    )
    assert (ran.rc, ran.out, ran.err) == (0, "True\n", "")


def test_what_an_aloop_logs_names_supervisor_and_aloop(nt, caplog):
    with caplog.at_level(logging.INFO, "neotasker"):
        aloop = nt.ALoop("one", "test")
        aloop.start()
        aloop.stop()
    wait_until(lambda: "supervisor test aloop one finished" in caplog.text)
    assert "supervisor test aloop one started" in caplog.text
