"""`require_room`: what fails near the limit of recursion fails before it has begun."""

from __future__ import annotations

__all__ = ["require_room"]


def require_room(frames: int = 60) -> None:
    """See that so many more calls of Python fit on the stack.

    For what takes several steps that belong together, and is not called often.

    Raises:
        RecursionError: they do not.
    """
    if frames:
        require_room(frames - 1)
