"""The pool: reserves, threads, bounds, views, and what others expect of an executor."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import queue
import sys
import threading
import time
import weakref
from concurrent import futures
from functools import partial

import pytest
from helpers import Blocker, needs_late_threads, run_python, switch_interval, wait_until


@pytest.fixture
def flood():
    with Blocker() as flood:
        yield flood


def settled(pool, flood, expected):
    """Wait until as many run as should, and see that no more do."""
    flood.expect_exactly(expected, quiet=0.02)
    assert pool.active == expected


def test_each_lane_stops_at_its_limit_and_critical_at_none(nt, flood):
    with nt.TaskPool(pool_size=4, reserve_normal=2, reserve_high=2) as pool:
        for priority, running in ((nt.TASK_LOW, 4), (nt.TASK_NORMAL, 6), (nt.TASK_HIGH, 8)):
            lane = pool.lane(priority)
            for _ in range(20):
                lane.submit(flood)
            settled(pool, flood, running)
        assert pool.lane(nt.TASK_CRITICAL).submit(pow, 2, 5).result(10) == 32
        assert flood.running == 8
        flood.release()


def test_a_full_lane_lets_the_next_start_when_a_task_ends(nt):
    gates = [threading.Event() for _ in range(3)]
    started: queue.SimpleQueue[int] = queue.SimpleQueue()

    def task(n):
        started.put(n)
        gates[n].wait()

    with nt.TaskPool(pool_size=1) as pool:
        for n in range(3):
            pool.submit(task, n)
        for n in range(3):
            assert started.get(timeout=10) == n
            assert started.empty()
            gates[n].set()


def test_higher_lanes_go_first_and_a_lane_is_first_in_first_out(nt):
    order: list[str] = []
    release = threading.Event()
    with nt.TaskPool(1) as pool:
        pool.submit(release.wait)
        for n in range(3):
            pool.lane(nt.TASK_LOW).submit(order.append, f"low{n}")
            pool.lane(nt.TASK_NORMAL).submit(order.append, f"normal{n}")
            pool.lane(nt.TASK_HIGH).submit(order.append, f"high{n}")
        release.set()
    assert order == [f"{lane}{n}" for lane in ("high", "normal", "low") for n in range(3)]


def test_first_in_first_out_does_not_starve_the_urgent(nt, flood):
    with nt.TaskPool(pool_size=2, reserve_high=1) as pool:
        for _ in range(1000):
            pool.lane(nt.TASK_LOW).submit(flood)
        assert pool.lane(nt.TASK_HIGH).submit(int).result(10) == 0
        flood.release()


def test_critical_grows_the_pool_and_the_surplus_threads_go(nt, flood):
    with nt.TaskPool(2) as pool:
        for _ in range(2):
            pool.submit(flood)
        settled(pool, flood, 2)
        critical = pool.lane(nt.TASK_CRITICAL)
        for _ in range(3):
            critical.submit(flood)
        settled(pool, flood, 5)
        assert len(pool._threads) == 5
        flood.release()
        wait_until(lambda: len(pool._threads) == 2)


def test_pool_size_zero_takes_all_limits_off(nt, flood):
    with nt.TaskPool(pool_size=0) as pool:
        for _ in range(50):
            pool.lane(nt.TASK_LOW).submit(flood)
        settled(pool, flood, 50)
        assert pool._max_workers > 0
        flood.release()


def test_min_size_threads_are_there_at_once_and_stay(nt):
    with nt.TaskPool(8, min_size=3, idle_timeout=0.01) as pool:
        assert len(pool._threads) == 3
        barrier = threading.Barrier(7)
        for _ in range(6):
            pool.submit(barrier.wait)
        barrier.wait()
        wait_until(lambda: len(pool._threads) == 3)
        assert pool.submit(pow, 2, 3).result(10) == 8


def test_min_size_max_starts_all(nt):
    with nt.TaskPool(pool_size=3, reserve_high=2, min_size="max") as pool:
        assert len(pool._threads) == 5


def test_idle_threads_go_after_the_timeout(nt):
    with nt.TaskPool(4, idle_timeout=0.02) as pool:
        barrier = threading.Barrier(5)
        for _ in range(4):
            pool.submit(barrier.wait)
        barrier.wait()
        wait_until(lambda: len(pool._threads) == 0)
        assert pool.submit(pow, 2, 3).result(10) == 8


def test_threads_are_exact_right_after_submit(nt, flood):
    with nt.TaskPool(4) as pool:
        for n in range(1, 7):
            pool.submit(flood)
            assert len(pool._threads) == min(n, 4)
        flood.release()


def test_threads_may_be_iterated_while_they_end(nt):
    pool = nt.TaskPool(8)
    barrier = threading.Barrier(9)
    for _ in range(8):
        pool.submit(barrier.wait)
    barrier.wait()
    threads = pool._threads
    pool.shutdown(wait=False)
    joined = 0
    for thread in threads:
        thread.join(10)
        joined += 1
    assert joined <= 8
    pool.shutdown()
    assert len(threads) == 0


def test_threads_are_named_with_their_prefix_and_a_number(nt):
    with nt.TaskPool(3, "worker") as pool:
        barrier = threading.Barrier(4)
        for _ in range(3):
            pool.submit(barrier.wait)
        assert {thread.name for thread in pool._threads} == {"worker_0", "worker_1", "worker_2"}
        barrier.wait()


def test_resizing_down_lets_surplus_threads_go_and_up_starts_what_waits(nt, flood):
    with nt.TaskPool(6, min_size="max") as pool:
        pool.resize(max_size=2)
        wait_until(lambda: len(pool._threads) == 2)
        for _ in range(10):
            pool.submit(flood)
        settled(pool, flood, 2)
        pool.resize(max_size=5)
        settled(pool, flood, 5)
        flood.release()


def test_tasks_written_in_c_let_other_threads_run(nt, flood):
    total = 300_000 if nt.COMPILED else 20_000
    with nt.TaskPool(1) as pool:
        pool.submit(flood)
        flood.wait_running(1)
        for _ in range(total):
            pool.submit(int)
        flood.release()
        dispatcher = pool._crew.dispatcher
        seen = {dispatcher.waiting for _ in iter(lambda: dispatcher.waiting, 0)}
    assert any(0 < waiting < total for waiting in seen)


def test_ten_threads_submit_while_another_resizes(nt):
    each = 20_000 if nt.COMPILED else 2_000
    done: list[int] = []
    stop = threading.Event()
    with nt.TaskPool(4) as pool:

        def submit(base):
            tasks = [pool.submit(done.append, base + n) for n in range(each)]
            futures.wait(tasks)

        def resize():
            n = 0
            while not stop.is_set():
                n += 1
                pool.resize(pool_size=1 + n % 5, reserve_normal=n % 3, reserve_high=n % 2)

        resizer = threading.Thread(target=resize)
        submitters = [threading.Thread(target=submit, args=(t * each,)) for t in range(10)]
        with switch_interval(1e-5):
            for thread in (resizer, *submitters):
                thread.start()
            for thread in submitters:
                thread.join()
            stop.set()
            resizer.join()
    assert sorted(done) == list(range(10 * each))


@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="the collector runs destructors, some day"
)
@pytest.mark.parametrize("size", [1, 2])
def test_what_a_thread_lets_go_of_may_wait_for_the_pool(nt, size):
    """The last reference to a result is the thread's own, where nobody kept the task."""
    results: list[int] = []

    class Result:
        def __del__(self):
            results.append(pool.submit(pow, 2, 3).result(10))

    def let_go(count):
        if len(results) < count:
            gc.collect()  # for interpreters where it need not be the thread
        return len(results) == count

    with nt.TaskPool(size) as pool:
        for n in range(20):
            pool.submit(Result)
            wait_until(lambda n=n: let_go(n + 1))
        dispatcher = pool._crew.dispatcher
        wait_until(lambda: not dispatcher.active)
        assert dispatcher.figures()["completed"] == [0, 0, 40, 0]
    assert results == [8] * 20


def test_a_task_starts_no_earlier_than_it_was_submitted(nt):
    """Also if that is by what is called at the end of the task before."""
    with nt.TaskPool(1) as pool:
        follower: queue.SimpleQueue[futures.Future] = queue.SimpleQueue()

        def follow(task):
            time.sleep(0.01)
            follower.put(pool.submit(int))

        gate = threading.Event()
        pool.submit(gate.wait).add_done_callback(follow)
        gate.set()
        task = follower.get(timeout=10)
        task.result(10)
        assert task.time_queued <= task.time_started <= task.time_finished
        assert min(pool._crew.dispatcher.figures()["wait_seconds"]) >= 0


def test_a_task_runs_in_the_context_of_its_submitter(nt):
    who = contextvars.ContextVar("who", default="nobody")
    with nt.TaskPool(1) as pool:
        who.set("me")
        assert pool.submit(who.get).result(10) == "me"
        pool.submit(who.set, "other").result(10)
        assert who.get() == "me"
        assert contextvars.Context().run(pool.submit, who.get).result(10) == "nobody"


def test_what_a_task_sets_in_an_empty_context_ends_with_it(nt):
    who = contextvars.ContextVar("who", default="nobody")
    submit = partial(contextvars.Context().run, lambda fn, *args: pool.submit(fn, *args))

    def hold():
        held.append(contextvars.copy_context())
        return who.set("holder")

    def pass_by():
        who.reset(who.set("passer-by"))

    held = []
    with nt.TaskPool(1) as pool:
        assert submit(who.set, "other").result(10)
        assert submit(who.get).result(10) == "nobody"
        token = submit(hold).result(10)
        assert submit(who.get).result(10) == "nobody"
        submit(pass_by).result(10)
        assert submit(lambda: list(contextvars.copy_context())).result(10) == []
        assert token.var is who and list(held[0]) == []
        inner = submit(lambda: (who.set("outer"), pool.submit(who.get))[1]).result(10)
        assert inner.result(10) == "outer"


def test_a_task_knows_its_id_priority_status_and_times(nt, flood):
    with nt.TaskPool(1) as pool:
        blocking = pool.submit(flood)
        settled(pool, flood, 1)
        task = pool.lane(nt.TASK_HIGH).submit(int)
        assert task.priority is nt.TASK_HIGH
        assert task.status == nt.pool.task.TaskStatus.QUEUED
        assert task.id == task.id and task.id != blocking.id
        assert blocking.status == nt.pool.task.TaskStatus.STARTED
        assert task.time_queued is not None and task.time_started is None
        flood.release()
        task.result(10)
        assert task.status == nt.pool.task.TaskStatus.COMPLETED
        assert task.time_queued <= task.time_started <= task.time_finished <= time.monotonic()
        failed = pool.submit(divmod, 1, 0)
        assert isinstance(failed.exception(10), ZeroDivisionError)
        assert failed.status == nt.pool.task.TaskStatus.FAILED


def test_a_cancelled_task_never_runs_and_leaves_its_lane(nt, flood):
    ran: list[int] = []
    with nt.TaskPool(1) as pool:
        pool.submit(flood)
        flood.wait_running(1)
        tasks = [pool.submit(ran.append, n) for n in range(200)]
        for task in tasks[::2]:
            assert task.cancel()
        assert pool._work_queue.qsize() == 100
        assert tasks[0].status == nt.pool.task.TaskStatus.CANCELED
        flood.release()
    assert ran == list(range(1, 200, 2))


def test_times_are_true_at_every_moment_while_tasks_come_run_and_are_cancelled(nt):
    begin, stop = time.monotonic(), threading.Event()
    tasks: list[object] = []
    wrong: list[object] = []

    def look():
        while not stop.is_set():
            for task in tasks[-50:]:
                started, finished = task.time_started, task.time_finished
                for found in (task.time_queued, started, finished):
                    if found is not None and not begin <= found <= time.monotonic():
                        wrong.append((task, found))

    with nt.TaskPool(2) as pool, switch_interval(1e-6):
        looking = [threading.Thread(target=look) for _ in range(2)]
        for thread in looking:
            thread.start()
        for n in range(3_000):
            task = pool.submit(int)
            tasks.append(task)
            if n % 3 == 0:
                task.cancel()
        futures.wait(tasks)
        stop.set()
        for thread in looking:
            thread.join()
    assert not wrong
    for task in tasks:
        assert task.time_finished is not None
        if task.cancelled():
            assert task.time_started is None
        else:
            assert task.time_queued <= task.time_started <= task.time_finished


def test_tasks_can_be_referred_to_weakly_until_they_go(nt):
    gone: list[object] = []
    with nt.TaskPool(1) as pool:
        tasks = [pool.submit(int), pool.submit(pow, 2, exp=3)]
        futures.wait(tasks)
        refs = [weakref.ref(task, gone.append) for task in tasks]
        assert [ref() for ref in refs] == tasks
    del tasks
    wait_until(lambda: (gc.collect(), len(gone))[1] == 2)
    assert gone == refs or gone == refs[::-1]


def test_cancel_races_with_the_start_and_one_wins(nt):
    ran: list[int] = []
    with switch_interval(1e-6), nt.TaskPool(2) as pool:
        tasks = [(n, pool.submit(ran.append, n)) for n in range(2000)]
        cancelled = {n for n, task in tasks if task.cancel()}
        futures.wait([task for _, task in tasks])
        pool.shutdown()
        assert sorted([*ran, *cancelled]) == list(range(2000))


# Bounds.


def test_a_full_queue_raises_when_asked_to(nt, flood):
    with nt.TaskPool(1, queue_size=2, when_full="raise") as pool:
        pool.submit(flood)
        settled(pool, flood, 1)
        pool.submit(int)
        pool.lane(nt.TASK_LOW).submit(int)
        with pytest.raises(nt.QueueFull, match="queue_size=2"):
            pool.submit(int)
        with pytest.raises(queue.Full):
            pool.lane(nt.TASK_HIGH).submit(int)
        assert pool.lane(nt.TASK_CRITICAL).submit(pow, 2, 2).result(10) == 4
        flood.release()


def test_a_full_queue_has_the_caller_run_the_task_when_asked_to(nt, flood):
    with nt.TaskPool(1, queue_size=1, when_full="run") as pool:
        pool.submit(flood)
        settled(pool, flood, 1)
        pool.submit(int)
        task = pool.submit(threading.get_ident)
        assert task.done() and task.result() == threading.get_ident()
        flood.release()


def test_a_full_queue_blocks_the_caller_until_there_is_room(nt, flood):
    accepted = threading.Event()
    with nt.TaskPool(1, queue_size=1) as pool:
        pool.submit(flood)
        settled(pool, flood, 1)
        pool.submit(int)

        def submit():
            task = pool.submit(pow, 2, 6)
            accepted.set()
            assert task.result(10) == 64

        caller = threading.Thread(target=submit)
        caller.start()
        assert not accepted.wait(0.05)
        flood.release()
        assert accepted.wait(10)
        caller.join()


def test_blocked_callers_are_told_of_the_shutdown(nt, flood):
    errors: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    pool = nt.TaskPool(1, queue_size=1)
    pool.submit(flood)
    settled(pool, flood, 1)
    pool.submit(int)

    def submit():
        try:
            pool.submit(int)
        except RuntimeError as exc:
            errors.put(exc)

    caller = threading.Thread(target=submit)
    caller.start()
    threading.Timer(0.05, pool.shutdown, kwargs={"wait": False}).start()
    assert "after shutdown" in str(errors.get(timeout=10))
    flood.release()
    pool.shutdown()
    caller.join()


def test_a_pool_thread_that_submits_to_its_full_pool_does_not_wait_for_itself(nt):
    with nt.TaskPool(1, queue_size=1) as pool:

        def burst():
            return [pool.submit(pow, 2, n) for n in range(5)]

        assert [task.result(10) for task in pool.submit(burst).result(10)] == [1, 2, 4, 8, 16]


def test_many_blocked_callers_all_get_through(nt):
    done: list[int] = []
    with nt.TaskPool(2, queue_size=3) as pool:
        threads = [
            threading.Thread(target=lambda: [pool.submit(done.append, 1) for _ in range(200)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 1600


# Views.


def test_shutting_a_lane_down_closes_that_view_alone(nt):
    with nt.TaskPool(2) as pool:
        lane, other = pool.lane(nt.TASK_HIGH), pool.lane(nt.TASK_HIGH)
        task = lane.submit(pow, 2, 4)
        lane.shutdown()
        assert task.result(0) == 16
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            lane.submit(int)
        assert other.submit(pow, 2, 3).result(10) == 8
        assert pool.submit(pow, 2, 2).result(10) == 4
        assert lane._shutdown and not other._shutdown


def test_shutting_a_lane_down_waits_for_the_tasks_of_that_view(nt, flood):
    with nt.TaskPool(2) as pool:
        lane = pool.lane(nt.TASK_NORMAL)
        lane.submit(flood)
        settled(pool, flood, 1)
        ended = threading.Event()
        closer = threading.Thread(target=lambda: (lane.shutdown(), ended.set()))
        closer.start()
        assert not ended.wait(0.05)
        flood.release()
        assert ended.wait(10)
        closer.join()


def test_a_lane_cancels_the_futures_of_that_view_alone(nt, flood):
    with nt.TaskPool(1) as pool:
        pool.submit(flood)
        lane = pool.lane(nt.TASK_NORMAL)
        mine = [lane.submit(int) for _ in range(3)]
        others = pool.submit(pow, 2, 2)
        lane.shutdown(wait=True, cancel_futures=True)
        assert all(task.cancelled() for task in mine)
        assert not others.cancelled()
        flood.release()


def test_a_lane_serves_asyncio_as_default_executor(nt):
    with nt.TaskPool(2, "lane") as pool:

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_default_executor(pool.lane(nt.TASK_HIGH))
            return await asyncio.to_thread(lambda: threading.current_thread().name)

        assert asyncio.run(main()).startswith("lane_")
        assert pool.submit(pow, 2, 2).result(10) == 4


def test_map_goes_through_the_lane(nt):
    with nt.TaskPool(3) as pool:
        assert list(pool.lane(nt.TASK_LOW).map(pow, [2, 3], [3, 2])) == [8, 9]


# What others touch.


def test_a_pool_and_a_lane_are_thread_pool_executors(nt):
    with nt.TaskPool(2) as pool:
        for executor in (pool, pool.lane(nt.TASK_LOW)):
            assert isinstance(executor, futures.ThreadPoolExecutor)
            assert executor._max_workers == 2
            assert executor._broken is False and executor._shutdown is False


def test_map_calls_submit(nt):
    calls: list[object] = []

    class Counting(nt.TaskPool):
        def submit(self, fn, /, *args, **kwargs):
            calls.append(fn)
            return super().submit(fn, *args, **kwargs)

    with Counting(2) as pool:
        assert list(pool.map(str, range(3))) == ["0", "1", "2"]
    assert calls == [str] * 3


def test_work_queue_answers_for_what_waits(nt, flood):
    with nt.TaskPool(1) as pool:
        with pytest.raises(queue.Empty):
            pool._work_queue.get(block=False)
        pool.submit(flood)
        settled(pool, flood, 1)
        mine = pool.submit(pow, 2, 9)
        pool.submit(int)
        assert pool._work_queue.qsize() == 2
        item = pool._work_queue.get(block=False)
        assert item.future is mine
        item.run()
        assert mine.result(0) == 512
        assert pool._work_queue.qsize() == 1
        flood.release()


def test_submission_after_shutdown_is_refused_in_the_standard_words(nt):
    pool = nt.TaskPool(1)
    pool.shutdown()
    assert pool._shutdown
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.lane(nt.TASK_LOW).submit(int)


def test_shutdown_from_a_task_does_not_wait_for_itself(nt):
    pool = nt.TaskPool(2)
    assert pool.submit(pool.shutdown, wait=False).result(10) is None
    pool.shutdown()
    assert len(pool._threads) == 0


def test_max_workers_may_be_set_as_programs_do(nt, flood):
    with nt.TaskPool(1) as pool:
        pool._max_workers = 3
        for _ in range(5):
            pool.submit(flood)
        settled(pool, flood, 3)
        flood.release()


def test_a_pool_that_nobody_holds_lets_its_threads_go(nt):
    pool = nt.TaskPool(2)
    done: list[int] = []
    for n in range(10):
        pool.submit(done.append, n)
    threads = list(pool._threads)
    del pool

    def ended():
        gc.collect()  # for interpreters that do not count references
        return not any(thread.is_alive() for thread in threads)

    wait_until(ended, timeout=30)
    assert sorted(done) == list(range(10))  # two threads took them


def test_a_process_ends_though_its_pool_was_not_shut_down(nt):
    code = """
        import neotasker, os, time
        pool = neotasker.TaskPool(2, idle_timeout=None)
        for n in range(4):
            pool.submit(lambda n=n: (time.sleep(0.05), os.write(1, b"%d\\n" % n)))
    """
    result = run_python(code)
    assert result.rc == 0, result.err
    assert sorted(result.out.split()) == ["0", "1", "2", "3"]


@needs_late_threads
def test_threads_that_live_on_may_submit_after_the_main_thread_has_ended(nt):
    code = """
        import neotasker, threading
        pool = neotasker.TaskPool(2)
        main = threading.main_thread()
        def late():
            main.join()
            print(pool.submit(pow, 2, 10).result(), flush=True)
        threading.Thread(target=late).start()
    """
    result = run_python(code)
    assert (result.rc, result.out.strip()) == (0, "1024"), result.err


# Bad input.


@pytest.mark.parametrize("bad", [None, 5, "text"])
def test_a_target_that_is_not_callable_is_refused(nt, bad):
    with nt.TaskPool(1) as pool:
        with pytest.raises(TypeError, match="must be callable"):
            pool.submit(bad)
        assert pool.submit(pow, 2, 2).result(10) == 4


def test_a_coroutine_function_is_refused(nt):
    async def coro():
        return 1

    class Holder:
        async def method(self):
            return 1

    with nt.TaskPool(1) as pool:
        for bad in (coro, Holder().method, functools.partial(coro)):
            with pytest.raises(TypeError, match="coroutine function"):
                pool.submit(bad)
        assert pool.submit(pow, 2, 2).result(10) == 4


@pytest.mark.parametrize(
    "sizes",
    [
        {"max_workers": 0},
        {"max_workers": -1},
        {"pool_size": -1},
        {"reserve_normal": -1},
        {"reserve_high": -2},
        {"max_workers": 4, "min_size": 5},
        {"max_workers": 4, "min_size": -1},
        {"max_workers": 4, "min_size": "some"},
        {"max_workers": 4, "reserve_normal": 4},
        {"max_workers": 1, "queue_size": 0},
        {"max_workers": 1, "when_full": "explode"},
        {"max_workers": 1, "idle_timeout": -1},
    ],
)
def test_sizes_out_of_range_are_value_errors_that_name_the_value(nt, sizes):
    with pytest.raises(ValueError) as caught:
        nt.TaskPool(**sizes)
    wrong = list(sizes.values())[-1]
    assert str(wrong) in str(caught.value)


@pytest.mark.parametrize("name", ["pool_size", "reserve_high", "min_size", "queue_size"])
@pytest.mark.parametrize("bad", [1.5, True])
def test_sizes_that_are_no_whole_numbers_are_type_errors(nt, name, bad):
    with pytest.raises(TypeError, match=name):
        nt.TaskPool(**{name: bad})


def test_an_unknown_priority_is_a_value_error_that_names_the_known(nt):
    with nt.TaskPool(1) as pool, pytest.raises(ValueError, match="unknown priority 77"):
        pool.lane(77)


def test_an_initializer_that_fails_breaks_the_pool_in_the_standard_way(nt, caplog):
    release = threading.Event()

    def fail():
        release.wait()
        raise ValueError("no initialization")

    pool = nt.TaskPool(2, initializer=fail)
    task = pool.submit(int)
    release.set()
    with pytest.raises(futures.thread.BrokenThreadPool):
        task.result(10)
    wait_until(lambda: bool(pool._broken))
    with pytest.raises(futures.BrokenExecutor):
        pool.submit(int)
    assert "no initialization" in caplog.text
    pool.shutdown()


def test_threads_that_cannot_be_started_leave_the_others_to_serve(
    nt, monkeypatch, caplog, flood
):
    with nt.TaskPool(4) as pool:
        pool.submit(flood)
        settled(pool, flood, 1)

        def refuse(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        task = pool.submit(pow, 2, 7)
        monkeypatch.undo()
        flood.release()
        assert task.result(10) == 128
        assert "could not be started" in caplog.text


def test_a_pool_without_any_thread_gives_the_task_back(nt, monkeypatch):
    with nt.TaskPool(2) as pool:

        def refuse(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(int)
        monkeypatch.undo()
        assert pool._work_queue.qsize() == 0
        assert pool.submit(pow, 2, 2).result(10) == 4


# Executors of others.


def test_an_executor_pool_puts_reserves_before_an_executor(nt, flood):
    with futures.ThreadPoolExecutor(8, "inner") as inner:
        pool = nt.ExecutorPool(inner, pool_size=2, reserve_high=1)
        for _ in range(5):
            pool.lane(nt.TASK_LOW).submit(flood)
        settled(pool, flood, 2)
        name = pool.lane(nt.TASK_HIGH).submit(lambda: threading.current_thread().name)
        assert name.result(10).startswith("inner")
        flood.release()
        pool.shutdown()
        assert len(pool._threads) == 0


def test_an_executor_can_be_swapped_while_tasks_wait_and_run(nt, flood):
    done: list[int] = []
    with futures.ThreadPoolExecutor(2) as inner, nt.TaskPool(2) as pool:
        pool.submit(flood)
        tasks = [pool.submit(done.append, n) for n in range(100)]
        pool.use_executor(inner)
        tasks += [pool.submit(done.append, n) for n in range(100, 200)]
        pool.use_executor(None)
        tasks += [pool.submit(done.append, n) for n in range(200, 300)]
        flood.release()
        futures.wait(tasks)
        pool.shutdown()
    assert sorted(done) == list(range(300))


def test_an_executor_that_refuses_fails_the_task_and_not_the_pool(nt):
    inner = futures.ThreadPoolExecutor(1)
    inner.shutdown()
    with nt.TaskPool(1) as pool:
        pool.use_executor(inner)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int).result(10)
        pool.use_executor(None)
        assert pool.submit(pow, 2, 2).result(10) == 4


def test_what_is_no_executor_is_refused(nt):
    with nt.TaskPool(1) as pool:
        with pytest.raises(TypeError, match="needs a method submit"):
            pool.use_executor(object())
        with pytest.raises(ValueError, match="its own executor"):
            pool.use_executor(pool)


# Figures.


def test_figures_add_up(nt):
    with nt.TaskPool(2) as pool:
        good = [pool.submit(int) for _ in range(10)]
        bad = [pool.lane(nt.TASK_HIGH).submit(divmod, 1, 0) for _ in range(5)]
        futures.wait(good + bad)
        for task in bad:
            assert isinstance(task.exception(), ZeroDivisionError)
        pool._crew.dispatcher.wait_drained(10)
        figures = pool._crew.dispatcher.figures()
    assert figures["submitted"] == [0, 5, 10, 0]
    assert figures["completed"] == [0, 0, 10, 0]
    assert figures["failed"] == [0, 5, 0, 0]
    assert figures["active"] == 0 and figures["waiting"] == [0, 0, 0, 0]
    assert sum(figures["wait_seconds"]) >= 0


def test_running_names_thread_task_and_target(nt, flood):
    with nt.TaskPool(1) as pool:
        task = pool.submit(flood)
        settled(pool, flood, 1)
        [(ident, running, target)] = pool._crew.dispatcher.running()
        assert running is task and target is flood
        assert ident in {thread.ident for thread in pool._threads}
        flood.release()


def test_one_submit_wakes_one_of_many_idle_threads(nt):
    with nt.TaskPool(64, min_size="max", idle_timeout=None) as pool:
        dispatcher = pool._crew.dispatcher
        wait_until(lambda: dispatcher.idle == 64)
        before = dispatcher.figures()["wakeups"]
        for n in range(1, 4):
            assert pool.submit(pow, 2, 2).result(10) == 4
            wait_until(lambda: dispatcher.idle == 64)
            assert dispatcher.figures()["wakeups"] - before == n


def test_the_gil_state_is_what_the_interpreter_says(nt):
    # Importing an extension that is not declared safe would turn the GIL back on.
    if hasattr(sys, "_is_gil_enabled") and "free-threading" in sys.version:
        assert not sys._is_gil_enabled()
    else:
        assert getattr(sys, "_is_gil_enabled", lambda: True)()


def test_a_pool_that_never_pauses_lets_other_threads_run(nt):
    def again():
        pool.submit(again)

    with nt.TaskPool(pool_size=1) as pool:
        task = pool.submit(again)
        began = time.monotonic()
        for _ in range(20):
            thread = threading.Thread(target=task.done)
            thread.start()
            thread.join()
        taken = time.monotonic() - began
    # Each change of threads costs a switch interval, 5 ms, and starvation costs minutes.
    assert taken < 20
