"""What all workers have in common: how they are made, what they get, what if they raise."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading

import pytest
from helpers import wait_until
from worker_tools import KINDS, in_kind, make, run_once

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
