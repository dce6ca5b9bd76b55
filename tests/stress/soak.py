"""Chaos for as long as one likes: ``python tests/stress/soak.py --seconds 600``.

Epoch follows epoch, each with its account. At the end stand the figures, and how threads,
descriptors and memory have grown since the first epochs; the exit status is 1 if anything
was lost, doubled or hung, or if something grows.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from chaos import CAN_FORK, PATIENCE, Epoch

import neotasker

EPOCH = 2.0  # seconds
SETTLED = (0.2, 0.4)  # of the time: what is least then ...
LATE = 0.8  # ... is to be no more than what is least from then on
MEMORY_MARGIN = 16 << 20  # bytes
BLOCKS_MARGIN = 3000


def resident() -> int:
    """Return how many bytes of memory the process has; 0 where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    """Return how many descriptors are open; 0 where that is not told."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def measure() -> dict[str, int]:
    """Return what must not grow."""
    gc.collect()
    return {
        "threads": threading.active_count(),
        "descriptors": descriptors(),
        "blocks": sys.getallocatedblocks() if hasattr(sys, "getallocatedblocks") else 0,
        "memory": resident(),
    }


def least(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Return the lesser of each: without the GIL what is freed is counted for some time."""
    return {name: min(value, one.get(name, value)) for name, value in other.items()}


def main() -> int:
    """Read the command line and do what it says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long; 600 if left out")
    parser.add_argument("--seed", type=int, default=1, help="of the first epoch")
    parser.add_argument("--no-forks", action="store_true", help="leave the forks out")
    parser.add_argument(
        "--both", action="store_true", help="both cores, side by side, each in its process"
    )
    options = parser.parse_args()
    if options.both:
        return run_both()
    return soak(options)


def run_both() -> int:
    """Run the rest of the command line on each core; return the exit status."""
    children = []
    for pure in ("0", "1"):
        command = [sys.executable, __file__, *(arg for arg in sys.argv[1:] if arg != "--both")]
        environment = os.environ | {"NEOTASKER_PURE_PYTHON": pure}
        children.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    for child in children:
        output, _ = child.communicate()
        print(output, flush=True)
    return max(abs(child.returncode) for child in children)


def soak(options: argparse.Namespace) -> int:
    """Run epochs for the time that was asked for; return the exit status."""
    core = "compiled" if neotasker.COMPILED else "pure"
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else " without the GIL"
    forks = CAN_FORK and not options.no_forks
    title = (
        f"{core} core, CPython {sys.version.split()[0]}{gil}, {options.seconds:g} s"
        f"{'' if forks else ', no forks'}"
    )
    print(title, flush=True)
    logging.getLogger("neotasker").setLevel(logging.CRITICAL)
    sys.setswitchinterval(1e-6)
    figures: Counter[str] = Counter()
    wrong: list[str] = []
    begun = time.monotonic()
    settled: dict[str, int] = {}
    late: dict[str, int] = {}
    seed = options.seed
    while (passed := time.monotonic() - begun) < options.seconds:
        faulthandler.dump_traceback_later(EPOCH + 6 * PATIENCE, exit=True)
        account = Epoch(neotasker, seed, forks=forks).run(EPOCH)
        figures.update(account.figures)
        wrong += [f"epoch {seed}: {what}" for what in account.wrong]
        for what in account.wrong:
            print(f"  epoch {seed}: {what}", flush=True)
        part = passed / options.seconds
        if SETTLED[0] <= part < SETTLED[1]:
            settled = least(settled, measure())
        elif part >= LATE:
            late = least(late, measure())
        seed += 1
    faulthandler.cancel_dump_traceback_later()
    now = least(late, measure())
    settled = settled or now
    print(
        f"{seed - options.seed} epochs: " + ", ".join(f"{n:,} {k}" for k, n in figures.items())
    )
    for name, value in now.items():
        print(f"{name}: {settled[name]:,} settled, {value:,} late")
    if now["threads"] > settled["threads"] or now["descriptors"] > settled["descriptors"] + 2:
        wrong.append("threads or descriptors grow")
    if now["blocks"] > settled["blocks"] + BLOCKS_MARGIN:
        wrong.append("blocks of memory grow")
    # Without the GIL each thread has a heap, and what is resident goes up and down with them.
    if not gil and now["memory"] > settled["memory"] * 1.1 + MEMORY_MARGIN:
        wrong.append("memory grows")
    print(f"{len(wrong)} wrong" if wrong else "all accounted for")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
