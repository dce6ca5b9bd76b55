"""The documentation: its code runs and prints what it says, on both cores.

`docblocks` says how a page tells what its blocks need.
"""

from __future__ import annotations

import importlib.util
import os

import docblocks
import pytest
from cores import TREE
from helpers import run_python

pytestmark = pytest.mark.slow

PAGES = [
    "README.md",
    *sorted(p.relative_to(TREE).as_posix() for p in TREE.glob("docs/**/*.md")),
]
PROGRAMS = [
    pytest.param(page, number, id=page + (f"-{number}" if number else ""))
    for page in PAGES
    for number, program in enumerate(docblocks.read(TREE / page).programs)
    if program.runs
]

# Runs the steps; ends with 1 when one raises, prints something else, or leaves work behind.
RUNNER = """
import ast, io, os, sys, traceback
from contextlib import redirect_stdout

page, steps = ast.literal_eval(sys.stdin.read())
sys.modules["program"] = type(sys)("program")
namespace = vars(sys.modules["program"])
printed = io.StringIO()
try:
    with redirect_stdout(printed):
        for kind, line, text in steps:
            if kind == "run":
                exec(compile("\\n" * (line - 1) + text, page, "exec"), namespace)
            elif printed.getvalue() != text:
                raise AssertionError(f"{page}:{line}: {printed.getvalue()!r} is printed")
            else:
                printed.seek(0)
                printed.truncate()
        from neotasker import task_supervisor
        task_supervisor.stop(cancel_tasks=True)
except BaseException:
    traceback.print_exc()
    os._exit(1)  # whatever runs
"""


@pytest.mark.parametrize(("page", "number"), PROGRAMS)
def test_code_runs_and_prints_what_the_page_says(nt, tmp_path, monkeypatch, page, number):
    program = docblocks.read(TREE / page).programs[number]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TREE / "examples")]))
    monkeypatch.chdir(tmp_path)
    ran = run_python(RUNNER, stdin=repr((page, program.steps)))
    assert ran.rc == 0, ran.err
    assert "Traceback" not in ran.err, ran.err


@pytest.mark.parametrize("page", PAGES)
def test_what_is_quoted_is_in_the_file(page):
    for line, name, text in docblocks.read(TREE / page).quotes:
        assert text in (TREE / name).read_text(encoding="utf-8"), (
            f"{page}:{line}: not in {name}"
        )


def test_program_of_the_tutorial_loses_no_file(nt, tmp_path, monkeypatch):
    monkeypatch.setenv("INTAKE", str(tmp_path))
    monkeypatch.setenv("INTAKE_PORT", "0")
    ran = run_python(
        """
        import runpy, signal, sys, threading
        # Whoever runs the tests in the background may have had Ctrl+C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        program = runpy.run_path(sys.argv[1], run_name="intake")

        def feed():
            while not program["INDEX"].exists() or not program["look"].is_active():
                threading.Event().wait(0.01)
            for number in range(100):
                upload = program["INBOX"] / f"{number}.part"
                upload.write_bytes(b"x" * number)
                upload.rename(upload.with_suffix(".txt"))
            looks = program["look"].runs
            while program["look"].runs < looks + 2:
                threading.Event().wait(0.01)
            signal.raise_signal(signal.SIGINT)

        threading.Thread(target=feed).start()
        report = program["main"]()
        print(program["count"]())
        print(report.clean, len(list(program["INBOX"].iterdir())))
        """,
        str(TREE / "examples" / "intake.py"),
    )
    assert ran.rc == 0, ran.err
    assert ran.out.splitlines()[-3:] == ["stopping", "100 files, 4950 bytes", "True 0"], ran.out
    assert not ran.err


# The tools of the documentation themselves.


def test_links_into_the_void_are_found(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "check_links", TREE / "docs" / "check_links.py"
    )
    check_links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_links)
    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="#here">.</a><a href="#gone">.</a><a href="b.html">.</a>'
        '<a href="c.html#x">.</a><a href="http://site">.</a><a href="https://site">.</a>'
    )
    (tmp_path / "c.html").write_text('<img src="c.svg">')
    assert check_links.broken(tmp_path) == [
        "a.html: #gone has no such anchor",
        "a.html: b.html is not there",
        "a.html: c.html#x has no such anchor",
        "a.html: http://site is not https",
        "c.html: c.svg is not there",
    ]


def test_comment_without_its_block_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- prints -->\n\nnothing\n")
    with pytest.raises(ValueError, match="prints --> has no block"):
        docblocks.read(page)


def test_blocks_know_the_line_that_they_are_on(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("one\n\n```python\na = 1\n```\n<!-- run\nb = 2\n-->\n")
    (program,) = docblocks.read(page).programs
    assert program.steps == [("run", 4, "a = 1\n"), ("run", 7, "b = 2")]
