"""What is shown: the table, as text and as markdown, and the JSON file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .harness import Bar, Record
from .interpreter import Interpreter

__all__ = [
    "MARK_BEGIN",
    "MARK_END",
    "bar_text",
    "header",
    "line",
    "markdown",
    "paste",
    "summary",
]

MARK_BEGIN = "<!-- table: begin -->"
MARK_END = "<!-- table: end -->"

_WIDTH = 58
_COLUMNS = f"{{:<{_WIDTH}}} {{:>10}} {{:>10}} {{:>8}} {{:>9}}  {{:<12}} {{:<8}} {{}}"
_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "1/s": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
}


def figure(value: float, unit: str) -> str:
    """Return a value with three digits that count, in the unit that reads best."""
    scales = _SCALES[unit]
    size, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    return f"{_digits(value / size)} {name}"


def _digits(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    for limit, places in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:.{places}f}"
    return f"{value:.3f}"


def bar_text(limit: float, least: bool, of: str, unit: str) -> str:
    """Return how a bar reads."""
    sign = "≥" if least else "≤"
    return f"{sign} {limit:.3g}×" if of == "ratio" else f"{sign} {_limit(limit, unit)}"


def _limit(limit: float, unit: str) -> str:
    return f"{limit:,.0f}/s" if unit == "1/s" else figure(limit, unit)


def bars_of(bars: Sequence[Bar], interpreter: Interpreter, unit: str) -> str:
    """Return how the bar that holds on an interpreter reads, or a dash."""
    bar = next((bar for bar in bars if bar.on(interpreter)), None)
    return "–" if bar is None else bar_text(bar.limit, bar.least, bar.of, unit)


def _cells(record: Record) -> tuple[str, str, str, str, str, str]:
    """Return ours, peer, ratio, spread, bar and verdict of a record with figures."""
    unit = record["unit"]
    bar = record.get("bar")
    spread = record["spread"]
    return (
        figure(record["ours"], unit),
        figure(record["peer"], unit),
        f"{_digits(record['ratio'])}×",
        f"{spread['ours']:.0%}/{spread['peer']:.0%}",
        "–" if bar is None else bar_text(bar["limit"], bar["least"], bar["of"], unit),
        "–" if record["state"] == "measured" else record["state"],
    )


def header() -> str:
    """Return the head of the table."""
    names = ("row", "ours", "peer", "ratio", "spread", "bar", "verdict", "against")
    text = _COLUMNS.format(*names)
    return f"{text}\n{'-' * len(text)}"


def line(record: Record) -> str:
    """Return one line of the table."""
    name = record["row"]
    if "ours" in record:
        return _COLUMNS.format(name, *_cells(record), record["against"])
    return f"{name:<{_WIDTH}} {record['state']}: {record['reason']}"


def summary(records: Iterable[Record]) -> str:
    """Return how many rows came to what."""
    states = [record["state"] for record in records]
    words = {
        "pass": "passed",
        "miss": "missed their bar",
        "measured": "without a bar",
        "skipped": "skipped",
        "failed": "failed",
    }
    counts = [f"{states.count(state)} {word}" for state, word in words.items()]
    rows = "1 row" if len(states) == 1 else f"{len(states)} rows"
    return f"{rows}: {', '.join(counts)}"


def markdown(report: dict[str, Any]) -> str:
    """Return a whole report as a table of markdown."""
    facts = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [
        f"{facts['date']}, {report['interpreter']} ({facts['python']}), "
        f"{facts['cores']} cores of {facts['processor']}, {facts['system']}; {versions}.",
        "",
        "| subject | row | against | ours | peer | ratio | spread | bar | verdict |",
        "|---|---|---|--:|--:|--:|--:|---|---|",
    ]
    for record in report["rows"]:
        if "ours" in record:
            ours, peer, ratio, spread, bar, verdict = _cells(record)
            if verdict == "miss":
                verdict = "**miss**"
        else:
            ours = peer = ratio = spread = bar = "–"
            verdict = f"{record['state']}: {record['reason']}".replace("|", "\\|")
        cells = (record["subject"], record["row"], record["against"])
        lines.append(
            "| " + " | ".join((*cells, ours, peer, ratio, spread, bar, verdict)) + " |"
        )
    return "\n".join(lines)


def paste(path: Path, text: str) -> None:
    """Put a text between the two marks of a file, in place of what was there.

    Raises:
        ValueError: the file has no such marks.
    """
    before = path.read_text(encoding="utf-8")
    head, begin, rest = before.partition(MARK_BEGIN)
    _, end, tail = rest.partition(MARK_END)
    if not begin or not end:
        raise ValueError(f"{path} has no lines {MARK_BEGIN!r} and {MARK_END!r}")
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{tail}", encoding="utf-8")
