"""`LocalProxy`: attributes that each thread has for itself."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["LocalProxy"]


class LocalProxy(threading.local):
    """A namespace of which each thread sees its own copy, empty at first."""

    def get(self, attr: str, default: Any = None) -> Any:
        """Return an attribute of this thread, or *default* if it has none of that name."""
        return getattr(self, attr, default)

    def has(self, attr: str) -> bool:
        """Return whether this thread has an attribute of that name."""
        return hasattr(self, attr)

    def set(self, attr: str, value: Any) -> None:
        """Set an attribute, for this thread."""
        setattr(self, attr, value)

    def clear(self, attr: str) -> bool | None:
        """Delete an attribute of this thread; return True if there was none to delete."""
        if not hasattr(self, attr):
            return True
        delattr(self, attr)
        return None
