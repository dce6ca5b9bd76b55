"""The inbox: a wake-up that comes late, after its item was taken, stops no later one."""

from __future__ import annotations

import threading

import pytest
from helpers import switch_interval


class _Late(set):
    """Drains the mailbox while a post is between its item and its wake-up."""

    drain = None

    def pop(self):
        drain, self.drain = self.drain, None
        super().pop()
        if drain is not None:
            super().add(None)
            drain()
            super().clear()


def test_a_call_that_comes_when_all_is_sorted_is_heeded(nt):
    from neotasker.workers.queue.stores import Inbox

    if nt.COMPILED:
        pytest.skip("the compiled mailbox notes the item and the call at once")
    calls, items = [], []
    inbox = Inbox(lambda: calls.append(None), items.append)
    inbox._mailbox._quiet = late = _Late({None})
    late.drain = inbox._mailbox.drain
    assert inbox.post(1)
    assert (items, len(inbox), inbox.due) == ([1], 0, True)
    inbox.sort()
    assert not inbox.due
    assert inbox.post(2)
    assert len(calls) == 2


def test_no_item_waits_for_good_whoever_sorts_when(nt):
    from neotasker.workers.queue.stores import Inbox

    called = threading.Event()
    items = []
    inbox = Inbox(called.set, items.append)
    posters = [
        threading.Thread(target=lambda: [inbox.post(n) for n in range(500)]) for _ in range(4)
    ]
    with switch_interval():
        for thread in posters:
            thread.start()
        while len(items) < 2_000 and called.wait(10):
            called.clear()
            inbox.sort()
        for thread in posters:
            thread.join()
    assert len(items) == 2_000
