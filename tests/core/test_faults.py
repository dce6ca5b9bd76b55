"""Faults of the user, of the interpreter and of the machine: nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest
from helpers import Blocker, run_python, switch_interval, wait_until

HERE = Path(__file__).parent
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    yield supervisor
    supervisor.stop(cancel_tasks=True)


@pytest.fixture
def pool(nt):
    with nt.TaskPool(2) as pool:
        yield pool


# The user's own code.

BAD = [
    ValueError("bad"),
    SystemExit(3),
    KeyboardInterrupt(),
    MemoryError("none left"),
    RecursionError("too deep"),
    GeneratorExit(),
    asyncio.CancelledError(),
    futures.CancelledError(),
    StopIteration(1),
]
NAMES = [type(error).__module__ + "." + type(error).__name__ for error in BAD]


@pytest.mark.parametrize("error", BAD, ids=NAMES)
def test_whatever_a_target_raises_is_in_the_future_and_the_thread_lives_on(pool, error):
    def target():
        raise error

    tasks = [pool.submit(target) for _ in range(6)]
    assert [task.exception(10) for task in tasks] == [error] * 6
    assert pool.submit(pow, 2, 3).result(10) == 8
    wait_until(lambda: not pool._crew.dispatcher.active)
    assert 1 <= len(pool._threads) <= 2


@pytest.mark.parametrize("error", BAD, ids=NAMES)
def test_whatever_a_callback_raises_is_logged_and_the_next_is_called(pool, error, caplog):
    def callback(task):
        raise error

    called = []
    with Blocker() as blocker:
        task = pool.submit(blocker)
        task.add_done_callback(callback)
        task.add_done_callback(called.append)
    futures.wait([task])
    wait_until(lambda: called == [task])
    assert "exception calling callback" in caplog.text
    assert pool.submit(pow, 2, 3).result(10) == 8


@pytest.mark.parametrize("error", BAD, ids=NAMES)
def test_whatever_a_timer_raises_is_logged_and_the_ticker_goes_on(supervisor, error, caplog):
    def fail():
        raise error

    fired = threading.Event()
    supervisor.ticker.call_later(0, fail)
    supervisor.ticker.call_later(0.001, fired.set)
    assert fired.wait(10)
    assert "exception in timer callback" in caplog.text


@pytest.mark.parametrize("error", BAD, ids=NAMES)
def test_whatever_an_initializer_raises_breaks_the_pool_and_nothing_else(nt, error, caplog):
    def fail():
        raise error

    pool = nt.TaskPool(2, initializer=fail)
    task = pool.submit(int)
    assert isinstance(task.exception(10), futures.BrokenExecutor)
    with pytest.raises(futures.BrokenExecutor):
        pool.submit(int)
    pool.shutdown()
    with nt.TaskPool(1) as other:
        assert other.submit(pow, 2, 3).result(10) == 8


@pytest.mark.parametrize("error", BAD, ids=NAMES)
def test_whatever_on_error_raises_is_logged_and_the_worker_goes_on(
    nt, supervisor, error, caplog
):
    seen = []

    class Worker(nt.BackgroundQueueWorker):
        def on_error(self):
            raise error

        def run(self, item):
            seen.append(item)
            raise ValueError("bad item")

    worker = Worker("worker", supervisor=supervisor)
    worker.start()
    for item in range(3):
        worker.put_threadsafe(item)
    wait_until(lambda: seen == [0, 1, 2])
    assert worker.is_active()
    worker.stop()
    assert "error in on_error of worker" in caplog.text


def test_a_del_that_raises_and_submits_does_no_harm(pool):
    class Awkward:
        def __del__(self):
            later.append(pool.submit(pow, 2, 3))
            raise ValueError("in __del__")

    later = []
    unraisable = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(args)
    try:
        tasks = [pool.submit(id, Awkward()) for _ in range(20)]
        for task in tasks:
            task.result(10)
        tasks = [pool.submit(Awkward) for _ in range(20)]
        for task in tasks:
            task.result(10)
        del task, tasks
        gc.collect()

        def all_gone():
            # Without the GIL the thread that made an object has to see to its end.
            futures.wait([pool.submit(time.sleep, 0.001) for _ in range(4)])
            gc.collect()
            return len(later) >= 30  # the last ones may be held by a thread that sleeps

        wait_until(all_gone)
    finally:
        sys.unraisablehook = hook
    assert {task.result(10) for task in later.copy()} == {8}


def test_an_argument_without_hash_or_equality_is_none_of_our_business(pool):
    class Hostile:
        __hash__ = None

        def __eq__(self, other):
            raise ValueError("do not compare me")

        def __bool__(self):
            raise ValueError("nor ask whether I am true")

        def __repr__(self):
            raise ValueError("nor look at me")

    hostile = Hostile()
    assert type(pool.submit(lambda x: x, hostile).result(10)) is Hostile
    assert type(pool.submit(lambda *, x: x, x=hostile).result(10)) is Hostile
    timer_got = []
    with pytest.raises(ValueError, match="look"):
        repr(hostile)
    task = pool.submit(lambda: hostile)
    futures.wait([task])
    assert task in [task]
    repr(task)
    assert timer_got == []


@pytest.mark.parametrize("where", ["hash", "eq"])
def test_a_key_that_cannot_be_compared_is_refused_and_the_worker_lives(nt, supervisor, where):
    class Key:
        def __hash__(self):
            if where == "hash":
                raise ValueError("no hash")
            return 1

        def __eq__(self, other):
            raise ValueError("not equal to anything")

    got = []
    worker = nt.BackgroundQueueWorker(
        "worker",
        lambda item: got.append(item),
        supervisor=supervisor,
        key=lambda item: Key() if item == "bad" else item,
        concurrency=2,
    )
    worker.start()
    accepted = 0
    for item in ("a", "bad", "bad", "b", "bad", "c"):
        try:
            worker.put_threadsafe(item)
            accepted += 1
        except ValueError:
            pass
    wait_until(lambda: {"a", "b", "c"} <= set(got))
    assert worker.is_active()
    worker.stop(drain=True)
    assert len(got) + len(worker.unprocessed) == accepted


@pytest.mark.parametrize("kind", ["result", "exception", "cancel"])
def test_a_waiter_that_fails_does_not_cost_a_thread(pool, caplog, kind):
    class Waiter:
        def __init__(self):
            self.finished_futures = []
            self.event = threading.Event()
            self.asked = 0

        def add_result(self, future):
            self.asked += 1
            raise ValueError("waiter")

        add_exception = add_cancelled = add_result

    with Blocker() as blocker:
        first = [pool.submit(blocker) for _ in range(2)]
        blocker.wait_running(2)
        task = pool.submit(pow, 2, 0 if kind == "result" else "x")
        waiter = Waiter()
        with task._condition:
            task._waiters.append(waiter)
        if kind == "cancel":
            assert task.cancel()
    futures.wait([*first, task])
    assert waiter.asked > 1
    assert "not everybody could be told" in caplog.text
    assert pool.submit(pow, 2, 3).result(10) == 8
    wait_until(lambda: not pool._crew.dispatcher.active)
    task.exception() if kind == "exception" else None


@pytest.fixture
def heeds_ctrl_c():
    """Have SIGINT raise KeyboardInterrupt: it is ignored where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_an_interrupt_while_waiters_are_told_is_not_lost(nt):
    class Waiter:
        finished_futures = ()

        def __init__(self):
            self.told = 0

        def add_cancelled(self, future):
            self.told += 1
            if self.told == 1:
                raise KeyboardInterrupt

    with nt.TaskPool(1) as pool, Blocker() as blocker:
        pool.submit(blocker)
        blocker.wait_running(1)
        task = pool.submit(int)
        waiter = Waiter()
        with task._condition:
            task._waiters.append(waiter)

        def cancel():
            task.cancel()
            time.sleep(10)  # the interrupt is there already

        with pytest.raises(KeyboardInterrupt):
            cancel()
        assert waiter.told == 2
        assert task.cancelled()


# The interpreter.


@pytest.fixture
def failing_allocations(both_cores):
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this interpreter was built without the means to let allocations fail")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("these means do not go with several threads at once")
    if hasattr(sys, "gettotalrefcount"):
        pytest.skip("without memory a debug build ends by an assertion of its own")


def test_no_allocation_that_fails_stops_the_compiled_core(failing_allocations):
    ran = run_python(
        "import runpy, sys; runpy.run_path(sys.argv[1])",
        str(HERE / "nomemory.py"),
        timeout=110,
        env={"COVERAGE_PROCESS_CONFIG": None},  # a tracer needs memory, too
    )
    assert ran.rc == 0, ran
    assert "all well" in ran.out


def test_the_first_task_of_a_process_without_memory_is_given_back(failing_allocations):
    for number in range(3):
        ran = run_python(FIRST_TASK, str(number), env={"COVERAGE_PROCESS_CONFIG": None})
        assert ran.rc == 0, ran
        assert "all well" in ran.out


FIRST_TASK = """
import _testcapi, sys
import neotasker

number = int(sys.argv[1])
armed = [True]

def arm():
    if armed:
        armed.clear()
        _testcapi.set_nomemory(number, number + 1)

pool = neotasker.TaskPool(1, initializer=arm)
error = pool.submit(int).exception(20)
_testcapi.remove_mem_hooks()
assert error is None or isinstance(error, MemoryError), error
assert pool.submit(pow, 2, 3).result(20) == 8
pool.shutdown()
print("all well")
"""


def test_a_mailbox_takes_back_what_it_cannot_announce(nt):
    from neotasker.core import Mailbox

    broken = [True]
    woken = []

    def wake():
        if broken[0]:
            raise OSError("no wake-up")
        woken.append(None)

    handled = []
    mailbox = Mailbox(wake, handled.append)
    with pytest.raises(OSError, match="no wake-up"):
        mailbox.post("lost")
    assert len(mailbox) == 0
    broken[0] = False
    assert mailbox.post("kept")
    mailbox.drain()
    assert (handled, len(woken)) == (["kept"], 1)


def test_import_in_a_subinterpreter_works_or_says_no(nt):
    ran = run_python(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            sys.exit(77)
        import neotasker
        neotasker.task_supervisor.start()
        sub = interpreters.create()
        failed = interpreters.exec(sub, '\\n'.join((
            "import neotasker",
            "s = neotasker.task_supervisor",
            "s.start()",
            "assert s.spawn(pow, 2, 3).result(10) == 8",
            "s.stop()",
        )))
        print("works" if failed is None else failed.formatted.splitlines()[-1])
        interpreters.destroy(sub)
        print(neotasker.task_supervisor.spawn(pow, 2, 3).result(10))
        neotasker.task_supervisor.stop()
        """
    )
    if ran.rc == 77:
        pytest.skip("this interpreter has no module for subinterpreters")
    assert ran.rc == 0, ran
    verdict, result = ran.out.splitlines()
    assert result == "8"
    assert verdict == "works" or "does not support loading in subinterpreters" in verdict


# The machine.


def test_threads_that_the_system_refuses_leave_the_others_to_serve(nt):
    if not hasattr(os, "fork"):
        pytest.skip("the limit is one of POSIX")
    ran = run_python(
        """
        import os, resource, threading, logging
        logging.basicConfig(level="ERROR", format="%(message)s")
        import neotasker
        from neotasker import TaskSupervisor
        s = TaskSupervisor("short")
        s.start()
        s.set_thread_pool(pool_size=50, min_size=0)
        s.spawn(int).result(10)
        gate = threading.Event()
        if os.getuid() == 0:
            os.setuid(54321)  # whose processes nobody else counts; root has no limit
        before = len(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else 9
        resource.setrlimit(resource.RLIMIT_NPROC, (before + 5, before + 5))
        tasks = [s.spawn(gate.wait, 20) for _ in range(40)]
        print("threads", 1 <= s.get_info().pool["threads"] <= 7)
        gate.set()
        print(all(task.result(20) for task in tasks))
        print(s.stop().clean)
        """,
        timeout=60,
    )
    assert ran.out == "threads True\nTrue\nTrue\n", ran
    assert "thread" in ran.err


@pytest.mark.parametrize("start_method", ["spawn"])
def test_a_process_pool_whose_child_is_killed_twenty_times_loses_nothing(
    supervisor, start_method, caplog
):
    caplog.set_level("CRITICAL", "neotasker")
    context = multiprocessing.get_context(start_method)
    well = broken = 0
    for round_ in range(20):
        processes = futures.ProcessPoolExecutor(1, mp_context=context)
        supervisor.thread_pool = processes
        tasks = [supervisor.spawn(pow, 2, n) for n in range(30)]
        if round_ % 2:
            tasks[0].exception(60)
        for process in list((processes._processes or {}).values()):
            os.kill(process.pid, signal.SIGKILL)
        tasks += [supervisor.spawn(pow, 2, n) for n in range(30)]
        for number, task in enumerate(tasks):
            error = task.exception(60)
            if error is None:
                assert task.result() == 2 ** (number % 30)
                well += 1
            else:
                assert isinstance(error, futures.BrokenExecutor), error
                broken += 1
        supervisor.thread_pool = None
        processes.shutdown()
        assert supervisor.spawn(pow, 2, 3).result(10) == 8
    assert well + broken == 20 * 60
    assert broken


def test_a_loop_that_somebody_stops_or_closes_ends_its_futures(supervisor):
    for close in (False, True):
        aloop = supervisor.create_aloop(f"victim{close}")
        loop = aloop.get_loop()
        future = aloop.spawn_coroutine_threadsafe(asyncio.sleep(3600))
        with switch_interval():
            loop.call_soon_threadsafe(loop.stop)
            wait_until(lambda aloop=aloop: not aloop.active)
        with pytest.raises(futures.CancelledError):
            future.result(10)
    assert supervisor.spawn(pow, 2, 3).result(10) == 8
