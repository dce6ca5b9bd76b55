"""What the library has to tell: nothing ends because the log does not take it."""

from __future__ import annotations

import logging
import signal

import pytest
from helpers import wait_until

ERRORS = (OSError("disk full"), SystemExit(3), KeyboardInterrupt(), MemoryError())


class _Failing:
    """A handler and a filter that raise."""

    def __init__(self, error):
        self.error = error
        self.asked = 0

    def __call__(self, *_):
        self.asked += 1
        raise self.error


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def error(request):
    return request.param


@pytest.fixture(params=("handler", "filter"))
def failing(request, error):
    """A log that takes nothing."""
    logger = logging.getLogger("neotasker")
    fail = _Failing(error)
    if request.param == "handler":
        handler = logging.Handler()
        handler.emit = fail
        logger.addHandler(handler)
        yield fail
        logger.removeHandler(handler)
    else:
        logger.addFilter(fail)
        yield fail
        logger.removeFilter(fail)


def test_the_ticker_goes_on_whatever_the_log_does(nt, failing, capsys):
    ticker = nt.timing.ticker.Ticker()
    ticker.start("ticker")
    fires = []
    try:
        ticker.call_every(0.002, fires.append, None)
        ticker.call_later(0, lambda: 1 / 0)
        wait_until(lambda: failing.asked)
        count = len(fires)
        wait_until(lambda: len(fires) > count + 3)
    finally:
        assert ticker.stop_thread(10)
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("is_async", [False, True])
def test_workers_and_jobs_go_on_whatever_the_log_does(nt, failing, is_async):
    supervisor = nt.TaskSupervisor()
    supervisor.start()
    supervisor.create_aloop("loop", default=True)
    supervisor.create_async_job_scheduler("jobs", default=True)
    runs, jobs = [], []

    def target(to):
        to.append(None)
        if len(to) == 2:
            raise ValueError

    async def coroutine(to):
        target(to)

    run = coroutine if is_async else target
    worker = nt.BackgroundIntervalWorker(
        "fails", lambda **_: run(runs), interval=0.002, supervisor=supervisor
    )
    if is_async:

        async def fails(**_):
            target(runs)

        worker = nt.BackgroundIntervalWorker(
            "fails", fails, interval=0.002, supervisor=supervisor
        )
    worker.start()
    supervisor.create_async_job(target=run, args=(jobs,), interval=0.002)
    wait_until(lambda: len(runs) > 5 and len(jobs) > 5)
    worker.stop()
    assert supervisor.stop(timeout=20).clean


def test_a_mailbox_handles_the_rest_whatever_the_log_does(nt, failing):
    from neotasker.core import Mailbox

    handled = []

    def handle(item):
        if item == 1:
            raise ValueError
        handled.append(item)

    mailbox = Mailbox(lambda: None, handle)
    for item in range(4):
        mailbox.post(item)
    mailbox.drain()
    assert handled == [0, 2, 3] and failing.asked


def test_what_the_log_does_not_take_is_written_to_the_standard_error(nt, failing, capsys):
    report = nt.base.report.Reporter("neotasker")
    report.warning("%d of %s", 3, "five")
    try:
        raise ValueError("inner")
    except ValueError:
        report.exception("it has failed")
    text = capsys.readouterr().err
    assert "3 of five" in text
    assert "it has failed" in text and "ValueError: inner" in text
    assert type(failing.error).__name__ in text


def test_a_report_raises_nothing_though_the_standard_error_is_gone(nt, failing, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    nt.base.report.Reporter("neotasker").error("lost")
    assert failing.asked


def test_a_report_names_the_line_that_reports(nt, caplog):
    nt.base.report.Reporter("neotasker").error("here")
    assert caplog.records[-1].funcName == "test_a_report_names_the_line_that_reports"


def test_ctrl_c_that_strikes_a_log_handler_is_not_lost(nt):
    handler = logging.Handler()
    handler.emit = lambda record: signal.raise_signal(signal.SIGINT)
    logger = logging.getLogger("neotasker")

    def report():
        nt.base.report.Reporter("neotasker").error("told")
        for _ in range(1000):
            pass

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            report()
    finally:
        logger.removeHandler(handler)
        signal.signal(signal.SIGINT, before)
