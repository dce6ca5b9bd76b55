"""The page of guarantees names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_guarantees_name_exists():
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    there = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8"))
    }
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert named <= there
    for path in re.findall(r"`(tests/[\w./]+)`", page):
        assert (ROOT / path).exists(), path
