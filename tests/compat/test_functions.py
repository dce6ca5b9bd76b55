"""Collections of functions: run one by one, or as tasks in the pool."""

from __future__ import annotations

import sys
import threading

import pytest
from helpers import Blocker


@pytest.fixture
def supervisor(nt):
    supervisor = nt.TaskSupervisor("functions")
    supervisor.set_thread_pool(pool_size=2, reserve_normal=1, reserve_high=1)
    supervisor.start()
    yield supervisor
    supervisor.stop()


@pytest.fixture(params=["FunctionCollection", "TaskCollection"])
def make(nt, supervisor, request):
    """Make a collection of each kind."""

    def make(**options):
        if request.param == "TaskCollection":
            options["supervisor"] = supervisor
        return getattr(nt, request.param)(**options)

    return make


def test_a_decorated_function_stays_what_it_was(make):
    collection = make()

    @collection
    def one():
        return 1

    @collection(priority=10)
    def two():
        return 2

    assert one() == 1 and two() == 2
    name = __name__
    assert collection.run() == {f"{name}.one": 1, f"{name}.two": 2}
    assert collection() == collection.run()
    assert collection.execute() == ({f"{name}.one": 1, f"{name}.two": 2}, True)


def test_functions_run_in_the_order_of_priority_then_of_adding(nt):
    order = []
    collection = nt.FunctionCollection()
    assert collection.default_priority == nt.TASK_NORMAL == 100
    for name, priority in [("c", None), ("a", 10), ("d", 100), ("b", 10.5), ("e", 200)]:
        fn = lambda name=name: order.append(name)  # noqa: E731
        fn.__name__ = name
        collection.append(fn, priority=priority)
    first = lambda: order.append("first")  # noqa: E731
    collection.append(first, nt.TASK_CRITICAL)
    results, all_ok = collection.execute()
    assert order == ["first", "a", "b", "c", "d", "e"]
    assert all_ok and list(results)[1] == f"{__name__}.a"


def test_a_function_is_added_once_and_can_be_taken_out(make):
    class Thing:
        def method(self):
            return 1

    thing, collection = Thing(), make()
    collection.append(thing.method)
    collection.append(thing.method, priority=1)
    assert len(collection) == 1
    collection.remove(thing.method)
    assert collection.execute() == ({}, True)
    with pytest.raises(ValueError, match="not in the collection"):
        collection.remove(thing.method)


def test_removing_what_is_not_there_is_an_error_like_any_other(nt):
    seen = []
    collection = nt.FunctionCollection(on_error=lambda: seen.append(sys.exc_info()[0]))
    collection.remove(print)
    assert seen == [ValueError]


def test_on_error_is_called_inside_the_except_and_the_rest_runs(make):
    seen = []

    def on_error(**kwargs):
        seen.append((sys.exc_info()[0], kwargs))

    collection = make(on_error=on_error, on_error_kwargs={"a": 1})

    @collection(priority=1)
    def bad():
        raise LookupError("gone")

    @collection
    def good():
        return 5

    results, all_ok = collection.execute()
    assert results == {f"{__name__}.bad": None, f"{__name__}.good": 5}
    assert all_ok is False
    assert seen == [(LookupError, {"a": 1})]


@pytest.mark.parametrize("with_on_error", [True, False])
def test_exceptions_are_included_in_the_results_when_asked_for(make, with_on_error):
    options = {"on_error": lambda: None} if with_on_error else {}
    collection = make(include_exceptions=True, **options)

    @collection
    def bad():
        raise LookupError("gone")

    results, all_ok = collection.execute()
    exc, trace = results[f"{__name__}.bad"]
    assert type(exc) is LookupError and "in bad" in trace and "LookupError: gone" in trace
    assert not all_ok


def test_without_on_error_the_exception_comes_out(make):
    collection = make()

    @collection
    def bad():
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        collection.execute()


def test_error_may_be_overridden(nt):
    class Mine(nt.FunctionCollection):
        def error(self):
            caught.append(sys.exc_info()[1])

    caught: list[BaseException | None] = []
    collection = Mine()
    collection.append(lambda: 1 / 0)
    assert collection.execute()[1] is False
    assert type(caught[0]) is ZeroDivisionError


def test_bad_arguments_are_refused_with_the_value(nt, make):
    with pytest.raises(TypeError, match="on_error must be callable, not 5"):
        make(on_error=5)
    collection = make()
    with pytest.raises(TypeError, match="functions, not 'x'"):
        collection.append("x")
    with pytest.raises(TypeError, match="priority must be a number, not 'high'"):
        collection.append(print, "high")


def test_tasks_of_a_collection_run_side_by_side_in_the_pool(nt, supervisor):
    with Blocker() as block:
        collection = nt.TaskCollection(supervisor=supervisor, poll_delay=0.1)
        names = []

        def task(n):
            def run():
                names.append(threading.current_thread().name)
                return block(n)

            run.__name__ = f"task{n}"
            return run

        for n in range(3):
            collection.append(task(n))
        done = []
        thread = threading.Thread(target=lambda: done.append(collection.execute()))
        thread.start()
        block.wait_running(3)
        assert not done
        block.release()
        thread.join()
    assert done == [({f"{__name__}.task{n}": n for n in range(3)}, True)]
    assert all(name.startswith("supervisor_functions_pool_") for name in names)


def test_the_priority_of_a_task_is_that_of_the_lane(nt, supervisor):
    seen = {}
    collection = nt.TaskCollection(supervisor=supervisor)

    def note(priority):
        def run():
            seen[priority] = [int(task.priority) for task in supervisor.get_tasks().values()]

        run.__name__ = f"p{priority}"
        return run

    for priority, lane in [
        (-5, 0),
        (0, 0),
        (10, 50),
        (50, 50),
        (100, 100),
        (150, 200),
        (999, 200),
    ]:
        collection = nt.TaskCollection(supervisor=supervisor)
        collection.append(note(priority), priority)
        collection.run()
        assert seen[priority] == [lane]


def test_a_task_collection_uses_the_default_supervisor_and_needs_it_started(nt):
    collection = nt.TaskCollection()
    assert collection.supervisor is nt.task_supervisor
    collection.append(lambda: 1)
    with pytest.raises(nt.SupervisorNotStarted):
        collection.execute()


def test_a_collection_may_be_run_by_a_task_of_the_same_pool(nt, supervisor):
    supervisor.set_thread_pool(pool_size=1)
    collection = nt.TaskCollection(supervisor=supervisor)
    collection.append(lambda: 7)
    assert list(supervisor.spawn(collection.run).result(10).values()) == [7]


def test_the_old_import_path_leads_to_the_same_classes(nt):
    from neotasker.f import FunctionCollection, TaskCollection

    assert FunctionCollection is nt.FunctionCollection and TaskCollection is nt.TaskCollection
