"""`without_frames_of`: exceptions that hold no frames of who keeps them."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ["without_frames_of"]

E = TypeVar("E", bound=BaseException)


def without_frames_of(exc: E, module: dict[str, Any]) -> E:
    """Return an exception whose traceback begins below a module that passes it on.

    A frame there refers to the object that keeps the exception: so nothing would be freed
    before the collector comes.

    Parameters:
        module: the globals of the module.
    """
    frames = exc.__traceback__
    while frames is not None and frames.tb_frame.f_globals is module:
        frames = frames.tb_next
    return exc.with_traceback(frames)
