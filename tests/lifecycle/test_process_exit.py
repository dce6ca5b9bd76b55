"""How a process with a supervisor ends, in a process of its own for each way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from textwrap import dedent

import pytest
from helpers import needs_late_threads, run_python

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

PROLOGUE = """\
import asyncio, atexit, logging, os, signal, sys, threading, time
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
atexit.register(lambda: print("atexit", flush=True))
import neotasker
from neotasker import task_supervisor as s

async def forever():
    await asyncio.Event().wait()

"""


def run(code, timeout=20):
    began = time.monotonic()
    ran = run_python(PROLOGUE + dedent(code), timeout=timeout)
    return ran, time.monotonic() - began


def lines(text):
    return text.split("\n")[:-1]


def test_a_supervisor_that_never_started_does_not_show(nt):
    ran, _ = run("")
    assert ran == (0, "atexit\n", "")


def test_tasks_that_run_or_wait_are_finished(nt):
    ran, _ = run(
        """
        s.set_thread_pool(pool_size=1)
        s.start()
        for n in range(3):
            s.spawn(lambda n: (time.sleep(0.05), print("task", n, flush=True)), n)
        print("main ends", flush=True)
        """
    )
    assert ran == (0, "main ends\ntask 0\ntask 1\ntask 2\natexit\n", "")


def test_an_idle_supervisor_lets_the_process_end(nt):
    ran, seconds = run("s.set_thread_pool(min_size=3, max_size=5)\ns.start()")
    assert ran == (0, "atexit\n", "")
    assert seconds < 10


def test_delayed_tasks_and_timers_do_not_keep_the_process(nt):
    ran, seconds = run(
        """
        s.start()
        s.put_task(print, ("late",), delay=60)
        s.call_later(60, print)
        s.call_every(60, print)
        """
    )
    assert (ran.rc, ran.out) == (0, "atexit\n")
    assert "1 delayed tasks cancelled" in ran.err
    assert seconds < 15


@needs_late_threads
def test_an_aloop_keeps_the_process_until_stop(nt):
    ran, _ = run(
        """
        s.start()
        aloop = s.create_aloop("one")

        async def work():
            await asyncio.sleep(0.3)
            task = s.spawn(pow, 2, 3)  # the pool serves threads that work still
            print("task", await task, flush=True)
            s.stop()
            print("stopping", flush=True)

        aloop.spawn_coroutine_threadsafe(work())
        print("main ends", flush=True)
        """
    )
    assert ran == (0, "main ends\ntask 8\nstopping\natexit\n", "")


def test_an_aloop_without_a_started_supervisor_keeps_the_process_too(nt):
    ran, _ = run(
        """
        aloop = s.create_aloop("one")

        async def work():
            await asyncio.sleep(0.2)
            print("done", flush=True)
            aloop.stop()

        aloop.spawn_coroutine_threadsafe(work())
        """
    )
    assert ran == (0, "done\natexit\n", "")


def test_the_process_ends_when_the_last_aloop_has_ended(nt):
    ran, _ = run(
        """
        s.start()
        aloop = s.create_aloop("one")
        other = s.create_aloop("two")

        async def work():
            await asyncio.sleep(0.1)
            other.stop()
            await asyncio.sleep(0.1)
            aloop.stop()

        aloop.spawn_coroutine_threadsafe(work())
        """
    )
    assert ran == (0, "atexit\n", "")


def test_a_daemon_aloop_does_not_keep_the_process(nt):
    ran, seconds = run(
        """
        s.start()
        aloop = s.create_aloop("one", daemon=True)
        aloop.spawn_coroutine_threadsafe(forever())
        time.sleep(0.05)
        """
    )
    assert (ran.rc, ran.out) == (0, "atexit\n")
    assert "1 cancelled" in ran.err
    assert seconds < 15


def test_a_registered_scheduler_keeps_the_process_until_stop(nt):
    ran, _ = run(
        """
        class Scheduler:
            def stop(self):
                print("stopped", flush=True)
        s.start()
        s.register_sync_scheduler(Scheduler())
        threading.Timer(0.3, s.stop).start()
        print("main ends", flush=True)
        """
    )
    assert ran == (0, "main ends\nstopped\natexit\n", "")


def test_the_process_ends_when_the_last_scheduler_is_unregistered(nt):
    ran, _ = run(
        """
        class Scheduler:
            def stop(self):
                print("stopped", flush=True)
        s.start()
        scheduler = Scheduler()
        s.register_sync_scheduler(scheduler)
        threading.Timer(0.2, s.unregister_sync_scheduler, (scheduler,)).start()
        """
    )
    assert ran == (0, "atexit\n", "")


def test_a_worker_keeps_the_process_until_it_has_ended(nt):
    for target in ("def", "async def"):
        ran, _ = run(
            f"""
            s.start()
            left = [3, 2, 1]

            @neotasker.background_worker(interval=0.05)
            {target} countdown(**kwargs):
                print(left.pop(0), flush=True)
                return bool(left)

            countdown.start()
            """
        )
        assert ran == (0, "3\n2\n1\natexit\n", "")


@needs_late_threads
def test_threads_may_submit_after_the_main_thread_has_ended(nt):
    """The standard pool says "cannot schedule new futures after interpreter shutdown"."""
    ran, _ = run(
        """
        s.start()
        s.create_aloop("one")

        def work():
            threading.main_thread().join(0.2)
            print(s.spawn(pow, 2, 3).result(10), flush=True)
            print(s.put_task(pow, (2, 4), delay=0.05).result(10), flush=True)
            s.stop()

        threading.Thread(target=work).start()
        """
    )
    assert ran == (0, "8\n16\natexit\n", "")


def test_sys_exit_and_an_exception_in_the_main_thread_finish_the_tasks(nt):
    task = """
        s.start()
        s.spawn(lambda: (time.sleep(0.1), print("task", flush=True)))
        """
    ran, _ = run(dedent(task) + "sys.exit(7)")
    assert ran == (7, "task\natexit\n", "")
    ran, _ = run(dedent(task) + "1 / 0")
    assert (ran.rc, ran.out) == (1, "task\natexit\n")
    assert "ZeroDivisionError" in ran.err


def test_sys_exit_in_a_task_ends_the_task_only(nt):
    ran, _ = run(
        """
        s.start()
        print(type(s.spawn(sys.exit, 7).exception(10)).__name__)
        print(s.spawn(pow, 2, 3).result(10), flush=True)
        """
    )
    assert ran == (0, "SystemExit\n8\natexit\n", "")


def test_stop_without_wait_does_not_hold_up_the_process(nt):
    """In the standard, shutdown(wait=False) still blocks the exit of the process."""
    ran, seconds = run(
        """
        s.set_thread_pool(pool_size=1)
        s.start()
        aloop = s.create_aloop("one")
        aloop.spawn_coroutine_threadsafe(forever())
        gate = threading.Event()
        s.spawn(gate.wait, 0.5)
        waiting = [s.spawn(time.sleep, 60) for _ in range(10)]
        atexit.register(lambda: print(sum(task.cancelled() for task in waiting), flush=True))
        s.stop(wait=False)
        """
    )
    assert (ran.rc, ran.out) == (0, "10\natexit\n")
    assert "10 waiting tasks cancelled" in ran.err
    assert seconds < 15


def test_a_daemon_supervisor_lets_the_process_end_whatever_runs(nt):
    ran, seconds = run(
        """
        s.set_thread_pool(pool_size=1)
        s.start(daemon=True)
        aloop = s.create_aloop("one", daemon=True)
        aloop.spawn_coroutine_threadsafe(forever())
        s.spawn(time.sleep, 60)
        s.spawn(time.sleep, 60)
        time.sleep(0.05)
        """
    )
    assert (ran.rc, ran.out) == (0, "atexit\n")
    assert "1 waiting tasks cancelled" in ran.err
    assert "still running" in ran.err
    assert seconds < 15


@pytest.mark.parametrize("n", range(3))
def test_a_daemon_supervisor_says_what_was_lost_however_much_that_is(nt, n):
    ran, seconds = run(
        """
        def deep(n):
            return time.sleep(60) if not n else deep(n - 1)
        s.set_thread_pool(pool_size=200)
        s.start(daemon=True)
        for _ in range(200):
            s.spawn(deep, 100)
        while s.thread_pool.active < 200:
            time.sleep(0.01)
        """
    )
    assert ran.rc == 0
    assert "200 still running" in ran.err
    assert seconds < 15


# A start when it is too late.


@needs_late_threads
def test_a_start_as_the_main_thread_ends_does_not_keep_the_process(nt):
    for _ in range(5):
        ran, seconds = run(
            """
            def start():
                try:
                    s.start()
                except RuntimeError as exc:
                    assert "the main thread of the process has ended" in str(exc)
            threading.Thread(target=start).start()
            """
        )
        assert (ran.rc, ran.out, ran.err) == (0, "atexit\n", "")
        assert seconds < 15


@needs_late_threads
def test_a_start_after_the_end_of_the_main_thread_is_refused(nt):
    ran, _ = run(
        """
        def late():
            threading.main_thread().join()
            for start in (s.start, lambda: s.create_aloop("one")):
                try:
                    start()
                except RuntimeError as exc:
                    print("refused:", str(exc).partition(": ")[2][:60], flush=True)
        threading.Thread(target=late).start()
        """
    )
    assert (ran.rc, ran.err) == (0, "")
    assert ran.out.count("refused:") == 2
    assert ran.out.endswith("atexit\n")


@needs_late_threads
def test_a_start_while_something_keeps_the_process_is_none_that_is_too_late(nt):
    ran, _ = run(
        """
        other = neotasker.TaskSupervisor("other")
        s.start()
        s.create_aloop("one")
        def late():
            threading.main_thread().join(0.3)
            other.start()
            print(other.spawn(pow, 2, 3).result(10), flush=True)
            other.stop()
            s.stop()
        threading.Thread(target=late).start()
        """
    )
    assert ran == (0, "8\natexit\n", "")


# Without descriptors.

STARVE = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
"""


@posix
@pytest.mark.parametrize(
    ("how", "out"),
    [
        ("print(s.stop().clean, task.done())", "True True\n"),
        ("print(s.stop(timeout=20).clean, task.done())", "True True\n"),
        ("print(s.stop(timeout=0.01).clean)", "False\n"),
        ("threading.Timer(0.05, s.stop).start(); print(s.block(), task.done())", "True True\n"),
        ("print(s.block(0.01)); s.stop()", "False\n"),
        ("aloop.stop(); print('ends')", "ends\n"),
    ],
)
def test_without_descriptors_stops_and_ends_are_as_ever(nt, how, out):
    ran, seconds = run(
        f"""
        s.start()
        aloop = s.create_aloop("one")
        task = s.spawn(time.sleep, 0.3)
        exec({STARVE!r})
        {how}
        """
    )
    assert (ran.rc, ran.out) == (0, f"{out}atexit\n"), ran.err
    assert "Traceback" not in ran.err
    assert seconds < 15


# Ctrl+C.


class Child:
    """A process to send signals to."""

    def __init__(self, code):
        package = sys.modules["neotasker"]
        root = os.path.dirname(os.path.dirname(package.__file__))
        # Whoever runs the tests in the background may have had Ctrl+C ignored.
        heeds = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-c", heeds + PROLOGUE + dedent(code)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    def expect(self, line):
        assert self.process.stdout.readline() == f"{line}\n"

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def ends(self, timeout=10):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"still runs: {self.process.communicate()}") from None
        return self.process.returncode, out, err

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@posix
def test_ctrl_c_gets_through_block_and_stops_the_supervisor(nt):
    with Child(
        """
        s.start()
        aloop = s.create_aloop("one", default=True)
        aloop.spawn_coroutine_threadsafe(forever())
        print("blocks")
        s.block()
        """
    ) as child:
        child.expect("blocks")
        child.interrupt()
        rc, out, err = child.ends()
    assert rc in (-signal.SIGINT, 130)
    assert out == "atexit\n"
    assert "KeyboardInterrupt" in err
    assert "1 cancelled" in err


@posix
def test_ctrl_c_may_be_caught_around_block(nt):
    with Child(
        """
        s.start()
        s.create_aloop("one", default=True)
        try:
            print("blocks")
            s.block()
        except KeyboardInterrupt:
            print(s.stop())
        """
    ) as child:
        child.expect("blocks")
        child.interrupt()
        rc, out, err = child.ends()
    assert (rc, err) == (0, "")
    assert re.fullmatch(r"stopped in \d\.\d\d s, clean\natexit\n", out)


@posix
def test_ctrl_c_after_the_main_thread_has_ended_stops_the_supervisor(nt):
    with Child(
        """
        s.start()
        aloop = s.create_aloop("one")

        async def work():
            await asyncio.sleep(0.2)
            print("alone")
            await forever()

        aloop.spawn_coroutine_threadsafe(work())
        """
    ) as child:
        child.expect("alone")
        child.interrupt()
        rc, out, err = child.ends()
    assert (rc, out) == (0, "atexit\n")
    assert "1 cancelled" in err
    assert "Traceback" not in err


@posix
@needs_late_threads
def test_a_blocked_thread_needs_no_more_than_two_ctrl_c(nt):
    """The standard pool needs three."""
    blocked = """
        s.start()
        started = threading.Event()
        s.spawn(lambda: (started.set(), threading.Event().wait(60)))
        started.wait()
        """
    for code, before in (
        ("print('main'); s.block()", "main"),
        ("s.create_aloop('one'); threading.Timer(0.3, print, ('main',)).start()", "main"),
        ("threading.Timer(0.3, print, ('main',)).start()", "main"),
    ):
        with Child(dedent(blocked) + code) as child:
            child.expect(before)
            child.interrupt()
            time.sleep(0.5)
            assert child.process.poll() is None
            child.interrupt()
            rc, out, _ = child.ends()
        assert "atexit" in out, code
        assert rc in (0, 130, -signal.SIGINT), code


@posix
def test_ctrl_c_in_stop_gets_through_and_the_stop_goes_on(nt):
    with Child(
        """
        s.start()
        started = threading.Event()
        gate = threading.Event()
        s.spawn(lambda: (started.set(), gate.wait(60)))
        started.wait()
        try:
            print("stops")
            s.stop()
        except KeyboardInterrupt:
            print("through")
        gate.set()
        print(s.stop().clean)
        """
    ) as child:
        child.expect("stops")
        time.sleep(0.1)
        child.interrupt()
        rc, out, err = child.ends()
    assert (rc, out, err) == (0, "through\nTrue\natexit\n", "")


def test_children_of_multiprocessing_start_clean(nt):
    for method in ("fork", "spawn", "forkserver"):
        if sys.platform == "win32" and method != "spawn":
            continue
        ran = run_python(
            """
            import multiprocessing, os, sys, warnings
            warnings.simplefilter("ignore")
            from neotasker import task_supervisor as s

            if __name__ == "__main__":
                s.start()
                s.spawn(int).result(10)
                with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                    assert pool.map(abs, [-1, -2]) == [1, 2]
                assert s.spawn(pow, 2, 3).result(10) == 8
                assert s.stop().clean
            """,
            method,
        )
        assert (ran.rc, ran.err) == (0, ""), method


AFTER_A_PROMPT = """
s.start()
aloop = s.create_aloop("one")
async def work():
    await asyncio.sleep(0.3)
    print("done", flush=True)
    threading.Thread(target=s.stop).start()
_ = aloop.spawn_coroutine_threadsafe(work())
"""


def test_an_old_ctrl_c_at_the_prompt_is_not_what_ends_the_program(nt):
    root = os.path.dirname(os.path.dirname(sys.modules["neotasker"].__file__))
    ran = subprocess.run(
        [sys.executable, "-P", "-i", "-c", PROLOGUE],
        input=f"raise KeyboardInterrupt\nexec({AFTER_A_PROMPT!r})\n",
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert (ran.returncode, ran.stdout) == (0, "done\natexit\n"), ran.stderr


def test_an_old_ctrl_c_at_a_prompt_of_the_program_is_not_what_ends_it(nt):
    ran, _ = run(
        f"""
        import code
        def read(prompt, lines=["raise KeyboardInterrupt"]):
            if lines:
                return lines.pop()
            raise EOFError
        code.interact(readfunc=read, local={{}})
        exec({AFTER_A_PROMPT!r})
        """
    )
    assert (ran.rc, ran.out) == (0, "done\natexit\n"), ran.err
