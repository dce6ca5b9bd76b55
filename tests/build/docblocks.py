"""The code blocks of a page in Markdown, and the program that they make together.

The ``python`` blocks of a page run one after another in one process and one namespace, as a
reader would type them. HTML comments, which no reader sees, say what else there is to know:

``<!-- run ... -->``
    Python that runs at this place: what an example takes for granted, or what looks at what
    it did.
``<!-- new program -->``
    What follows has a process of its own.
``<!-- prints -->``
    The next block, a ``text`` one, is what was printed since the last one of these.
``<!-- from FILE -->``
    The next block is part of that file of the tree, word for word. It runs as others do.
``<!-- shown: REASON -->``
    The next Python block does not run, for that reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = re.compile(
    r"^<!--\s*(?P<comment>.*?)\s*-->[ \t]*$"
    r"|^(?P<fence>`{3,}|:{3,})[ \t]*(?P<info>[^\n]*)\n(?P<code>.*?)^(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_KEYWORDS = ("run", "new program", "prints", "from", "shown:")


@dataclass
class Program:
    """What one process runs: code with its line on the page, or the text that is printed."""

    steps: list[tuple[str, int, str]] = field(default_factory=list)
    """``('run', line, code)`` or ``('prints', line, text)``."""

    @property
    def runs(self) -> bool:
        """Whether there is any code."""
        return any(kind == "run" for kind, _, _ in self.steps)


@dataclass
class Page:
    """What there is to test on a page."""

    programs: list[Program]
    quotes: list[tuple[int, str, str]]
    """Line, file and text of what is said to be part of a file."""


def read(path: Path) -> Page:
    """Return what there is to test on the page.

    Raises:
        ValueError: a comment belongs to no block, or not to one of this kind.
    """
    page = Page([Program()], [])
    mark = ""
    for line, kind, body in _pieces(path.read_text(encoding="utf-8")):
        if kind == "comment":
            if body.startswith("run\n"):
                page.programs[-1].steps.append(("run", line + 1, body.removeprefix("run\n")))
            elif body == "new program":
                page.programs.append(Program())
            elif body.startswith(_KEYWORDS):
                mark = body
            continue
        if mark == "prints":
            page.programs[-1].steps.append(("prints", line, body))
            mark = ""
            continue
        if mark.startswith("from "):
            page.quotes.append((line, mark.removeprefix("from "), body))
            mark = ""
        if kind == "python" and not mark:
            page.programs[-1].steps.append(("run", line + 1, body))
        elif mark and not (kind == "python" and mark.startswith("shown:")):
            raise ValueError(f"{path}:{line}: <!-- {mark} --> is not for a {kind!r} block")
        mark = ""
    if mark:
        raise ValueError(f"{path}: <!-- {mark} --> has no block")
    return page


def _pieces(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the kind (``comment``, or the language) and the body of each piece."""
    for found in _PIECE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["comment"] is not None:
            yield line, "comment", found["comment"]
        else:
            yield line, found["info"].strip(), found["code"]
