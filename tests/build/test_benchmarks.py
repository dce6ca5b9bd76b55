"""The harness of the benchmarks: what it counts, refuses and prints. Never a speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import Future
from xml.etree import ElementTree

import pytest
from cores import TREE

sys.path.append(str(TREE))  # not first: an installed package is tested as it is installed

from benchmarks import cli, peers, plot, pooled, processes, report, subjects
from benchmarks.harness import (
    Pair,
    Row,
    Run,
    Sample,
    Skip,
    Subject,
    Wrong,
    at_least,
    at_most,
    check,
    percentile,
)
from benchmarks.interpreter import (
    Interpreter,
    cpython,
    free_threaded,
    machine,
    pure_core,
    with_gil,
)

CPYTHON_313 = Interpreter("CPython", (3, 13), False, True)
CPYTHON_311 = Interpreter("CPython", (3, 11), False, True)
FREE_THREADED = Interpreter("CPython", (3, 13), True, True)
PURE = Interpreter("CPython", (3, 13), False, False)
PYPY = Interpreter("PyPy", (3, 11), False, False)

RUN = Run(CPYTHON_313)


def pair(ours: float, peer: float) -> Pair:
    return Pair(Sample((ours,)), Sample((peer,)))


def row(measure=lambda run: pair(1e-6, 2e-5), *bars, **options) -> Row:
    return Row("subject", "a row", "a peer", measure, bars=bars, **options)


def run_benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=120,
    )


# Rounds.


def test_median_is_not_moved_by_one_slow_round():
    assert Sample((1.0, 1.1, 9.0)).median == 1.1


def test_spread_is_the_distance_of_the_rounds_as_a_part_of_the_median():
    assert Sample((1.0, 2.0, 4.0)).spread == 1.5


def test_percentile_of_few_values_is_one_of_them():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0


def test_rounds_alternate_and_change_who_is_first():
    order = []
    RUN.alternate(
        lambda size: order.append("ours") or 1.0,
        lambda size: order.append("peer") or 1.0,
        10,
        rounds=3,
        warm_up=False,
    )
    assert order == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_each_side_gets_the_size_and_its_values_are_kept_in_order():
    values = iter((1.0, 2.0, 3.0, 4.0))
    sizes = []

    def side(size: int) -> float:
        sizes.append(size)
        return next(values)

    measured = RUN.alternate(side, side, 7, rounds=2, warm_up=False)
    assert measured == Pair(Sample((1.0, 4.0)), Sample((2.0, 3.0)))
    assert sizes == [7, 7, 7, 7]


def test_warm_up_does_a_tenth_of_the_work_and_does_not_count():
    sizes = []
    measured = RUN.alternate(
        lambda size: sizes.append(size) or 5.0, lambda size: 1.0, 100, rounds=1
    )
    assert sizes == [10, 100]
    assert measured.ours == Sample((5.0,))


def test_no_round_begins_past_the_budget_once_there_were_two():
    measured = RUN.alternate(lambda size: 1.0, lambda size: 1.0, 1, rounds=9, budget=0)
    assert len(measured.ours.values) == len(measured.peer.values) == 2


def test_quick_is_one_round_at_toy_size():
    quick = Run(CPYTHON_313, quick=True)
    assert quick.size(1_000_000, 10) == 10
    assert len(quick.alternate(lambda size: 1.0, lambda size: 1.0, 1).ours.values) == 1


# Ratios and bars.


@pytest.mark.parametrize(
    ("unit", "compare", "ours", "peer", "ratio"),
    [
        ("s", "times", 1.0, 20.0, 20.0),
        ("s", "part", 1.0, 4.0, 0.25),
        ("B", "part", 50.0, 200.0, 0.25),
        ("1/s", "times", 300.0, 100.0, 3.0),
        ("1/s", "part", 400.0, 100.0, 0.25),
    ],
)
def test_ratio_reads_as_the_row_compares(unit, compare, ours, peer, ratio):
    assert row(unit=unit, compare=compare).ratio(ours, peer) == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("bar", "state"),
    [
        (at_least(16), "pass"),
        (at_least(16.1), "miss"),
        (at_most(16), "pass"),
        (at_most(15.9), "miss"),
        (at_most(2, of="ours"), "pass"),
        (at_least(2, of="ours"), "miss"),
        (at_least(1, on=free_threaded), "measured"),
    ],
)
def test_verdict_is_that_of_the_bar_which_holds_here(bar, state):
    assert row(lambda run: pair(1.0, 16.0), bar).record(RUN)["state"] == state


@pytest.mark.parametrize(
    ("interpreter", "limit"),
    [
        (CPYTHON_313, 20),
        (CPYTHON_311, 16),
        (Interpreter("CPython", (3, 14), False, True), 16),
        (Interpreter("CPython", (3, 15), False, True), 16),
        (FREE_THREADED, 12),
        (PURE, None),
        (PYPY, None),
    ],
)
def test_bar_of_submit_is_that_of_the_interpreter(interpreter, limit):
    bar = subjects.load("submit").rows[0].bar_on(interpreter)
    assert (bar and bar.limit) == limit


def test_places_where_bars_hold_do_not_overlap():
    places = (with_gil, free_threaded, pure_core)
    for interpreter in (CPYTHON_313, CPYTHON_311, FREE_THREADED, PURE):
        assert [place(interpreter) for place in places].count(True) == 1
    assert cpython((3, 13))(CPYTHON_313) and not cpython((3, 13))(FREE_THREADED)


def test_bars_on_cpython_with_the_gil_are_those_of_the_design():
    bars = {
        (found.subject, bar.limit)
        for name in subjects.NAMES
        for found in subjects.load(name)
        if (bar := found.bar_on(CPYTHON_313)) is not None
    }
    assert bars == {
        ("submit", 20),
        ("lane", 20),
        ("roundtrip", 0.95),
        ("memory", 0.25),
        ("growth", 1.3),
        ("aloop", 10),
        ("ticker", 6),
        ("ticker", 0.2),
        ("ticker", 0.001),
        ("timers", 0.33),
        ("timers", 0.5),
        ("timers", 3),
        ("interval", 1 / 20),
        ("interval", 0.6),
        ("interval", 1 / 8),
        ("interval", 1 / 4),
        ("jobs", 1 / 3),
        ("queue", 300_000),
        ("event", 1 / 4),
        ("imports", 1.25),
    }
    assert subjects.load("pure").rows[0].bar_on(PURE).limit == 2
    assert subjects.load("scaling").rows[0].bar_on(FREE_THREADED).limit == 1.8


def test_quick_figures_are_not_held_against_a_bar():
    quick = Run(CPYTHON_313, quick=True)
    assert row(lambda run: pair(1.0, 1.0), at_least(20)).record(quick)["state"] == "measured"


# Work that was not done.


def test_check_refuses_what_is_not_so():
    check(True, "fine")
    with pytest.raises(Wrong, match="3 of 4 ran"):
        check(False, "3 of 4 ran")


def submit_nothing(fn, /, *args):
    future: Future[str] = Future()
    future.set_result("not what the call returns")
    return future


def test_pool_that_does_not_run_its_tasks_is_not_timed():
    with pytest.raises(Wrong, match="not every no-op"):
        pooled.submit_and_result(submit_nothing)(10)
    with pytest.raises(Wrong, match="mixed up"):
        pooled.see_each_run_once(submit_nothing, 10)
    with pytest.raises(Wrong, match="context"), pooled.carried_context(submit_nothing):
        pytest.fail("it is measured")


def fail(run: Run) -> Pair:
    raise Wrong("3 of 4 ran")


def skip(run: Run) -> Pair:
    raise Skip("no such peer")


def test_row_that_failed_says_what_was_wrong_and_has_no_figures():
    record = row(fail).record(RUN)
    assert (record["state"], record["reason"]) == ("failed", "Wrong: 3 of 4 ran")
    assert "ours" not in record


def test_row_that_cannot_be_measured_here_says_why():
    record = row(skip).record(RUN)
    assert (record["state"], record["reason"]) == ("skipped", "no such peer")


def test_peer_that_is_not_here_is_a_reason_to_skip():
    with pytest.raises(Skip, match="no_such_package is not installed"):
        peers.load("no_such_package")


# The command.


@pytest.fixture
def one_subject(monkeypatch):
    """Make the command measure rows that are given, in this process."""

    def use(*rows: Row, then: Exception | None = None) -> None:
        subject = Subject("roundtrip", "what is measured")
        subject.rows.extend(rows)

        def measured(name, quick, environment):
            for found in rows[: len(rows) - (then is not None)]:
                yield json.loads(json.dumps(found.record(Run(CPYTHON_313, quick))))
            if then is not None:
                raise then

        monkeypatch.setattr(cli, "load", lambda name: subject)
        monkeypatch.setattr(processes, "measured", measured)
        monkeypatch.setattr(Interpreter, "here", classmethod(lambda cls: CPYTHON_313))

    return use


def test_failed_row_is_an_error_of_the_command(one_subject, capsys):
    one_subject(row(), row(fail))
    assert cli.main(["roundtrip"]) == 1
    assert "failed: Wrong: 3 of 4 ran" in capsys.readouterr().out


def test_missed_bar_is_an_error_only_if_asked_for(one_subject, capsys):
    one_subject(row(lambda run: pair(1.0, 1.0), at_least(2)), row(skip))
    assert cli.main(["roundtrip"]) == 0
    assert cli.main(["roundtrip", "--strict"]) == 1
    assert "2 rows: 0 passed, 1 missed" in capsys.readouterr().out


def test_rows_that_a_dead_process_did_not_measure_have_failed(one_subject, capsys):
    one_subject(row(), row(), then=RuntimeError("the process ended with -11"))
    assert cli.main(["roundtrip"]) == 1
    out = capsys.readouterr().out
    assert "1 without a bar" in out and "failed: the process ended with -11" in out


def test_unknown_subject_is_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["sumbit"])
    assert ended.value.code == 2
    assert "'sumbit'" in (err := capsys.readouterr().err) and "submit, lane" in err


# What is shown.

RECORD = {
    "subject": "submit",
    "row": "submit + result",
    "against": "a | peer",
    "state": "pass",
    "unit": "s",
    "compare": "times",
    "ours": 4.5e-7,
    "peer": 9.9e-6,
    "ratio": 22.0,
    "spread": {"ours": 0.04, "peer": 0.1},
    "rounds": {"ours": [4.5e-7], "peer": [9.9e-6]},
    "bar": {"limit": 20, "least": True, "of": "ratio"},
}
ABSOLUTE = RECORD | {
    "unit": "1/s",
    "ours": 400_000.0,
    "peer": 97.0,
    "ratio": 4124.0,
    "state": "miss",
    "bar": {"limit": 300_000, "least": True, "of": "ours"},
}
SKIPPED = {**row(skip).record(RUN)}
REPORT = {
    "interpreter": "CPython 3.13",
    "machine": {"date": "", "python": "", "cores": 2, "processor": "", "system": ""},
    "versions": {"uvloop": "1"},
    "rows": [RECORD, ABSOLUTE, SKIPPED],
}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.567e-7, "s", "457 ns"),
        (1.234e-5, "s", "12.3 µs"),
        (2.0, "s", "2.00 s"),
        (256.0, "B", "256 B"),
        (1536.0, "B", "1.50 KiB"),
        (300_000.0, "1/s", "300 k/s"),
        (97.4, "1/s", "97.4 /s"),
        (0.0, "s", "0.000 ns"),
    ],
)
def test_figures_have_three_digits_and_a_unit(value, unit, text):
    assert report.figure(value, unit) == text


def test_line_has_ours_peer_ratio_bar_and_verdict():
    line = report.line(RECORD)
    assert line.split("  ", 1)[0] == "submit + result"
    found = re.findall(r"450 ns|9\.90 µs|22\.0×|≥ 20×|pass", line)
    assert found == ["450 ns", "9.90 µs", "22.0×", "≥ 20×", "pass"]


def test_columns_stand_under_their_heads():
    head = report.header().splitlines()[0]
    line = report.line(RECORD)
    assert line.index("≥ 20×") == head.index("bar")
    assert line.index("pass") == head.index("verdict")
    assert line.index("a | peer") == head.index("against")


def test_absolute_bar_is_shown_in_its_unit():
    assert "≥ 300,000/s" in report.line(ABSOLUTE)


def test_line_of_a_skipped_row_says_why():
    assert report.line(SKIPPED).endswith("skipped: no such peer")


def test_markdown_has_a_line_for_each_row_and_marks_what_missed():
    lines = report.markdown(REPORT).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(REPORT["rows"])
    assert "**miss**" in table[3] and "no such peer" in table[4]


def test_markdown_replaces_what_was_between_the_marks(tmp_path):
    file = tmp_path / "README.md"
    file.write_text(f"before\n{report.MARK_BEGIN}\nold\n{report.MARK_END}\nafter\n")
    report.paste(file, "new")
    report.paste(file, "newer")
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "newer" in text and "old" not in text


def test_markdown_refuses_a_file_without_marks(tmp_path):
    file = tmp_path / "README.md"
    file.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no lines"):
        report.paste(file, "new")
    assert file.read_text() == "nothing\n"


def test_readme_has_the_marks_for_the_table():
    text = (TREE / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert 0 < text.index(report.MARK_BEGIN) < text.index(report.MARK_END)


def test_picture_has_a_bar_for_each_row_with_figures_and_a_tick_for_each_limit():
    root = ElementTree.fromstring(plot.svg(REPORT))
    name = "{http://www.w3.org/2000/svg}"
    kinds = [element.get("class") for element in root.iter(f"{name}rect")]
    assert kinds == ["ground", "pass", "miss"]
    ticks = [element for element in root.iter(f"{name}line") if element.get("class") == "bar"]
    assert len(ticks) == 2
    assert "prefers-color-scheme: dark" in root.find(f"{name}style").text


def test_picture_of_nothing_is_a_picture():
    assert ElementTree.fromstring(plot.svg(REPORT | {"rows": []})).tag.endswith("svg")


def test_machine_is_named():
    facts = machine()
    assert facts["cores"] >= 1 and facts["processor"] and facts["python"]


# All of it.

KEYS = {"subject", "row", "against", "unit", "compare", "state", "interpreter"}
FIGURES = {"ours", "peer", "ratio", "spread", "rounds"}


def test_json_has_the_machine_the_versions_and_the_values_of_every_round(tmp_path):
    file = tmp_path / "figures.json"
    done = run_benchmarks("roundtrip", "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    data = json.loads(file.read_text(encoding="utf-8"))
    assert data["schema"] == 1 and data["quick"] is True
    assert {"python", "cores", "processor", "system"} <= data["machine"].keys()
    assert isinstance(data["versions"], dict)
    assert [found["row"] for found in data["rows"]] == [
        found.name for found in subjects.load("roundtrip")
    ]
    for found in data["rows"]:
        assert found.keys() == KEYS | FIGURES
        assert len(found["rounds"]["ours"]) == len(found["rounds"]["peer"]) == 1
        assert Interpreter.from_json(found["interpreter"]) is not None


def test_list_names_every_subject_and_row():
    done = run_benchmarks("--list")
    assert done.returncode == 0, done.stderr
    for name in subjects.NAMES:
        assert f"\n{name}: " in f"\n{done.stdout}"
        assert all(found.name in done.stdout for found in subjects.load(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", subjects.NAMES)
def test_subject_runs_at_toy_size(name, tmp_path):
    file = tmp_path / "figures.json"
    done = run_benchmarks(name, "--quick", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == len(subjects.load(name).rows)
    assert {found["state"] for found in rows} <= {"measured", "skipped"}
    assert all(found["reason"] for found in rows if found["state"] == "skipped")
