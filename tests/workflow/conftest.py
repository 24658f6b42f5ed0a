"""A small project with a workflow, and `gradlab` as a user runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import warm
from ..kit import KIT
from ..lab import Judged
from ..services.processes import fresh_signals

# An image with bash and Python that is on this machine, as tests/image.py makes it.
IMAGE = os.environ.get("GRADLAB_TEST_IMAGE", "")
NO_IMAGE = "nowhere.invalid/bash:5"
HAS_BUBBLEWRAP = shutil.which("bwrap") is not None

needs_bubblewrap = pytest.mark.skipif(not HAS_BUBBLEWRAP, reason="bubblewrap is not installed")

# What workflows say is `bash:5`: an image that is here makes the engine `auto` take it.
_image = [NO_IMAGE]
ENGINES = ("bubblewrap", "machine", "paths", "container")


def wait_for(runner: subprocess.Popen[str], text: str) -> None:
    """Read what a runner prints, up to a line."""
    assert runner.stdout
    for line in runner.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without {text!r}")


@dataclass(frozen=True)
class Project(Judged):
    """A project on disk; `storage` is where its datasets and runs are kept."""

    root: Path
    storage: Path
    env: dict[str, str]

    def workflow(self, text: str, name: str = "train") -> None:
        """Write a workflow."""
        path = self.root / ".gradient" / "workflows" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).replace("bash:5", _image[-1]))

    def command(self, *arguments: str) -> list[str]:
        """Give the command line of `gradlab`."""
        return [sys.executable, "-m", "gradlab", *arguments]

    def start(self, *arguments: str, nohup: bool = False, **env: str) -> Any:
        """Start `gradlab` in a process group of its own."""
        if not nohup:
            return warm.start(warm.COMMANDS, ("gradlab", *arguments), self.root, self.env | env)
        with fresh_signals():
            return subprocess.Popen(
                ["nohup", *self.command(*arguments)],
                cwd=self.root,
                env=self.env | env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `gradlab` to its end."""
        return warm.run(
            warm.COMMANDS, ("gradlab", *arguments), self.root, self.env | env, timeout=120
        )

    def states(self, output: str) -> dict[str, str]:
        """Read the jobs' states from the table at the end."""
        rows = output.rpartition("\n-----")[2].splitlines()[1:]
        return {row.split()[0]: row.split()[1] for row in rows if len(row.split()) > 1}

    def versions(self, name: str) -> list[Path]:
        """List a dataset's versions on disk, the oldest first."""
        found = (self.storage / "datasets" / name).glob("v*-*")
        return sorted(found, key=lambda path: int(path.name.split("-")[0][1:]))


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Project]:
    """Make projects."""

    def make(name: str = "demo") -> Project:
        root = tmp_path / name
        root.mkdir()
        (root / "pyproject.toml").write_text('[project]\nname = "demo"\n')
        kept = ["PATH", "HOME", "TMPDIR", "LANG", "VIRTUAL_ENV", "GRADLAB_NETWORK"]
        kept.append("CONTAINERS_CONF")
        env = {key: os.environ[key] for key in kept if key in os.environ}
        storage = root / "storage"
        env |= {"PYTHONPATH": str(KIT), "COLUMNS": "200", "GRADLAB_STORAGE": str(storage)}
        return Project(root, storage, env)

    return make


@pytest.fixture
def project(make_project: Callable[[str], Project]) -> Project:
    """Give one project, without git."""
    return make_project("demo")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Give each engine that works here."""
    name = str(request.param)
    if name == "bubblewrap" and not HAS_BUBBLEWRAP:
        pytest.skip("bubblewrap is not installed")
    taken = os.path.lexists("/inputs") and not os.path.islink("/inputs")
    if name == "machine" and (os.getuid() or taken):
        pytest.skip("needs the user root and a machine without /inputs")
    if name == "container" and not IMAGE:
        pytest.skip("no image for it (GRADLAB_TEST_IMAGE; tests/image.py makes one)")
    _image.append(IMAGE if name == "container" else NO_IMAGE)
    yield name
    _image.pop()
