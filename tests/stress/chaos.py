"""Chaos: ten threads use one supervisor for everything at once, and an account is kept.

An epoch starts a supervisor, lets the actors loose, and stops it while they are at it.
Then every task, coroutine, item, trigger, timer and job must be accounted for: it ran
once, or it was cancelled, refused or given back, and never two of these.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent import futures
from typing import Any

# Without the GIL objects have locks of the interpreter's own. One that is being handed to a
# thread stays locked for ever in a child without that thread; it may be anybody's.
CAN_FORK = hasattr(os, "fork") and getattr(sys, "_is_gil_enabled", lambda: True)()

PATIENCE = 30.0  # seconds that anything may take to end once the supervisor has stopped


class Account:
    """What was handed over, and what became of it.

    `ran` is written by the runs themselves, the rest by the actor whose account it is, so
    that nothing but `ran` needs the lock.
    """

    def __init__(self) -> None:
        self.figures: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._ran: Counter[int] = Counter()
        self._lock = threading.Lock()
        self._serial = 0
        self._futures: list[tuple[int, Any, object]] = []

    def ticket(self) -> int:
        """Return a number for one thing that is handed over."""
        with self._lock:
            self._serial += 1
            return self._serial

    def note(self, ticket: int) -> None:
        """Say that it ran."""
        with self._lock:
            self._ran[ticket] += 1

    def ran(self, ticket: int) -> int:
        """Return how often it ran."""
        with self._lock:
            return self._ran[ticket]

    def owe(self, ticket: int, future: Any, expected: object) -> None:
        """Keep a future; *expected* is its result, or the type of its exception."""
        self._futures.append((ticket, future, expected))

    def check(self, holds: bool, what: str) -> None:
        """Note what should hold and does not."""
        if not holds:
            self.wrong.append(what)

    def settle(self) -> None:
        """Compare every future with the runs."""
        _, pending = futures.wait([future for _, future, _ in self._futures], PATIENCE)
        self.check(not pending, f"{len(pending)} futures never ended: {list(pending)[:3]}")
        for ticket, future, expected in self._futures:
            if future in pending:
                continue
            ran = self.ran(ticket)
            if future.cancelled():
                self.figures["cancelled"] += 1
                # A coroutine may be cancelled while it runs; a task may not.
                self.check(ran <= isinstance(expected, tuple), f"cancelled, and ran: {future}")
                continue
            self.figures["ended"] += 1
            self.check(ran == 1, f"ended, and ran {ran} times: {future}")
            error = future.exception()
            if isinstance(expected, type):
                self.check(type(error) is expected, f"{expected} expected: {future}")
            else:
                value = expected[0] if isinstance(expected, tuple) else expected
                self.check(error is None and future.result() == value, f"{expected}: {future}")
        self._futures.clear()


class Epoch:
    """One supervisor from its start to its stop, and all that is done to it meanwhile."""

    def __init__(self, nt: Any, seed: int, forks: bool = True) -> None:
        self._nt = nt
        self._seed = seed
        self._over = threading.Event()
        self._own_pool = threading.Lock()  # while tasks must run in the pool's own threads
        self.account = Account()
        self.supervisor = nt.TaskSupervisor(f"chaos{seed}")
        self.supervisor.start()
        self.supervisor.set_thread_pool(pool_size=4, reserve_normal=2, reserve_high=2)
        self.supervisor.create_aloop("main", default=True)
        self._actors: list[Callable[[Account, random.Random], None]] = [
            self._submit,
            self._submit,
            self._delay,
            self._nest,
            self._resize,
            self._loops,
            self._queue,
            self._trigger,
            self._jobs,
            self._swap,
        ]
        if forks and CAN_FORK:
            self._actors.append(self._fork)

    def run(self, seconds: float) -> Account:
        """Let the actors loose for so long, stop, and return the account of all of them."""
        accounts = [Account() for _ in self._actors]
        threads = [
            threading.Thread(target=self._act, args=(number, account), name=f"actor_{number}")
            for number, account in enumerate(accounts)
        ]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        report = self.supervisor.stop(timeout=PATIENCE, cancel_tasks=bool(self._seed % 2))
        self._over.set()
        for thread in threads:
            thread.join(PATIENCE)
            self.account.check(not thread.is_alive(), f"{thread.name} hangs")
            if thread.is_alive():
                faulthandler.dump_traceback(sys.__stderr__)
        self.account.check(not report.still_running, f"still running: {report}")
        for account in accounts:
            account.settle()
            self.account.figures.update(account.figures)
            self.account.wrong += account.wrong
        return self.account

    def _act(self, number: int, account: Account) -> None:
        chance = random.Random(self._seed * 100 + number)
        actor = self._actors[number]
        while not self._over.is_set():
            try:
                actor(account, chance)
            except self._nt.SupervisorNotStarted:
                account.figures["refused"] += 1
                return
            except BaseException as exc:
                if isinstance(exc, self._nt.AloopError) and not self.supervisor.active:
                    account.figures["refused"] += 1  # the loop was stopped in between
                    return
                account.wrong.append(f"{actor.__name__}: {exc!r}")
                return

    # Tasks.

    def _submit(self, account: Account, chance: random.Random) -> None:
        """Submit in all lanes what succeeds, fails or takes a while; cancel some of it."""
        for _ in range(50):
            ticket = account.ticket()
            lane = self.supervisor.lane(chance.choice(list(self._nt.Priority)))
            kind = chance.randrange(4)
            if kind == 0:
                task = lane.submit(failing, account, ticket)
                account.owe(ticket, task, Failure)
            else:
                pause = 0.001 if kind == 1 else 0.0
                task = lane.submit(working, account, ticket, pause)
                account.owe(ticket, task, ticket)
            account.figures["tasks"] += 1
            if chance.random() < 0.1:
                task.cancel()
        account.settle()

    def _delay(self, account: Account, chance: random.Random) -> None:
        """Let tasks enter their lane later, and timers fire."""
        for _ in range(20):
            ticket = account.ticket()
            task = self.supervisor.put_task(
                working, (account, ticket, 0.0), delay=chance.random() * 0.02
            )
            account.owe(ticket, task, ticket)
            account.figures["delayed tasks"] += 1
            if chance.random() < 0.2:
                task.cancel()
        tickets = [account.ticket() for _ in range(20)]
        timers = [
            self.supervisor.ticker.call_later(chance.random() * 0.01, account.note, ticket)
            for ticket in tickets
        ]
        cancelled = [timer.cancel() for timer in timers[::4]]
        account.settle()
        due = [1] * len(timers)
        due[::4] = [int(not gone) for gone in cancelled]
        deadline = time.monotonic() + PATIENCE
        while [account.ran(ticket) for ticket in tickets] != due:
            if not self.supervisor.active:
                return  # what the ticker held is cancelled with it
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        for number, ticket in enumerate(tickets):
            account.check(
                account.ran(ticket) == due[number], f"timer {number} of 20 fired wrongly"
            )
            account.figures["timers"] += 1

    def _nest(self, account: Account, chance: random.Random) -> None:
        """Have tasks wait for tasks of the same pool: of ours, others do not help them."""

        def nested(ticket: int, depth: int) -> int:
            account.note(ticket)
            if depth:
                inner = account.ticket()
                with contextlib.suppress(futures.CancelledError, RuntimeError):
                    self.supervisor.spawn(nested, inner, depth - 1).result(PATIENCE)
            return ticket

        ticket = account.ticket()
        with self._own_pool:
            task = self.supervisor.spawn(nested, ticket, chance.randrange(12))
            account.owe(ticket, task, ticket)
            account.figures["nests"] += 1
            account.settle()

    def _resize(self, account: Account, chance: random.Random) -> None:
        """Change the sizes of the pool."""
        size = chance.randrange(1, 9)
        if not self.supervisor.active:
            raise self._nt.SupervisorNotStarted("over")
        with self._own_pool:  # sizes without an executor mean threads of one's own
            self.supervisor.set_thread_pool(
                pool_size=size,
                min_size=chance.randrange(size + 1),
                reserve_normal=chance.randrange(4),
                reserve_high=chance.randrange(4),
            )
        account.figures["resizes"] += 1
        time.sleep(0.002)

    def _swap(self, account: Account, chance: random.Random) -> None:
        """Put another executor behind the lanes, and take it away."""
        with self._own_pool, futures.ThreadPoolExecutor(3) as executor:
            if not self.supervisor.active:
                raise self._nt.SupervisorNotStarted("over")
            self.supervisor.thread_pool = executor
            time.sleep(chance.random() * 0.02)
            if self.supervisor.thread_pool.executor is executor:
                self.supervisor.thread_pool = None
        account.figures["swaps"] += 1
        time.sleep(0.02)

    # Loops, workers and jobs.

    def _loops(self, account: Account, chance: random.Random) -> None:
        """Start aloops, give them coroutines, and stop them while those run."""
        name = f"loop{account.figures['aloops']}"
        aloop = self.supervisor.create_aloop(name)
        if not aloop:
            raise self._nt.SupervisorNotStarted("over")
        account.figures["aloops"] += 1
        for _ in range(30):
            ticket = account.ticket()
            coro = sleeping(account, ticket, chance.random() * 0.01)
            try:
                future = aloop.spawn_coroutine_threadsafe(coro)
            except self._nt.AloopError:
                account.figures["refused"] += 1
                break
            account.owe(ticket, future, (ticket,))
            account.figures["coroutines"] += 1
            if chance.random() < 0.1:
                future.cancel()
        self.supervisor.stop_aloop(
            name, wait=chance.choice([True, 0.005]), cancel_tasks=chance.random() < 0.3
        )
        account.settle()

    def _queue(self, account: Account, chance: random.Random) -> None:
        """Put items into a queue worker and stop it: each is processed, left or refused."""
        tickets: list[int] = []
        options: dict[str, Any] = chance.choice(
            [{}, {"concurrency": 3, "key": lambda ticket: ticket % 5}, {"maxsize": 7}]
        )
        worker = self._nt.BackgroundQueueWorker(
            "chaos", account.note, supervisor=self.supervisor, **options
        )
        worker.start()
        account.figures["queue workers"] += 1
        for _ in range(200):
            ticket = account.ticket()
            try:
                worker.put_threadsafe(ticket)
            except RuntimeError:  # the worker was stopped with the supervisor
                account.figures["refused"] += 1
                break
            tickets.append(ticket)
        worker.stop(drain=chance.random() < 0.5)
        left = Counter(worker.unprocessed)
        for ticket in tickets:
            fates = account.ran(ticket) + left[ticket]
            account.check(fates == 1, f"item {ticket} had {fates} fates")
        account.figures["items"] += len(tickets)
        account.figures["items given back"] += left.total()

    def _trigger(self, account: Account, chance: random.Random) -> None:
        """Trigger an event worker: the last trigger is followed by a run."""
        began = 0

        def target(**_: Any) -> None:
            nonlocal began
            began = time.monotonic_ns()

        worker = self._nt.BackgroundEventWorker(
            "chaos", target, supervisor=self.supervisor, poll_delay=0
        )
        worker.start()
        last = 0
        for _ in range(chance.randrange(1, 60)):
            last = time.monotonic_ns()
            if not worker.trigger_threadsafe():
                account.figures["refused"] += 1
                return
            account.figures["triggers"] += 1
        deadline = time.monotonic() + PATIENCE
        while began < last and worker.is_active() and time.monotonic() < deadline:
            time.sleep(0.0005)
        if worker.is_active():
            account.check(began >= last, "a trigger without a run")
        worker.stop()

    def _jobs(self, account: Account, chance: random.Random) -> None:
        """Run jobs of both kinds a number of times, and cancel some."""
        name = f"jobs{account.figures['jobs']}"
        scheduler = self.supervisor.create_async_job_scheduler(name)
        if not scheduler:
            raise self._nt.SupervisorNotStarted("over")
        runs: Counter[int] = Counter()
        on: Counter[int] = Counter()
        lock = threading.Lock()

        def plain(number: int) -> None:
            with lock:
                runs[number] += 1
                on[number] += 1
                account.check(on[number] == 1, "two runs of one job at once")
            with lock:
                on[number] -= 1

        async def coroutine(number: int) -> None:
            plain(number)
            await asyncio.sleep(0)

        jobs = [
            scheduler.create_threadsafe(
                coroutine if number % 2 else plain, args=(number,), interval=0.002, number=3
            )
            for number in range(10)
        ]
        account.figures["jobs"] += len(jobs)
        for job in jobs[::5]:
            job.cancel()
        deadline = time.monotonic() + PATIENCE
        while any(job.active or job.running for job in jobs) and time.monotonic() < deadline:
            if not self.supervisor.active:
                break
            time.sleep(0.001)
        scheduler.stop()
        over = not self.supervisor.active
        for number, job in enumerate(jobs):
            with lock:
                lacking = job.runs - runs[number]
            # One that has begun may not have come to its call, when the stop cancels it.
            account.check(0 <= lacking <= over, f"{job}, but {job.runs - lacking} calls")
            account.check(job.runs <= 3, f"{job} ran too often")
            if number % 5 and self.supervisor.active:
                account.check(job.runs == 3, f"{job} did not run as often as it should")

    # Processes.

    def _fork(self, account: Account, chance: random.Random) -> None:
        """Fork: the child finds the supervisor stopped, and can start one of its own."""
        if not self.supervisor.active:
            raise self._nt.SupervisorNotStarted("over")
        faulthandler.register(signal.SIGUSR1, sys.__stderr__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            status = 9
            try:
                status = self._live_as_child()
            finally:
                os._exit(status)
        deadline = time.monotonic() + PATIENCE
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGUSR1)  # its stacks, please
                time.sleep(1)
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                account.wrong.append("a forked child hung")
                return
            time.sleep(0.005)
        account.check(ended[1] == 0, f"a forked child ended with {ended[1]}")
        account.figures["forks"] += 1
        time.sleep(chance.random() * 0.1)

    def _live_as_child(self) -> int:
        if self.supervisor.active:
            return 3
        supervisor = self._nt.TaskSupervisor("child")
        supervisor.start()
        tasks = [supervisor.spawn(pow, 2, n) for n in range(20)]
        if [task.result(PATIENCE) for task in tasks] != [2**n for n in range(20)]:
            return 4
        return 0 if supervisor.stop().clean else 5


class Failure(Exception):
    """What tasks raise that are to fail."""


def working(account: Account, ticket: int, pause: float) -> int:
    account.note(ticket)
    if pause:
        time.sleep(pause)
    return ticket


def failing(account: Account, ticket: int) -> None:
    account.note(ticket)
    raise Failure(ticket)


async def sleeping(account: Account, ticket: int, pause: float) -> int:
    account.note(ticket)
    await asyncio.sleep(pause)
    return ticket
