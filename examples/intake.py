"""Takes files in: what lands in a folder is filed by its content, listed, and reported on.

    python examples/intake.py

docs/tutorial.md builds this program step by step. INTAKE names the folder that it works in,
INTAKE_PORT the port of the status page (0: any that is free).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from neotasker import TASK_HIGH, TASK_LOW, StopReport, background_worker, task_supervisor

ROOT = Path(os.environ.get("INTAKE", "intake"))
INBOX = ROOT / "inbox"  # where files arrive
STORE = ROOT / "store"  # where they are kept, by content
INDEX = ROOT / "index.sqlite"
LATEST = ROOT / "latest.json"
PORT = int(os.environ.get("INTAKE_PORT", "8080"))
ABANDONED = 24 * 3600  # seconds after which an upload that has not ended is given up


class Entry(NamedTuple):
    """A file that was taken in."""

    name: str
    digest: str
    size: int  # bytes
    moment: float  # seconds since the epoch


seen: set[Path] = set()


@background_worker(interval=0.5)
def look(**kwargs: Any) -> None:
    """Hand on the files that are new and complete."""
    for path in sorted(INBOX.iterdir()):
        if path.suffix != ".part" and path not in seen:
            seen.add(path)
            take.put_threadsafe(path)


@background_worker(queue=True, concurrency=4, priority=TASK_LOW)
def take(path: Path, **kwargs: Any) -> None:
    """Move a file to where its content says."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    target = STORE / digest[:2] / digest
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    seen.discard(path)
    record.put_threadsafe(Entry(path.name, digest, size, time.time()))


@background_worker(queue=True, batch=500)
def record(entries: list[Entry], **kwargs: Any) -> None:
    """Write what has come in to the index, in one transaction."""
    with closing(sqlite3.connect(INDEX)) as index, index:
        index.executemany("insert into files values (?, ?, ?, ?)", entries)
    publish.trigger_threadsafe()


@background_worker(event=True, debounce=0.2)
def publish(**kwargs: Any) -> None:
    """Write the list of the latest files, once it has become quiet."""
    with closing(sqlite3.connect(INDEX)) as index:
        rows = index.execute("select * from files order by moment desc limit 10").fetchall()
    LATEST.write_text(json.dumps([Entry(*row)._asdict() for row in rows], indent=1))


def count() -> str:
    """Return how many files there are, and how many bytes."""
    with closing(sqlite3.connect(INDEX)) as index:
        files, size = index.execute("select count(*), total(size) from files").fetchone()
    return f"{files} files, {size:.0f} bytes"


class StatusPage:
    """A scheduler of our own: answers whoever connects with one line."""

    async def loop(self) -> None:
        """Serve until `stop`."""
        self.runs_on = asyncio.get_running_loop()
        self.end = asyncio.Event()
        async with await asyncio.start_server(self.answer, "127.0.0.1", PORT) as server:
            print("status page at port", server.sockets[0].getsockname()[1], flush=True)
            await self.end.wait()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask the index, in the pool, and say what it says."""
        text = await task_supervisor.lane(TASK_HIGH).submit(count)
        writer.write(f"{text}\n".encode())
        await writer.drain()
        writer.close()

    def stop(self) -> None:
        """End `loop`: called by the supervisor, from any thread."""
        self.runs_on.call_soon_threadsafe(self.end.set)


def sweep() -> None:
    """Delete uploads that were given up."""
    for path in INBOX.glob("*.part"):
        with suppress(FileNotFoundError):  # it may be complete by now
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()


def start() -> None:
    """Start everything, what takes before what gives."""
    for folder in (INBOX, STORE):
        folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(INDEX)) as index, index:
        index.execute("create table if not exists files (name, digest, size, moment)")
    record.start()
    publish.start()
    take.start()
    look.start()


def main() -> StopReport:
    """Run until Ctrl+C, and lose nothing."""
    task_supervisor.set_thread_pool(pool_size=4, reserve_normal=2, reserve_high=2)
    task_supervisor.start()
    task_supervisor.create_aloop("main", default=True)
    start()
    task_supervisor.register_scheduler(StatusPage())
    task_supervisor.create_async_job_scheduler("housekeeping", default=True)
    task_supervisor.create_async_job(target=sweep, interval=3600)
    try:
        task_supervisor.block()
    except KeyboardInterrupt:
        print("stopping")
    for worker in (look, take, record):  # the way the files go
        worker.stop(drain=True)
    return task_supervisor.stop(wait=10)


if __name__ == "__main__":
    print(main())
