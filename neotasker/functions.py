"""Collections of functions that are run together: one by one, or as tasks in the pool."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any, TypeVar, overload

from . import host
from .base.priority import LANES, TASK_LOW, TASK_NORMAL

__all__ = ["FunctionCollection", "TaskCollection"]

F = TypeVar("F", bound=Callable[..., Any])


class FunctionCollection:
    """Functions without arguments that are run together, in the order of their priority.

    A collection decorates: ``@startup`` or ``@startup(priority=10)`` adds a function, which
    stays what it was. Called without anything, ``startup()`` runs them.
    """

    def __init__(
        self,
        *,
        on_error: Callable[..., object] | None = None,
        on_error_kwargs: dict[str, Any] | None = None,
        include_exceptions: bool = False,
    ) -> None:
        """Make an empty collection.

        Parameters:
            on_error: called with *on_error_kwargs*, inside the ``except``, for each
                function that raises. Without it, and without *include_exceptions*, the
                exception comes out of `run` and `execute`.
            on_error_kwargs: its keywords.
            include_exceptions: whether the result of a function that raises is a tuple of
                its exception and the traceback as text; else it is None.

        Raises:
            TypeError: *on_error* cannot be called.
        """
        if on_error is not None and not callable(on_error):
            raise TypeError(f"on_error must be callable, not {on_error!r}")
        self.on_error = on_error
        self.on_error_kwargs = dict(on_error_kwargs or {})
        self.include_exceptions = bool(include_exceptions)
        self.default_priority: float = int(TASK_NORMAL)
        self._functions: list[tuple[float, Callable[[], Any]]] = []

    @overload
    def __call__(self, f: F, /) -> F: ...

    @overload
    def __call__(self, f: None = None, /, *, priority: float | None) -> Callable[[F], F]: ...

    @overload
    def __call__(self, f: None = None, /) -> dict[str, Any]: ...

    def __call__(self, f: Any = None, /, **kwargs: Any) -> Any:
        """Add *f*, as a decorator with or without ``priority=``; run all without arguments."""
        if f is not None:
            self.append(f, **kwargs)
            return f
        if not kwargs:
            return self.run()

        def decorate(function: F) -> F:
            self.append(function, **kwargs)
            return function

        return decorate

    def append(self, f: Callable[[], Any], priority: float | None = None) -> None:
        """Add a function, unless it is there already.

        Parameters:
            f: the function.
            priority: the lower the number, the sooner it is run; those of one priority in
                the order in which they were added. ``default_priority`` when left out.

        Raises:
            TypeError: *f* cannot be called, or the priority is not a number.
        """
        if not callable(f):
            raise TypeError(f"a collection takes functions, not {f!r}")
        if priority is None:
            priority = self.default_priority
        if isinstance(priority, bool) or not isinstance(priority, (int, float)):
            raise TypeError(f"priority must be a number, not {priority!r}")
        if all(known != f for _, known in self._functions):
            self._functions.append((priority, f))

    def remove(self, f: Callable[[], Any]) -> None:
        """Take a function out.

        Raises:
            ValueError: it is not there; `error` decides about that.
        """
        try:
            for entry in self._functions:
                if entry[1] == f:
                    self._functions.remove(entry)
                    return
            raise ValueError(f"{f!r} is not in the collection: append it first")
        except ValueError:
            self.error()

    def run(self) -> dict[str, Any]:
        """Run all, as `execute` does; return the results alone."""
        return self.execute()[0]

    def execute(self) -> tuple[dict[str, Any], bool]:
        """Run all.

        Returns:
            The results by name of function (``module.name``), and whether none raised.
        """
        results: dict[str, Any] = {}
        all_ok = True
        for _, f in self._in_order():
            try:
                results[_name_of(f)] = f()
            except Exception as exc:
                all_ok = False
                results[_name_of(f)] = self._outcome_of(exc)
                if not self._forgives:
                    self.error()
        return results, all_ok

    def error(self) -> None:
        """Report the exception that is being handled: to `on_error`, else raise it again."""
        if self.on_error is None:
            raise
        self.on_error(**self.on_error_kwargs)

    @property
    def _forgives(self) -> bool:
        """Whether an exception in the results is all that is made of it."""
        return self.on_error is None and self.include_exceptions

    def _in_order(self) -> list[tuple[float, Callable[[], Any]]]:
        return sorted(self._functions, key=lambda entry: entry[0])

    def _outcome_of(self, exc: Exception) -> tuple[Exception, str] | None:
        return (exc, traceback.format_exc()) if self.include_exceptions else None

    def __len__(self) -> int:
        return len(self._functions)


class TaskCollection(FunctionCollection):
    """A collection whose functions run as tasks in the pool, each in the lane of its priority.

    A priority between those of two lanes goes to the less urgent one, beyond LOW to LOW.
    """

    def __init__(
        self, *, supervisor: Any = None, poll_delay: float | None = None, **kwargs: Any
    ) -> None:
        """Make an empty collection.

        Parameters:
            supervisor: whose pool it is; the default supervisor when left out.
            poll_delay: nothing, as nothing is polled.
            kwargs: see `FunctionCollection`; `on_error` is called in the thread of the
                task.
        """
        super().__init__(**kwargs)
        if supervisor is None:
            assert host.default is not None
            supervisor = host.default()
        self.supervisor = supervisor
        self.poll_delay = poll_delay
        self.lock = threading.Lock()  # held by `execute`

    def execute(self) -> tuple[dict[str, Any], bool]:
        """Run all, and wait for the last.

        Returns:
            The results by name of function (``module.name``), and whether none raised.

        Raises:
            SupervisorNotStarted: the supervisor does not run.
        """
        with self.lock:
            tasks = [
                (
                    _name_of(f),
                    self.supervisor.put_task(
                        self._run, (f,), priority=_lane_priority(priority)
                    ),
                )
                for priority, f in self._in_order()
            ]
            wait([task for _, task in tasks])
            results: dict[str, Any] = {}
            all_ok = True
            uncaught: BaseException | None = None
            for name, task in tasks:
                results[name], error = task.result()
                all_ok = all_ok and error is None
                if error is not None and self.on_error is None and not self._forgives:
                    uncaught = uncaught or error
            if uncaught is not None:
                raise uncaught
            return results, all_ok

    def _run(self, f: Callable[[], Any]) -> tuple[Any, Exception | None]:
        """Return what *f* returned, or is to be put in its place, and what it raised."""
        try:
            return f(), None
        except Exception as exc:
            if self.on_error is not None:
                self.error()
            return self._outcome_of(exc), exc


def _name_of(f: Callable[[], Any]) -> str:
    module = getattr(f, "__module__", None) or type(f).__module__
    return f"{module}.{getattr(f, '__name__', None) or type(f).__name__}"


def _lane_priority(priority: float) -> int:
    return next((int(lane) for lane in LANES if priority <= lane), int(TASK_LOW))
