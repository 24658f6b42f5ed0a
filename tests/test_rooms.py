"""The kit's rooms: what each may know of the others, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .kit import KIT, TEMPLATE, paths

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
    "inventory": {"run", "train"},
    "share": {"inventory"},
    "top": {"remote", "notebook", "share"},
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


def test_a_framework_is_imported_by_what_has_its_name_in_training_alone() -> None:
    # Also as a part of another library, such as safetensors.torch.
    for _, path in modules():
        others = {name for name in imported(path) if not name.startswith("gradlab.")}
        known = {part for name in others for part in name.split(".")} & FRAMEWORKS
        room, *rest = path.relative_to(TOP).parts
        own = {rest[0].removesuffix(".py")} if room == "train" else set()
        if "keras" in own:  # a module of its room for each backend
            own |= {path.stem.removeprefix("on_")}
        assert known <= own, f"{path.relative_to(TOP)} imports {', '.join(known)}"


NO_FRAMEWORK = """
import sys
import numpy as np
from gradlab.train import checkpoint, examples, keyed, loader, runs, values
class Data:
    def __len__(self):
        return 40
    def __getitem__(self, index):
        return {"x": np.random.normal(size=(2, 3)), "y": (index, "text")}
def draw(workers):
    batches = keyed.Batches(40, 8, 0, 0, 10)
    with loader.Loader(keyed.KeyedDataset(Data(), 0), "training", batches, workers) as batches:
        return [batch["x"].tobytes() + batch["y"][0].tobytes() for batch in batches]
assert draw(0) == draw(2)
seen = examples.look({"training": Data()}, 0, 1)
assert seen["training"]["examples"].shape == (40, 4)
packed, data, _ = values.Snapshots().take({"a": np.eye(2), "b": (1, None)})
assert (values.restored(packed, data)["a"] == np.eye(2)).all()
print(sorted(sys.modules.keys() & {"torch", "jax", "tensorflow", "keras"}))
"""


def test_all_of_training_but_a_frameworks_own_module_works_without_loading_one() -> None:
    command = [sys.executable, "-c", NO_FRAMEWORK]
    env = {**os.environ, "PYTHONPATH": paths()}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_the_page_draws_the_arrows_that_are_kept() -> None:
    page = (TEMPLATE / "docs/architecture.md").read_text()
    drawn = re.findall(r"^ +(\w+)(?:\[.*?\])? --> (\w+)", page, re.M)
    assert {room: {a for a, b in drawn if b == room} for room in ARROWS} == ARROWS
