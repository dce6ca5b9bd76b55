"""Who is interrupted, refused or waits for himself: counts hold, nobody is forgotten."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
import weakref
from concurrent import futures

import pytest
from helpers import Blocker, run_python, wait_until

ON_CPYTHON = sys.implementation.name == "cpython"
needs_counts = pytest.mark.skipif(not ON_CPYTHON, reason="destructors run at once in CPython")
needs_alarms = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="POSIX only")


class Stop(Exception):
    """What a handler of a signal raises."""


@pytest.fixture
def alarm():
    """Set a handler of SIGALRM, and take all back."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@needs_alarms
def test_a_handler_that_submits_while_threads_are_started_does_not_stop_its_thread(nt, alarm):
    pools = []
    more = []

    def submit(*_):
        if pools:
            more.append(pools[-1].submit(int))

    alarm(submit)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.00031)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pool = nt.TaskPool(20, idle_timeout=0)
        pools.append(pool)
        for task in [pool.submit(time.sleep, 0.0002) for _ in range(15)]:
            task.result(10)
        pools.clear()
        pool.shutdown()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert more and all(task.result(10) == 0 for task in more)


@needs_alarms
@pytest.mark.parametrize("at_once", [True, False], ids=["told before it raised", "not told"])
def test_room_that_an_interrupted_submitter_was_told_of_is_another_ones(nt, alarm, at_once):
    gate, ready, through = threading.Event(), threading.Event(), threading.Event()
    with nt.TaskPool(1, queue_size=1) as pool:

        def handler(*_):
            if at_once:
                gate.set()
                wait_until(lambda: not pool._work_queue.qsize())
            raise Stop

        def submit():
            ready.wait()
            time.sleep(0.1)  # behind the main thread
            pool.submit(int)
            through.set()

        alarm(handler)
        with Blocker() as block:
            pool.submit(gate.wait)
            wait_until(lambda: pool.active == 1)
            pool.submit(int)
            other = threading.Thread(target=submit)
            other.start()
            signal.setitimer(signal.ITIMER_REAL, 0.4)
            ready.set()
            with pytest.raises(Stop):
                pool.submit(block)
            gate.set()
            assert through.wait(10)
            other.join()


@needs_alarms
@pytest.mark.parametrize("what", ["drained", "outstanding"])
def test_a_wait_that_was_interrupted_leaves_nothing_behind(nt, alarm, what):
    def handler(*_):
        raise Stop

    alarm(handler)
    with nt.TaskPool(1) as pool, Blocker() as block:
        lane = pool.lane(nt.TASK_HIGH)
        lane.submit(block)
        dispatcher = pool._crew.dispatcher
        wait = dispatcher.wait_drained if what == "drained" else lane.wait_outstanding
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(Stop):
                wait()
        if not nt.COMPILED:
            assert not dispatcher._drainers and not lane._parked
        block.release()
        wait()


@needs_alarms
def test_counts_hold_whatever_handlers_raise_while_threads_are_started(nt):
    """In a process of its own: the standard reports of threads that it has lost count of."""
    ran = run_python(
        """
        import signal, time, neotasker
        class Stop(Exception): pass
        armed = False
        def handler(*_):
            if armed:
                raise Stop
        signal.signal(signal.SIGALRM, handler)
        end = time.monotonic() + 2
        rounds = 0
        while time.monotonic() < end:
            rounds += 1
            pool = neotasker.TaskPool(4)
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + rounds % 37 * 1e-5)
            armed = True
            try:
                try:
                    for _ in range(4):
                        pool.submit(int)
                finally:
                    armed = False
            except Stop:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            pool.shutdown()
            end_of_threads = time.monotonic() + 10
            while pool._crew.dispatcher.threads and time.monotonic() < end_of_threads:
                time.sleep(0.001)
            assert pool._crew.dispatcher.threads == 0, pool._crew.dispatcher.threads
        print("rounds", rounds > 10)
        """
    )
    assert (ran.rc, ran.out.strip()) == (0, "rounds True"), ran


@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt()], ids=["Stop", "Ctrl+C"])
def test_a_task_that_is_refused_as_its_thread_starts_does_not_run(nt, monkeypatch, error):
    real = threading.Thread.start

    def start(self):
        real(self)
        monkeypatch.undo()
        raise error

    ran = []
    with nt.TaskPool(2) as pool:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(type(error)):
            pool.submit(ran.append, 1)
        assert pool.submit(pow, 2, 3).result(10) == 8
        dispatcher = pool._crew.dispatcher
        wait_until(lambda: dispatcher.threads == 1 == len(pool._threads))
        assert dispatcher.figures()["submitted"] == [0, 0, 1, 0]
    assert ran == []


def test_a_submit_that_raises_was_not_accepted_and_one_that_was_does_not_raise(
    nt, monkeypatch, caplog
):
    real = threading.Thread.start
    plan = []

    def start(self):
        if plan and not plan.pop(0):
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with nt.TaskPool(8) as pool, Blocker() as block:
        accepted = [pool.submit(block, "first")]
        plan[:] = [False, False, True, False, False, False]
        accepted += [pool.submit(block, n) for n in range(3)]
        plan.clear()
        block.release()
        assert [task.result(10) for task in accepted] == ["first", 0, 1, 2]
    assert "could not be started" in caplog.text


def test_a_task_that_relied_on_a_thread_which_never_came_ends(nt, monkeypatch):
    """Two threads submit to a pool of one: the second relies on the thread of the first."""
    started, go_on = threading.Event(), threading.Event()

    def start(self):
        if not self.name.startswith("lonely"):
            real(self)
            return
        started.set()
        go_on.wait(10)
        raise RuntimeError("can't start new thread")

    real = threading.Thread.start
    pool = nt.TaskPool(1, "lonely")
    errors = []

    def submit():
        try:
            pool.submit(int)
        except RuntimeError as exc:
            errors.append(exc)

    first = threading.Thread(target=submit)
    monkeypatch.setattr(threading.Thread, "start", start)
    first.start()
    assert started.wait(10)
    second = pool.submit(int)
    go_on.set()
    first.join()
    assert len(errors) == 1
    with pytest.raises(RuntimeError, match="can't start new thread"):
        second.result(10)
    monkeypatch.undo()
    assert pool.submit(pow, 2, 3).result(10) == 8
    pool.shutdown()


# Waiting for oneself.


@pytest.mark.parametrize("kind", ["pool", "lane", "executor", "guest"])
def test_a_shutdown_that_would_wait_for_itself_is_refused_as_by_the_standard(nt, kind):
    with futures.ThreadPoolExecutor(2) as inner, Blocker() as block:
        pool = nt.ExecutorPool(inner) if kind == "executor" else nt.TaskPool(2)
        door = pool.lane(nt.TASK_HIGH) if kind == "lane" else pool
        if kind == "guest":
            pool.resize(max_size=1, queue_size=1, when_full="run")
            pool.submit(block)
            wait_until(lambda: pool.active == 1)
            pool.submit(int)
        task = door.submit(door.shutdown)
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            task.result(10)
        with pytest.raises(RuntimeError, match="after shutdown"):
            door.submit(int)
        block.release()
        pool.shutdown()


def test_a_task_may_wait_for_a_lane_that_is_not_its_own_on_a_pool_of_one(nt):
    with nt.TaskPool(1) as pool:
        lane = pool.lane(nt.TASK_LOW)

        def outer():
            inner = lane.submit(pow, 2, 3)
            lane.shutdown()
            return inner.result(0)

        assert pool.submit(outer).result(10) == 8


def test_tasks_that_their_submitters_run_are_counted_and_waited_for(nt):
    pool = nt.TaskPool(1, queue_size=1, when_full="run")
    with Blocker() as block, Blocker() as guest:
        pool.submit(block)
        block.wait_running(1)
        pool.submit(int)
        submitter = threading.Thread(target=pool.submit, args=(guest,))
        submitter.start()
        guest.wait_running(1)
        figures = pool._crew.dispatcher.figures()
        assert figures["active"] == pool.active == 2
        assert sum(figures["submitted"]) == 3
        assert guest in {fn for _, _, fn in pool._crew.dispatcher.running()}
        block.release()
        ended = threading.Event()
        closer = threading.Thread(target=lambda: (pool.shutdown(), ended.set()))
        closer.start()
        wait_until(lambda: pool.active == 1)
        assert not ended.wait(0.05)
        guest.release()
        assert ended.wait(10)
        closer.join()
        submitter.join()
    assert sum(pool._crew.dispatcher.figures()["completed"]) == 3


# Cancelled, late, forked.


def test_a_cancelled_task_is_gone_when_its_callbacks_are_called(nt):
    with nt.TaskPool(1, queue_size=1) as pool, Blocker() as block:
        pool.submit(block)
        block.wait_running(1)
        task = pool.submit(print, "argument")
        seen = []
        task.add_done_callback(
            lambda task: seen.append(
                (task.cancelled(), pool._work_queue.qsize(), task.args, pool.submit(int))
            )
        )
        assert task.cancel()
        [(cancelled, waiting, args, follower)] = seen
        assert (cancelled, waiting, args) == (True, 0, ())
        block.release()
        assert follower.result(10) == 0


def test_the_callbacks_of_the_task_before_are_no_part_of_a_task(nt):
    with nt.TaskPool(1) as pool:
        gate = threading.Event()
        pool.submit(gate.wait).add_done_callback(lambda task: time.sleep(0.2))
        task = pool.submit(time.monotonic)
        gate.set()
        began = task.result(10)
        assert 0 <= began - task.time_started < 0.15
        assert pool._crew.dispatcher.figures()["wait_seconds"][2] >= 0.2


@needs_counts
def test_the_finalizer_of_a_lane_may_wait_for_the_pool(nt):
    done = threading.Event()
    with nt.TaskPool(2) as pool:
        wait_until(lambda: [pool.submit(time.sleep, 0.01) for _ in range(2)])
        pool._crew.dispatcher.wait_drained(10)

        def finalizer():
            assert pool.submit(pow, 2, 3).result(10) == 8
            done.set()

        lane = pool.lane(nt.TASK_HIGH)
        weakref.finalize(lane, finalizer)
        gate = threading.Event()
        lane.submit(gate.wait)
        del lane
        gate.set()
        wait_until(done.is_set)  # without the GIL this thread may have to see to its end


@needs_counts
def test_what_goes_with_a_task_may_wait_for_the_next_one(nt):
    """The next one is not taken before: its thread would wait for itself."""
    if not (nt.COMPILED or getattr(sys, "_is_gil_enabled", lambda: True)()):
        pytest.skip("Python cannot tell there who holds the last reference")
    done = []
    with nt.TaskPool(1) as pool, Blocker() as block:

        class Result:
            def __del__(self):
                done.append(following[0].result(10))

        following = []
        pool.submit(block)
        pool.submit(Result)
        following.append(pool.submit(pow, 2, 3))
        block.release()
        wait_until(lambda: done == [8])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@needs_counts
def test_a_child_that_a_destructor_forked_between_two_tasks_ends(nt):
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("a lock of the interpreter may stay taken in the child")
    ran = run_python(
        """
        import neotasker, os, threading, time, warnings
        warnings.simplefilter("ignore")
        pids = []
        parent = os.getpid()
        class Result:
            def __del__(self):
                if os.getpid() == parent:
                    pid = os.fork()
                    if pid:
                        pids.append(pid)
        pool = neotasker.TaskPool(1)
        pool.submit(Result)
        pool.submit(lambda _: None, Result()).result(10)
        end = time.monotonic() + 10
        while len(pids) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert len(pids) == 2
        for pid in pids:
            while not os.waitpid(pid, os.WNOHANG)[0]:
                assert time.monotonic() < end, "a child hangs"
                time.sleep(0.01)
        print("ended")
        """
    )
    assert (ran.rc, ran.out.strip()) == (0, "ended"), ran


@pytest.mark.skipif(not ON_CPYTHON, reason="a function of CPython")
def test_an_exception_raised_in_an_idle_thread_from_outside_costs_no_count(nt, caplog):
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    with nt.TaskPool(2, idle_timeout=None) as pool:
        dispatcher = pool._crew.dispatcher
        for _ in range(3):
            pool.submit(int).result(10)
            wait_until(lambda: dispatcher.idle == dispatcher.threads)
            [thread, *_] = pool._threads
            raise_in(ctypes.c_ulong(thread.ident), ctypes.py_object(Stop))
            futures.wait([pool.submit(int) for _ in range(4)], 10)
            assert pool.submit(pow, 2, 3).result(10) == 8
            wait_until(lambda: dispatcher.threads == len(pool._threads))
            assert dispatcher.active == 0


# Nothing is kept.


def collected(*refs):
    gc.collect()
    return all(ref() is None for ref in refs)


@pytest.mark.parametrize("result", [1, []], ids=["int", "list"])
def test_a_pool_goes_with_its_owner_whose_method_initializes_its_threads(nt, result):
    class Service:
        def __init__(self):
            self.pool = nt.TaskPool(2, initializer=self.start)
            self.last = self.pool.submit(lambda: result)
            self.last.result(10)

        def start(self):
            pass

    service = Service()
    threads = list(service.pool._threads)
    refs = weakref.ref(service), weakref.ref(service.pool)
    del service
    wait_until(lambda: collected(*refs))
    wait_until(lambda: not any(thread.is_alive() for thread in threads))


def test_a_dispatcher_and_tasks_that_hold_each_other_are_collected(nt):
    from neotasker.task import Task

    from neotasker.core import Dispatcher

    class Owner:
        def run(self):
            pass

        def start(self):
            pass

    owner = Owner()
    owner.dispatcher = Dispatcher(Task, owner.start)
    owner.waiting = owner.dispatcher.make(owner.run, (), {}, 1)
    for lane in range(4):
        owner.dispatcher.enqueue(owner.dispatcher.make(owner.run, (owner,), {"o": owner}, lane))
    refs = weakref.ref(owner), weakref.ref(owner.dispatcher)
    del owner
    wait_until(lambda: collected(*refs))


def test_cancelling_the_tasks_of_a_view_takes_time_in_proportion(nt):
    def measure(count):
        with nt.TaskPool(1) as pool, Blocker() as block:
            pool.submit(block)
            block.wait_running(1)
            for _ in range(count):
                pool.submit(int)
            lane = pool.lane(nt.TASK_NORMAL)
            mine = [lane.submit(int) for _ in range(count)]
            began = time.perf_counter()
            lane.shutdown(wait=False, cancel_futures=True)
            taken = time.perf_counter() - began
            assert all(task.cancelled() for task in mine)
            assert pool._work_queue.qsize() == count
            pool.shutdown(wait=False, cancel_futures=True)
            return taken

    measure(100)
    small = min(measure(1000) for _ in range(3))
    assert measure(16_000) < 16 * 8 * small + 0.5


# What is refused.


def test_objects_that_were_not_initialized_say_so(nt):
    from neotasker.task import Task

    from neotasker.core import Dispatcher, Submitter

    class Early(nt.TaskPool):
        def __init__(self):
            self.submit(int)

    lane = nt.pool.Lane.__new__(nt.pool.Lane)
    bare = Dispatcher.__new__(Dispatcher)
    for call in (
        Early,
        lambda: lane.submit(int),
        lane.shutdown,
        Submitter.__new__(Submitter).wait_outstanding,
        lambda: bare.make(int, (), {}, 1),
        lambda: bare.enqueue(Dispatcher(Task, int).make(int, (), {}, 1)),
        bare.engage,
        bare.work,
        lambda: Submitter(bare, 1),
    ):
        with pytest.raises(AttributeError, match="not initialized"):
            call()


def test_lanes_tasks_and_settings_that_there_are_not_are_refused(nt):
    from neotasker.task import Task

    from neotasker.core import Dispatcher, Submitter

    dispatcher, other = Dispatcher(Task, int), Dispatcher(Task, int)
    for lane in (-1, 4, 200):
        with pytest.raises(ValueError, match="there is no lane"):
            dispatcher.make(int, (), {}, lane)
        with pytest.raises(ValueError, match="there is no lane"):
            Submitter(dispatcher, lane)
    task = dispatcher.make(int, (), {}, 1)
    with pytest.raises(ValueError, match="not made by this dispatcher"):
        other.enqueue(task)
    dispatcher.enqueue(task)
    with pytest.raises(ValueError, match="queued already"):
        dispatcher.enqueue(task)
    assert dispatcher.waiting == 1
    assert dispatcher.take_waiting() == [task]
    for wrong in (int, object):
        with pytest.raises(TypeError, match="must derive from TaskCore"):
            Dispatcher(wrong, int)
    with pytest.raises(TypeError, match="must be callable"):
        Dispatcher(Task, None)
    with pytest.raises(ValueError, match="when_full must be"):
        dispatcher.configure([1] * 4, 0, 1, None, 0, "wait")
    with pytest.raises(ValueError, match="one per lane"):
        dispatcher.configure([1] * 3, 0, 1, None, 0, "block")
    with pytest.raises(ValueError, match="level must be"):
        dispatcher.overdue(3, 1.0)


def test_a_class_in_place_of_an_executor_is_refused_everywhere(nt):
    wrong = futures.ProcessPoolExecutor
    supervisor = nt.TaskSupervisor("test")
    with nt.TaskPool(1) as pool:
        for give in (
            pool.use_executor,
            nt.ExecutorPool,
            lambda executor: supervisor.set_thread_pool(pool=executor),
            lambda executor: setattr(supervisor, "thread_pool", executor),
            lambda executor: nt.BackgroundIntervalWorker("w", int, interval=1, pool=executor),
        ):
            with pytest.raises(TypeError, match=r"give an instance, ProcessPoolExecutor\(\)"):
                give(wrong)


def test_work_items_have_the_shape_of_every_version(nt):
    with nt.TaskPool(1) as pool, Blocker() as block:
        pool.submit(block)
        block.wait_running(1)
        task = pool.submit(divmod, 7, 2)
        item = pool._work_queue.get(block=False)
        assert item.future is task
        assert (item.fn, item.args, item.kwargs) == (divmod, (7, 2), {})
        assert item.task == (divmod, (7, 2), {}) and item.task[1][0] == 7
        pool._work_queue.put(None)
        pool._work_queue.put(item)
        assert pool._work_queue.qsize() == 1
        block.release()
        assert task.result(10) == (3, 1)
        wait_until(lambda: pool._idle_semaphore._value == 1)
        lane = pool.lane(nt.TASK_LOW)
        assert lane._thread_name_prefix == pool._thread_name_prefix
        assert (lane._initializer, lane._initargs) == (None, ())


def test_an_executor_is_left_before_the_sizes_change(nt):
    given = []

    class Slow(futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            given.append(fn)
            return futures.Future()

    supervisor = nt.TaskSupervisor("test")
    supervisor.start()
    try:
        supervisor.set_thread_pool(pool_size=1, pool=Slow())
        held = supervisor.spawn(int)
        tasks = [supervisor.spawn(pow, 2, 3) for _ in range(5)]
        supervisor.set_thread_pool(pool_size=4)
        assert [task.result(10) for task in tasks] == [8] * 5
        assert len(given) == 1
    finally:
        held._end(False, None)
        supervisor.thread_pool._crew.dispatcher.release(held)
        supervisor.stop()
