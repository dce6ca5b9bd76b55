"""The command: ``python -m benchmarks [subject ...]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import peers, plot, processes, report
from .harness import Record, Subject
from .interpreter import Interpreter, machine
from .subjects import NAMES, load

__all__ = ["main"]

SCHEMA = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure neotasker against its peers, and hold it against its bars.",
        epilog="Ends with 1 when a row failed (with --strict also: missed its bar), else 0.",
    )
    parser.add_argument("subjects", nargs="*", metavar="subject", help="all when left out")
    parser.add_argument("--list", action="store_true", help="say what there is, and end")
    parser.add_argument("--quick", action="store_true", help="toy sizes: only to see it work")
    parser.add_argument("--peers", action="store_true", help="fetch the peers with pip first")
    parser.add_argument("--strict", action="store_true", help="end with 1 on a missed bar too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's value")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the ratios")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="put the table between the marks of FILE"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.subjects if name not in NAMES]
    if unknown:
        parser.error(f"unknown subject {unknown[0]!r}: use {', '.join(NAMES)}")
    subjects = [load(name) for name in options.subjects or NAMES]
    here = Interpreter.here()
    if options.list:
        _list(subjects, here)
        return 0
    if options.peers:
        missing = peers.install()
        if missing:
            print(f"could not be had here: {', '.join(missing)}", file=sys.stderr)
    print(f"{here} ({sys.version.split()[0]})\n")
    print(report.header(), flush=True)
    records: list[Record] = []
    seconds: dict[str, float] = {}
    for subject in subjects:
        start = time.monotonic()
        records += _measure(subject, options.quick)
        seconds[subject.name] = round(time.monotonic() - start, 1)
    print(f"\n{report.summary(records)}; {sum(seconds.values()):.0f} s")
    if options.quick:
        print("sizes were toys: the figures mean nothing")
    _write(options, records, here, seconds)
    bad = {"failed", "miss"} if options.strict else {"failed"}
    return int(any(record["state"] in bad for record in records))


def _list(subjects: Sequence[Subject], here: Interpreter) -> None:
    for subject in subjects:
        print(f"{subject.name}: {subject.title}")
        for row in subject:
            bar = report.bars_of(row.bars, here, row.unit)
            print(f"    {row.name} / {row.against}: {bar}")


def _measure(subject: Subject, quick: bool) -> list[Record]:
    """Measure a subject in a process of its own, and print its rows as they come."""
    print(f"[{subject.name}] {subject.title}", flush=True)
    records: list[Record] = []
    try:
        for record in processes.measured(subject.name, quick, subject.environment):
            records.append(record)
            print(report.line(record), flush=True)
    except RuntimeError as exc:
        for row in subject.rows[len(records) :]:
            record = {
                "subject": row.subject,
                "row": row.name,
                "against": row.against,
                "unit": row.unit,
                "compare": row.compare,
                "state": "failed",
                "reason": str(exc),
            }
            records.append(record)
            print(report.line(record), flush=True)
    return records


def _write(
    options: argparse.Namespace,
    records: list[Record],
    here: Interpreter,
    seconds: dict[str, float],
) -> None:
    if not (options.json or options.plot or options.markdown):
        return
    whole: dict[str, Any] = {
        "schema": SCHEMA,
        "interpreter": str(here),
        "machine": machine(),
        "versions": peers.versions(),
        "quick": options.quick,
        "seconds": seconds,
        "rows": records,
    }
    if options.json:
        text = json.dumps(whole, indent=2, ensure_ascii=False)
        options.json.write_text(f"{text}\n", encoding="utf-8")
    if options.plot:
        options.plot.write_text(plot.svg(whole), encoding="utf-8")
    if options.markdown:
        report.paste(options.markdown, report.markdown(whole))
