"""The command line: ``python -m neotasker run FILE_OR_MODULE``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from .. import __version__, task_supervisor
from ..lifecycle.signals import GRACE, LIMIT, Signals, end_now
from ..lifecycle.stop import StopReport
from ..workers import BackgroundWorker

__all__ = ["main"]

CLEAN, LOST, NOT_LOADED = 0, 1, 2

_RUN = """\
Import FILE_OR_MODULE, as `python FILE` or `python -m MODULE` would find it (also under
python -P, -I and PYTHONSAFEPATH). Start the default supervisor with a default aloop, and start
every worker that the file defines and has not started itself. Then run until SIGINT or
SIGTERM, for --for seconds, or until the file stops the supervisor.

The stop is graceful: workers end, queue workers finish what they hold, tasks and
coroutines get {grace:.0f} seconds to end, and the stop report is printed. A second signal
ends the process at once.

If the file defines a function after_stop(report), it is called once all has stopped,
with the StopReport: the place to print results.
"""

_EXIT = """\
exit status:
  0  the stop was clean
  1  something was lost or cancelled, or still ran
  2  bad arguments, or FILE_OR_MODULE cannot be loaded
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters:
        argv: the arguments; ``sys.argv[1:]`` when left out.

    Returns:
        The exit status; a process in which something still runs ends right here.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    factory = None
    if args.uvloop:
        try:
            factory = importlib.import_module("uvloop").new_event_loop
        except ImportError as exc:
            parser.error(f"--uvloop: {exc}: install it (pip install 'neotasker[uvloop]')")
    return _run(args.target, args.seconds, args.pool, factory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neotasker", description="An in-process task supervisor for Python programs."
    )
    parser.add_argument("--version", action="version", version=f"neotasker {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the workers of a file or module under the default supervisor",
        description=_RUN.format(grace=GRACE),
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "target", metavar="FILE_OR_MODULE", help="a Python file, or a module to import"
    )
    run.add_argument(
        "--for",
        dest="seconds",
        metavar="SECONDS",
        type=_seconds,
        help="stop after that many seconds; run until a signal when left out",
    )
    run.add_argument(
        "--pool",
        metavar="SIZE[+NORMAL[+HIGH]]",
        type=_pool,
        help="pool size, and the places reserved for NORMAL and for HIGH tasks, e.g. 20+5+5; "
        "a size of 0 takes all limits off",
    )
    run.add_argument("--uvloop", action="store_true", help="use uvloop for the default aloop")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def _pool(text: str) -> dict[str, Any]:
    numbers = text.split("+")
    if not 1 <= len(numbers) <= 3 or not all(n.isascii() and n.isdigit() for n in numbers):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a pool size such as 20, 20+5 or 20+5+5"
        )
    names = ("pool_size", "reserve_normal", "reserve_high")
    return dict(zip(names, map(int, numbers), strict=False))


def _run(
    target: str,
    seconds: float | None,
    pool: dict[str, Any] | None,
    loop_factory: Callable[[], Any] | None,
) -> int:
    module = _load(target)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if module is None:
        if task_supervisor.stop(cancel_tasks=True, timeout=LIMIT).still_running:
            end_now(NOT_LOADED)
        return NOT_LOADED
    status = CLEAN
    with Signals(task_supervisor, _end_by_signal) as signals:
        try:
            if pool is not None:
                task_supervisor.set_thread_pool(**pool)
            task_supervisor.start()
            if task_supervisor.default_aloop is None:
                task_supervisor.create_aloop("default", default=True, loop_factory=loop_factory)
            for worker in _workers_of(module):
                worker.start()
        except Exception:
            traceback.print_exc()
            status = LOST
        else:
            signals.wait(seconds)
        report = task_supervisor.stop(wait=GRACE, drain=True, timeout=LIMIT)
        print(f"neotasker: {report}", flush=True)
        if not report.clean:
            status = LOST
        if not _call_hook(module, report):
            status = LOST
    if report.still_running:
        end_now(status)  # an ordinary exit would wait for what still runs
    return status


def _load(target: str) -> ModuleType | None:
    """Import the file or module; print why and return None if it cannot be."""
    try:
        if _is_file(target):
            return _load_file(Path(target))
        _prepend(os.getcwd())
        return importlib.import_module(target)
    except BaseException as exc:
        if isinstance(exc, ModuleNotFoundError) and exc.name == target.split(".")[0]:
            print(f"neotasker: no file or module {target!r}{_hint(target)}", file=sys.stderr)
        elif isinstance(exc, FileNotFoundError) and exc.filename == target:
            print(f"neotasker: no file {target!r}", file=sys.stderr)
        else:
            traceback.print_exc()
            print(f"neotasker: {target} cannot be loaded", file=sys.stderr)
        return None


def _is_file(target: str) -> bool:
    """Return whether a target is a file and no module.

    Where the current folder is not to be trusted a plain name is that of a module, whatever
    lies there.
    """
    if target.endswith(".py"):
        return True
    return Path(target).is_file() and (not sys.flags.safe_path or Path(target).name != target)


def _prepend(folder: str) -> None:
    """Have modules looked for in a folder first, unless the interpreter is told not to."""
    if not sys.flags.safe_path:  # -P, -I, PYTHONSAFEPATH
        sys.path.insert(0, folder)


def _hint(target: str) -> str:
    if sys.flags.safe_path and (Path(target).is_file() or Path(f"{target}.py").is_file()):
        return (
            " (-P, -I or PYTHONSAFEPATH keeps Python from importing from the current folder: "
            "give the file by its path, such as ./FILE.py)"
        )
    return ""


def _load_file(path: Path) -> ModuleType:
    """Import a file, as a module that pickle and child processes find by its name."""
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    name = path.stem
    if not name.isidentifier() or name in sys.modules:
        name = f"neotasker_run_{abs(hash(path.resolve()))}"
    full = str(path.resolve())
    _prepend(str(path.resolve().parent))
    sys.argv[:] = [full]
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, full))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _workers_of(module: ModuleType) -> Iterator[BackgroundWorker]:
    """Yield the workers that the module's names hold, in order, and that do not run."""
    seen: set[int] = set()
    for value in list(vars(module).values()):
        if isinstance(value, BackgroundWorker) and id(value) not in seen:
            seen.add(id(value))
            if not value.is_active():
                yield value


def _call_hook(module: ModuleType, report: StopReport) -> bool:
    """Call the module's ``after_stop``, if it has one; return False if that failed."""
    hook = getattr(module, "after_stop", None)
    if hook is None:
        return True
    try:
        hook(report)
    except (Exception, SystemExit):
        traceback.print_exc()
        return False
    return True


def _end_by_signal(report: StopReport, number: int) -> NoReturn:
    print(f"neotasker: ended by a second signal, {report}", flush=True)
    end_now(LOST)
