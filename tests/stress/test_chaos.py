"""A little chaos on each core; `soak.py` makes more of it."""

from __future__ import annotations

import pytest
from chaos import Epoch
from helpers import switch_interval


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_everything_at_once_is_accounted_for(nt, seed, caplog):
    caplog.set_level("CRITICAL", "neotasker")
    with switch_interval():
        account = Epoch(nt, seed).run(1.5)
    assert account.wrong == []
    for kind in ("tasks", "coroutines", "items", "triggers", "timers", "jobs", "ended"):
        assert account.figures[kind], account.figures
