"""What is measured: one subject a file, each with a `Subject` by the name of ``subject``."""

from __future__ import annotations

from importlib import import_module

from ..harness import Subject

__all__ = ["NAMES", "load"]

NAMES = (
    "submit",
    "lane",
    "pure",
    "roundtrip",
    "memory",
    "scaling",
    "producers",
    "growth",
    "aloop",
    "ticker",
    "timers",
    "interval",
    "jobs",
    "queue",
    "event",
    "imports",
)
"""The subjects, in the order of the table."""


def load(name: str) -> Subject:
    """Return a subject.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown subject {name!r}: use one of {', '.join(NAMES)}")
    subject: Subject = import_module(f".{name}", __package__).subject
    return subject
