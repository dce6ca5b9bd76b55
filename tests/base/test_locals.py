"""`LocalProxy`, `g` and `Locker`."""

from __future__ import annotations

import threading

import pytest
from helpers import Blocker


def in_thread(fn):
    """Return what *fn* returns in another thread."""
    got = []
    thread = threading.Thread(target=lambda: got.append(fn()))
    thread.start()
    thread.join()
    return got[0]


def test_each_thread_has_its_own_attributes(nt):
    g = nt.LocalProxy()
    g.set("db", 1)
    g.other = 2
    assert (g.get("db"), g.db, g.get("other"), g.has("db")) == (1, 1, 2, True)
    assert in_thread(lambda: (g.has("db"), g.get("db"), g.get("db", "none"))) == (
        False,
        None,
        "none",
    )
    g.clear("db")
    assert not g.has("db")
    assert g.clear("db") is True
    with pytest.raises(AttributeError):
        _ = g.db


def test_g_is_one_of_them_for_the_whole_program(nt):
    from neotasker.localproxy import LocalProxy

    assert isinstance(nt.g, LocalProxy) and nt.LocalProxy is LocalProxy
    nt.g.set("x", 1)
    try:
        assert in_thread(lambda: nt.g.get("x", 2)) == 2
    finally:
        nt.g.clear("x")


def test_a_locker_keeps_functions_and_blocks_apart(nt):
    locker = nt.Locker(mod="main", timeout=5)
    count = 0

    @locker
    def add(n, *, more=0):
        """Add."""
        nonlocal count
        now = count
        threading.Event().wait(0)
        count = now + n + more
        return count

    threads = [threading.Thread(target=lambda: [add(1) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == 200 and add(1, more=1) == 202
    assert add.__name__ == "add" and add.__doc__ == "Add."
    with locker, locker:  # reentrant unless told otherwise
        assert add(0) == 202


def test_a_locker_gives_up_after_its_time(nt, caplog):
    called = []
    locker = nt.Locker(mod="store", timeout=0.01, relative=False)
    locker.critical = lambda: called.append("critical")

    @locker
    def never():
        called.append("never")

    with Blocker() as block:

        def hold():
            with locker:
                block()

        thread = threading.Thread(target=hold)
        thread.start()
        block.wait_running(1)
        assert never() is None
        with pytest.raises(TimeoutError, match="store"), locker:
            pass
        block.release()
        thread.join()
    assert called == ["critical", "critical"]
    levels = [(record.levelname, record.message) for record in caplog.records]
    assert levels[0][0] == "CRITICAL" and "store/never locking broken" in levels[0][1]
    assert never() is None and called[-1] == "never"


def test_a_locker_refuses_what_it_cannot_lock(nt):
    with pytest.raises(ValueError, match="-1"):
        nt.Locker(timeout=-1)
    with pytest.raises(TypeError, match="'soon'"):
        nt.Locker(timeout="soon")

    async def coroutine():
        return None

    with pytest.raises(TypeError, match=r"asyncio\.Lock"):
        nt.Locker()(coroutine)
    with nt.Locker(timeout=None) as locker:
        assert locker.timeout is None
