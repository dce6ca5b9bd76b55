"""What real programs for neotasker 0.0.x and atasker rely on, statement by statement."""

from __future__ import annotations

import asyncio
import json
import pickle
import queue
import sys
import threading
import time
from concurrent.futures import Future
from itertools import count

import pytest
from helpers import Blocker, wait_until
from worker_tools import KINDS, in_kind, run_once


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("dropin")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


# Names.


def test_every_name_of_both_packages_is_there(nt):
    names = (
        "BackgroundAsyncWorker BackgroundEventWorker BackgroundIntervalWorker "
        "BackgroundQueueWorker BackgroundWorker FunctionCollection LocalProxy Locker "
        "TASK_CRITICAL TASK_HIGH TASK_LOW TASK_NORMAL TT_COROUTINE TT_MP TT_THREAD "
        "TaskCollection TaskSupervisor background_task background_worker co_mp_apply embed f g "
        "localproxy set_debug spawn spawn_ajob supervisor task_supervisor wait_completed "
        "workers __version__ __license__ __author__"
    )
    for name in names.split():
        assert hasattr(nt, name), name
    there = {
        "supervisor": "ALoop TaskSupervisor Task TASK_LOW TASK_NORMAL TASK_HIGH TASK_CRITICAL "
        "TT_COROUTINE TT_THREAD TT_MP TASK_STATUS_QUEUED TASK_STATUS_DELAYED "
        "TASK_STATUS_STARTED TASK_STATUS_COMPLETED TASK_STATUS_CANCELED debug logger "
        "default_poll_delay thread_pool_default_size mp_pool_default_size "
        "default_timeout_warning default_timeout_critical",
        "workers": "BackgroundWorker BackgroundAsyncWorker BackgroundQueueWorker "
        "BackgroundEventWorker BackgroundIntervalWorker background_worker debug",
        "embed": "task_supervisor set_poll_delay set_thread_pool_size add_import_path start "
        "stop spawn call call_async call_direct report_result set_debug debug logger",
        "localproxy": "LocalProxy",
        "f": "FunctionCollection",
    }
    for module, expected in there.items():
        for name in expected.split():
            assert hasattr(getattr(nt, module), name), f"{module}.{name}"


def test_a_supervisor_has_the_members_of_both(nt):
    supervisor = nt.TaskSupervisor(supervisor_id="mine")
    methods = (
        "set_thread_pool create_aloop create_async_job_scheduler create_async_job "
        "cancel_async_job set_default_aloop set_default_async_job_scheduler get_aloop "
        "start_aloop stop_aloop get_info get_aloops get_schedulers start block stop "
        "register_sync_scheduler register_async_scheduler register_scheduler "
        "unregister_scheduler unregister_sync_scheduler spawn spawn_thread put_task get_task "
        "get_tasks mark_task_started mark_task_completed create_mp_pool set_mp_pool"
    )
    for name in methods.split():
        assert callable(getattr(supervisor, name)), name
    assert supervisor.id == "mine" and supervisor.active is False
    assert supervisor.poll_delay == 0.01 and supervisor.daemon is False
    assert (supervisor.aloops, supervisor.async_job_schedulers) == ({}, {})
    assert supervisor.default_aloop is None
    assert supervisor.default_async_job_scheduler is None
    assert (supervisor.timeout_warning, supervisor.timeout_critical) == (5, 10)
    assert supervisor.timeout_warning_func is None
    assert supervisor.mp_pool is None and supervisor.event_loop is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_has_the_members_of_both(nt, supervisor, kind):
    worker = getattr(nt, kind)("mine", lambda *args, **kwargs: None, supervisor=supervisor, o=5)
    methods = (
        "run before_start send_stop_events after_start before_stop after_stop set_name restart "
        "is_active is_started is_stopped error start process_result stop wait_until_stop"
    )
    for name in methods.split():
        assert callable(getattr(worker, name)), name
    assert worker._name == worker.name == "_background_worker_mine"
    assert worker._is_worker is True and worker._target_is_async is False
    assert worker.o == 5 and worker.supervisor is supervisor
    assert worker.on_error is None and worker.on_error_kwargs == {}
    assert worker._current_task is None and worker.poll_delay == supervisor.poll_delay
    with worker.start_stop_lock:
        pass
    if kind != "BackgroundWorker":
        assert worker.worker_loop is None and worker.aloop is None
    if kind == "BackgroundIntervalWorker":
        assert (worker.delay, worker.keep_interval) == (1, False)


# Workers: making and starting.


def test_workers_are_made_by_the_hundred_before_anything_runs(nt):
    supervisor = nt.TaskSupervisor("late")
    ran: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def make(n):
        async def target(**kwargs):
            ran.put((n, threading.current_thread().name))
            return False

        return nt.BackgroundIntervalWorker(
            f"w{n}", target, supervisor=supervisor, interval=1, loop="devices"
        )

    before = threading.active_count()
    workers = [make(n) for n in range(300)]
    assert threading.active_count() == before
    supervisor.create_aloop("devices")  # aloops run before the supervisor does
    supervisor.start()
    for worker in workers:
        worker.start()
    got = dict(ran.get(timeout=30) for _ in workers)
    assert set(got) == set(range(300))
    assert set(got.values()) == {"supervisor_late_aloop_devices"}
    supervisor.stop()


def test_the_name_of_a_loop_is_looked_up_at_the_start(nt, supervisor):
    async def target(**kwargs):
        return None

    worker = nt.BackgroundEventWorker("x", target, supervisor=supervisor, loop="later")
    assert worker.worker_loop == "later"
    with pytest.raises(nt.UnknownAloop, match="later"):
        worker.start()
    aloop = supervisor.create_aloop("later")
    assert worker.start()
    assert worker.aloop is aloop and worker.worker_loop is aloop.get_loop()
    assert worker._target_is_async is True
    worker.stop()


@pytest.mark.parametrize("is_async", [False, True])
def test_run_may_be_assigned_later(nt, supervisor, is_async):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()
    worker = nt.BackgroundQueueWorker("x", supervisor=supervisor)
    worker.run = in_kind(lambda item, **kwargs: got.put(item), is_async)
    worker.start()
    worker.put_threadsafe(5)
    assert got.get(timeout=10) == 5
    worker.stop()
    worker.run = in_kind(lambda item, **kwargs: got.put(-item), not is_async)
    worker.start()
    worker.put_threadsafe(5)
    assert got.get(timeout=10) == -5
    worker.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_keywords_of_a_constructor_are_kept_from_the_target(nt, supervisor, kind):
    got: queue.SimpleQueue[dict] = queue.SimpleQueue()

    def target(*args, **kwargs):
        got.put(kwargs)
        return False

    worker = getattr(nt, kind)(
        "x", target, supervisor=supervisor, colour="blue", daemon=True, lock=5, o=1
    )
    worker.start(extra=2, _name="other")
    run_once(worker)
    kwargs = got.get(timeout=10)
    assert kwargs == {"_worker": worker, "_name": "other", "o": 1, "extra": 2}
    worker.stop()


def test_start_hands_positional_arguments_on(nt, supervisor):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()

    def note(*args, _worker, **kwargs):
        got.put(args)

    async def note_async(*args, _worker, **kwargs):
        got.put(args)

    def exact(item, a, b):
        got.put((item, a, b))

    for kind, fn, args in [
        ("BackgroundEventWorker", note, (1, 2)),
        ("BackgroundEventWorker", note_async, (1, 2)),
        ("BackgroundQueueWorker", note, ("item", 1, 2)),
        ("BackgroundQueueWorker", note_async, ("item", 1, 2)),
        ("BackgroundQueueWorker", exact, ("item", 1, 2)),
    ]:
        worker = getattr(nt, kind)("x", fn, supervisor=supervisor)
        worker.start(1, 2)
        run_once(worker)
        assert got.get(timeout=10) == args
        worker.stop()


OWNED = (
    "lock data config events filter window command timeout need_notify controller ws pool "
    "_lock _paused _error _visible _inject name title"
)


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_may_be_set_before_the_constructor(nt, supervisor, kind):
    own, ran = OWNED.split(), threading.Event()

    class Device(getattr(nt, kind)):
        def __init__(self, *args, **kwargs):
            for name in own:
                setattr(self, name, f"my {name}")
            super().__init__(*args, **kwargs)

        def run(self, *args, **kwargs):
            ran.set()
            return False

    device = Device("x", supervisor=supervisor)
    device.start()
    run_once(device)
    assert ran.wait(10)
    device.stop()
    assert [getattr(device, name) for name in own] == [f"my {name}" for name in own]
    assert device._name == "_background_worker_x"


def test_a_target_without_self_on_a_class_works(nt, supervisor):
    got: queue.SimpleQueue[object] = queue.SimpleQueue()

    class Plain(nt.BackgroundIntervalWorker):
        def run(*args, **kwargs):
            got.put((args, kwargs["o"]))
            return False

    class Async(nt.BackgroundQueueWorker):
        async def run(*args, **kwargs):
            got.put((args, kwargs["o"]))
            return False

    class Static(nt.BackgroundQueueWorker):
        @staticmethod
        def run(*args, **kwargs):
            got.put((args, kwargs["o"]))
            return False

    plain = Plain(interval=1, o=1, supervisor=supervisor)
    plain.start()
    assert got.get(timeout=10) == ((plain,), 1)
    for kind, args in [(Async, (0, "item")), (Static, ("item",))]:
        worker = kind(o=2, supervisor=supervisor)
        worker.start()
        worker.put_threadsafe("item")
        assert got.get(timeout=10) == (tuple(worker if a == 0 else a for a in args), 2)
        wait_until(lambda worker=worker: not worker.is_active())


def test_a_target_may_be_called_by_hand(nt, supervisor):
    @nt.background_worker(interval=3600, supervisor=supervisor)
    def measure(**kwargs):
        return 42

    measure.start()
    wait_until(lambda: measure.runs == 1)
    assert measure.trigger_threadsafe(skip=True)
    assert measure.run() == 42
    assert measure.runs == 1
    measure.stop()


# Workers: errors.


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_on_error_runs_inside_the_active_except(nt, supervisor, kind, is_async):
    if kind == "BackgroundWorker" and is_async:
        pytest.skip("runs plain functions only")
    seen: queue.SimpleQueue[object] = queue.SimpleQueue()

    def on_error(**kwargs):
        seen.put((sys.exc_info()[0], kwargs))

    def fail(*args, **kwargs):
        raise LookupError("on purpose")

    worker = getattr(nt, kind)(
        "x",
        in_kind(fail, is_async),
        supervisor=supervisor,
        on_error=on_error,
        on_error_kwargs={"a": 1},
        poll_delay=0.001,
    )
    worker.start()
    for _ in range(2):
        run_once(worker)
        assert seen.get(timeout=10) == (LookupError, {"a": 1})
        if kind == "BackgroundIntervalWorker":
            break
    assert worker.is_active()
    worker.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_without_on_error_the_worker_lives_on(nt, supervisor, kind, caplog):
    runs = count(1)
    third = threading.Event()

    def fail(*args, **kwargs):
        if next(runs) == 3:
            third.set()
        raise LookupError("on purpose")

    worker = getattr(nt, kind)("x", fail, supervisor=supervisor, delay=0.001, poll_delay=0.001)
    worker.start()
    while not third.wait(0.005):
        run_once(worker)
    assert worker.is_active()
    worker.stop()
    assert "LookupError: on purpose" in caplog.text


# Workers: queues.


def test_the_stop_mark_passes_through_the_users_queue_class(nt, supervisor):
    passed: list[object] = []

    class Noting(asyncio.Queue):
        async def put(self, item):
            passed.append(item)
            await super().put(item)

    worker = nt.BackgroundQueueWorker(
        "x", lambda item, **kw: None, q=Noting, supervisor=supervisor
    )
    worker.start()
    worker.put_threadsafe("a")
    wait_until(lambda: worker.runs == 1)
    worker.stop()
    assert passed == ["a", None]
    worker.start()
    worker.put_threadsafe("b")
    worker.put_threadsafe(None)  # as older programs stop a worker
    wait_until(lambda: not worker.is_active() and worker.is_stopped())
    assert passed[2:4] == ["b", None] and worker.runs == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_items_of_a_priority_queue_may_be_compared_with_the_mark(nt, supervisor, is_async):
    class Item:
        def __init__(self, urgency):
            self.urgency = urgency

        def __lt__(self, other):
            return other is None or self.urgency < other.urgency

        def __gt__(self, other):
            return other is None or self.urgency > other.urgency

    got: list[int] = []
    with Blocker() as block:

        def target(item, **kwargs):
            got.append(item.urgency)
            block()

        worker = nt.BackgroundQueueWorker(
            "x", in_kind(target, is_async), q=asyncio.PriorityQueue, supervisor=supervisor
        )
        worker.start()
        worker.put_threadsafe(Item(5))
        block.wait_running(1)
        for urgency in (3, 1, 2):
            worker.put_threadsafe(Item(urgency))
        worker.put_threadsafe(None)
        block.release()
        wait_until(lambda: not worker.is_active() and worker.is_stopped())
    # What compares less than the mark comes before it.
    assert got[0] == 5 and got[1:] == sorted(got[1:])
    assert len(got) + len(worker.unprocessed) == 4


def test_a_priority_queue_of_items_that_do_not_compare_with_the_mark_stops_too(nt, supervisor):
    worker = nt.BackgroundQueueWorker(
        "x", lambda item, **kw: None, q=asyncio.PriorityQueue, supervisor=supervisor
    )
    worker.start()
    for n in range(3):
        worker.put_threadsafe((n, "x"))
    wait_until(lambda: worker.runs == 3)
    worker.stop()
    assert worker.is_stopped() and not worker.unprocessed


# Workers: start, stop and locks.


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_may_take_the_lock_that_start_holds(nt, supervisor, kind, is_async):
    if kind == "BackgroundWorker" and is_async:
        pytest.skip("runs plain functions only")
    took = threading.Event()

    def target(*args, _worker, **kwargs):
        with _worker.start_stop_lock:  # blocks the loop until start() has returned
            if _worker.is_active():
                took.set()

    class Slow(getattr(nt, kind)):
        def after_start(self):
            run_once(self)
            threading.Event().wait(0.05)

    worker = Slow("x", in_kind(target, is_async), supervisor=supervisor)
    worker.start()
    assert took.wait(10)
    worker.stop()
    assert worker.is_stopped()


@pytest.mark.parametrize("kind", KINDS)
def test_start_and_stop_may_be_overridden_with_arguments_of_any_kind(nt, supervisor, kind):
    calls = []

    class Plugin(getattr(nt, kind)):
        def start(self, *args, **kwargs):
            super().start(*args, **kwargs)
            calls.append("started")

        def stop(self, *args, **kwargs):
            super().stop(*args, **kwargs)
            calls.append("stopped")

        def run(self, *args, **kwargs):
            return False

    plugin = Plugin("x", supervisor=supervisor)
    plugin.start()
    run_once(plugin)
    wait_until(lambda: "stopped" in calls)
    plugin.stop()
    assert not plugin.is_active()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_delay_worker_stops_itself_without_waiting(nt, supervisor, is_async):
    took: queue.SimpleQueue[float] = queue.SimpleQueue()

    def target(*, _worker, **kwargs):
        began = time.monotonic()
        _worker.stop(wait=False)
        took.put(time.monotonic() - began)

    worker = nt.BackgroundIntervalWorker(
        "x", in_kind(target, is_async), delay=0.01, supervisor=supervisor
    )
    worker.start()
    assert took.get(timeout=10) < 1
    wait_until(worker.is_stopped)
    assert worker.runs == 1 and took.empty() and not worker.is_active()


def test_the_supervisor_stops_registered_workers(nt):
    supervisor = nt.TaskSupervisor("stops")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    workers = []
    for kind in KINDS:
        for is_async in (False, True):
            if kind == "BackgroundWorker" and is_async:
                continue
            target = in_kind(lambda *args, **kwargs: time.sleep(0.001), is_async)
            worker = getattr(nt, kind)(f"{kind}{is_async}", target, supervisor=supervisor)
            worker.start()
            workers.append(worker)
    names = set(supervisor.get_schedulers())
    assert names == {worker._name for worker in workers}
    supervisor.stop()
    assert all(worker.is_stopped() and not worker.is_active() for worker in workers)
    assert supervisor.get_schedulers() == {}


def test_an_event_worker_shows_its_event(nt, supervisor):
    ran = threading.Event()
    worker = nt.BackgroundEventWorker("x", lambda: ran.set(), supervisor=supervisor)
    with pytest.raises(nt.WorkerNotStarted):
        worker.get_event_obj()
    worker.start()
    event = worker.get_event_obj()
    assert event.is_set() is False
    event.set()
    assert ran.wait(10)
    worker.stop()


# Supervisors.


def test_a_spawn_that_was_taken_before_goes_on_working(nt):
    spawn = nt.spawn
    nt.task_supervisor.set_thread_pool(min_size="max", max_size=3)
    nt.task_supervisor.start()
    try:
        assert isinstance(spawn(pow, 2, 3), Future)
        nt.task_supervisor.set_thread_pool(max_size=2)
        assert spawn(pow, 2, 3).result(10) == 8
        assert spawn is nt.spawn and spawn == nt.task_supervisor.spawn
        assert nt.task_supervisor.thread_pool.submit(pow, 2, 4).result(10) == 16
    finally:
        nt.task_supervisor.stop()
        nt.task_supervisor.set_thread_pool()


def test_all_threads_may_be_started_at_once_without_a_number(nt):
    supervisor = nt.TaskSupervisor("max")
    supervisor.set_thread_pool(min_size="max", max_size=None)
    supervisor.start()
    pool = supervisor.thread_pool
    assert pool.sizes.min_size == pool.sizes.max_size == nt.supervisor.thread_pool_default_size
    assert len(pool._threads) == pool.sizes.max_size
    supervisor.stop()
    with pytest.raises(ValueError, match="min_size"):
        supervisor.set_thread_pool(min_size=5, max_size=2)


def test_the_small_info_pickles_and_the_full_one_can_be_dumped(nt, supervisor):
    workers = []
    for kind in KINDS:
        for is_async in (False, True):
            if kind == "BackgroundWorker" and is_async:
                continue
            target = in_kind(lambda *args, **kwargs: time.sleep(0.001), is_async)
            workers.append(getattr(nt, kind)(None, target, supervisor=supervisor))
            workers[-1].start()
    supervisor.create_async_job_scheduler("jobs", default=True)

    async def job():
        return None

    supervisor.create_async_job(target=job, interval=60)
    small = supervisor.get_info(aloops=False, schedulers=False, async_job_schedulers=False)
    assert pickle.loads(pickle.dumps(small.__dict__))["id"] == "dropin"
    assert not {"aloops", "schedulers", "async_job_schedulers"} & set(small.__dict__)
    full = supervisor.get_info()
    dumped = json.loads(json.dumps(full, default=lambda value: value.__dict__))
    assert dumped["id"] == "dropin" and dumped["active"] is True
    assert set(dumped["schedulers"]) == {worker._name for worker in workers}
    assert list(dumped["aloops"]) == ["main"] and list(dumped["async_job_schedulers"]) == [
        "jobs"
    ]
    for worker in workers:
        worker.stop()


def test_unknown_attributes_may_be_set_on_a_supervisor(nt, supervisor):
    class Mine(nt.TaskSupervisor):
        colour = "blue"

    for one in (supervisor, Mine(id="mine"), nt.task_supervisor):
        one.my_attribute = 5
        one.pool_timeout = 3
        one.default_async_executor_loop = None
        assert (one.my_attribute, one.pool_timeout) == (5, 3)
        del one.my_attribute, one.pool_timeout


def test_an_existing_aloop_is_an_error_in_the_log_and_false(nt, supervisor, caplog):
    assert supervisor.create_aloop("main") is False
    assert "already exists" in caplog.text
    assert supervisor.get_aloop("nowhere") is None
    assert supervisor.get_aloop(default=False) is None
    assert supervisor.stop_aloop("nowhere") is False and supervisor.start_aloop("x") is False
    with pytest.raises(RuntimeError, match="reserved"):
        supervisor.create_aloop("__supervisor__")


def test_the_default_job_scheduler_may_be_assigned(nt, supervisor):
    jobs = supervisor.create_async_job_scheduler("jobs")
    assert supervisor.default_async_job_scheduler is None
    supervisor.default_async_job_scheduler = jobs
    assert supervisor.default_async_job_scheduler is jobs
    supervisor.default_async_job_scheduler = None
    supervisor.set_default_async_job_scheduler("jobs")
    assert supervisor.default_async_job_scheduler is jobs


def test_a_worker_on_an_aloop_is_one_task_whose_coroutine_has_a_local_self(nt, supervisor):
    async def target(**kwargs):
        return None

    worker = nt.BackgroundIntervalWorker("mine", target, interval=60, supervisor=supervisor)
    worker.start()
    loop = supervisor.get_aloop("main").get_loop()

    def owners():
        frames = [task.get_coro().cr_frame for task in asyncio.all_tasks(loop)]
        return [f.f_locals.get("self") for f in frames if f is not None]

    wait_until(lambda: worker in owners())
    assert owners().count(worker) == 1
    worker.stop()
