"""Makes workers of every kind, and makes them run."""

from __future__ import annotations

__all__ = ["KINDS", "in_kind", "make", "run_once"]

KINDS = (
    "BackgroundWorker",
    "BackgroundAsyncWorker",
    "BackgroundIntervalWorker",
    "BackgroundQueueWorker",
    "BackgroundEventWorker",
)


def run_once(worker):
    """Make a worker of any kind run."""
    if hasattr(worker, "put_threadsafe"):
        worker.put_threadsafe("item")
    elif hasattr(worker, "trigger_threadsafe"):
        worker.trigger_threadsafe()


def in_kind(fn, is_async):
    """Return *fn* as a target, plain or async."""
    if not is_async:
        return fn

    async def coroutine(*args, **kwargs):
        return fn(*args, **kwargs)

    return coroutine


def make(nt, host, kind, fn, is_async, **options):
    """Return a worker of that kind, or None where it cannot run such a target."""
    if kind == "BackgroundWorker" and is_async:
        return None
    if kind == "BackgroundIntervalWorker":
        options.setdefault("interval", 0.01)
    return getattr(nt, kind)("made", in_kind(fn, is_async), supervisor=host, **options)
