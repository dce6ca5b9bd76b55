"""The house as its imports tell it: ``python docs/house.py`` draws ``docs/house.svg``.

A room is a folder of the package, or a file at its top; ``docs/design.md`` says on which
floor each is. An arrow goes from a room to one that it imports; left out are those to rooms
that it reaches through others anyway.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

TREE = Path(__file__).resolve().parent.parent
PACKAGE = "neotasker"

_ROW = re.compile(r"^\|\s*(\d+)\s*\|([^|]*)\|", re.MULTILINE)
_CIMPORT = re.compile(r"^from\s+(\.+)([\w.]*)\s+c?import\s+\(?([^#\n]*)", re.MULTILINE)

Floors = dict[int, list[str]]


def section(design: str) -> str:
    """Return the part of ``docs/design.md`` that tells of the house."""
    return design.partition("## 3. The house")[2].partition("\n## 4.")[0]


def floors(design: str) -> Floors:
    """Return the rooms of each floor, as the table in ``docs/design.md`` has them."""
    found: Floors = {}
    for floor, cell in _ROW.findall(section(design)):
        rooms = re.findall(r"`([\w./]+)`", cell)
        found.setdefault(int(floor), []).extend(
            room.removesuffix(".py").rstrip("/") for room in rooms
        )
    return found


def files(house: Path) -> list[str]:
    """Return the files of the package that import, relative to it."""
    return sorted(
        path.relative_to(house).as_posix()
        for path in house.rglob("*")
        if path.suffix in {".py", ".pyi", ".pyx", ".pxi"}
    )


def room_of(file: str) -> str:
    """Return the room that a file is in; the compiled core is the room of its parts."""
    first, _, rest = file.partition("/")
    if rest:
        return first
    return "core" if first.startswith("_core.") else first.removesuffix(".py")


def imports(house: Path, file: str, types: bool = True) -> set[str]:
    """Return the files of the package that a file imports.

    Parameters:
        types: also those that only type checkers see it import.
    """
    text = (house / file).read_text(encoding="utf-8")
    here = file.split("/")[:-1]
    found = set()
    for level, module, names in _imported(file, text, types):
        if level:
            base = here[: len(here) - level + 1]
        elif module == PACKAGE or module.startswith(f"{PACKAGE}."):
            base, module = [], module.removeprefix(PACKAGE).lstrip(".")
        else:
            continue
        parts = [*base, *filter(None, module.split("."))]
        found |= {_file(house, parts, name) for name in names or [""]}
    return found - {file}


def _imported(file: str, text: str, types: bool) -> Iterator[tuple[int, str, list[str]]]:
    if file.endswith((".pyx", ".pxi")):
        for dots, module, names in _CIMPORT.findall(text):
            yield len(dots), module, re.findall(r"\w+", names)
        return
    nodes: list[ast.AST] = [ast.parse(text, file)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []
        if types or not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
            nodes.extend(ast.iter_child_nodes(node))
        else:
            nodes.extend(node.orelse)


def _file(house: Path, parts: list[str], name: str) -> str:
    """Return the file that ``from parts import name`` gets its name from."""
    for path in ("/".join([*parts, name]), "/".join(parts)):
        for candidate in (f"{path}.py", f"{path}.pyx", f"{path}/__init__.py"):
            if path.strip("/") and (house / candidate).exists():
                return candidate
    return "__init__.py"


def arrows(house: Path) -> dict[str, set[str]]:
    """Return for each room those that it imports."""
    found: dict[str, set[str]] = {}
    for file in files(house):
        room = room_of(file)
        targets = {room_of(target) for target in imports(house, file)} - {room}
        found.setdefault(room, set()).update(targets)
    return found


def _direct(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what is reached through others."""

    def reached(room: str) -> set[str]:
        return found[room] | {far for near in found[room] for far in reached(near)}

    return {
        room: {t for t in targets if not any(t in reached(o) for o in targets - {t})}
        for room, targets in found.items()
    }


# The picture.

_WIDTH, _STEP, _BOX, _LEFT = 860, 74, 30, 60


def draw(house: Path, on_floor: Floors) -> str:
    """Return the picture of the house, as SVG."""
    count = {room: 0 for rooms in on_floor.values() for room in rooms}
    for file in files(house):
        if "/" in file and file.endswith(".py") and PurePosixPath(file).stem != "__init__":
            count[room_of(file)] += 1
    top = max(on_floor)
    height = _STEP * len(on_floor) + 20
    place: dict[str, tuple[float, float, float]] = {}
    for floor, rooms in on_floor.items():
        share = (_WIDTH - _LEFT) / len(rooms)
        for number, room in enumerate(rooms):
            wide = 30 + 8.2 * len(_label(room, count[room]))
            middle = _LEFT + share * (number + 0.5)
            place[room] = middle, 20 + _STEP * (top - floor), wide
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="14">',
        "<title>The rooms of the package by floor; an arrow is an import</title>",
        "<style>.f{fill:#8881}.n{fill:#888}.r{fill:#fff;stroke:#3b6ea5;stroke-width:1.5}"
        ".t{fill:#123;text-anchor:middle}.a{fill:none;stroke:#3b6ea5;stroke-opacity:.55}"
        "</style>",
        '<marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#3b6ea5"/></marker>',
    ]
    for floor in sorted(on_floor, reverse=True):
        y = 20 + _STEP * (top - floor)
        lines.append(
            f'<rect class="f" x="0" y="{y - 8}" width="{_WIDTH}" height="{_BOX + 16}"/>'
            f'<text class="n" x="16" y="{y + 20}">{floor}</text>'
        )
    for room, targets in sorted(_direct(arrows(house)).items()):
        for target in sorted(targets):
            x, y, _ = place[room]
            to_x, to_y, _ = place[target]
            bend = (to_y - y) / 2
            lines.append(
                f'<path class="a" marker-end="url(#h)" d="M{x:.0f} {y + _BOX:.0f}'
                f"C{x:.0f} {y + _BOX + bend:.0f} {to_x:.0f} {to_y - bend:.0f} "
                f'{to_x:.0f} {to_y:.0f}"/>'
            )
    for room, (x, y, wide) in place.items():
        lines.append(
            f'<rect class="r" x="{x - wide / 2:.0f}" y="{y}" width="{wide:.0f}" '
            f'height="{_BOX}" rx="5"/>'
            f'<text class="t" x="{x:.0f}" y="{y + 20}">{_label(room, count[room])}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _label(room: str, count: int) -> str:
    return f"{room}/ {count}" if count else room


def main() -> None:
    """Draw the house anew."""
    design = (TREE / "docs" / "design.md").read_text(encoding="utf-8")
    picture = draw(TREE / PACKAGE, floors(design))
    (TREE / "docs" / "house.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
