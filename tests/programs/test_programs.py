"""Programs in the wild, unchanged: a process viewer in a terminal, a bot that is talked to."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from cores import REQUIRED, TREE
from helpers import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.hang_limit(600),
    pytest.mark.skipif(
        os.name != "posix" or importlib.util.find_spec("pip") is None,
        reason="needs pip and a system like Unix",
    ),
]

PATIENCE = 60.0  # seconds


def _run(*command: object, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NEOTASKER_") and name != "PYTHONPATH"
    }
    return subprocess.run(
        list(map(str, command)),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment that has this package and the programs."""
    where = tmp_path_factory.mktemp("programs")
    tree = where / "tree"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(TREE, tree, ignore=ignored)
    made = _run(sys.executable, "-m", "venv", where / "env")
    if made.returncode:
        pytest.skip(f"no environment can be made: {made.stdout.strip()[-200:]}")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    plain = ("--no-deps", "--no-build-isolation", "--no-index")
    built = _run(*pip, "wheel", "-w", where, tree, *plain)
    assert built.returncode == 0, built.stdout
    (wheel,) = where.glob("*.whl")
    python = where / "env" / "bin" / "python"
    installed = _run(*pip, "--python", python, "install", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stdout
    # `requests` is used by the bot, which does not say so.
    got = _run(*pip, "--python", python, "install", "pptop", "tebot", "requests", "setuptools")
    if got.returncode:
        pytest.skip(f"pptop and tebot cannot be had: {got.stdout.strip().splitlines()[-1]}")
    code = "import neotasker; print(neotasker.task_supervisor.put_task, neotasker.COMPILED)"
    assert "TaskSupervisor" in _run(python, "-c", code).stdout
    return python


@pytest.fixture(params=["compiled", "pure"])
def core(request, python) -> dict[str, str]:
    """What to add to the environment of a program for it to run on each core in turn."""
    code = "import neotasker; print(neotasker.COMPILED)"
    if request.param == "pure":
        return {"NEOTASKER_PURE_PYTHON": "1"}
    if _run(python, "-c", code).stdout.strip() != "True":
        if REQUIRED:
            pytest.fail("the compiled core was not built", pytrace=False)
        pytest.skip("there is no compiler")
    return {}


# The process viewer.


class Terminal:
    """A terminal that a program runs in, by ``tmux``."""

    def __init__(self, tmux: str, socket: Path) -> None:
        self._tmux = (tmux, "-S", str(socket), "-f", os.devnull)

    def _call(self, *command: str) -> str:
        return subprocess.run(
            [*self._tmux, *command], capture_output=True, text=True, timeout=30
        ).stdout

    def run(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        """Run a program; the terminal stays when it has ended, and shows with which status."""
        variables = [f"{name}={value}" for name, value in env.items()]
        size = ("-x", "200", "-y", "50")
        # A shell tells of the end: tmux itself may miss that a pane's program has ended.
        # The viewer gives up if what it views is slow to come, as on a busy machine it is.
        again = 'for n in 1 2 3; do "$@"; status=$?; [ $status = 1 ] || break; done'
        told = ("sh", "-c", f'{again}; echo "ended with status $status"; read line', "sh")
        command = [*told, "env", *variables, *command]
        self._call("new-session", "-d", *size, "-c", str(cwd), *command)

    def screen(self) -> str:
        """Return what is to be seen."""
        return self._call("capture-pane", "-p")

    def wait_for(self, *texts: str, timeout: float = PATIENCE) -> str:
        """Wait until all the texts are to be seen; return the screen."""

        def seen() -> str | None:
            screen = self.screen()
            return screen if all(text in screen for text in texts) else None

        try:
            return wait_until(seen, timeout=timeout)
        except AssertionError:
            raise AssertionError(f"not seen: {texts}\n{self.screen()}") from None

    def press(self, key: str, *texts: str) -> str:
        """Press a key, again where it was missed, until all the texts are to be seen."""
        for _ in range(3):
            self._call("send-keys", key)
            with contextlib.suppress(AssertionError):
                return self.wait_for(*texts, timeout=PATIENCE / 4)
        return self.wait_for(*texts)

    def close(self) -> None:
        """End everything."""
        self._call("kill-server")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    tmux = shutil.which("tmux")
    if tmux is None:
        pytest.skip("there is no tmux to run a terminal program in")
    with tempfile.TemporaryDirectory() as short:  # names of sockets have a limit
        terminal = Terminal(tmux, Path(short) / "tmux")
        yield terminal
        terminal.close()


WATCHED = """
    import threading
    from neotasker import background_worker, task_supervisor

    task_supervisor.start()
    task_supervisor.create_aloop("devices", default=True)

    @background_worker(interval=0.5)
    async def poll_meter(**kwargs):
        pass

    @background_worker(delay=1)
    def write_log(**kwargs):
        pass

    poll_meter.start()
    write_log.start()
    threading.Thread(
        target=threading.Event().wait, args=(600,), name="lonely-thread", daemon=True
    ).start()
    task_supervisor.block()
"""


def test_pptop_shows_a_live_process_its_threads_and_its_workers(
    python, core, terminal, tmp_path
):
    (tmp_path / "watched.py").write_text(dedent(WATCHED))
    pptop = [str(python), str(python.with_name("pptop")), "--python", str(python), "-w", "0"]
    env = {"HOME": str(tmp_path), "TERM": "screen", "LANG": "C.UTF-8", **core}
    terminal.run([*pptop, "watched.py"], env, tmp_path)
    terminal.wait_for("Process: watched.py", "Select plugin", "neotasker monitor")
    terminal.press("F7", "Threads", "lonely-thread", "supervisor_aloop_devices")
    screen = terminal.press("F12", "neotasker monitor (loops)", "poll_meter", "PENDING")
    (row,) = [line for line in screen.splitlines() if "poll_meter" in line]
    assert row.split()[0] == "devices"
    screen = terminal.press("w", "monitor (workers)", "poll_meter", "write_log", "THREAD")
    rows = {line.split()[0]: line.split() for line in screen.splitlines() if "active" in line}
    assert rows["poll_meter"][2:] == ["active", "0.5", "I", "devices", "CORO"]
    assert rows["write_log"][2:] == ["active", "1.0", "D", "devices", "THREAD"]
    assert "ERROR" not in screen
    terminal.press("F10", "ended with status 0")


# The bot.


class FakeApi(http.server.ThreadingHTTPServer):
    """What a bot asks of its messenger, on the loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.updates: queue.Queue[dict] = queue.Queue()
        self.sent: queue.Queue[tuple[str, dict]] = queue.Queue()
        self.offsets: list[int] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeApi

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        payload = json.loads(body) if body else {}
        token, method = self.path.split("/")[1:]
        assert token == "botsecret"
        result: object = True
        if method == "getUpdates":
            self.server.offsets.append(payload["offset"])
            result = []
            while not self.server.updates.empty():
                result.append(self.server.updates.get())
        else:
            self.server.sent.put((method, payload))
        answer = json.dumps({"ok": True, "result": result}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


BOT = """
    import json, sys
    from neotasker import task_supervisor
    from tebot import TeBot

    task_supervisor.create_aloop("default", default=True)
    task_supervisor.start()
    bot = TeBot(delay=0.05)
    bot.set_token("secret")
    bot._TeBot__uri = sys.argv[1] + "/botsecret"
    bot.load({"update_offset": 100})

    @bot.route(path=["/start", "/help"])
    def start(path, query_string, **kwargs):
        bot.send(f"{path} with {query_string}")

    @bot.route(methods="*")
    def default(path, method, **kwargs):
        bot.send(f"not implemented: {path}")
        return {"text": method} if method == "query" else None

    @bot.route(methods="message")
    def message(chat_id, text, **kwargs):
        bot.send(text=text[::-1])

    print(bot.test()["ok"], flush=True)
    assert bot.start()
    sys.stdin.readline()
    bot.stop()
    assert bot.is_stopped()
    report = task_supervisor.stop()
    print(json.dumps([bot.serialize(), report.clean, bot.errors]), flush=True)
"""


def test_a_bot_answers(python, core, api, tmp_path):
    program = tmp_path / "bot.py"
    program.write_text(dedent(BOT))
    address = f"http://127.0.0.1:{api.server_address[1]}"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "http_proxy")}
    bot = subprocess.Popen(
        [str(python), str(program), address],
        env={**env, "NO_PROXY": "127.0.0.1", **core},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    chat = {"chat": {"id": 7}}

    def say(number, **update):
        api.updates.put({"update_id": number, **update})

    try:
        assert api.sent.get(timeout=PATIENCE)[0] == "getMe"
        say(101, message={**chat, "message_id": 1, "text": "/start now"})
        method, payload = api.sent.get(timeout=PATIENCE)
        assert method == "sendMessage"
        assert (payload["chat_id"], payload["text"]) == (7, "/start with now")
        say(102, message={**chat, "message_id": 2, "text": "hello"})
        assert api.sent.get(timeout=PATIENCE)[1]["text"] == "olleh"
        say(103, message={**chat, "message_id": 3, "text": "/what"})
        assert api.sent.get(timeout=PATIENCE)[1]["text"] == "not implemented: /what"
        query = {"id": "q1", "data": "press", "message": {**chat, "message_id": 3}}
        say(104, callback_query=query)
        assert api.sent.get(timeout=PATIENCE)[1]["text"] == "not implemented: press"
        method, payload = api.sent.get(timeout=PATIENCE)
        assert method == "answerCallbackQuery"
        assert payload == {"callback_query_id": "q1", "text": "query"}
        wait_until(lambda: api.offsets[-1] == 105, timeout=PATIENCE)
        out, err = bot.communicate("\n", timeout=PATIENCE)
    finally:
        bot.kill()  # which does nothing if it has ended
    assert bot.returncode == 0, err
    first, last = out.splitlines()
    assert first == "True" and json.loads(last) == [{"update_offset": 104}, True, 0], err
    assert api.offsets[0] == 101 and err == ""
