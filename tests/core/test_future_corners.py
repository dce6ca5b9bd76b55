"""Corner calls of futures: both cores against each other, and against the standard's future."""

from __future__ import annotations

import decimal
import fractions
import logging
import re
import threading
from concurrent import futures
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

# What is done to a future, by name: each takes the future, the outcomes and the calls noted.
ERRORS = (ValueError("first"), KeyError("second"), StopIteration(3), ValueError)
NOT_A_TIME = "no time"


def _note(calls: list[Any], name: str, error: BaseException | None = None) -> Any:
    def callback(future: Any) -> None:
        calls.append((name, future.done(), future.cancelled(), future._state))
        if error is not None:
            raise error

    return callback


OPERATIONS: dict[str, Any] = {
    "cancel": lambda f, c: f.cancel(),
    "run": lambda f, c: f.set_running_or_notify_cancel(),
    "result 1": lambda f, c: f.set_result(1),
    "result None": lambda f, c: f.set_result(None),
    "fail 0": lambda f, c: f.set_exception(ERRORS[0]),
    "fail 1": lambda f, c: f.set_exception(ERRORS[1]),
    "fail 2": lambda f, c: f.set_exception(ERRORS[2]),
    "fail class": lambda f, c: f.set_exception(ERRORS[3]),
    "fail None": lambda f, c: f.set_exception(None),
    "get": lambda f, c: f.result(timeout=0),
    "get nan": lambda f, c: f.result(float("nan")),
    "get -1": lambda f, c: f.result(-1),
    "get False": lambda f, c: f.result(False),
    "get text": lambda f, c: f.result(NOT_A_TIME),
    "get list": lambda f, c: f.exception([]),
    "get Decimal": lambda f, c: f.result(decimal.Decimal("0.001")),
    "get -Decimal": lambda f, c: f.result(decimal.Decimal(-1)),
    "get Fraction": lambda f, c: f.exception(fractions.Fraction(1, 1000)),
    "ask": lambda f, c: f.exception(timeout=0),
    "ask soon": lambda f, c: f.exception(0.0001),
    "call": lambda f, c: f.add_done_callback(_note(c, "plain")),
    "call bad": lambda f, c: f.add_done_callback(_note(c, "bad", LookupError())),
    "call Ctrl+C": lambda f, c: f.add_done_callback(_note(c, "^C", KeyboardInterrupt())),
    "call nothing": lambda f, c: f.add_done_callback(None),
    "call cancel": lambda f, c: f.add_done_callback(lambda f: c.append(f.cancel())),
    "call set": lambda f, c: f.add_done_callback(lambda f: f.set_result(2)),
    "call call": lambda f, c: f.add_done_callback(
        lambda f: f.add_done_callback(_note(c, "inner"))
    ),
    "done": lambda f, c: f.done(),
    "running": lambda f, c: f.running(),
    "cancelled": lambda f, c: f.cancelled(),
    "repr": lambda f, c: re.sub(r"<\w+ at 0x\w+", "<it", repr(f)),
    "state": lambda f, c: f._state,
    "outcome": lambda f, c: (f._result, f._exception),
}


class Model(futures.Future):
    """The standard's future, with what ours does otherwise on purpose.

    One that is cancelled is in its last state at once, and says False as often as it is asked
    to run. All callbacks are called though one of them raises what is no `Exception`; the
    first of these is raised then.
    """

    def cancel(self) -> bool:
        try:
            return super().cancel()
        finally:
            if self._state == "CANCELLED":
                self._state = "CANCELLED_AND_NOTIFIED"

    def set_running_or_notify_cancel(self) -> bool:
        return not self.cancelled() and super().set_running_or_notify_cancel()

    def _invoke_callbacks(self) -> None:
        if self._state == "CANCELLED":
            self._state = "CANCELLED_AND_NOTIFIED"
        raised = None
        while self._done_callbacks:
            callback = self._done_callbacks.pop(0)
            try:
                callback(self)
            except Exception:
                logging.getLogger("concurrent.futures").exception("on purpose")
            except BaseException as exc:
                raised = raised or exc
        if raised is not None:
            raise raised


def _do(future: Any, steps: list[str]) -> list[Any]:
    """Return what each step does: its result or exception, the state, the calls so far."""
    seen: list[Any] = []
    for step in steps:
        calls: list[Any] = []
        try:
            outcome = ("returned", OPERATIONS[step](future, calls))
        except BaseException as exc:
            text = str(exc)
            if isinstance(exc, futures.InvalidStateError):
                text = re.sub(r"<\w+ at 0x\w+", "<it", text)
            elif isinstance(exc, TypeError):
                text = ""  # ours are clearer
            kind = RuntimeError if isinstance(exc, RuntimeError) else type(exc)  # ours is both
            outcome = ("raised", kind, text)
        seen.append((step, outcome, future._state, future.done(), future.running()))
        seen.append(tuple(calls))
    return seen


def _ours(core: Any) -> type:
    class Plain(core.core.FutureCore, futures.Future):
        pass

    return Plain


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL + 1)
    caplog.set_level(logging.CRITICAL + 1, "concurrent.futures")
    caplog.set_level(logging.CRITICAL + 1, "neotasker")


@given(steps=st.lists(st.sampled_from(sorted(OPERATIONS)), max_size=12))
def test_a_future_does_what_the_standard_one_does(both_cores, steps):
    wanted = _do(Model(), steps)
    for core in both_cores:
        assert _do(_ours(core)(), steps) == wanted
        assert _do(core.package.pool.task.Task(), steps) == wanted


@pytest.mark.parametrize("step", sorted(OPERATIONS))
@pytest.mark.parametrize("before", [[], ["run"], ["cancel"], ["result 1"], ["fail 0"]], ids=str)
def test_each_call_in_each_state(both_cores, before, step):
    wanted = _do(Model(), [*before, step, "state", "result 1", "get"])
    for core in both_cores:
        assert _do(_ours(core)(), [*before, step, "state", "result 1", "get"]) == wanted


@pytest.mark.parametrize("way", ["result", "exception"])
@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400, threading.TIMEOUT_MAX * 2])
def test_a_timeout_too_long_for_a_lock_waits(nt, way, timeout):
    task = nt.pool.task.Task()
    timer = threading.Timer(0.01, task.set_result, (5,))
    timer.start()
    assert getattr(task, way)(timeout) == (5 if way == "result" else None)
    timer.join()


@pytest.mark.parametrize(
    "timeout", ["1", decimal.Decimal("0.1"), fractions.Fraction(1, 9), b"", [], 1j], ids=repr
)
def test_what_is_no_timeout_is_refused_in_words(nt, timeout):
    with nt.TaskPool(1) as pool:
        busy = threading.Event()
        running = pool.submit(busy.wait)
        for wait in (
            nt.pool.task.Task().result,
            nt.pool.task.Task().exception,
            pool._crew.dispatcher.wait_drained,
        ):
            with pytest.raises(TypeError, match="a timeout is an int or a float of seconds"):
                wait(timeout)
        busy.set()
        running.result(10)


@pytest.mark.parametrize("timeout", [0, -1, 0.0, float("nan"), float("-inf"), False, -1e300])
def test_no_time_is_no_wait(nt, timeout):
    for look in (nt.pool.task.Task().result, nt.pool.task.Task().exception):
        with pytest.raises(TimeoutError):
            look(timeout)
    with nt.TaskPool(1) as pool:
        busy = threading.Event()
        running = pool.submit(busy.wait)
        assert pool._crew.dispatcher.wait_drained(timeout) is False
        busy.set()
        running.result(10)


@pytest.mark.parametrize("error", ["text", 0, object, int])
def test_what_cannot_be_raised_is_refused(nt, error):
    task = nt.pool.task.Task()
    with pytest.raises(TypeError, match="an exception is needed"):
        task.set_exception(error)
    assert not task.done()


def test_objects_that_were_not_initialised_do_no_harm(nt):
    core = nt.pool.task.TaskCore
    for cls in (nt.core.FutureCore, core, nt.pool.task.Task):
        for name in (*vars(nt.core.FutureCore), *vars(core)):
            future = cls.__new__(cls)
            member = getattr(cls, name, None)
            if name.startswith("__") and name != "__repr__":
                continue
            for call in (lambda f, n: getattr(f, n), lambda f, n: getattr(f, n)()):
                try:
                    if call(future, name) and not callable(member):
                        break
                except (AttributeError, TypeError, futures.CancelledError):
                    pass
                except (futures.InvalidStateError, RuntimeError):
                    pass
                if name in ("result", "exception"):
                    break  # they would wait
