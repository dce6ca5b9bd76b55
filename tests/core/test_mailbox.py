"""The mailbox: an item is in with a wake-up on its way, or out with an exception."""

from __future__ import annotations

import sys
import threading

import pytest


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, MemoryError])
def test_a_wake_up_that_fails_is_made_for_those_who_rely_on_it(nt, error):
    from neotasker.core import Mailbox

    wakes = []

    def wake():
        wakes.append(None)
        if len(wakes) == 1:
            other = threading.Thread(target=mailbox.post, args=("of the other",))
            other.start()
            other.join()
            raise error

    handled = []
    mailbox = Mailbox(wake, handled.append)
    with pytest.raises(error):
        mailbox.post("mine")
    assert (len(mailbox), len(wakes)) == (1, 2)
    mailbox.drain()
    assert handled == ["of the other"]
    assert mailbox.post("next") and len(wakes) == 3


def test_a_mailbox_that_wakes_nobody_tries_again_with_the_next_post(nt, caplog):
    from neotasker.core import Mailbox

    broken = [True]
    wakes = []

    def wake():
        if broken[0]:
            if not wakes:
                wakes.append("reentered")
                mailbox.post("of the other")
            raise OSError
        wakes.append("told")

    handled = []
    mailbox = Mailbox(wake, handled.append)
    with pytest.raises(OSError):
        mailbox.post("mine")
    assert "could not wake" in caplog.text
    broken[0] = False
    mailbox.post("next")
    assert wakes[-1] == "told"
    mailbox.drain()
    assert handled == ["of the other", "next"]


def test_an_item_that_was_handled_before_the_wake_up_failed_is_posted(nt):
    from neotasker.core import Mailbox

    def wake():
        mailbox.drain()
        raise OSError

    handled = []
    mailbox = Mailbox(wake, handled.append)
    assert mailbox.post("item")
    assert handled == ["item"] and not len(mailbox)


def test_an_item_without_equality_is_none_of_our_business(nt):
    from neotasker.core import Mailbox

    class Odd:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError("compared")

    def wake():
        raise OSError

    items = [Odd(), Odd()]
    mailbox = Mailbox(wake, print)
    for item in items:
        with pytest.raises(OSError):
            mailbox.post(item)
    assert len(mailbox) == 0


def test_a_close_meets_posts_and_loses_nothing(nt):
    from neotasker.core import Mailbox

    for _ in range(50):
        handled: list[int] = []
        mailbox = Mailbox(lambda: None, handled.append)
        accepted: list[int] = []
        begun = threading.Event()

        def post(mailbox=mailbox, accepted=accepted, begun=begun):
            for item in range(300):
                if mailbox.post(item):
                    accepted.append(item)
                begun.set()

        poster = threading.Thread(target=post)
        poster.start()
        begun.wait()
        mailbox.drain()
        rest = mailbox.close()
        poster.join()
        assert handled + rest == accepted
        assert len(mailbox) == 0 and mailbox.post("late") is False


def test_the_length_is_read_while_others_post_and_drain(nt):
    from neotasker.core import Mailbox

    mailbox = Mailbox(lambda: None, lambda item: None)
    over = threading.Event()

    def again(call):
        def loop():
            while not over.is_set():
                call()

        return threading.Thread(target=loop)

    threads = [
        again(lambda: [mailbox.post(object()) for _ in range(3)]),
        again(mailbox.drain),
        again(mailbox.__len__),
        again(mailbox.__len__),
    ]
    for thread in threads:
        thread.start()
    over.wait(0.2)
    over.set()
    for thread in threads:
        thread.join()
    mailbox.drain()
    assert len(mailbox) == 0


def test_whatever_line_a_post_is_interrupted_at_no_item_is_left_without_a_wake_up(both_cores):
    """Only the pure core has lines; the other is interrupted in nothing but its calls."""
    Mailbox = both_cores[1].core.Mailbox
    code = Mailbox.post.__code__
    for line in range(1, 40):
        wakes: list[None] = []
        mailbox = Mailbox(lambda wakes=wakes: wakes.append(None), print)
        count = [0]

        def trace(frame, event, arg, line=line, count=count):
            if frame.f_code is not code:
                return None
            if event == "line":
                count[0] += 1
                if count[0] == line:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            mailbox.post("item")
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert not len(mailbox) or wakes, line
        wakes.clear()
        mailbox.drain() if len(mailbox) else None
        mailbox.post("next")
        assert wakes or count[0] < line, line
        mailbox.close()
