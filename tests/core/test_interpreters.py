"""Interpreters and threads of other kinds: subinterpreters, a second life, green threads."""

from __future__ import annotations

import pytest
from helpers import run_python

# What gevent and eventlet have in `sys.modules`, as far as it is asked.
FAKES = """
import sys, types
def pretend(package):
    home, ask = {
        "gevent": ("gevent.monkey", "is_module_patched"),
        "eventlet": ("eventlet.patcher", "is_monkey_patched"),
    }[package]
    sys.modules[home] = module = types.ModuleType(home)
    setattr(module, ask, lambda name: name in ("threading", "thread"))
"""

PATCHERS = ["gevent", "eventlet"]


# Subinterpreters.


def test_daemon_threads_that_are_refused_keep_no_stop_from_its_end(nt):
    ran = run_python(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            sys.exit(77)
        sub = interpreters.create()
        failed = interpreters.exec(sub, '\\n'.join((
            "import logging, threading, time",
            "logging.disable(logging.CRITICAL)",
            "import neotasker",
            "s = neotasker.task_supervisor",
            "try: s.start(daemon=True)",
            "except RuntimeError: pass",
            "else: raise AssertionError",
            "assert not s.active",
            "s.start()",
            "try: s.create_aloop('daemon', daemon=True)",
            "except RuntimeError: pass",
            "s.create_aloop('one')",
            "class Mine:",
            "    def stop(self): pass",
            "s.register_sync_scheduler(Mine())",
            "seen = threading.Event()",
            "s.timeout_warning_func = lambda task: seen.set()",
            "s.timeout_warning = 0.01",
            "s.set_thread_pool(pool_size=1)",
            "first, second = s.spawn(seen.wait, 10), s.spawn(pow, 2, 3)",
            "assert second.result(10) == 8 and seen.is_set()",
            "assert s.stop(timeout=10).clean",
        )))
        print("works" if failed is None else failed.formatted.splitlines()[-1])
        interpreters.destroy(sub)
        """,
        env={"NEOTASKER_PURE_PYTHON": "1"},
    )
    if ran.rc == 77:
        pytest.skip("this interpreter has no module for subinterpreters")
    assert (ran.rc, ran.out) == (0, "works\n"), ran


def test_the_compiled_core_says_how_to_go_on_in_a_second_interpreter(nt):
    if not nt.COMPILED:
        pytest.skip("the pure core works there")
    ran = run_python(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            sys.exit(77)
        import neotasker
        for kind in ("legacy", "isolated"):
            sub = interpreters.create(kind)
            failed = interpreters.exec(sub, "import neotasker")
            print(failed.formatted.splitlines()[-1])
            interpreters.destroy(sub)
        """
    )
    if ran.rc == 77:
        pytest.skip("this interpreter has no module for subinterpreters")
    lines = ran.out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ImportError") for line in lines)
    assert all("NEOTASKER_PURE_PYTHON=1" in line for line in lines)


def test_a_core_that_is_left_from_an_interpreter_that_has_ended_is_refused(nt):
    if not nt.COMPILED:
        pytest.skip("the pure core has no such state")
    ran = run_python(
        """
        import sys, types
        import neotasker
        core = sys.modules["neotasker._core"]
        core.os = types.ModuleType("os")  # as it is where everything else was made anew
        for name in [name for name in sys.modules if name.startswith("neotasker")]:
            del sys.modules[name]
        sys.modules["neotasker._core"] = core
        try:
            import neotasker
        except ImportError as exc:
            print(exc)
        """
    )
    assert "has ended" in ran.out
    assert "NEOTASKER_PURE_PYTHON=1" in ran.out


# Green threads.


@pytest.mark.parametrize("package", PATCHERS)
def test_green_threads_get_the_pure_core_and_a_line_in_the_log(nt, package):
    ran = run_python(
        f"""
        {FAKES.replace(chr(10), chr(10) + 8 * " ")}
        pretend({package!r})
        import logging
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
        import neotasker
        assert not neotasker.COMPILED
        s = neotasker.task_supervisor
        s.start()
        print(s.spawn(pow, 2, 3).result(10))
        try:
            s.create_aloop("one")
        except neotasker.AloopError as exc:
            print(exc)
        assert s.stop().clean
        """
    )
    assert ran.rc == 0, ran.err
    assert f"the pure core is used: {package} has patched threading" in ran.out
    assert f"aloop one is refused: the threads are those of {package}" in ran.out
    assert "\n8\n" in ran.out


@pytest.mark.parametrize("package", PATCHERS)
def test_threads_that_become_green_later_are_refused_with_words(nt, package):
    ran = run_python(
        f"""
        {FAKES.replace(chr(10), chr(10) + 8 * " ")}
        import threading
        import neotasker
        s = neotasker.task_supervisor
        s.start()
        gate = threading.Event()
        task = s.spawn(gate.wait)
        pretend({package!r})
        def refused(call, *args):
            try:
                call(*args)
            except RuntimeError as exc:
                return "{package} has patched threading after neotasker" in str(exc)
        print(refused(task.result, 10), refused(s.block, 10), refused(s.spawn(int).result))
        print(refused(neotasker.TaskSupervisor("other").start))
        gate.set()
        s.stop(timeout=10)
        print("stopped", s.active)
        """
    )
    assert ran.out == "True True True\nTrue\nstopped False\n", ran


def test_gevent_itself(nt):
    pytest.importorskip("gevent")
    ran = run_python(
        """
        import gevent.monkey
        gevent.monkey.patch_all()
        import time
        import neotasker
        from neotasker import background_worker
        s = neotasker.task_supervisor
        s.start()
        runs = []
        @background_worker(interval=0.01)
        def every():
            runs.append(1)
        @background_worker(q=True)
        def store(item):
            runs.append(item)
        every.start()
        store.start()
        store.put_threadsafe("item")
        tasks = [s.spawn(lambda n: (time.sleep(0.01), n)[1], n) for n in range(20)]
        assert [task.result(10) for task in tasks] == list(range(20))
        while not (runs.count(1) > 3 and "item" in runs):
            time.sleep(0.01)
        print(neotasker.COMPILED, s.stop(timeout=10).clean)
        """
    )
    assert (ran.rc, ran.out) == (0, "False True\n"), ran.err
