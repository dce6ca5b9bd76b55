"""Python inside a program of another language: start, stop, call and report."""

from __future__ import annotations

import logging
import operator
import queue
import signal
import sys
import threading

import pytest
from helpers import run_python, wait_until


@pytest.fixture
def embed(nt, monkeypatch):
    """The module, started, with a host that notes what is reported."""
    from neotasker import embed

    embed.reports = queue.SimpleQueue()
    monkeypatch.setattr(
        embed, "report_result", lambda call_id, **outcome: embed.reports.put((call_id, outcome))
    )
    embed.start()
    yield embed
    embed.stop()
    del embed.reports


def test_a_call_runs_in_the_pool_and_its_result_is_reported(embed):
    def add(a, b=0):
        return a + b, threading.current_thread().name

    embed.call("id", add, 1, b=2)
    call_id, outcome = embed.reports.get(timeout=10)
    assert call_id == "id" and outcome["result"][0] == 3 and list(outcome) == ["result"]
    assert outcome["result"][1].startswith("supervisor_default_pool_")


@pytest.mark.parametrize("way", ["call", "call_direct"])
def test_an_exception_is_reported_with_class_text_and_traceback(embed, way):
    getattr(embed, way)(7, operator.truediv, 1, 0)
    call_id, outcome = embed.reports.get(timeout=10)
    assert call_id == 7 and list(outcome) == ["error"]
    name, text, trace = outcome["error"]
    assert (name, text) == ("ZeroDivisionError", "division by zero")
    assert trace.startswith("Traceback") and "ZeroDivisionError" in trace


def test_a_direct_call_runs_in_the_thread_of_the_caller(embed):
    embed.call_direct(1, threading.get_ident)
    assert embed.reports.get(timeout=0) == (1, {"result": threading.get_ident()})


def test_a_coroutine_may_call_too(embed, nt):
    aloop = nt.task_supervisor.get_aloop("eapi")
    aloop.run_coroutine_threadsafe(embed.call_async("a", pow, 2, 3))
    assert embed.reports.get(timeout=10) == ("a", {"result": 8})


def test_the_reporter_is_looked_up_at_each_call(embed, monkeypatch):
    other: queue.SimpleQueue[object] = queue.SimpleQueue()
    monkeypatch.setattr(embed, "report_result", lambda call_id, result=None: other.put(result))
    embed.call(1, int, "5")
    assert other.get(timeout=10) == 5
    assert embed.reports.empty()


def test_a_reporter_that_fails_is_logged_and_not_called_again(embed, monkeypatch, caplog):
    calls = []

    def report(call_id, **outcome):
        calls.append(call_id)
        raise LookupError("no host")

    monkeypatch.setattr(embed, "report_result", report)
    embed.call("x", int)
    wait_until(lambda: "LookupError: no host" in caplog.text)
    assert calls == ["x"]


def test_spawn_reports_nothing(embed):
    ran = threading.Event()
    assert embed.spawn(ran.set) is None
    assert ran.wait(10) and embed.reports.empty()


def test_ctrl_c_is_out_of_use_until_the_stop(nt):
    from neotasker import embed

    before = signal.getsignal(signal.SIGINT)
    embed.start()
    try:
        embed.start()  # changes nothing
        assert embed._d.loop is nt.task_supervisor.get_aloop("eapi").get_loop()
        signal.raise_signal(signal.SIGINT)
    finally:
        embed.stop()
    assert signal.getsignal(signal.SIGINT) is before
    assert not nt.task_supervisor.active
    with pytest.raises(nt.SupervisorNotStarted, match="call start"):
        embed.call(1, int)
    embed.start()
    embed.stop(wait=False)
    nt.task_supervisor.block()


def test_outside_of_the_main_thread_ctrl_c_stays_as_it_is(nt, caplog):
    from neotasker import embed

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=embed.start)
    thread.start()
    thread.join()
    assert nt.task_supervisor.active and signal.getsignal(signal.SIGINT) is before
    embed.stop()
    assert "main thread" in caplog.text


def test_settings_are_those_of_the_default_supervisor(nt, monkeypatch):
    from neotasker import embed

    monkeypatch.setattr(nt.task_supervisor, "poll_delay", 0.01)
    embed.set_poll_delay(0.5)
    assert nt.task_supervisor.poll_delay == 0.5
    embed.set_thread_pool_size((1, 3))
    assert nt.task_supervisor.thread_pool.sizes.max_size == 3
    embed.set_thread_pool_size(["max", 2])
    assert nt.task_supervisor.thread_pool.sizes.min_size == 2
    nt.task_supervisor.set_thread_pool()
    with pytest.raises(ValueError, match="two numbers"):
        embed.set_thread_pool_size(5)


def test_import_paths_come_first(nt, monkeypatch):
    from neotasker import embed

    paths = list(sys.path)
    monkeypatch.setattr(sys, "path", list(paths))
    embed.add_import_path("/a")
    embed.add_import_path(["/b", "/c"])
    assert sys.path == ["/b", "/c", "/a", *paths]


def test_a_host_without_a_reporter_is_told_on_stderr(nt, capsys):
    from neotasker import embed

    embed.call_direct(1, pow, 2, 3)
    embed.call_direct(2, operator.truediv, 1, 0)
    err = capsys.readouterr().err
    assert "report_result" in err and "call 1" in err and "result: 8" in err
    assert "ZeroDivisionError: division by zero" in err


def test_debug_turns_messages_on_and_off(nt, caplog):
    logger = logging.getLogger("neotasker")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        nt.set_debug()
        assert logger.level == logging.DEBUG
        assert nt.supervisor.debug and nt.workers.debug and nt.embed.debug
        nt.set_debug(True)
        nt.set_debug(False)
        assert logger.level == logging.WARNING
        assert not (nt.supervisor.debug or nt.workers.debug or nt.embed.debug)
        nt.set_debug(False)
        assert logger.level == logging.WARNING
    finally:
        logger.setLevel(before)


def test_the_debug_of_embed_sets_up_the_root_logger_too(nt):
    ran = run_python(
        """
        import logging
        from neotasker import embed
        embed.set_debug()
        print(logging.getLogger().level, logging.getLogger("neotasker").level)
        embed.start()
        embed.call(1, pow, 2, 3)
        embed.stop()
        """
    )
    assert ran.rc == 0 and ran.out.split() == ["10", "10"]
    assert "embed: call 1 of <built-in function pow>" in ran.err


def test_every_import_path_is_free_of_warnings(nt):
    ran = run_python(
        """
        import warnings
        warnings.simplefilter("error")
        import neotasker, neotasker.workers, neotasker.supervisor, neotasker.embed
        import neotasker.localproxy, neotasker.f, neotasker.functions, neotasker.tasks
        print([name for name in neotasker.__all__ if not hasattr(neotasker, name)])
        """
    )
    assert (ran.rc, ran.out.strip(), ran.err) == (0, "[]", "")
