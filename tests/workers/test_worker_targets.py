"""What a target is, and what becomes of what it returns."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import inspect
import xmlrpc.client
from unittest.mock import AsyncMock, Mock

import pytest
from helpers import wait_until
from worker_tools import KINDS, run_once

colour = contextvars.ContextVar("colour", default=None)


@pytest.fixture
def host(nt):
    supervisor = nt.TaskSupervisor("tests")
    supervisor.start()
    supervisor.create_aloop("main", default=True)
    yield supervisor
    supervisor.stop(cancel_tasks=True)


async def coroutine(*args, **kwargs):
    return 7


def plain(*args, **kwargs):
    return 7


def generator(*args, **kwargs):
    yield 7


async def async_generator(*args, **kwargs):
    yield 7


class WithAsyncCall:
    async def __call__(self, *args, **kwargs):
        return 7

    async def method(self, *args, **kwargs):
        return 7

    @staticmethod
    async def static(*args, **kwargs):
        return 7

    @classmethod
    async def of_class(cls, *args, **kwargs):
        return 7


class WithPlainCall:
    def __call__(self, *args, **kwargs):
        return 7


class WithStaticCall:
    __call__ = staticmethod(coroutine)


class Partial(functools.partial):
    pass


class Anything:
    def __getattr__(self, name):
        return self

    def __call__(self, *args, **kwargs):
        return 7


@functools.wraps(coroutine)
def wrapper(*args, **kwargs):
    return 7


ASYNC = {
    "function": coroutine,
    "partial": functools.partial(coroutine, 1),
    "partial of a subclass": Partial(coroutine, 1),
    "partials of partials": Partial(functools.partial(Partial(coroutine))),
    "object": WithAsyncCall(),
    "partial of an object": functools.partial(WithAsyncCall()),
    "method": WithAsyncCall().method,
    "its own call": WithAsyncCall().__call__,
    "static method": WithAsyncCall.static,
    "static method object": staticmethod(coroutine),
    "class method": WithAsyncCall.of_class,
    "static call": WithStaticCall(),
    "mock": AsyncMock(),
}
if hasattr(inspect, "markcoroutinefunction"):
    ASYNC["marked"] = inspect.markcoroutinefunction(lambda *args, **kwargs: coroutine())

PLAIN = {
    "function": plain,
    "wrapper around an async one": wrapper,
    "partial": Partial(plain),
    "object": WithPlainCall(),
    "class": dict,
    "builtin": print,
    "mock": Mock(return_value=7),
    "object that has every attribute": Anything(),
    "remote method": xmlrpc.client.ServerProxy("http://127.0.0.1:1").system.listMethods,
}


@pytest.mark.parametrize("target", ASYNC.values(), ids=ASYNC)
def test_all_take_an_async_target_for_one(nt, host, target):
    from neotasker.base.targets import is_async

    assert is_async(target)
    with pytest.raises(TypeError, match="cannot await"):
        host.spawn(target)
    with pytest.raises(TypeError, match="cannot await"):
        host.put_task(target)
    with pytest.raises(TypeError, match="cannot await"):
        host.call_later(0, target)
    with pytest.raises(TypeError, match="cannot await"):
        host.ticker.call_later(0, target)
    worker = nt.background_worker(target, name="made", supervisor=host)
    assert type(worker) is nt.BackgroundAsyncWorker
    assert nt.background_task(target, supervisor=host)().result(10) is not None
    worker = nt.BackgroundEventWorker("made", target, supervisor=host)
    worker.start()
    assert worker._target_is_async
    worker.stop()
    jobs = host.create_async_job_scheduler("jobs")
    assert jobs.create_threadsafe(target=target, interval=100)._is_async


@pytest.mark.parametrize("target", PLAIN.values(), ids=PLAIN)
def test_all_take_a_plain_target_for_one(nt, host, target):
    from neotasker.base.targets import is_async

    assert not is_async(target)
    host.spawn(target).exception(10)  # a remote method has one, as there is no remote
    host.put_task(target).exception(10)
    assert type(nt.background_worker(target, name="x", supervisor=host)) is nt.BackgroundWorker
    jobs = host.create_async_job_scheduler("jobs")
    assert not jobs.create_threadsafe(target=target, interval=100, timer=100)._is_async


@pytest.mark.parametrize("target", [generator, async_generator, Partial(generator)])
def test_a_target_that_would_never_run_is_refused(nt, host, target):
    for kind in KINDS:
        worker = getattr(nt, kind)("made", target, supervisor=host, interval=1)
        with pytest.raises(TypeError, match="generator function"):
            worker.start()
        assert not worker.is_active()
    jobs = host.create_async_job_scheduler("jobs")
    for refused in (
        lambda: jobs.create_threadsafe(target=target),
        lambda: host.call_later(0, target),
        lambda: host.call_every(1, target),
        lambda: host.ticker.call_every(1, target),
        lambda: nt.background_task(target),
    ):
        with pytest.raises(TypeError, match="generator function"):
            refused()


def test_a_generator_function_may_be_submitted_and_an_async_one_not(host):
    assert list(host.spawn(generator).result(10)) == [7]
    with pytest.raises(TypeError, match="async generator"):
        host.spawn(async_generator)


# What a plain target returns.

MAKERS = {
    "coroutine": lambda *args, **kwargs: coroutine(),
    "generator": lambda *args, **kwargs: (n for n in range(3)),
    "async generator": lambda *args, **kwargs: async_generator(),
}


@pytest.mark.parametrize("what", MAKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_will_run_is_closed_and_told_of_once(nt, host, kind, what, caplog):
    made = []

    def target(*args, **kwargs):
        made.append(MAKERS[what]())
        return made[-1]

    worker = getattr(nt, kind)("made", target, supervisor=host, interval=0.001)
    worker.start()
    wait_until(lambda: run_once(worker) or worker.runs >= 3)
    worker.stop()
    told = [r for r in caplog.records if "nobody will run" in r.message]
    assert len(told) == 1
    assert "worker made" in told[0].message and "target" in told[0].message
    if what == "coroutine":
        assert all(one.cr_frame is None for one in made)
    made.clear()
    gc.collect()


def test_a_timer_and_a_job_tell_of_a_coroutine_too(host, caplog):
    timer = host.call_every(0.001, MAKERS["coroutine"])
    job = host.create_async_job_scheduler("jobs").create_threadsafe(
        target=MAKERS["coroutine"], interval=0.001
    )
    wait_until(lambda: timer.runs >= 3 and job.runs >= 3)
    timer.cancel()
    job.cancel()
    wait_until(lambda: not job.running)
    wait_until(lambda: sum("nobody will run" in r.message for r in caplog.records) == 2)
    gc.collect()


def test_a_future_or_a_result_is_nobody_elses_business(nt, host, caplog):
    results = iter([host.spawn(plain), "text", 7, object(), [coroutine]])
    worker = nt.BackgroundEventWorker(
        "made", lambda: next(results), supervisor=host, poll_delay=0
    )
    worker.start()
    for n in range(5):
        worker.trigger_threadsafe()
        wait_until(lambda n=n: worker.runs > n)
    worker.stop()
    assert not caplog.records


# Signatures.


def test_a_wrapper_is_called_by_its_own_signature(nt, host):
    seen = []

    def inner(item, _worker, o): ...

    @functools.wraps(inner)
    def outer(item):
        seen.append(item)

    worker = nt.BackgroundQueueWorker("made", outer, supervisor=host)
    worker.start()
    worker.put_threadsafe(7)
    worker.stop(drain=True)
    assert seen == [7]


class Thing:
    def method(self): ...

    def handle(self, item): ...


def lacks(item, more): ...


@pytest.mark.parametrize(
    ("kind", "target", "words"),
    [
        ("BackgroundEventWorker", Thing.method, "method without its object"),
        ("BackgroundQueueWorker", Thing.handle, "method without its object"),
        ("BackgroundQueueWorker", lacks, "missing a required argument: 'more'"),
        ("BackgroundWorker", lacks, "missing a required argument: 'item'"),
    ],
)
def test_a_target_that_no_run_could_call_is_refused_at_the_start(nt, host, kind, target, words):
    worker = getattr(nt, kind)("made", target, supervisor=host)
    with pytest.raises(TypeError, match="(?i)" + words):
        worker.start()
    assert not worker.is_active()


# Keywords.


def test_keywords_of_a_target_may_have_any_name(nt, host):
    names = ("self", "fn", "target", "args", "kwargs", "callable", "run", "item", "f")
    given = dict.fromkeys(names, 7)
    seen = []

    def take(*args, **kwargs):
        seen.append({name: kwargs.get(name) for name in names})

    host.spawn(take, **given).result(10)
    host.lane(nt.TASK_HIGH).submit(take, **given).result(10)
    host.put_task(take, kwargs=given).result(10)
    nt.background_task(take, supervisor=host)(**given).result(10)
    for args in ((), (1,)):
        worker = nt.BackgroundQueueWorker("made", take, supervisor=host)
        worker.start(*args, **given)
        worker.put_threadsafe(1)
        worker.stop(drain=True)
        worker.restart(*args, **given)
        worker.put_threadsafe(1)
        worker.stop(drain=True)
    assert seen == [given] * 8


# Context.


@pytest.mark.parametrize("options", [{}, {"batch": 2}, {"concurrency": 2}, {"maxsize": 9}])
@pytest.mark.parametrize("starter", [None, "blue"])
def test_items_do_not_see_one_anothers_context(nt, host, options, starter):
    seen = []

    def target(item):
        seen.append(colour.get())
        colour.set(str(item))

    worker = nt.BackgroundQueueWorker("made", target, supervisor=host, **options)
    context = contextvars.Context()
    if starter is not None:
        context.run(colour.set, starter)
    context.run(worker.start)
    for n in range(9):
        worker.put_threadsafe(n)
    worker.stop(drain=True)
    assert set(seen) == {starter}


def test_a_hook_of_an_item_shares_its_context(nt, host):
    seen = []

    class Worker(nt.BackgroundQueueWorker):
        def after_queue_get(self, task):
            assert colour.get() in (None, "blue")
            colour.set(task)

        def run(self, item):
            seen.append(colour.get())

    for starter in (None, "blue"):
        worker = Worker("made", supervisor=host)
        context = contextvars.Context()
        if starter is not None:
            context.run(colour.set, starter)
        context.run(worker.start)
        for n in range(4):
            worker.put_threadsafe(str(n))
        worker.stop(drain=True)
    assert seen == ["0", "1", "2", "3"] * 2


def test_items_of_an_async_target_share_the_context_of_the_workers_task(nt, host):
    seen = []

    async def target(item):
        seen.append((colour.get(), asyncio.current_task()))
        colour.set(item)

    worker = nt.BackgroundQueueWorker("made", target, supervisor=host)
    worker.start()
    for n in range(3):
        worker.put_threadsafe(n)
    wait_until(lambda: len(seen) == 3)
    worker.stop()
    assert [before for before, _ in seen] == [None, 0, 1]
    assert len({task for _, task in seen}) == 1
