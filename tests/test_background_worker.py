"""What all workers have in common: making, names, hooks, start and stop, errors."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import queue
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from helpers import Blocker, run_python, switch_interval, wait_until

KINDS = (
    "BackgroundWorker",
    "BackgroundAsyncWorker",
    "BackgroundIntervalWorker",
    "BackgroundQueueWorker",
    "BackgroundEventWorker",
)

# Names that subclasses in the wild have for themselves.
OWNED = [
    "lock",
    "data",
    "config",
    "events",
    "filter",
    "window",
    "command",
    "timeout",
    "need_notify",
    "controller",
    "ws",
    "pool",
    "_lock",
    "_paused",
    "_error",
    "_visible",
    "_inject",
    "name",
    "title",
    "errors",
    "missed",
    "runs",
    "unprocessed",
    "interval",
    "queue",
    "loop_name",
    "thread",
    "state",
    "context",
]


@pytest.fixture
def host(nt):
    supervisor = nt.TaskSupervisor("tests")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


def run_once(worker):
    """Make a worker of any kind run."""
    if hasattr(worker, "put_threadsafe"):
        worker.put_threadsafe("item")
    elif hasattr(worker, "trigger_threadsafe"):
        worker.trigger_threadsafe()


def in_kind(fn, is_async):
    """Return *fn* as a target, plain or async."""
    if not is_async:
        return fn

    async def coroutine(*args, **kwargs):
        return fn(*args, **kwargs)

    return coroutine


def make(nt, host, kind, fn, is_async, **options):
    """Return a worker of that kind, or None where it cannot run such a target."""
    if kind == "BackgroundWorker" and is_async:
        return None
    if kind == "BackgroundIntervalWorker":
        options.setdefault("interval", 0.01)
    return getattr(nt, kind)("made", in_kind(fn, is_async), supervisor=host, **options)


# Making.


@pytest.mark.parametrize(
    ("options", "is_async", "kind"),
    [
        ({}, False, "BackgroundWorker"),
        ({}, True, "BackgroundAsyncWorker"),
        ({"interval": 1}, False, "BackgroundIntervalWorker"),
        ({"i": 1}, False, "BackgroundIntervalWorker"),
        ({"delay": 1}, True, "BackgroundIntervalWorker"),
        ({"delay_before": 1}, True, "BackgroundIntervalWorker"),
        ({"q": True}, False, "BackgroundQueueWorker"),
        ({"queue": asyncio.PriorityQueue}, True, "BackgroundQueueWorker"),
        ({"e": True}, False, "BackgroundEventWorker"),
        ({"event": True}, True, "BackgroundEventWorker"),
        ({"q": False, "event": False}, False, "BackgroundWorker"),
    ],
)
def test_the_decorator_makes_the_kind_that_its_arguments_say(nt, options, is_async, kind):
    target = in_kind(lambda **kwargs: None, is_async)
    assert type(nt.background_worker(**options)(target)) is getattr(nt, kind)


def test_the_decorator_works_bare_and_names_the_worker_after_the_function(nt):
    @nt.background_worker
    def bare(**kwargs): ...

    @nt.background_worker()
    def called(**kwargs): ...

    @nt.background_worker(name="other", o=5)
    def named(**kwargs): ...

    assert [w._name for w in (bare, called, named)] == [
        "_background_worker_bare",
        "_background_worker_called",
        "_background_worker_other",
    ]
    assert named.o == 5
    assert bare._is_worker


def test_a_worker_without_a_name_gets_a_random_one_that_can_be_changed(nt):
    worker, other = nt.BackgroundWorker(), nt.BackgroundWorker()
    assert worker._name.startswith("_background_worker_")
    assert worker._name != other._name
    worker.set_name("mine")
    assert worker._name == "_background_worker_mine"


def test_workers_are_constructed_before_the_supervisor_starts(nt):
    supervisor = nt.TaskSupervisor("later")
    workers = [
        nt.BackgroundIntervalWorker(n, print, interval=1, supervisor=supervisor, loop="later")
        for n in range(300)
    ]
    assert not any(w.is_active() or w.is_started() or w.is_stopped() for w in workers)
    with pytest.raises(nt.SupervisorNotStarted, match=r"worker 0 .*call start\(\) first"):
        workers[0].start()
    assert not workers[0].is_active()


def test_a_worker_without_supervisor_is_hosted_by_the_default_one(nt):
    assert nt.BackgroundWorker().supervisor is nt.task_supervisor
    other = nt.TaskSupervisor("other")
    assert nt.BackgroundWorker(supervisor=other).supervisor is other


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_arguments_of_the_constructor_do_no_harm_and_stay_there(nt, host, kind):
    got = queue.Queue()
    worker = make(
        nt, host, kind, lambda *args, **kw: got.put(kw), False, daemon=True, colour="red"
    )
    worker.start(extra=1)
    run_once(worker)
    assert got.get(timeout=10) == {
        "_worker": worker,
        "_name": worker._name,
        "o": None,
        "extra": 1,
    }
    worker.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_of_any_name_may_be_set_before_the_base_is_initialised(nt, host, kind):
    ran = threading.Event()

    class Mine(getattr(nt, kind)):
        def __init__(self, **kwargs):
            for name in OWNED:
                setattr(self, name, f"my {name}")
            super().__init__(**kwargs)

        def run(self, *args, **kwargs):
            ran.set()

    worker = Mine(name="mine", delay=0.01, supervisor=host)
    worker.start()
    run_once(worker)
    assert ran.wait(10)
    worker.stop()
    assert {name: getattr(worker, name) for name in OWNED} == {n: f"my {n}" for n in OWNED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_run_may_be_assigned_after_construction(nt, host, kind, is_async):
    ran = threading.Event()
    worker = make(nt, host, kind, lambda *args, **kwargs: None, is_async)
    if worker is None:
        worker = nt.BackgroundAsyncWorker(supervisor=host)
    worker.run = in_kind(lambda *args, **kwargs: ran.set(), is_async)
    worker.start()
    run_once(worker)
    assert ran.wait(10)
    assert worker._target_is_async is is_async


def test_a_target_on_a_class_may_take_itself_with_the_other_arguments(nt, host):
    got = queue.Queue()

    class Mine(nt.BackgroundQueueWorker):
        def run(*args, **kwargs):
            got.put((args, kwargs))

    worker = Mine(supervisor=host, o="o")
    worker.start()
    worker.put_threadsafe("item")
    args, kwargs = got.get(timeout=10)
    assert args == (worker, "item")
    assert kwargs == {"_worker": worker, "_name": worker._name, "o": "o"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (lambda: "nothing", "nothing"),
        (lambda o: {"o": o}, {"o": "mine"}),
        (lambda _name, *, _worker: {"_name": _name}, {"_name": "_background_worker_x"}),
        (lambda **kwargs: set(kwargs), {"_worker", "_name", "o"}),
    ],
)
def test_a_target_without_keywords_gets_what_it_names(nt, host, target, expected):
    got = queue.Queue()

    class Mine(nt.BackgroundEventWorker):
        def process_result(self, result):
            got.put(result)

    worker = Mine("x", target, o="mine", supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert got.get(timeout=10) == expected


def test_the_item_is_not_taken_for_a_keyword_of_the_same_name(nt, host):
    got = queue.Queue()
    worker = nt.BackgroundQueueWorker("x", lambda o: got.put(o), o="no", supervisor=host)
    worker.start()
    worker.put_threadsafe("item")
    assert got.get(timeout=10) == "item"


def test_start_may_name_what_the_target_gets(nt, host):
    got = queue.Queue()
    worker = nt.BackgroundEventWorker("x", lambda **kw: got.put(kw), supervisor=host)
    worker.start(_name="other", o="mine", _priority=nt.TASK_HIGH, a=1)
    worker.trigger_threadsafe()
    assert got.get(timeout=10) == {"_worker": worker, "_name": "other", "o": "mine", "a": 1}
    assert worker.priority == nt.TASK_HIGH


# Bad input.


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fn": 5}, TypeError, "the target must be callable, not 5"),
        ({"on_error": "x"}, TypeError, "on_error must be callable, not 'x'"),
        ({"pool": 5}, TypeError, "needs a method submit, which 5 has not"),
        ({"priority": 7}, ValueError, "unknown priority 7"),
        ({"poll_delay": -1}, ValueError, "poll_delay must be at least 0 seconds"),
        ({"restart": "maybe"}, ValueError, "'never', 'on_error' or 'always', not 'maybe'"),
        ({"max_restarts": -1}, ValueError, "max_restarts must be at least 0, not -1"),
        ({"max_restarts": 1.5}, TypeError, "max_restarts must be a whole number, not 1.5"),
        ({"period": 0}, ValueError, "period must be positive"),
        ({"on_give_up": 1}, TypeError, "on_give_up must be callable, not 1"),
    ],
)
def test_a_constructor_says_what_is_wrong(nt, options, error, words):
    with pytest.raises(error, match=words):
        nt.BackgroundWorker(**options)


def test_something_that_cannot_be_called_makes_no_worker(nt):
    with pytest.raises(TypeError, match="not of 'name'"):
        nt.background_worker("name")


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_without_a_target_does_not_start(nt, host, kind):
    worker = getattr(nt, kind)("empty", supervisor=host)
    with pytest.raises(TypeError, match=r"worker empty has no target: give fn="):
        worker.start()
    worker.run = 5
    with pytest.raises(TypeError, match="must be callable, not 5"):
        worker.start()
    assert not worker.is_active()
    assert host.get_schedulers() == {}


def test_a_thread_does_not_run_a_coroutine_function(nt, host):
    async def target(**kwargs): ...

    worker = nt.BackgroundWorker("x", target, supervisor=host)
    with pytest.raises(TypeError, match="use BackgroundAsyncWorker"):
        worker.start()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_unknown_aloop_is_named_with_the_known_ones(nt, host, is_async):
    worker = make(nt, host, "BackgroundEventWorker", print, is_async, loop="nowhere")
    with pytest.raises(nt.UnknownAloop, match=r"no aloop 'nowhere' \(there are main\)"):
        worker.start()
    assert not worker.is_active()
    assert worker.start(_loop="main")


def test_an_aloop_that_rests_is_refused(nt, host):
    host.create_aloop("asleep", start=False)
    worker = make(nt, host, "BackgroundEventWorker", print, True, loop="asleep")
    with pytest.raises(nt.AloopError, match="does not run"):
        worker.start()
    host.start_aloop("asleep")
    assert worker.start()


# Life.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_start_and_stop_tell_how_it_stands(nt, host, kind, is_async):
    with Blocker() as block:
        worker = make(nt, host, kind, block, False)
        assert worker.start() is True
        assert worker.start() is False
        assert worker.is_active()
        run_once(worker)
        block.wait_running(1)
        assert worker.is_started()
        assert host.get_schedulers() == {"_background_worker_made": worker}
        worker.stop(wait=False)
        assert not worker.is_active()
        assert worker.is_started()
        assert not worker.is_stopped()
    assert worker.wait_until_stop(10)
    assert worker.is_stopped()
    assert not worker.is_started()
    assert host.get_schedulers() == {}
    worker.stop()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_stop_waits_for_the_run_that_is_on(nt, host, kind, is_async):
    ended = threading.Event()
    begun = threading.Event()

    def plain(*args, **kwargs):
        begun.set()
        time.sleep(0.05)
        ended.set()

    async def coroutine(*args, **kwargs):
        begun.set()
        await asyncio.sleep(0.05)
        ended.set()

    if is_async and kind == "BackgroundWorker":
        kind = "BackgroundAsyncWorker"
    options = {"interval": 0.01} if "Interval" in kind else {}
    target = coroutine if is_async else plain
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    run_once(worker)
    assert begun.wait(10)
    worker.stop()
    assert ended.is_set()
    assert worker.is_stopped()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_idle_worker_stops_at_once(nt, host, kind, is_async):
    worker = make(nt, host, kind, lambda *args, **kwargs: None, is_async)
    if worker is None or kind in ("BackgroundWorker", "BackgroundAsyncWorker"):
        worker = nt.BackgroundIntervalWorker(
            "x", in_kind(lambda **kw: None, is_async), delay=1000, supervisor=host
        )
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("way", "is_async"),
    [
        ("False", False),
        ("False", True),
        ("worker", False),
        ("worker", True),
        ("process_result", False),  # results of coroutines are not processed
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_is_stopped_from_inside(nt, host, kind, is_async, way):
    def target(*args, _worker, **kwargs):
        if way == "worker":
            _worker.stop()
        return way != "False"

    worker = make(nt, host, kind, target, is_async)
    if worker is None:
        worker = nt.BackgroundAsyncWorker("x", in_kind(target, True), supervisor=host)
    if way == "process_result":
        worker.process_result = lambda result: False
    worker.start()
    run_once(worker)
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert worker.runs == 1
    assert worker.start()


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_are_called_in_order(nt, host, kind):
    calls = []

    class Mine(getattr(nt, kind)):
        def run(self, *args, **kwargs):
            time.sleep(0.001)

        def before_start(self):
            calls.append(("before_start", self.is_active()))

        def after_start(self):
            calls.append(("after_start", self.is_active()))

        def before_stop(self):
            calls.append(("before_stop", self.is_active()))

        def send_stop_events(self):
            calls.append(("send_stop_events", self.is_active()))

        def after_stop(self):
            calls.append(("after_stop", self.is_active()))

    worker = Mine(supervisor=host, interval=0.01)
    worker.start()
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)
    worker.stop()
    worker.stop()
    assert calls == [
        ("before_start", False),
        ("after_start", True),
        ("before_stop", True),
        ("send_stop_events", False),
        ("after_stop", False),
    ]


def test_after_stop_is_called_when_the_run_has_ended(nt, host):
    order = []
    begun = threading.Event()

    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs):
            begun.set()
            time.sleep(0.05)
            order.append("run")

        def after_stop(self):
            order.append("after_stop")

    worker = Mine(supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert begun.wait(10)
    host.stop()
    assert order == ["run", "after_stop"]


def test_a_hook_that_raises_does_not_keep_the_worker_from_stopping(nt, host, caplog):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def before_stop(self):
            raise ValueError("before")

        after_stop = send_stop_events = before_stop

    worker = Mine("mine", supervisor=host)
    worker.start()
    worker.stop()
    assert worker.is_stopped()
    messages = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert messages == ["error in a hook of worker mine"] * 3


def test_a_hook_that_raises_keeps_the_worker_from_starting(nt, host):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def before_start(self):
            raise ValueError("not today")

    worker = Mine(supervisor=host)
    with pytest.raises(ValueError, match="not today"):
        worker.start()
    assert not worker.is_active()


def test_hooks_may_stop_the_worker(nt, host):
    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def after_start(self):
            self.stop()

        def before_stop(self):
            self.stop()

    worker = Mine(supervisor=host)
    assert worker.start()
    assert worker.is_stopped()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_waits_for_that_of_the_life_before(nt, host, kind, is_async):
    """A stop that does not wait, and a start at once: never two runs at the same time."""
    on, most, total = 0, 0, 0
    lock = threading.Lock()

    def enter():
        nonlocal on, most, total
        with lock:
            on, total = on + 1, total + 1
            most = max(most, on)

    def leave():
        nonlocal on
        with lock:
            on -= 1

    def plain(*args, **kwargs):
        enter()
        time.sleep(0.005)
        leave()

    async def coroutine(*args, **kwargs):
        enter()
        await asyncio.sleep(0.005)
        leave()

    if is_async and kind == "BackgroundWorker":
        kind = "BackgroundAsyncWorker"
    target = coroutine if is_async else plain
    options = {"interval": 0.001} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    with switch_interval():
        for _ in range(20):
            assert worker.start()
            run_once(worker)
            time.sleep(0.002)
            worker.stop(wait=False)
    assert worker.start()
    run_once(worker)
    wait_until(worker.is_started)
    seen = total
    run_once(worker)
    wait_until(lambda: total > seen)
    worker.stop()
    assert most == 1
    assert host.get_schedulers() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_restarts_itself(nt, host, kind):
    runs = queue.Queue()

    def target(*args, _worker, number, **kwargs):
        runs.put(number)
        if number == 1:
            _worker.restart(number=2)
            run_once(_worker)
        else:
            time.sleep(0.001)

    worker = make(nt, host, kind, target, False)
    worker.start(number=1)
    run_once(worker)
    assert [runs.get(timeout=10), runs.get(timeout=10)] == [1, 2]
    worker.stop()


def test_starts_and_stops_from_many_threads_leave_it_in_order(nt, host):
    worker = nt.BackgroundIntervalWorker("x", lambda: None, interval=0.001, supervisor=host)
    barrier = threading.Barrier(6)

    def toggle(number):
        barrier.wait()
        for _ in range(30):
            if number % 2:
                worker.start()
            else:
                worker.stop(wait=number == 0)

    threads = [threading.Thread(target=toggle, args=(n,)) for n in range(6)]
    with switch_interval():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    worker.stop()
    assert worker.is_stopped()
    assert host.get_schedulers() == {}
    assert worker.start()
    before = worker.runs
    wait_until(lambda: worker.runs > before)


def test_two_workers_of_one_name_are_both_stopped(nt, host):
    workers = [nt.BackgroundEventWorker("x", print, supervisor=host) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert list(host.get_schedulers()) == [
        "_background_worker_x",
        "_background_worker_x_2",
        "_background_worker_x_3",
    ]
    host.stop()
    assert all(worker.is_stopped() for worker in workers)


def test_a_target_may_take_the_lock_of_starts_and_stops(nt, host):
    """Programs do so to draw, say, only while the worker is active."""
    shown = threading.Event()

    class Mine(nt.BackgroundIntervalWorker):
        def run(self, **kwargs):
            with self.start_stop_lock:
                if self.is_active():
                    shown.set()

    for is_async in (False, True):
        shown.clear()
        worker = Mine(delay=0.001, supervisor=host)
        if is_async:
            worker.run = in_kind(worker.run, True)
        with switch_interval():
            for _ in range(20):
                worker.start()
                assert shown.wait(10)
                worker.stop()


def test_a_worker_may_be_started_and_stopped_in_its_own_loop(nt, host):
    worker = nt.BackgroundIntervalWorker(
        "x", in_kind(lambda: None, True), delay=0.001, supervisor=host
    )

    async def both():
        worker.start()
        await asyncio.sleep(0.01)
        worker.stop()
        return worker.is_active()

    assert host.get_aloop("main").run_coroutine_threadsafe(both()) is False
    assert worker.wait_until_stop(10)
    assert worker.runs


# Errors.


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_lives_on_after_an_exception(nt, host, caplog, kind, is_async, error):
    again = threading.Event()

    def target(*args, _worker, **kwargs):
        if _worker.errors:
            again.set()
        else:
            raise error("the first time")

    worker = make(nt, host, kind, target, is_async)
    if worker is None:
        worker = nt.BackgroundAsyncWorker("made", in_kind(target, True), supervisor=host)
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.errors == 1)
    run_once(worker)
    assert again.wait(10)
    assert worker.is_active()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.getMessage() == "exception in worker made"
    assert "the first time" in str(record.exc_info[1])
    assert "in target" in record.exc_text


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_on_error_is_called_inside_the_except(nt, host, caplog, kind, is_async):
    seen = queue.Queue()

    def on_error(**kwargs):
        try:
            raise
        except ZeroDivisionError as exc:
            seen.put((kwargs, exc))

    worker = make(
        nt,
        host,
        kind,
        lambda *args, **kwargs: 1 / 0,
        is_async,
        on_error=on_error,
        on_error_kwargs={"a": 1},
    )
    if worker is None:
        return
    worker.start()
    run_once(worker)
    kwargs, exc = seen.get(timeout=10)
    assert kwargs == {"a": 1}
    assert isinstance(exc, ZeroDivisionError)
    assert not [r for r in caplog.records if r.levelno == logging.ERROR]


def test_an_exception_in_on_error_is_logged(nt, host, caplog):
    def on_error():
        raise KeyError("in on_error")

    worker = nt.BackgroundEventWorker("x", lambda: 1 / 0, on_error=on_error, supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    wait_until(lambda: caplog.records)
    worker.stop()
    text = caplog.records[0].exc_text
    assert caplog.records[0].getMessage() == "error in on_error of worker x"
    assert "in on_error" in text and "ZeroDivisionError" in text


def test_on_error_may_be_a_method(nt, host):
    failed = threading.Event()

    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs):
            raise ValueError

        def on_error(self):
            failed.set()

    worker = Mine(supervisor=host)
    worker.start()
    worker.trigger_threadsafe()
    assert failed.wait(10)


def test_results_of_plain_runs_are_processed(nt, host):
    got = queue.Queue()
    worker = nt.BackgroundQueueWorker("x", lambda item: item * 2, supervisor=host)
    worker.process_result = got.put
    worker.start()
    for n in range(3):
        worker.put_threadsafe(n)
    assert [got.get(timeout=10) for _ in range(3)] == [0, 2, 4]


def test_an_exception_in_process_result_counts_as_one_of_the_run(nt, host, caplog):
    worker = nt.BackgroundEventWorker("x", lambda: 1, supervisor=host)
    worker.process_result = lambda result: 1 / 0
    worker.start()
    worker.trigger_threadsafe()
    wait_until(lambda: worker.errors == 1)
    assert worker.is_active()


# Where and how runs are.


def test_targets_see_the_context_of_who_started_the_worker(nt, host):
    name = contextvars.ContextVar("name", default="nobody")
    got = queue.Queue()
    workers = [
        make(
            nt,
            host,
            kind,
            lambda *args, **kw: got.put(name.get()) or time.sleep(0.01),
            is_async,
        )
        for kind in KINDS
        for is_async in (False, True)
    ]
    name.set("me")
    for worker in filter(None, workers):
        worker.start()
        run_once(worker)
        assert got.get(timeout=10) == "me"
        worker.stop()
        while not got.empty():
            assert got.get() == "me"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_worker_on_an_aloop_is_one_task_whose_coroutine_has_it_as_self(nt, host, kind):
    worker = make(nt, host, kind, lambda *args, **kwargs: None, True)
    worker.start()
    run_once(worker)
    wait_until(lambda: worker.runs)

    async def look():
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        return [task.get_coro().cr_frame.f_locals.get("self") for task in tasks]

    assert host.get_aloop("main").run_coroutine_threadsafe(look()) == [worker]
    worker.stop()
    assert host.get_aloop("main").run_coroutine_threadsafe(look()) == []
    assert worker.aloop is host.get_aloop("main")
    assert worker.worker_loop is host.get_aloop("main").get_loop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_runs_on_an_aloop_are_part_of_the_workers_task(nt, host, kind):
    seen = queue.Queue()

    async def target(*args, **kwargs):
        before = asyncio.current_task()
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            seen.put((before, asyncio.current_task()))

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    for _ in range(3):
        run_once(worker)
        before, after = seen.get(timeout=10)
        assert before is after
        assert inspect.iscoroutine(before.get_coro())
        assert before.get_name() == "_background_worker_x"
    assert worker.errors == 0


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_worker_runs_on_the_loop_that_start_names(nt, host, kind):
    host.create_aloop("second")
    names = queue.Queue()

    def target(*args, **kwargs):
        names.put(threading.current_thread().name)

    worker = make(nt, host, kind, target, True, loop="main")
    for start, expected in (({}, "main"), ({"_loop": "second"}, "second"), ({}, "second")):
        worker.start(**start)
        run_once(worker)
        assert names.get(timeout=10) == f"supervisor_tests_aloop_{expected}"
        worker.stop()
        assert worker.aloop.name == expected
        names.queue.clear()


def test_a_worker_runs_on_a_loop_of_the_programs(nt, host):
    runs = []

    async def target(_worker, **kwargs):
        runs.append(asyncio.get_running_loop())
        if len(runs) == 3:
            _worker.stop()

    async def main():
        loop = asyncio.get_running_loop()
        worker = nt.BackgroundIntervalWorker(
            "x", target, delay=0.001, supervisor=host, loop=loop
        )
        worker.start()
        while not worker.is_stopped():
            await asyncio.sleep(0.001)
        assert worker.aloop is None
        return loop

    assert [asyncio.run(main())] * 3 == runs


def test_a_worker_on_a_loop_that_is_gone_stops(nt, host):
    async def target(**kwargs): ...

    async def main():
        worker = nt.BackgroundEventWorker(
            "x", target, supervisor=host, loop=asyncio.get_running_loop()
        )
        worker.start()
        await asyncio.sleep(0.01)
        return worker

    worker = asyncio.run(main())
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    worker.stop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_cancelling_the_task_ends_the_worker(nt, host, caplog, kind):
    begun = threading.Event()

    async def target(*args, **kwargs):
        begun.set()
        await asyncio.Event().wait()

    options = {"interval": 1} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, **options)
    worker.start()
    run_once(worker)
    assert begun.wait(10)
    loop = worker.worker_loop
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    assert worker.wait_until_stop(10)
    assert not worker.is_active()
    assert "its task was cancelled" in caplog.text
    assert worker.errors == 0
    if "Queue" in kind:
        assert worker.unprocessed == ["item"]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_cancellation_inside_the_target_is_an_error_of_it(nt, host, kind):
    async def target(*args, **kwargs):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, on_error=lambda: None, **options)
    worker.start()
    for n in range(2):
        run_once(worker)
        wait_until(lambda n=n: worker.errors > n)
    assert worker.is_active()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_run_that_takes_longer_than_its_timeout_is_cancelled(nt, host, caplog, kind):
    begun = threading.Semaphore(0)

    async def target(*args, **kwargs):
        begun.release()
        await asyncio.Event().wait()

    options = {"interval": 0.01} if "Interval" in kind else {}
    worker = getattr(nt, kind)("x", target, supervisor=host, timeout=0.02, **options)
    worker.start()
    for n in range(3):
        run_once(worker)
        assert begun.acquire(timeout=10)
        wait_until(lambda n=n: worker.errors > n)
    assert worker.is_active()
    assert "took longer than its timeout of 0.02 s" in caplog.text
    worker.stop()
    assert worker.is_stopped()


def test_plain_targets_need_no_loop(nt):
    supervisor = nt.TaskSupervisor("bare")
    supervisor.start()
    supervisor.create_aloop("asleep", start=False, default=True)
    ran = queue.Queue()
    workers = [
        make(nt, supervisor, kind, lambda *a, kind=kind, **kw: ran.put(kind), False)
        for kind in KINDS[2:]
    ]
    for worker in workers:
        worker.start()
        run_once(worker)
    seen = set()
    while len(seen) < 3:
        seen.add(ran.get(timeout=10))
    supervisor.stop()


def square(number, **kwargs):
    """Be a target that another process finds by its name."""
    return number * number, sorted(kwargs)


def tick(**kwargs):
    """Be another."""
    return sorted(kwargs)


def test_workers_run_in_a_process_pool_and_get_no_worker(nt, host):
    results = queue.Queue()
    with ProcessPoolExecutor(1) as pool:
        worker = nt.BackgroundQueueWorker("q", square, pool=pool, supervisor=host, o="o")
        worker.process_result = results.put
        other = nt.BackgroundIntervalWorker(
            "i", tick, pool=pool, interval=0.01, supervisor=host
        )
        other.process_result = results.put
        worker.start(extra=1)
        for n in range(5):
            worker.put_threadsafe(n)
        worker.stop(drain=True)
        got = [results.get(timeout=30) for _ in range(5)]
        assert got == [(n * n, ["_name", "extra", "o"]) for n in range(5)]
        other.start()
        assert results.get(timeout=30) == ["_name", "o"]
        other.stop()
    assert worker.runs == 5


def test_workers_follow_the_pool_to_another_process(nt, host):
    results = queue.Queue()
    worker = nt.BackgroundEventWorker("e", tick, supervisor=host)
    worker.process_result = results.put
    worker.start()
    worker.trigger_threadsafe()
    assert results.get(timeout=10) == ["_name", "_worker", "o"]
    with ProcessPoolExecutor(1) as pool:
        host.thread_pool = pool
        worker.trigger_threadsafe()
        assert results.get(timeout=30) == ["_name", "o"]
        host.thread_pool = None
    worker.trigger_threadsafe()
    assert results.get(timeout=10) == ["_name", "_worker", "o"]
    worker.stop()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_workers_run_in_a_pool_of_the_programs(nt, host, kind):
    names = queue.Queue()
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        worker = make(
            nt,
            host,
            kind,
            lambda *args, _worker, **kw: names.put(threading.current_thread().name),
            False,
            pool=pool,
        )
        worker.start()
        run_once(worker)
        assert names.get(timeout=10) == "mine_0"
        worker.stop()


def test_a_bounded_pool_does_not_hold_up_the_tick(nt, host):
    """Runs that are due enter the pool whatever its bound: they were accepted before."""
    host.set_thread_pool(pool_size=1, queue_size=1)
    pool = nt.TaskPool(pool_size=1, queue_size=1)
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        host.spawn(int)
        pool.submit(block)
        block.wait_running(2)
        pool.submit(int)
        workers = [
            nt.BackgroundIntervalWorker(
                n, lambda: None, interval=0.01, supervisor=host, pool=pool if n % 2 else None
            )
            for n in range(20)
        ]
        for worker in workers:
            worker.start()
        ticked = threading.Event()
        host.ticker.call_later(0.02, ticked.set)
        assert ticked.wait(10)
    for worker in workers:
        wait_until(lambda worker=worker: worker.runs)
        worker.stop()
    pool.shutdown()


def test_runs_have_the_priority_of_the_worker(nt, host):
    host.set_thread_pool(pool_size=1, reserve_high=1)
    ran = threading.Event()
    with Blocker() as block:
        host.spawn(block)
        block.wait_running(1)
        low = nt.BackgroundEventWorker("l", block, supervisor=host, priority=nt.TASK_LOW)
        high = nt.BackgroundEventWorker("h", ran.set, supervisor=host, priority=nt.TASK_HIGH)
        for worker in (low, high):
            worker.start()
            worker.trigger_threadsafe()
        assert ran.wait(10)
        assert low.runs == 0


# The supervisor and its workers.


@pytest.mark.parametrize("kind", KINDS)
def test_the_supervisor_stops_its_workers_together(nt, host, kind):
    """Each is told before any is waited for: else a hundred runs of 0.1 s took ten seconds."""
    workers = []
    for n in range(50):
        worker = make(nt, host, kind, lambda *args, **kwargs: time.sleep(0.1), False)
        worker.set_name(n)
        worker.start()
        run_once(worker)
        workers.append(worker)
    began = time.monotonic()
    host.stop()
    assert time.monotonic() - began < 3
    assert all(worker.is_stopped() for worker in workers)


def test_an_overridden_stop_is_called_by_the_supervisor(nt, host):
    calls = []

    class Mine(nt.BackgroundEventWorker):
        def run(self, **kwargs): ...

        def stop(self, *args, **kwargs):
            calls.append((args, kwargs))
            super().stop(*args, **kwargs)

    worker = Mine(supervisor=host)
    worker.start()
    host.stop()
    assert calls == [((), {"wait": True, "drain": False})]
    assert worker.is_stopped()


def test_workers_are_not_started_while_the_supervisor_stops(nt, host):
    late = nt.BackgroundEventWorker("late", print, supervisor=host)
    errors = queue.Queue()

    def target(_worker):
        while _worker.is_active():
            time.sleep(0.001)
        try:
            late.start()
        except nt.SupervisorNotStarted as exc:
            errors.put(exc)

    worker = nt.BackgroundWorker("x", target, supervisor=host)
    worker.start()
    wait_until(lambda: worker.runs)
    host.stop()
    assert "is stopping, worker late is refused" in str(errors.get_nowait())
    assert not late.is_active()


def test_a_forked_child_finds_its_workers_stopped(nt):
    ran = run_python(
        """
        import os, sys, threading
        import neotasker as nt
        nt.task_supervisor.start()
        runs = []
        workers = [
            nt.BackgroundIntervalWorker("i", lambda: runs.append(1), interval=0.01),
            nt.BackgroundEventWorker("e", lambda: runs.append(1)),
            nt.BackgroundQueueWorker("q", lambda item: runs.append(1)),
            nt.BackgroundWorker("c", lambda: threading.Event().wait(0.01)),
        ]
        for worker in workers:
            worker.start()
        child = os.fork()
        if not child:
            states = [w.is_active() or w.is_started() for w in workers]
            nt.task_supervisor.start()
            runs.clear()
            workers[0].start()
            while not runs:
                pass
            nt.task_supervisor.stop()
            os._exit(any(states))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        nt.task_supervisor.stop()
        sys.exit(status)
        """
    )
    assert ran.rc == 0, ran.err
