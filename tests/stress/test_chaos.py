"""A little chaos on each core; `soak.py` makes more of it."""

from __future__ import annotations

from collections import Counter

import pytest
from chaos import Epoch
from helpers import switch_interval

KINDS = ("tasks", "coroutines", "items", "triggers", "timers", "jobs", "ended")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_everything_at_once_is_accounted_for(nt, seed, caplog):
    caplog.set_level("CRITICAL", "neotasker")
    figures: Counter[str] = Counter()
    for more in range(8):  # on a busy machine not everybody has a turn in so short a time
        with switch_interval():
            account = Epoch(nt, seed + 2 * more).run(1.5)
        assert account.wrong == []
        figures += account.figures
        if all(figures[kind] for kind in KINDS):
            return
    raise AssertionError(figures)
