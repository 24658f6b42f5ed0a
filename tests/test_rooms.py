"""The kit's rooms: what each may know of the others, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import KIT, TEMPLATE

TOP = KIT / "gradlab"
# What a room imports of the kit, beside itself: the rooms that its arrows come from.
ARROWS = {
    "base": set(),
    "services": {"base"},
    "store": {"services"},
    "train": {"store"},
    "spec": {"base"},
    "check": {"spec", "services"},
    "engines": {"services"},
    "run": {"store", "check", "engines"},
    "remote": {"run"},
    "notebook": {"run"},
    "top": {"remote", "notebook", "train"},
}
FRAMEWORKS = {"torch", "jax", "keras", "tensorflow"}
# Modules that an arrow is still wanting for, to be worked off: "room.module": what it imports.
EXCEPTIONS: dict[str, set[str]] = {}


def modules() -> Iterator[tuple[str, Path]]:
    """Give each module of the kit with its room."""
    for path in sorted(TOP.rglob("*.py")):
        parts = path.relative_to(TOP).parts
        yield parts[0] if len(parts) > 1 else "top", path


def imported(path: Path) -> Iterator[str]:
    """Give the dotted names that a module imports, wherever in it, and what it takes of them."""
    package = path.relative_to(KIT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def rooms_of(path: Path) -> set[str]:
    """Give the rooms that a module imports from."""
    found = {name.split(".")[1] for name in imported(path) if name.startswith("gradlab.")}
    return (found & ARROWS.keys()) | {"top" for _ in found & {"cli", "doctor", "__main__"}}


def reachable(room: str) -> set[str]:
    """Give a room and all from which arrows lead to it."""
    return {room}.union(*map(reachable, ARROWS[room]))


@pytest.mark.parametrize("room", ARROWS)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    found = {
        ".".join(path.relative_to(TOP).with_suffix("").parts): rooms_of(path) - reachable(room)
        for own, path in modules()
        if own == room
    }
    assert found, f"no module lies in {room}"
    excepted = {name: rooms for name, rooms in EXCEPTIONS.items() if name in found}
    assert {name: rooms for name, rooms in found.items() if rooms} == excepted


def test_only_training_knows_a_framework() -> None:
    for room, path in modules():
        if room != "train":
            known = {name.split(".")[0] for name in imported(path)} & FRAMEWORKS
            assert not known, f"{path.relative_to(TOP)} imports {', '.join(known)}"


def test_the_page_draws_the_arrows_that_are_kept() -> None:
    page = (TEMPLATE / "docs/architecture.md").read_text()
    drawn = re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", page, re.M)
    assert {room: {a for a, b in drawn if b == room} for room in ARROWS} == ARROWS
