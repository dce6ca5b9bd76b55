"""The command line: ``python -m neotasker run``."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest
from cores import TREE

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

CLEAN = re.compile(r"^neotasker: stopped in \d+\.\d\d s, clean$", re.MULTILINE)


class Ended:
    """How a run ended."""

    def __init__(self, process):
        self.out, self.err = process.communicate(timeout=60)
        self.status = process.returncode

    def __repr__(self):
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture
def start(nt, tmp_path):
    """Start ``python -m neotasker ARGS`` in a directory with a file ``program.py``."""
    processes = []

    def start(*args, program=None, env=None, flags=()):
        if program is not None:
            (tmp_path / "program.py").write_text(dedent(program))
        root = str(Path(nt.__file__).parent.parent)
        process = subprocess.Popen(
            [sys.executable, "-u", *flags, "-m", "neotasker", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": root, **(env or {})},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    return lambda *args, **kwargs: Ended(start(*args, **kwargs))


WORKERS = """
    import threading
    from neotasker import background_worker, task_supervisor

    counts = {"interval": 0, "queue": 0, "event": 0, "plain": 0, "async": 0}

    @background_worker(queue=True)
    def consumer(item, **kwargs):
        counts["queue"] += 1

    @background_worker(event=True)
    def on_event(**kwargs):
        counts["event"] += 1

    @background_worker(interval=0.01)
    def producer(**kwargs):
        counts["interval"] += 1
        consumer.put_threadsafe(counts["interval"])
        on_event.trigger_threadsafe()

    @background_worker
    def plain(_worker, **kwargs):
        counts["plain"] += 1
        threading.Event().wait(0.01)

    @background_worker
    async def asynchronous(**kwargs):
        counts["async"] += 1

    same = producer  # a second name for one worker
    """


def test_every_worker_of_the_file_runs_for_that_long(run):
    program = (
        WORKERS
        + """
    def after_stop(report):
        assert report.clean
        print("counts", min(counts.values()) > 5, counts["interval"] - counts["queue"])
    """
    )
    began = time.monotonic()
    ended = run("run", "program.py", "--for", "0.5", program=program)
    assert time.monotonic() - began >= 0.5
    assert ended.status == 0, ended
    assert CLEAN.search(ended.out)
    assert ended.out.endswith("counts True 0\n")
    assert ended.err == ""


def test_a_worker_that_the_file_has_started_is_left_alone(run):
    ended = run(
        "run",
        "program.py",
        "--for",
        "0.1",
        program="""
        from neotasker import background_worker, task_supervisor
        task_supervisor.start()
        task_supervisor.create_aloop("mine", default=True)

        @background_worker(interval=60)
        def mine(marker=None, **kwargs):
            print("marker", marker, task_supervisor.default_aloop.name)

        mine.start(marker=5)
        """,
    )
    assert ended.status == 0, ended
    assert ended.out.count("marker 5 mine") == 1


def test_a_module_is_run_by_its_name(run, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "module.py").write_text(
        "from neotasker import task_supervisor\n"
        "def after_stop(report):\n"
        "    print(__name__, task_supervisor.active)\n"
    )
    ended = run("run", "package.module", "--for", "0.05")
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.out.endswith("package.module False\n")


def test_the_file_finds_its_neighbours_and_its_tasks_pickle(run, tmp_path):
    (tmp_path / "neighbour.py").write_text("VALUE = 8\n")
    ended = run(
        "run",
        "program.py",
        "--for",
        "0.05",
        program="""
        import pickle, sys
        from neighbour import VALUE
        assert __name__ == "program", __name__
        assert sys.argv == [__file__], sys.argv

        class Thing:
            value = VALUE

        def after_stop(report):
            print(pickle.loads(pickle.dumps(Thing())).value)
        """,
    )
    assert (ended.status, ended.err) == (0, ""), ended
    assert ended.out.endswith("8\n")


SAFE = [
    pytest.param(("-P",), {}, id="-P"),
    pytest.param((), {"PYTHONSAFEPATH": "1"}, id="PYTHONSAFEPATH"),
]


@pytest.mark.parametrize(("flags", "env"), SAFE)
@pytest.mark.parametrize("name", ["program", "planted", "package.module"])
def test_the_current_folder_is_not_imported_from_when_python_is_told_so(
    run, tmp_path, flags, env, name
):
    (tmp_path / "planted").write_text("print('planted')")  # a file without a suffix
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("print('planted')")
    ended = run("run", name, program="print('planted')", flags=flags, env=env)
    assert ended.status == 2, ended
    assert f"no file or module {name!r}" in ended.err
    assert "planted" not in ended.out
    assert ("give the file by its path" in ended.err) == (name != "package.module")


@pytest.mark.parametrize(("flags", "env"), SAFE)
@pytest.mark.parametrize("path", ["program.py", "./program.py", "folder/file", "./file"])
def test_a_file_given_by_its_path_runs_then_but_not_beside_its_neighbours(
    run, tmp_path, flags, env, path
):
    program = """
        import os, sys
        here = os.path.dirname(os.path.realpath(__file__))
        assert here not in map(os.path.realpath, filter(None, sys.path)), sys.path
        assert os.getcwd() not in sys.path and "" not in sys.path, sys.path
        try:
            import neighbour
        except ModuleNotFoundError:
            print("alone")
        """
    for folder in (tmp_path, tmp_path / "folder"):
        folder.mkdir(exist_ok=True)
        (folder / "neighbour.py").write_text("")
        (folder / "file").write_text(dedent(program))
    ended = run("run", path, "--for", "0.01", program=program, flags=flags, env=env)
    assert ended.status == 0, ended
    assert ended.out.startswith("alone\n")


@pytest.mark.parametrize(("flags", "env"), SAFE)
def test_a_module_that_is_installed_is_found_then(run, tmp_path, nt, flags, env):
    installed = tmp_path / "site"
    installed.mkdir()
    (installed / "service.py").write_text("print('service')")
    root = str(Path(nt.__file__).parent.parent)
    env = {**env, "PYTHONPATH": os.pathsep.join([str(installed), root])}
    ended = run("run", "service", "--for", "0.01", flags=flags, env=env)
    assert ended.status == 0, ended
    assert ended.out.startswith("service\n")


def test_an_isolated_interpreter_imports_nothing_from_the_current_folder(nt, tmp_path):
    (tmp_path / "program.py").write_text("print('planted')")
    root = str(Path(nt.__file__).parent.parent)
    code = f"import sys; sys.path.append({root!r}); from neotasker.cli import main; "
    code += "sys.exit(main(sys.argv[1:]))"
    for target, status in (("program", 2), ("program.py", 0)):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, "run", target, "--for", "0.01"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done
        assert ("planted" in done.stdout) == (status == 0)


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [("20", "20 0 0"), ("20+5", "20 5 0"), ("20+5+3", "20 5 3"), ("0", "0 0 0")],
)
def test_pool_sets_size_and_reserves(run, pool, sizes):
    ended = run(
        "run",
        "program.py",
        "--for",
        "0.01",
        "--pool",
        pool,
        program="""
        from neotasker import task_supervisor
        def after_stop(report):
            pool = task_supervisor.get_info().pool
            print(pool["pool_size"], pool["reserve_normal"], pool["reserve_high"])
        """,
    )
    assert ended.status == 0, ended
    assert ended.out.endswith(f"{sizes}\n")


@pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="uvloop is not installed")
def test_uvloop_runs_the_default_aloop(run):
    ended = run(
        "run",
        "program.py",
        "--for",
        "0.2",
        "--uvloop",
        program="""
        import asyncio
        from neotasker import background_worker

        @background_worker(interval=60)
        async def which(**kwargs):
            print(type(asyncio.get_running_loop()).__module__)
        """,
    )
    assert ended.status == 0, ended
    assert ended.out.startswith("uvloop")


def test_uvloop_that_is_missing_is_a_bad_argument(nt, capsys, monkeypatch):
    from neotasker.cli import main

    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(SystemExit) as ended:
        main(["run", "x.py", "--uvloop"])
    assert ended.value.code == 2
    assert "pip install 'neotasker[uvloop]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "required: COMMAND"),
        (["walk"], "invalid choice: 'walk'"),
        (["run"], "required: FILE_OR_MODULE"),
        (["run", "x.py", "--for", "0"], "'0' is not a positive number of seconds"),
        (["run", "x.py", "--for", "-1"], "is not a positive number|expected one argument"),
        (["run", "x.py", "--for", "soon"], "'soon' is not a positive number"),
        (["run", "x.py", "--for", "inf"], "'inf' is not a positive number"),
        (["run", "x.py", "--pool", "many"], "'many' is not a pool size such as"),
        (["run", "x.py", "--pool", "1+2+3+4"], "is not a pool size"),
        (["run", "x.py", "--pool", "5+"], "is not a pool size"),
        (["run", "x.py", "--pool", "-5"], "is not a pool size|expected one argument"),
    ],
)
def test_bad_arguments_end_with_two(nt, capsys, args, said):
    from neotasker.cli import main

    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_the_help_tells_all(nt, capsys):
    from neotasker.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for part in ("FILE_OR_MODULE", "--for", "--pool", "--uvloop", "after_stop", "exit status"):
        assert part in said
    with pytest.raises(SystemExit):
        main(["--version"])
    assert nt.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "program", "said"),
    [
        ("nowhere.py", None, "no file 'nowhere.py'"),
        ("nowhere", None, "no file or module 'nowhere'"),
        ("program.py", "1 / 0", "ZeroDivisionError"),
        ("program.py", "def broken(:", "SyntaxError"),
        ("program.py", "import nowhere", "No module named 'nowhere'"),
        ("program.py", "raise SystemExit('no')", "program.py cannot be loaded"),
        ("program", "import nowhere", "No module named 'nowhere'"),
    ],
)
def test_what_cannot_be_loaded_ends_with_two(run, target, program, said):
    ended = run("run", target, program=program)
    assert ended.status == 2, ended
    assert said in ended.err
    assert ended.out == ""


def test_what_the_file_started_before_it_failed_is_stopped(run):
    ended = run(
        "run",
        "program.py",
        program="""
        import asyncio
        from neotasker import task_supervisor
        task_supervisor.start()
        aloop = task_supervisor.create_aloop("one")
        aloop.spawn_coroutine_threadsafe(asyncio.sleep(60))
        1 / 0
        """,
    )
    assert ended.status == 2, ended


def test_what_was_lost_ends_with_one(run):
    ended = run(
        "run",
        "program.py",
        "--for",
        "0.05",
        program="""
        from neotasker import task_supervisor
        task_supervisor.start()
        task_supervisor.put_task(print, delay=60)
        """,
    )
    assert ended.status == 1, ended
    assert "1 cancelled" in ended.out


def test_a_worker_that_cannot_start_ends_with_one(run):
    ended = run(
        "run",
        "program.py",
        program="""
        from neotasker import background_worker

        @background_worker(interval=1, loop="nowhere")
        async def lost(**kwargs):
            pass
        """,
    )
    assert ended.status == 1, ended
    assert "nowhere" in ended.err
    assert "stopped in" in ended.out


@pytest.mark.parametrize("error", ["1 / 0", "raise SystemExit(3)"])
def test_a_failing_after_stop_ends_with_one(run, error):
    ended = run(
        "run", "program.py", "--for", "0.01", program=f"def after_stop(report):\n    {error}"
    )
    assert ended.status == 1, ended
    assert "Traceback" in ended.err


def test_the_file_may_stop_the_supervisor_itself(run):
    ended = run(
        "run",
        "program.py",
        program="""
        from neotasker import background_worker, task_supervisor

        @background_worker(interval=0.01)
        def enough(**kwargs):
            task_supervisor.stop()
        """,
    )
    assert ended.status == 0, ended
    assert CLEAN.search(ended.out)


SERVING = """
    from neotasker import background_worker
    @background_worker(interval=60)
    def serving(**kwargs):
        print("serving")
    """


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_gracefully(start, number):
    process = start("run", "program.py", program=SERVING)
    assert process.stdout.readline() == "serving\n"
    process.send_signal(number)
    ended = Ended(process)
    assert (ended.status, ended.err) == (0, ""), ended
    assert CLEAN.search(ended.out)


@posix
def test_a_signal_lets_a_queue_be_finished(start):
    process = start(
        "run",
        "program.py",
        program="""
        import time
        from neotasker import background_worker

        done = []

        @background_worker(queue=True)
        def consumer(item, **kwargs):
            time.sleep(0.01)
            done.append(item)

        @background_worker
        def producer(_worker, **kwargs):
            for n in range(50):
                consumer.put_threadsafe(n)
            print("put")
            return False

        def after_stop(report):
            print(done == list(range(50)))
        """,
    )
    assert process.stdout.readline() == "put\n"
    process.send_signal(signal.SIGTERM)
    ended = Ended(process)
    assert ended.status == 0, ended
    assert ended.out.endswith("True\n")


@posix
def test_a_second_signal_ends_at_once(start):
    process = start(
        "run",
        "program.py",
        program="""
        import threading
        from neotasker import background_worker

        @background_worker(interval=60)
        def stuck(**kwargs):
            print("stuck")
            threading.Event().wait(600)
        """,
    )
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    ended = Ended(process)
    assert time.monotonic() - began < 5
    assert ended.status == 1, ended
    assert "ended by a second signal" in ended.out
    assert "stuck" in ended.out


@posix
def test_a_coroutine_that_never_ends_is_cancelled_after_the_grace(start):
    process = start(
        "run",
        "program.py",
        program="""
        import asyncio
        import neotasker.cli
        from neotasker import background_worker, task_supervisor
        neotasker.cli.GRACE = 0.2

        async def forever():
            print("forever")
            await asyncio.Event().wait()

        @background_worker
        def begin(**kwargs):
            task_supervisor.get_aloop().spawn_coroutine_threadsafe(forever())
            return False
        """,
    )
    assert process.stdout.readline() == "forever\n"
    process.send_signal(signal.SIGINT)
    ended = Ended(process)
    assert ended.status == 1, ended
    assert "1 cancelled" in ended.out


@posix
def test_what_never_ends_is_reported_at_the_limit_and_the_process_ends(start):
    process = start(
        "run",
        "program.py",
        program="""
        import threading
        import neotasker.cli
        from neotasker import background_worker
        neotasker.cli.LIMIT = 0.3

        @background_worker(interval=60)
        def stuck(**kwargs):
            print("stuck")
            threading.Event().wait(600)

        def after_stop(report):
            print("hook", len(report.still_running))
        """,
    )
    assert process.stdout.readline() == "stuck\n"
    process.send_signal(signal.SIGINT)
    ended = Ended(process)
    assert ended.status == 1, ended
    assert "still running" in ended.out
    assert "hook 1" in ended.out


def test_the_example_watches_this_machine_and_loses_nothing(run):
    ended = run(
        "run",
        str(TREE / "examples" / "host_monitor.py"),
        "--for",
        "1.5",
        env={"HOST_MONITOR_THRESHOLD": "0"},
    )
    assert ended.status == 0, ended
    assert ended.err == ""
    table = dict(re.findall(r"^(.{16}) +(\S.*)$", ended.out, re.MULTILINE))
    figures = {name.strip(): value for name, value in table.items()}
    assert int(figures["samples taken"]) >= 10
    assert figures["rows written"] == figures["samples taken"]
    assert figures["alarms"] == "1"
    assert figures["probes (failed)"].endswith("(0)")
    assert figures["lateness p50"].endswith("ms")
