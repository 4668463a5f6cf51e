"""The house: rooms import one way, as docs/architecture.md says, and no circle of files or rooms; also inside functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "planner"
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in PACKAGE.rglob("*.py")}


def order() -> list[str]:
    """The rooms in the order that the page states, what others import first."""
    line = next(text for text in (ROOT / "docs" / "architecture.md").read_text().splitlines() if "→" in text)
    return re.findall(r"`(\w+)`", line)


def targets(node: ast.AST) -> Iterator[str]:
    """Modules of the package that one import names."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names if a.name in MODULES)
    elif isinstance(node, ast.ImportFrom) and node.module:
        whole = {f"{node.module}.{a.name}" for a in node.names} & set(MODULES)
        yield from whole or ({node.module} & set(MODULES))


@cache
def imports() -> dict[str, set[str]]:
    """module -> modules of the package it imports; what is imported for types alone does not count."""
    found = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text())
        typing = {id(n) for b in ast.walk(tree) if isinstance(b, ast.If) and "TYPE_CHECKING" in ast.unparse(b.test) for n in ast.walk(b)}
        found[name] = {t for node in ast.walk(tree) if id(node) not in typing for t in targets(node) if t != name}
    return found


def room(module: str) -> str:
    """The folder a module is in; a file at the top is a room of its own."""
    return module.split(".")[1] if "." in module else ""


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """One circle, if there is any."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@cache
def between_rooms() -> dict[str, set[str]]:
    """room -> rooms it imports from. The package's own file offers the public names of all rooms and is none."""
    found: dict[str, set[str]] = {}
    for module, others in imports().items():
        found.setdefault(room(module), set()).update(room(t) for t in others if room(t) != room(module))
    found.pop("", None)
    return found


def test_no_circle_of_files_or_rooms() -> None:
    assert circle({m: t for m, t in imports().items() if m != "planner"}) == []
    assert circle(between_rooms()) == []


def test_every_room_stands_in_the_order() -> None:
    folders = {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()}
    assert folders - {"calibration"} == set(order())


@pytest.mark.parametrize("name", order())
def test_no_room_imports_from_its_right(name: str) -> None:
    rank = {r: i for i, r in enumerate(order())}
    assert sorted(r for r in between_rooms()[name] if rank.get(r, -1) > rank[name]) == []


def test_the_check_trusts_nothing_that_made_the_plan_and_nobody_needs_calibration() -> None:
    arrows = between_rooms()
    assert not arrows["check"] & {"candidates", "program", "search", "planning"}
    assert not any("calibration" in others for others in arrows.values())


def test_a_circle_would_be_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
