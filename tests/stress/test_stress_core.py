"""The core under fire from many threads, with an account of everything at the end."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent import futures

import pytest
from helpers import switch_interval, wait_until

SECONDS = 1.0


@pytest.fixture(params=[1e-6, 5e-3], ids=["tiny_slices", "usual_slices"])
def slices(request):
    with switch_interval(request.param):
        yield


def run_all(*bodies):
    """Run each body in a thread of its own until all return; raise what they raised."""
    with futures.ThreadPoolExecutor(len(bodies)) as executor:
        for future in futures.as_completed([executor.submit(body) for body in bodies]):
            future.result()


def test_every_task_is_accounted_for_amid_resizes_cancels_views_and_swaps(nt, slices):
    ran: Counter[int] = Counter()
    ran_lock = threading.Lock()
    numbers = iter(range(10**9))
    numbers_lock = threading.Lock()
    handed: list[tuple[int, object]] = []
    deadline = time.monotonic() + SECONDS
    outer = futures.ThreadPoolExecutor(3)
    pool = nt.TaskPool(pool_size=3, reserve_normal=1, reserve_high=1, idle_timeout=0.001)
    priorities = (nt.TASK_LOW, nt.TASK_NORMAL, nt.TASK_HIGH, nt.TASK_CRITICAL)

    def target(number, fails):
        with ran_lock:
            ran[number] += 1
        if fails:
            raise ValueError(number)
        return number

    def submitter(seed):
        rng = random.Random(seed)

        def body():
            while time.monotonic() < deadline:
                lane = pool.lane(rng.choice(priorities))
                mine = []
                for _ in range(rng.randrange(1, 40)):
                    with numbers_lock:
                        number = next(numbers)
                    mine.append((number, lane.submit(target, number, rng.random() < 0.1)))
                for _, task in mine:
                    if rng.random() < 0.2:
                        task.cancel()
                    elif rng.random() < 0.1:
                        task.add_done_callback(lambda task: task.done())
                if rng.random() < 0.3:
                    lane.shutdown(wait=rng.random() < 0.5, cancel_futures=rng.random() < 0.5)
                elif rng.random() < 0.5:
                    futures.wait([task for _, task in mine])
                with numbers_lock:
                    handed.extend(mine)

        return body

    def resizer():
        rng = random.Random(99)
        while time.monotonic() < deadline:
            pool.resize(
                pool_size=rng.randrange(5),
                reserve_normal=rng.randrange(3),
                reserve_high=rng.randrange(3),
                idle_timeout=0.001,
            )

    def swapper():
        while time.monotonic() < deadline:
            pool.use_executor(outer)
            time.sleep(0.003)
            pool.use_executor(None)
            time.sleep(0.003)

    run_all(*(submitter(seed) for seed in range(8)), resizer, swapper)
    pool.shutdown()
    outer.shutdown()

    assert all(task.done() for _, task in handed)
    cancelled = {number for number, task in handed if task.cancelled()}
    assert all(ran[number] == 0 for number in cancelled)
    assert all(ran[number] == 1 for number, _ in handed if number not in cancelled)
    for number, task in handed:
        if number not in cancelled:
            error = task.exception()
            assert str(error) == str(number) if error else task.result() == number
    figures = pool._crew.dispatcher.figures()
    assert sum(figures["submitted"]) == len(handed)
    assert sum(figures["cancelled"]) == len(cancelled)
    assert sum(figures["completed"]) + sum(figures["failed"]) == len(handed) - len(cancelled)
    assert figures["active"] == 0 and sum(figures["waiting"]) == 0 and figures["threads"] == 0


def test_every_waiter_gets_the_result_of_its_task(nt, slices):
    deadline = time.monotonic() + SECONDS
    checked = []
    with nt.TaskPool(4) as pool:

        def client(seed):
            rng = random.Random(seed)

            def body():
                count = 0
                while time.monotonic() < deadline:
                    number = rng.random()
                    task = pool.submit(lambda number=number: number)
                    way = rng.randrange(4)
                    if way == 0:
                        assert task.result(60) == number
                    elif way == 1:
                        assert futures.wait([task], 60).done == {task}
                    elif way == 2:
                        seen = threading.Event()
                        task.add_done_callback(lambda task, seen=seen: seen.set())
                        assert seen.wait(60)
                    else:
                        assert next(futures.as_completed([task], 60)) is task
                    assert task.result(0) == number
                    count += 1
                checked.append(count)

            return body

        run_all(*(client(seed) for seed in range(6)))
    assert len(checked) == 6 and min(checked) > 0


def test_submitters_blocked_at_the_bound_all_get_through(nt, slices):
    deadline = time.monotonic() + SECONDS
    with nt.TaskPool(2, queue_size=2) as pool:
        done: list[int] = []
        sent: list[int] = []

        def client():
            count = 0
            while time.monotonic() < deadline:
                pool.submit(done.append, 1)
                count += 1
            sent.append(count)

        run_all(*[client] * 6)
    assert len(done) == sum(sent) > 0


def test_every_timer_fires_once_or_was_cancelled(nt, slices):
    ticker = nt.core.TickerCore()
    fired: Counter[int] = Counter()
    cancelled: list[int] = []
    total = 6 * 400
    thread = threading.Thread(target=ticker.run)
    thread.start()

    def setter(base):
        rng = random.Random(base)

        def body():
            mine = []
            for n in range(400):
                number = base * 400 + n
                callback = fired.update
                mine.append(
                    (number, ticker.call_later(rng.random() * 0.2, callback, (number,)))
                )
                if rng.random() < 0.5:
                    number, timer = mine.pop(rng.randrange(len(mine)))
                    if timer.cancel():
                        cancelled.append(number)

        return body

    run_all(*(setter(base) for base in range(6)))
    done = threading.Event()
    ticker.call_later(0.25, done.set)
    assert done.wait(30)
    ticker.stop()
    thread.join()
    assert len(ticker) == 0
    assert not any(fired[number] for number in cancelled)
    assert len(fired) + len(cancelled) == total
    assert set(fired.values()) <= {1}


def test_a_mailbox_hands_over_every_item_once_in_the_order_of_each_sender(nt, slices):
    wakes = threading.Semaphore(0)
    got: list[tuple[int, int]] = []
    mailbox = nt.core.Mailbox(wakes.release, got.append)
    stop = threading.Event()

    def reader():
        while not stop.is_set():
            if wakes.acquire(timeout=0.01):
                mailbox.drain()

    thread = threading.Thread(target=reader)
    thread.start()

    def sender(name):
        return lambda: [mailbox.post((name, n)) for n in range(3000)]

    run_all(*(sender(name) for name in range(6)))
    stop.set()
    thread.join()
    got.extend(mailbox.close())
    assert mailbox.post("late") is False
    assert Counter(name for name, _ in got) == dict.fromkeys(range(6), 3000)
    for name in range(6):
        assert [n for who, n in got if who == name] == list(range(3000))


def test_who_looks_at_what_runs_sees_the_targets_that_are_being_called(nt, slices):
    class Target:
        """A target that nobody holds but its task and whoever is shown it."""

        def __call__(self):
            time.sleep(0)  # lets others look, also where one thread runs at a time

    deadline = time.monotonic() + SECONDS
    seen: Counter[str] = Counter()

    def goes_on():
        """Return whether there is time, or nothing was seen as the machine was busy."""
        late = time.monotonic() - deadline
        return late < 0 or (not seen["shown"] and late < 20)

    def submit():
        rng = random.Random(1)
        while goes_on():
            tasks = [pool.submit(Target()) for _ in range(rng.randrange(1, 30))]
            cancelled = sum(task.cancel() for task in tasks[::3])
            seen["submitted"] += len(tasks) - cancelled
            futures.wait(tasks)

    def look():
        while goes_on():
            for ident, task, target in pool._crew.dispatcher.running():
                assert ident and isinstance(task, futures.Future)
                assert target is None or isinstance(target, Target)
                seen["shown"] += target is not None

    with nt.TaskPool(3) as pool:
        run_all(submit, look, look)
        dispatcher = pool._crew.dispatcher
        wait_until(lambda: not dispatcher.active)
        assert sum(dispatcher.figures()["completed"]) == seen["submitted"]
    assert seen["shown"]
