"""Watches this machine: load, memory and disk, ten times a second, into a SQLite file.

    python -m neotasker run examples/host_monitor.py --for 10

Four workers do it, one of each kind that has a schedule or waits for something:

- `sample`, an interval worker, measures and hands each sample on;
- `store`, a queue worker, writes every sample to the database;
- `probe`, an async interval worker, connects to a TCP port that the file opens itself;
- `alarm`, an event worker, wakes when a sample is above the threshold.

`after_stop` prints what came of it. HOST_MONITOR_DB names the database, which lives in
a temporary directory otherwise; HOST_MONITOR_THRESHOLD is that of the alarm, in per cent.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from neotasker import background_worker

INTERVAL = 0.1  # seconds
THRESHOLD = float(os.environ.get("HOST_MONITOR_THRESHOLD", "90"))  # per cent in use
HOST = "127.0.0.1"
GREETING = b"alive\n"

directory = Path(tempfile.mkdtemp(prefix="host_monitor_"))
database = Path(os.environ.get("HOST_MONITOR_DB") or directory / "samples.sqlite")


class Sample(NamedTuple):
    """One measurement; None where the system does not say."""

    moment: float  # seconds of the monotonic clock
    load: float | None  # runnable processes, mean of the last minute
    memory: float | None  # per cent in use
    disk: float  # per cent in use


@dataclass
class Tally:
    """What there will be to tell."""

    moments: list[float] = field(default_factory=list)
    rows: int = 0
    above: bool = False
    alarms: int = 0
    probes: int = 0
    failed_probes: int = 0


tally = Tally()


def load() -> float | None:
    """Return the load of the last minute, where the system knows it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def memory() -> float | None:
    """Return the memory in use in per cent, where the system says so without ado."""
    try:
        with open("/proc/meminfo") as file:
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in file}
        free = kilobytes["MemAvailable"] / kilobytes["MemTotal"]
    except (OSError, KeyError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") / os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, OSError, ValueError):  # macOS, Windows
            return None
    return 100 * (1 - free)


def disk() -> float:
    """Return the space in use on this disk in per cent."""
    usage = shutil.disk_usage(directory)
    return 100 * (1 - usage.free / usage.total)


@background_worker(queue=True)
def store(sample: Sample, **kwargs: Any) -> None:
    """Write one sample."""
    connection = sqlite3.connect(database)
    with closing(connection), connection:
        connection.execute(
            "create table if not exists samples "
            "(moment real, load real, memory real, disk real)"
        )
        connection.execute("insert into samples values (?, ?, ?, ?)", sample)
    tally.rows += 1


@background_worker(event=True)
def alarm(**kwargs: Any) -> None:
    """Say that memory or disk has come above the threshold."""
    tally.alarms += 1
    print(f"memory or disk above {THRESHOLD:g} %")


@background_worker(interval=INTERVAL)
def sample(**kwargs: Any) -> None:
    """Measure, and hand the sample on."""
    taken = Sample(time.monotonic(), load(), memory(), disk())
    store.put_threadsafe(taken)
    tally.moments.append(taken.moment)
    above = max(taken.memory or 0.0, taken.disk) > THRESHOLD
    if above and not tally.above:
        alarm.trigger_threadsafe()
    tally.above = above


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whoever connects."""
    writer.write(GREETING)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


@background_worker(interval=1)
async def probe(**kwargs: Any) -> None:
    """Open a TCP port, connect to it, and read what it says."""
    tally.probes += 1
    try:
        async with asyncio.timeout(5), await asyncio.start_server(greet, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(HOST, port)
            greeting = await reader.readline()
            writer.close()
            await writer.wait_closed()
        if greeting != GREETING:
            raise OSError(f"port {port} says {greeting!r}")
    except OSError as exc:  # TimeoutError is one
        tally.failed_probes += 1
        print(f"probe failed: {exc!r}")


def lateness(moments: list[float]) -> list[float]:
    """Return how late each sample was against the grid of the most punctual one, sorted."""
    offsets = [moment - moments[0] for moment in moments]
    late = [offset - round(offset / INTERVAL) * INTERVAL for offset in offsets]
    return sorted(seconds - min(late) for seconds in late)


def after_stop(report: object) -> None:
    """Print the table; called by ``neotasker run`` when all has stopped."""
    with closing(sqlite3.connect(database)) as connection:
        (rows,) = connection.execute("select count(*) from samples").fetchone()
    late = lateness(tally.moments)
    table = {
        "samples taken": len(tally.moments),
        "rows written": rows,
        "alarms": tally.alarms,
        "probes (failed)": f"{tally.probes} ({tally.failed_probes})",
        "lateness p50": f"{late[len(late) // 2] * 1000:.2f} ms",
        "lateness p99": f"{late[len(late) * 99 // 100] * 1000:.2f} ms",
    }
    print("-" * 32)
    for name, value in table.items():
        print(f"{name:<16} {value:>15}")
    print("-" * 32)
    if "HOST_MONITOR_DB" not in os.environ:
        shutil.rmtree(directory, ignore_errors=True)
    if rows != len(tally.moments):
        raise RuntimeError("samples were lost")
