"""The process that measures one subject: ``python -m benchmarks.measure SUBJECT [--quick]``.

It prints one record a line. Each subject has a process of its own, so that none finds
the threads and the heap of another.
"""

from __future__ import annotations

import faulthandler
import json
import sys

from .harness import Run
from .interpreter import Interpreter
from .subjects import load

_TIME_LIMIT = 180.0
"""Seconds after which a row is taken to hang."""


def main(name: str, *flags: str) -> None:
    """Measure the rows of one subject."""
    records = sys.stdout
    sys.stdout = sys.stderr  # what the measured code prints is no record
    subject = load(name)
    run = Run(Interpreter.here(), quick="--quick" in flags)
    for row in subject:
        faulthandler.dump_traceback_later(_TIME_LIMIT, exit=True)
        record = row.record(run)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(record), file=records, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
