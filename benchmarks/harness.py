"""The harness: alternating rounds, medians, and rows that are held against a bar.

A side of a row is a function that does its work a number of times, sees that the
work was really done, and returns what one time cost, or how many there were a second.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .interpreter import Interpreter, Where, with_gil

__all__ = [
    "Bar",
    "Pair",
    "Record",
    "Row",
    "Run",
    "Sample",
    "Side",
    "Skip",
    "Subject",
    "Wrong",
    "at_least",
    "at_most",
    "check",
    "percentile",
]

Side = Callable[[int], float]
"""Does its work so many times, verifies it, and returns the cost of one or the rate."""

Unit = Literal["s", "B", "1/s"]
Compare = Literal["times", "part"]

Record = dict[str, Any]
"""A row with its figures, in types that JSON has; see ``README.md`` for the keys."""


class Wrong(Exception):
    """What was measured did not do its work."""


class Skip(Exception):
    """A row cannot be measured here; the text says why."""


def check(condition: object, message: str) -> None:
    """Hold a figure back whose work was not done.

    Raises:
        Wrong: *condition* is false.
    """
    if not condition:
        raise Wrong(message)


def percentile(values: list[float], share: float) -> float:
    """Return the value that *share* (0 to 1) of all *values* do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of all rounds of one side."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds: the figure that counts."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """How far the rounds lie apart: highest less lowest, as a part of the median."""
        median = self.median
        return (max(self.values) - min(self.values)) / median if median else 0.0


@dataclass(frozen=True, slots=True)
class Pair:
    """What a row measured."""

    ours: Sample
    peer: Sample


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row shall reach, and where that holds.

    *of* says what is held against the limit: the ratio, or our own figure.
    """

    limit: float
    least: bool
    of: Literal["ratio", "ours"] = "ratio"
    on: Where = with_gil

    def reached(self, ratio: float, ours: float) -> bool:
        """Return whether these figures are on the right side of the bar."""
        value = ratio if self.of == "ratio" else ours
        return value >= self.limit if self.least else value <= self.limit


def at_least(
    limit: float, *, of: Literal["ratio", "ours"] = "ratio", on: Where = with_gil
) -> Bar:
    """Return the bar that *limit* is the least to be reached."""
    return Bar(limit, True, of, on)


def at_most(
    limit: float, *, of: Literal["ratio", "ours"] = "ratio", on: Where = with_gil
) -> Bar:
    """Return the bar that *limit* must not be exceeded."""
    return Bar(limit, False, of, on)


@dataclass(frozen=True, slots=True)
class Run:
    """How much is to be measured, and on what.

    *quick* is for seeing that all works: its figures mean nothing.
    """

    interpreter: Interpreter
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """Return how many times to do the work."""
        return quick if self.quick else full

    def seconds(self, full: float) -> float:
        """Return how long to watch what runs by the clock."""
        return min(full, 0.2) if self.quick else full

    def alternate(self, ours: Side, peer: Side, size: int, **options: Any) -> Pair:
        """Measure two sides; see `rounds`."""
        return Pair(*self.rounds((ours, peer), size, **options))

    def rounds(
        self,
        sides: Sequence[Side],
        size: int,
        *,
        rounds: int = 5,
        budget: float = 6.0,
        warm_up: bool = True,
    ) -> list[Sample]:
        """Measure sides in alternating rounds.

        Every other round goes through them backwards, so that what drifts (the clock
        of the processor, its neighbours) meets all alike.

        Parameters:
            sides: what to measure.
            size: how many times each does its work in a round.
            rounds: how many rounds, at most.
            budget: seconds after which no round is begun any more, once there were two.
            warm_up: let each side do a tenth of the work before, not counted.
        """
        values: list[list[float]] = [[] for _ in sides]
        places = list(zip(sides, values, strict=True))
        if warm_up:
            for side in sides:
                side(max(1, size // 10))
        start = time.perf_counter()
        for number in range(1 if self.quick else rounds):
            if number >= 2 and time.perf_counter() - start > budget:
                break
            for side, place in places:
                gc.collect()
                place.append(side(size))
            places.reverse()
        return [Sample(tuple(place)) for place in values]


Measure = Callable[[Run], Pair]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what is measured, against what, and the bars.

    *compare* says how the ratio reads: ``'times'`` is how many times better ours is,
    ``'part'`` is ours as a part of the peer's. *unit* is the unit of what a side
    returns: ``'s'`` and ``'B'`` are costs, ``'1/s'`` is a rate.
    """

    subject: str
    name: str
    against: str
    measure: Measure
    unit: Unit = "s"
    compare: Compare = "times"
    bars: tuple[Bar, ...] = ()

    def bar_on(self, interpreter: Interpreter) -> Bar | None:
        """Return the bar that holds on an interpreter, or None."""
        return next((bar for bar in self.bars if bar.on(interpreter)), None)

    def ratio(self, ours: float, peer: float) -> float:
        """Return ours against the peer's, in the way that this row compares."""
        if self.unit == "1/s":
            ours, peer = peer, ours
        over, under = (peer, ours) if self.compare == "times" else (ours, peer)
        return over / under if under else float("inf")

    def record(self, run: Run) -> Record:
        """Measure, and return what came of it in types that JSON has."""
        record: Record = {
            "subject": self.subject,
            "row": self.name,
            "against": self.against,
            "unit": self.unit,
            "compare": self.compare,
            "interpreter": run.interpreter.to_json(),
        }
        try:
            pair = self.measure(run)
        except Skip as skip:
            return {**record, "state": "skipped", "reason": str(skip)}
        except Exception as exc:
            return {**record, "state": "failed", "reason": f"{type(exc).__name__}: {exc}"}
        ours, peer = pair.ours.median, pair.peer.median
        ratio = self.ratio(ours, peer)
        record.update(
            ours=ours,
            peer=peer,
            ratio=ratio,
            spread={"ours": pair.ours.spread, "peer": pair.peer.spread},
            rounds={"ours": list(pair.ours.values), "peer": list(pair.peer.values)},
        )
        bar = self.bar_on(run.interpreter)
        if bar is None or run.quick:
            return {**record, "state": "measured"}
        state = "pass" if bar.reached(ratio, ours) else "miss"
        limits = {"limit": bar.limit, "least": bar.least, "of": bar.of}
        return {**record, "state": state, "bar": limits}


class Subject:
    """One file of measurements.

    *environment* is set in the process that measures it.
    """

    def __init__(
        self, name: str, title: str, environment: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.title = title
        self.environment = environment or {}
        self.rows: list[Row] = []

    def row(
        self,
        name: str,
        against: str,
        *bars: Bar,
        unit: Unit = "s",
        compare: Compare = "times",
    ) -> Callable[[Measure], Measure]:
        """Make a row of the function that measures it; see `Row`."""

        def add(measure: Measure) -> Measure:
            self.rows.append(Row(self.name, name, against, measure, unit, compare, bars))
            return measure

        return add

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)
