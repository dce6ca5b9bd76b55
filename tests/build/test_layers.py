"""The house: imports point down, folders form no circle, and no room is too full.

The floors are those of the table in ``docs/design.md``, section 3.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import PurePosixPath

import pytest
from cores import PACKAGE, TREE

HOUSE = TREE / PACKAGE
MOST_FILES = 14
MOST_LINES = 500
MOST_LINES_OF_CORE = 800

_spec = importlib.util.spec_from_file_location("house", TREE / "docs" / "house.py")
house = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(house)

DESIGN = (TREE / "docs" / "design.md").read_text(encoding="utf-8")
FLOORS = house.floors(DESIGN)
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

FILES = house.files(HOUSE)
IMPORTS = {file: house.imports(HOUSE, file) for file in FILES}


@pytest.mark.parametrize("file", FILES)
def test_imports_point_to_lower_floors(file):
    room = house.room_of(file)
    assert room in FLOOR_OF, f"{file} is in no room: give it one in docs/design.md"
    wrong = sorted(
        f"{file} (floor {FLOOR_OF[room]}) imports {target} (floor {FLOOR_OF.get(other)})"
        for target in IMPORTS[file]
        if (other := house.room_of(target)) != room and FLOOR_OF[other] >= FLOOR_OF[room]
    )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", sorted(FLOOR_OF))
def test_files_of_a_room_import_one_another_in_one_direction(room):
    """No circle: some file imports none of those that are left, again and again."""
    left = {file for file in FILES if house.room_of(file) == room}
    while left:
        free = {file for file in left if not house.imports(HOUSE, file, types=False) & left}
        assert free, f"these import one another in a circle: {', '.join(sorted(left))}"
        left -= free


def test_each_file_is_told_of_in_the_design():
    named = re.findall(r"`([\w./]+)`", house.section(DESIGN))
    told = tuple(f"/{name.removesuffix('.py')}" for name in named)
    missing = [
        file
        for file in FILES
        if not file.endswith("__init__.py")
        and not any(
            f"/{name}".endswith(t) for name in (file, file.rpartition(".")[0]) for t in told
        )
    ]
    assert not missing, f"docs/design.md does not say what is in {', '.join(missing)}"


def test_table_names_only_what_exists():
    there = {house.room_of(file) for file in FILES}
    assert set(FLOOR_OF) == there


def test_no_folder_is_too_full_and_no_file_too_long():
    folders = [HOUSE, *(path for path in HOUSE.rglob("*") if path.is_dir())]
    full = [f.name for f in folders if len(list(f.glob("*.py"))) > MOST_FILES]
    assert not full
    long = []
    for path in HOUSE.rglob("*"):
        if path.suffix in {".py", ".pyx", ".pxi"}:
            lines = path.read_text(encoding="utf-8").count("\n")
            core = path.suffix != ".py" or path.parent.name == "core"
            if lines > (MOST_LINES_OF_CORE if core else MOST_LINES):
                long.append(f"{path.relative_to(HOUSE)}: {lines}")
    assert not long


def test_no_two_names_are_taken_for_one_another():
    # `f` is a public path of older programs, and short for the other one.
    stems = {PurePosixPath(file).stem for file in FILES} - {"__init__", "__main__", "f"}
    alike = [
        (one, other)
        for one in stems
        for other in stems
        if one != other and re.fullmatch(rf"{re.escape(one)}(e?s|_?(table|list|er|ed))", other)
    ]
    assert not alike


def test_each_compiled_part_has_its_twin():
    core = HOUSE / "core"
    compiled = {path.stem for path in core.glob("*.pxi")}
    pure = {path.stem for path in core.glob("*.py")} - {"__init__"}
    assert compiled == pure
    included = re.findall(
        r'^include "core/(\w+)\.pxi"$', (HOUSE / "_core.pyx").read_text(encoding="utf-8"), re.M
    )
    assert sorted(included) == sorted(compiled)


def test_picture_shows_the_house_as_it_is():
    drawn = (TREE / "docs" / "house.svg").read_text(encoding="utf-8")
    assert drawn == house.draw(HOUSE, FLOORS), "draw it again: python docs/house.py"
