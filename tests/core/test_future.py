"""The future's state machine: what the standard says, and what we add to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import queue
import sys
import threading
import weakref
from concurrent import futures

import pytest
from helpers import run_python, switch_interval, wait_until


def counts_references():
    """Return whether an object goes when the last reference to it does."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return gil and sys.implementation.name == "cpython"


@pytest.fixture
def future_type(nt):
    class Plain(nt.core.FutureCore, futures.Future):
        pass

    return Plain


@pytest.fixture
def pool(nt):
    with nt.TaskPool(4, "test") as pool:
        yield pool


def test_a_task_is_a_standard_future(pool):
    task = pool.submit(pow, 2, 8)
    assert isinstance(task, futures.Future)
    assert task.result(10) == 256
    assert task.exception() is None
    assert task.done() and not task.cancelled() and not task.running()


def test_a_future_ends_once(future_type):
    future = future_type()
    future.set_result(1)
    with pytest.raises(futures.InvalidStateError):
        future.set_result(2)
    with pytest.raises(futures.InvalidStateError):
        future.set_exception(ValueError())
    assert future.result() == 1


def test_a_running_future_cannot_be_cancelled(future_type):
    future = future_type()
    assert future.set_running_or_notify_cancel() is True
    assert future.running()
    assert future.cancel() is False
    future.set_result(None)
    assert not future.cancelled()


def test_a_cancelled_future_raises_cancelled_error(future_type):
    future = future_type()
    assert future.cancel() is True
    assert future.cancel() is True
    assert future.set_running_or_notify_cancel() is False
    with pytest.raises(futures.CancelledError):
        future.result()
    with pytest.raises(futures.CancelledError):
        future.exception()


def test_marking_a_finished_future_as_running_is_an_invalid_state(future_type, caplog):
    future = future_type()
    future.set_result(None)
    with pytest.raises(futures.InvalidStateError):
        future.set_running_or_notify_cancel()
    assert "unexpected state: FINISHED" in caplog.text


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_result_times_out(future_type, timeout):
    future = future_type()
    with pytest.raises(TimeoutError):
        future.result(timeout)
    with pytest.raises(TimeoutError):
        future.exception(timeout)
    future.set_result(3)
    assert future.result(timeout) == 3


def test_a_huge_timeout_waits(future_type):
    future = future_type()
    threading.Thread(target=future.set_result, args=(5,)).start()
    assert future.result(1e300) == 5


def test_every_waiter_is_woken(future_type):
    future = future_type()
    got: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: got.put(future.result(60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    future.set_result(7)
    for thread in threads:
        thread.join()
    assert [got.get() for _ in threads] == [7] * 8


def test_callbacks_run_once_each_in_order(future_type):
    future = future_type()
    seen: list[object] = []
    future.add_done_callback(lambda f: seen.append(("first", f)))
    future.add_done_callback(lambda f: seen.append(("second", f)))
    future.set_result(None)
    future.add_done_callback(lambda f: seen.append(("late", f)))
    assert seen == [("first", future), ("second", future), ("late", future)]


def test_an_exception_in_a_callback_is_logged_and_harms_nobody(future_type, caplog):
    future = future_type()
    seen: list[object] = []
    future.add_done_callback(lambda f: 1 / 0)
    future.add_done_callback(seen.append)
    future.set_result(None)
    future.add_done_callback(lambda f: 1 / 0)
    assert seen == [future]
    assert caplog.text.count("exception calling callback for") == 2
    assert caplog.text.count("ZeroDivisionError: ") == 2


def test_an_exception_nobody_retrieves_is_logged(pool, caplog):
    def fail():
        raise ValueError("nobody looks")

    task = pool.submit(fail)
    futures.wait([task])
    del task

    def logged():
        gc.collect()
        return "never retrieved" in caplog.text

    # The pool thread lets go of the task when it looks for the next one.
    pool.submit(int).result()
    wait_until(logged)
    assert "ValueError: nobody looks" in caplog.text


def test_the_end_of_the_interpreter_is_quiet_though_logging_has_gone(nt):
    ran = run_python(
        """
        from concurrent.futures import Executor, Future
        from neotasker import TaskPool

        class AtOnce(Executor):
            def submit(self, fn, /, *args, **kwargs):
                inner = Future()
                inner.set_result(fn(*args, **kwargs))
                return inner

        pool = TaskPool(1)
        pool.use_executor(AtOnce())
        task = pool.submit(int, "x")  # it goes with the last of the modules
        print(task.done())
        """
    )
    assert (ran.rc, ran.out, ran.err) == (0, "True\n", "")


def test_an_exception_that_holds_its_own_future_is_logged_whole(pool, caplog):
    class Failure(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.held = []

    def fail(failure):
        raise failure

    failure = Failure("in a circle")
    task = pool.submit(fail, failure)
    futures.wait([task])
    failure.held.append(task)
    del task, failure

    def logged():  # the collector finds the circle, and has taken nothing of it apart yet
        gc.collect()
        return "never retrieved" in caplog.text

    pool.submit(int).result()
    wait_until(logged)
    assert "Failure: in a circle" in caplog.text


@pytest.mark.parametrize("look", ["result", "exception", "await"])
def test_an_exception_somebody_retrieved_is_not_logged(pool, caplog, look):
    def fail():
        raise ValueError("seen")

    task = pool.submit(fail)
    if look == "result":
        with pytest.raises(ValueError, match="seen"):
            task.result(10)
    elif look == "exception":
        assert str(task.exception(10)) == "seen"
    else:

        async def wait(task):
            with pytest.raises(ValueError, match="seen"):
                await task

        asyncio.run(wait(task))
    del task
    pool.submit(int).result()
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_task_can_be_awaited(pool):
    async def main():
        return await pool.submit(pow, 3, 3), await asyncio.gather(
            pool.submit(int), pool.submit(str)
        )

    assert asyncio.run(main()) == (27, [0, ""])


def test_cancelling_an_awaiting_coroutine_cancels_the_waiting_task(nt):
    release = threading.Event()
    with nt.TaskPool(1) as pool:
        pool.submit(release.wait)
        task = pool.submit(int)

        async def main():
            waiter = asyncio.ensure_future(asyncio.wait_for(task, 0.01))
            with pytest.raises(asyncio.TimeoutError):
                await waiter

        asyncio.run(main())
        assert task.cancelled()
        release.set()


def test_wait_and_as_completed_of_the_standard_take_tasks(pool):
    tasks = [pool.submit(pow, 2, n) for n in range(20)]
    assert {task.result() for task in futures.as_completed(tasks, 10)} == {
        2**n for n in range(20)
    }
    done, pending = futures.wait(tasks, 10)
    assert len(done) == 20 and not pending


def test_wait_is_woken_by_a_cancellation_at_once(nt):
    release = threading.Event()
    with nt.TaskPool(1) as pool:
        pool.submit(release.wait)
        waiting = pool.submit(int)
        threading.Timer(0.05, waiting.cancel).start()
        done, _ = futures.wait([waiting], 30)
        assert done == {waiting}
        assert waiting._state == "CANCELLED_AND_NOTIFIED"
        release.set()


def test_wait_for_the_first_exception_ends_early(nt):
    release = threading.Event()
    with nt.TaskPool(2) as pool:
        blocked = pool.submit(release.wait)
        failing = pool.submit(divmod, 1, 0)
        done, pending = futures.wait([blocked, failing], 30, futures.FIRST_EXCEPTION)
        assert done == {failing} and pending == {blocked}
        release.set()


def test_waiting_through_the_standard_races_with_the_end_of_tasks(nt):
    with switch_interval(1e-6), nt.TaskPool(4) as pool:
        for _ in range(200):
            tasks = [pool.submit(int) for _ in range(5)]
            assert len(futures.wait(tasks, 30).done) == 5


def test_a_future_ends_once_among_racing_threads(future_type):
    with switch_interval(1e-6):
        for _ in range(200):
            future = future_type()
            called: list[object] = []
            future.add_done_callback(called.append)
            barrier = threading.Barrier(4)
            wins: list[str] = []

            def settle(name, act, barrier=barrier, wins=wins):
                barrier.wait()
                try:
                    if act():
                        wins.append(name)
                except futures.InvalidStateError:
                    pass

            acts = {
                "cancel": future.cancel,
                "one": lambda future=future: future.set_result(1) is None,
                "two": lambda future=future: future.set_result(2) is None,
            }
            threads = [threading.Thread(target=settle, args=item) for item in acts.items()]
            for thread in threads:
                thread.start()
            barrier.wait()
            for thread in threads:
                thread.join()
            assert len(wins) == 1
            assert called == [future]
            assert future.cancelled() == (wins == ["cancel"])


def test_snapshot_tells_all_of_one_moment(future_type):
    assert future_type()._get_snapshot() == (False, False, None, None)
    done = future_type()
    done.set_result(4)
    assert done._get_snapshot() == (True, False, 4, None)
    failed = future_type()
    error = ValueError()
    failed.set_exception(error)
    assert failed._get_snapshot() == (True, False, None, error)
    cancelled = future_type()
    cancelled.cancel()
    assert cancelled._get_snapshot() == (True, True, None, None)


def test_states_have_the_standard_names(future_type):
    future = future_type()
    assert future._state == "PENDING"
    future.set_running_or_notify_cancel()
    assert future._state == "RUNNING"
    future.set_result(2)
    assert future._state == "FINISHED"
    assert future._result == 2 and future._exception is None


def test_repr_names_state_and_outcome(future_type):
    future = future_type()
    assert "state=pending" in repr(future)
    future.set_result(1)
    assert "state=finished returned int" in repr(future)
    failed = future_type()
    failed.set_exception(KeyError("x"))
    assert "state=finished raised KeyError" in repr(failed)
    assert isinstance(failed.exception(), KeyError)


@pytest.mark.parametrize("keywords", [{}, {"x": 1}], ids=["positional", "keywords"])
def test_arguments_are_dropped_though_who_submitted_them_sleeps(nt, pool, keywords):
    class Thing:
        pass

    def submit():
        made.append(pool.submit(lambda *args, **kwargs: None, box.pop(), **keywords))
        wake.wait()

    box, made, wake = [Thing()], [], threading.Event()
    gone = weakref.ref(box[0])
    submitter = threading.Thread(target=submit)
    submitter.start()
    wait_until(lambda: made)
    made[0].result(10)
    if counts_references() or nt.COMPILED:  # the pure core cannot, without the GIL
        assert gone() is None
    wake.set()
    submitter.join()


def test_target_arguments_and_context_are_dropped_when_the_task_has_run(pool):
    class Thing:
        def method(self, other):
            return None

    target, argument = Thing(), Thing()
    refs = [weakref.ref(target), weakref.ref(argument)]
    task = pool.submit(target.method, argument)
    task.result(10)
    del target, argument
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_a_cancelled_task_drops_its_arguments_at_once(nt):
    class Thing:
        pass

    release = threading.Event()
    with nt.TaskPool(1) as pool:
        pool.submit(release.wait)
        argument = Thing()
        ref = weakref.ref(argument)
        task = pool.submit(print, argument)
        del argument
        assert task.cancel()
        gc.collect()
        assert ref() is None
        release.set()


def test_an_exception_does_not_keep_its_task_alive(pool):
    def fail():
        raise ValueError("gone")

    gc.disable()
    try:
        task = pool.submit(fail)
        assert isinstance(task.exception(10), ValueError)
        pool.submit(int).result()
        ref = weakref.ref(task)
        del task
        if not counts_references():
            gc.collect()
        assert ref() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("link", ["result", "attribute", "exception"])
def test_a_cycle_through_a_task_is_collected(pool, link):
    class Node:
        task = None

    def make():
        node = Node()
        error = ValueError("in a cycle")
        error.task = node

        def target():
            if link == "exception":
                raise error
            return node if link == "result" else 5

        node.task = task = pool.submit(target)
        futures.wait([task])
        if link == "attribute":
            task.extra = node
        assert task._get_snapshot()[0]
        return weakref.ref(node)

    ref = make()

    def collected():
        gc.collect()
        return ref() is None

    # The pool thread lets go of the task when it looks for the next one.
    pool.submit(int).result()
    assert wait_until(collected)


def test_base_exceptions_of_targets_end_the_task_and_not_the_thread(pool):
    for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError, RecursionError):

        def fail(kind=kind):
            raise kind("on purpose")

        with pytest.raises(kind, match="on purpose"):
            pool.submit(fail).result(10)
    assert pool.submit(pow, 2, 2).result(10) == 4


def test_the_traceback_of_a_task_leads_into_its_target(pool):
    def deep():
        raise LookupError("inside")

    with pytest.raises(LookupError) as caught:
        pool.submit(deep).result(10)
    assert caught.traceback[-1].name == "deep"


def test_logger_of_the_package_is_called_neotasker(pool, caplog):
    def fail():
        raise OSError("logged")

    with caplog.at_level(logging.ERROR, "neotasker"):
        task = pool.submit(fail)
        futures.wait([task])
        del task
        pool.submit(int).result()
        gc.collect()
    assert [r.name for r in caplog.records if "never retrieved" in r.message] == ["neotasker"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_at_any_line_of_a_future_goes_on_there(nt):
    # As a finalizer or the handler of a signal may fork anywhere, and return in the child.
    ran = run_python(
        """
        import os, sys, threading
        from concurrent import futures
        from neotasker.core import FutureCore

        class Plain(FutureCore, futures.Future):
            pass

        def use():
            seen = []
            future = Plain()
            future.add_done_callback(seen.append)
            future.set_result(1)
            cancelled = Plain()
            cancelled.cancel()
            assert (future.result(5), cancelled.cancelled(), seen) == (1, True, [future])

        def fork(frame, event, arg):
            if event == "line" and frame.f_code.co_filename.endswith("future.py"):
                sys.settrace(None)
                place = frame.f_lineno
                if place not in places and "concurrent" not in frame.f_code.co_filename:
                    places.add(place)
                    if os.fork() == 0:
                        here.append(place)
                        return None
                sys.settrace(fork)
            return fork

        places, here = set(), []
        try:
            sys.settrace(fork)
            use()
            sys.settrace(None)
            if here:  # in a child: other threads find all free
                threads = [threading.Thread(target=use, daemon=True)]
                threads[0].start()
                threads[0].join(10)
                os._exit(threads[0].is_alive())
        except BaseException as exc:
            if here:
                print("line", here, repr(exc), flush=True)
                os._exit(1)
            raise
        ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in places]
        print(len(places), any(ended))
        """
    )
    places, failed = ran.out.split()[-2:]
    assert failed == "False", ran.out
    assert nt.COMPILED or int(places) > 5
