"""Both cores carry the names, signatures and docstrings that ``_core.pyi`` promises."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from typing import Any

import cores
import pytest

HOUSE = cores.TREE / cores.PACKAGE
POSITIONAL, PLAIN, STAR, KEYWORD, STARS = inspect._ParameterKind

# A parameter: name, kind, and whether it may be left out.
Parameters = list[tuple[str, Any, bool]]


@dataclass
class Promised:
    """A class of the stub: what its methods take, and its properties and attributes."""

    methods: dict[str, Parameters] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)

    @property
    def public(self) -> set[str]:
        return {name for name in {*self.methods, *self.values} if not name.startswith("_")}


def _from_ast(node: ast.FunctionDef) -> Parameters:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    first_default = len(positional) - len(args.defaults)
    found: Parameters = [
        (a.arg, POSITIONAL if i < len(args.posonlyargs) else PLAIN, i >= first_default)
        for i, a in enumerate(positional)
    ]
    if args.vararg:
        found.append((args.vararg.arg, STAR, False))
    found += [
        (a.arg, KEYWORD, default is not None)
        for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
    ]
    if args.kwarg:
        found.append((args.kwarg.arg, STARS, False))
    return found[1:]  # without self


def _from_object(function: Any) -> Parameters:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.kind, p.default is not p.empty) for p in parameters]


def _read_stub() -> tuple[dict[str, Promised], set[str]]:
    classes: dict[str, Promised] = {}
    names: set[str] = set()
    for node in ast.parse((HOUSE / "_core.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign | ast.FunctionDef):
            names.add(node.target.id if isinstance(node, ast.AnnAssign) else node.name)
        if not isinstance(node, ast.ClassDef):
            continue
        names.add(node.name)
        promised = classes[node.name] = Promised()
        for member in node.body:
            if isinstance(member, ast.AnnAssign):
                promised.values.add(member.target.id)
            elif isinstance(member, ast.FunctionDef):
                if any(getattr(d, "id", None) == "property" for d in member.decorator_list):
                    promised.values.add(member.name)
                else:
                    promised.methods[member.name] = _from_ast(member)
    return classes, names


CLASSES, NAMES = _read_stub()
by_class = pytest.mark.parametrize("cls", CLASSES)


def _constructor_in_source(cls: str) -> Parameters:
    """Read ``__init__`` of a compiled class: the interpreter sees only a slot there."""
    source = "".join(p.read_text(encoding="utf-8") for p in HOUSE.glob("core/*.pxi"))
    _, _, body = source.partition(f"\ncdef class {cls}")
    body = re.split(r"\n(?=\S)", body, maxsplit=1)[0]
    found = re.search(r"\n    def __init__\((.*?)\):", body, re.DOTALL)
    assert found, f"no __init__ of {cls} in the compiled parts"
    parameters: Parameters = []
    kind = PLAIN
    for part in found[1].split(","):
        declared, default, _ = part.partition("=")
        if declared.strip() == "*":
            kind = KEYWORD
        elif declared.strip():
            name = re.findall(r"\w+", re.sub(r"\b(not|or) None\b", "", declared))[-1]
            parameters.append((name, kind, bool(default)))
    return parameters[1:]


def _core(nt) -> Any:
    return cores.load("compiled" if nt.COMPILED else "pure").core


def _first_line(thing: Any) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]


def test_package_runs_on_the_core_it_was_loaded_for(nt, request):
    assert nt.COMPILED is (request.node.callspec.params["nt"] == "compiled")
    assert _core(nt).COMPILED is nt.COMPILED
    assert _core(nt).Dispatcher.__module__ == (
        "neotasker._core" if nt.COMPILED else "neotasker.core.dispatcher"
    )


def test_all_names_what_the_stub_declares(nt):
    assert set(_core(nt).__all__) == NAMES


@by_class
def test_class_has_the_public_names_of_the_stub_and_no_others(nt, cls):
    there = {name for name in vars(getattr(_core(nt), cls)) if not name.startswith("_")}
    assert there == CLASSES[cls].public


@by_class
def test_methods_take_the_parameters_of_the_stub(nt, cls):
    owner = getattr(_core(nt), cls)
    wrong = {}
    for name, promised in CLASSES[cls].methods.items():
        if name == "__init__" and nt.COMPILED:
            found = _constructor_in_source(cls)
        else:
            found = _from_object(getattr(owner, name))
        if name.startswith("_"):
            # What the parts of one core say to each other may be more than the shell needs.
            while len(found) > len(promised) and found[-1][2]:
                found.pop()
        if found != promised:
            wrong[name] = (found, promised)
    assert not wrong


@by_class
def test_properties_of_the_stub_are_data(nt, cls):
    owner = getattr(_core(nt), cls)
    missing = {
        name
        for name in CLASSES[cls].values
        if not inspect.isdatadescriptor(inspect.getattr_static(owner, name, None))
    }
    assert not missing


@by_class
def test_defaults_are_the_same_on_both_cores(both_cores, cls):
    for name in CLASSES[cls].methods:
        if name.startswith("_"):
            continue
        compiled, pure = (
            [p.default for p in inspect.signature(method).parameters.values()]
            for method in (getattr(getattr(core.core, cls), name) for core in both_cores)
        )
        assert compiled == pure, name


@by_class
def test_docstrings_begin_the_same_on_both_cores(both_cores, cls):
    compiled, pure = (getattr(core.core, cls) for core in both_cores)
    assert _first_line(pure)
    assert _first_line(compiled) == _first_line(pure)
    differ = {}
    for name in CLASSES[cls].public:
        lines = tuple(_first_line(inspect.getattr_static(c, name)) for c in (compiled, pure))
        in_slot = not inspect.isfunction(vars(pure)[name]) and not isinstance(
            vars(pure)[name], property
        )
        if lines[0] != lines[1] and not in_slot:  # a slot cannot carry a docstring
            differ[name] = lines
        elif not in_slot and not lines[1]:
            differ[name] = "no docstring"
    assert not differ
