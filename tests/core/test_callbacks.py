"""Callbacks of futures: chains of any length, and what they raise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import itertools
import signal
import sys
import threading
from concurrent import futures
from typing import Any

import pytest
from helpers import run_python, switch_interval, wait_until

LONG = 30_000


@pytest.fixture
def make(nt):
    return nt.pool.task.Task


@pytest.fixture
def ctrl_c():
    """Have SIGINT raise KeyboardInterrupt: it is ignored where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def _link(how: str, first: Any, second: Any, seen: list[int], number: int) -> None:
    if how == "builtin":
        first.add_done_callback(second.set_result)
    elif how == "function":

        def end(future: Any) -> None:
            seen.append(number)
            second.set_result(None)

        first.add_done_callback(end)
    elif how == "cancel":
        first.add_done_callback(lambda f: second.cancel())
    else:
        first.add_done_callback(lambda f: second.set_exception(f.exception() or ValueError()))


@pytest.mark.parametrize("how", ["builtin", "function", "cancel", "exception"])
def test_a_chain_of_any_length_completes(make, how):
    chain = [make() for _ in range(LONG)]
    seen: list[int] = []
    for number, (first, second) in enumerate(itertools.pairwise(chain)):
        _link(how, first, second, seen, number)
    chain[0].cancel() if how == "cancel" else chain[0].set_result(None)
    assert all(future.done() for future in chain)
    assert seen == (list(range(LONG - 1)) if how == "function" else [])
    if how == "exception":
        assert all(future.exception() is not None for future in chain[1:])


def test_a_chain_completes_in_a_thread_of_the_pool(nt, make):
    chain = [make() for _ in range(LONG)]
    for first, second in itertools.pairwise(chain):
        first.add_done_callback(second.set_result)
    with nt.TaskPool(2) as pool:
        go_on = threading.Event()
        task = pool.submit(go_on.wait)
        task.add_done_callback(chain[0].set_result)
        go_on.set()
        chain[-1].result(60)
    assert all(future.done() for future in chain)


def test_a_chain_of_callbacks_of_ended_futures_completes(make):
    count = 0

    def again(future: Any) -> None:
        nonlocal count
        count += 1
        if count < LONG:
            future.add_done_callback(again)

    future = make()
    future.set_result(None)
    future.add_done_callback(again)
    assert count == LONG


def test_a_tree_of_callbacks_runs_each_once(make):
    """Each future ends two others: what is put off is a crowd."""
    nodes = [make() for _ in range(2**13 - 1)]
    calls = [0] * len(nodes)
    for number, node in enumerate(nodes):

        def count(future: Any, number: int = number) -> None:
            calls[number] += 1

        node.add_done_callback(count)
        for child in nodes[2 * number + 1 : 2 * number + 3]:
            node.add_done_callback(child.set_result)
    nodes[0].set_result(None)
    assert calls == [1] * len(nodes)


@pytest.mark.parametrize("length", [2, 5, 20])
def test_in_a_short_chain_callbacks_have_run_when_the_call_returns(make, length):
    """So it is with the standard's futures."""
    log: dict[type, list[Any]] = {}
    for kind in (make, futures.Future):
        seen = log[kind] = []
        chain = [kind() for _ in range(length)]

        def link(number: int, chain: Any = chain, seen: list[Any] = seen) -> None:
            def end(future: Any) -> None:
                seen.append(("begin", number))
                if number + 1 < len(chain):
                    chain[number + 1].set_result(number)
                seen.append(("end", number))

            chain[number].add_done_callback(end)
            chain[number].add_done_callback(lambda f: seen.append(("second", number)))

        for number in range(length):
            link(number)
        chain[0].set_result(None)
    assert log[make] == log[futures.Future]


def test_deep_in_a_chain_callbacks_are_put_off_until_the_call_has_returned(make):
    chain = [make() for _ in range(100)]
    order: list[tuple[str, int]] = []
    for number, (first, second) in enumerate(itertools.pairwise(chain)):

        def end(future: Any, second: Any = second, number: int = number) -> None:
            order.append(("begin", number))
            second.set_result(None)
            assert second.done() and second.result(0) is None
            order.append(("end", number))

        first.add_done_callback(end)
    chain[0].set_result(None)
    assert [n for word, n in order if word == "begin"] == list(range(99))
    assert order[:2] == [("begin", 0), ("begin", 1)]  # nested as long as it is not deep
    assert order[120:122] == [("end", 76), ("begin", 77)] or order[-1] == ("end", 0)
    assert sorted(n for word, n in order if word == "end") == list(range(99))


@pytest.mark.parametrize("where", [0, 1, 40, 299])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_in_a_chain_gets_through_and_the_chain_completes(make, where, error):
    chain = [make() for _ in range(300)]
    told: list[Any] = []

    def fail(future: Any) -> None:
        raise error("on purpose")

    chain[where].add_done_callback(fail)
    for first, second in itertools.pairwise(chain):
        first.add_done_callback(second.set_result)
    chain[where].add_done_callback(told.append)
    with pytest.raises(error, match="on purpose"):
        chain[0].set_result(None)
    assert all(future.done() for future in chain)
    assert told == [chain[where]]
    after = make()
    after.add_done_callback(told.append)
    after.set_result(None)  # nothing of it is left in the thread
    assert told[1:] == [after]


@pytest.mark.parametrize("end", ["set_result", "set_exception", "cancel", "late"])
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_callback_reaches_who_ended_the_future(make, end, ctrl_c, caplog):
    future = make()
    told: list[Any] = []
    waiter = threading.Thread(target=lambda: told.append(("waited", futures.wait([future]))))
    waiter.start()
    wait_until(lambda: "_standard" in future.__dict__ or future._waiters)
    calls: list[Any] = [lambda f: told.append(1), lambda f: ctrl_c(), lambda f: told.append(2)]
    if end == "late":
        future.set_result(None)
        with pytest.raises(KeyboardInterrupt):
            future.add_done_callback(calls[1])
    else:
        for fn in calls:
            future.add_done_callback(fn)
        argument = {"set_result": (5,), "set_exception": (ValueError(),), "cancel": ()}[end]
        with pytest.raises(KeyboardInterrupt):
            getattr(future, end)(*argument)
        assert [t for t in told if t in (1, 2)] == [1, 2]
    waiter.join(10)
    assert any(t not in (1, 2) for t in told)
    assert future.done()
    assert "exception calling callback" not in caplog.text
    assert future.cancelled() is (end == "cancel")
    if end == "set_exception":
        future.exception()


def test_one_of_two_interrupts_is_raised_and_the_other_logged(make, caplog):
    def fail(error: BaseException) -> Any:
        def callback(future: Any) -> None:
            raise error

        return callback

    future = make()
    future.add_done_callback(fail(KeyboardInterrupt("first")))
    future.add_done_callback(fail(SystemExit("second")))
    with pytest.raises(KeyboardInterrupt, match="first"):
        future.set_result(None)
    assert "SystemExit: second" in caplog.text


def test_in_other_threads_what_callbacks_raise_is_logged(make, caplog):
    def fail(future: Any) -> None:
        raise SystemExit("in a thread")

    went_on = []
    future = make()
    future.add_done_callback(fail)

    def end():
        future.set_result(None)
        went_on.append(True)

    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert went_on and "SystemExit: in a thread" in caplog.text


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_task_that_submit_runs_reaches_the_submitter(nt, ctrl_c):
    tasks: list[Any] = []

    def target() -> None:
        ctrl_c()

    with nt.TaskPool(1, queue_size=1, when_full="run") as pool:
        begun, go_on = threading.Event(), threading.Event()
        busy = pool.submit(lambda: (begun.set(), go_on.wait(10)))
        assert begun.wait(10)
        queued = pool.submit(int)
        with pytest.raises(KeyboardInterrupt):
            tasks.append(pool.submit(target))
        go_on.set()
        futures.wait([busy, queued])
        assert pool.submit(pow, 2, 3).result(10) == 8
        wait_until(lambda: pool.active == 0)
    assert not tasks


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_an_executor_takes_a_task_reaches_the_submitter(nt, ctrl_c):
    class Slow(futures.ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            if armed:
                armed.clear()
                ctrl_c()
            return super().submit(fn, *args, **kwargs)

    armed = [True]
    with Slow(1) as threads, nt.TaskPool(1) as pool:
        pool.use_executor(threads)
        with pytest.raises(KeyboardInterrupt):
            pool.submit(int)
        assert pool.submit(pow, 2, 3).result(10) == 8
        wait_until(lambda: (pool.active, pool.outstanding) == (0, 0))
        pool.use_executor(None)


def test_all_tasks_are_cancelled_though_a_callback_is_interrupted(nt):
    def fail(future: Any) -> None:
        raise KeyboardInterrupt

    go_on = threading.Event()
    pool = nt.TaskPool(1)
    pool.submit(go_on.wait)
    tasks = [pool.submit(int) for _ in range(5)]
    tasks[1].add_done_callback(fail)
    with pytest.raises(KeyboardInterrupt):
        pool.shutdown(wait=False, cancel_futures=True)
    assert all(task.cancelled() for task in tasks)
    go_on.set()
    pool.shutdown()


# At the limit of recursion.


@pytest.mark.parametrize("act", ["set_result", "cancel", "add_done_callback", "result"])
def test_near_the_limit_of_recursion_a_call_does_all_or_nothing(make, act):
    def at_depth(depth: int, call: Any) -> Any:
        return call() if depth <= 0 else at_depth(depth - 1, call)

    here, frame = 0, sys._getframe()
    while frame is not None:
        here, frame = here + 1, frame.f_back
    limit = sys.getrecursionlimit() - here
    done = set()
    for depth in range(limit - 40, limit + 2):
        future = make()
        woken: list[Any] = []
        waiter = threading.Thread(target=lambda f=future, w=woken: w.append(futures.wait([f])))
        called: list[Any] = []
        future.add_done_callback(called.append)
        calls = {
            "set_result": lambda f=future: f.set_result(1),
            "cancel": future.cancel,
            "add_done_callback": lambda f=future, c=called: f.add_done_callback(c.append),
            "result": lambda f=future: f.result(1e-9),
        }
        try:
            at_depth(depth, calls[act])
            done.add(True)
        except (RecursionError, TimeoutError) as exc:
            done.add(isinstance(exc, TimeoutError))
            assert not future.done()
            del called[:]
            future.set_result(2)
        if not future.done():
            future.set_result(3)
        waiter.start()
        waiter.join(10)
        assert woken and called
    assert done == {True, False}  # it went to the limit, and not only there


# Signal handlers and finalizers.


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers of the system")
@pytest.mark.parametrize("same", [False, True], ids=["another", "the same"])
def test_a_signal_handler_may_wait_for_a_future_wherever_it_strikes(nt, make, same):
    """The main thread may be anywhere in a call to a future; nothing is held there."""
    stop = threading.Event()
    asked: list[Any] = []
    handled = 0

    def end() -> None:
        while not stop.is_set():
            while asked:
                future = asked.pop()
                with contextlib.suppress(futures.InvalidStateError):
                    future.set_result(1)
            stop.wait(0.0001)

    def handler(*_: object) -> None:
        nonlocal handled
        if stop.is_set() or not wanted:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        future = wanted[-1]
        asked.append(future)
        with contextlib.suppress(futures.CancelledError, ValueError):
            future.result(20)
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0003)

    wanted: list[Any] = []
    before = signal.signal(signal.SIGALRM, handler)
    thread = threading.Thread(target=end)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while handled < 150:
            future = make()
            wanted[:] = [future if same else make()]
            called: list[Any] = []
            for _ in range(5):
                future.add_done_callback(called.append)
            if handled % 2:
                with future._condition:  # as the standard's functions do
                    assert future._state
            try:
                future.set_running_or_notify_cancel()
                if handled % 3 == 0:
                    future.set_result(1)
                elif handled % 3 == 1:
                    future.set_exception(ValueError())
                else:
                    future.cancel()
            except futures.InvalidStateError:
                assert same
            with contextlib.suppress(futures.InvalidStateError):  # the handler had it ended
                future.set_result(2)
            future.add_done_callback(called.append)
            with contextlib.suppress(futures.CancelledError):
                future.exception(10)
            wait_until(lambda c=called: len(c) == 6)
    finally:
        stop.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        thread.join()


def test_a_finalizer_may_end_and_wait_for_futures(make):
    """The collector runs it within whatever call makes an object."""

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            for future in list(pending):
                if not future.done():
                    future.cancel()
            other = make()
            other.set_result(1)
            ended.append(other.result(1))

    pending: list[Any] = []
    ended: list[int] = []
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            Cycle()
            future = make()
            pending[:] = [future]
            called: list[Any] = []
            future.add_done_callback(called.append)
            try:
                future.set_result(1)
            except futures.InvalidStateError:
                assert future.cancelled()
            assert called == [future]
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert ended


def test_callbacks_that_come_while_the_future_ends_run_once(make):
    with switch_interval(1e-6):
        for _ in range(100):
            future = make()
            barrier = threading.Barrier(4)
            calls: list[Any] = []

            def add(barrier=barrier, future=future, calls=calls) -> None:
                barrier.wait()
                for _ in range(20):
                    future.add_done_callback(calls.append)

            threads = [threading.Thread(target=add) for _ in range(3)]
            for thread in threads:
                thread.start()
            barrier.wait()
            future.set_result(None)
            for thread in threads:
                thread.join()
            wait_until(lambda calls=calls: len(calls) == 60)


# asyncio.


@pytest.mark.parametrize("way", ["await", "wrap_future", "run_in_executor", "gather"])
def test_a_stop_iteration_reaches_who_awaits_as_a_runtime_error(nt, way):
    async def main(pool: Any) -> None:
        loop = asyncio.get_running_loop()
        if way == "run_in_executor":
            awaited = loop.run_in_executor(pool, next, iter(()))
        else:
            task = pool.submit(next, iter(()))
            awaited = {
                "await": lambda: task,
                "wrap_future": lambda: asyncio.wrap_future(task),
                "gather": lambda: asyncio.gather(asyncio.wrap_future(task)),
            }[way]()
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await asyncio.wait_for(_of(awaited), 10)
        assert isinstance(caught.value.__cause__, StopIteration)

    async def _of(awaited: Any) -> Any:
        return await awaited

    with nt.TaskPool(1) as pool:
        asyncio.run(main(pool))
        task = pool.submit(next, iter(()))
        with pytest.raises(StopIteration):
            task.result(10)


def test_a_stop_iteration_of_a_coroutine_future_reaches_who_awaits(nt):
    future = nt.loops.gate.CoroutineFuture()
    future.set_exception(StopIteration(3))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await future

    asyncio.run(main())


# Long lines of futures that hold one another.


@pytest.mark.parametrize("kind", ["result", "exception"])
def test_a_long_line_of_futures_that_hold_one_another_goes(make, kind):
    last = None
    for _ in range(100_000):
        future = make()
        if kind == "result":
            future.set_result(last)
        else:
            error = ValueError()
            error.held = last  # type: ignore[attr-defined]
            future.set_exception(error)
            future.exception()
        last = future
    del last, future
    gc.collect()


def test_tasks_that_submit_runs_may_submit_to_the_limit(nt):
    """The compiled core has a stack that no call of Python counts."""
    ran = run_python(
        """
        import sys, threading
        from neotasker import TaskPool
        pool = TaskPool(1, queue_size=1, when_full="run")
        go_on, begun = threading.Event(), threading.Event()
        pool.submit(lambda: (begun.set(), go_on.wait()))
        begun.wait()
        pool.submit(int)
        task = None
        try:
            task = pool.submit(pool.submit, *[pool.submit] * 30000, int)
        except RecursionError:
            pass
        while task is not None and isinstance(task.result(10) if not task.exception(10) else 0,
                                              type(task)):
            task = task.result()
        print("well")
        go_on.set()
        pool.shutdown()
        """
    )
    assert ran.out == "well\n", ran


# Memory.


def test_a_task_that_fails_without_memory_ends_with_an_exception(nt):
    if not nt.COMPILED:
        pytest.skip("Python itself needs memory at each step")
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this interpreter was built without the means to let allocations fail")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("these means do not go with several threads at once")
    ran = run_python(
        """
        import _testcapi, logging
        from neotasker import TaskPool
        logging.disable(logging.CRITICAL)
        pool = TaskPool(1)
        pool.submit(int).result()

        def fail(number, error):
            _testcapi.set_nomemory(number, number + 1)
            raise error

        for number in range(40):
            task = pool.submit(fail, number, ValueError("x"))
            while not task.done():
                pass
            _testcapi.remove_mem_hooks()
            assert isinstance(task.exception(0), BaseException), task
            assert pool.submit(pow, 2, 3).result(10) == 8
        print("well")
        """,
        env={"COVERAGE_PROCESS_CONFIG": None},
    )
    assert ran.out == "well\n", ran
