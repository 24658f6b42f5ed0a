"""Runs that were never cut off, that were, and file systems to keep them on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .. import warm
from ..conftest import generate
from ..failing import Forks
from ..lab import PER_EPOCH, Lab


@pytest.fixture(scope="session")
def whole(project: Path) -> Iterator[Lab]:
    """A run that was never interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(project, Path(folder))
        lab.train("--save-seconds", "0")
        yield lab


@pytest.fixture(scope="session")
def cut_off(project: Path) -> Iterator[Lab]:
    """A run that was killed when it had at least two checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(project, Path(folder))
        # Each session saves at its first step, however slow the disk is.
        lab.train("--save-seconds", "0", "--max-minutes", "0")
        best = lab.folder() / "best.safetensors"
        lab.train_until(lambda: best.exists() and lab.recorded() > PER_EPOCH, "--save-seconds", "0")
        assert len(lab.checkpoints()) >= 2
        yield lab


@pytest.fixture
def interrupted(cut_off: Lab, lab: Lab) -> Lab:
    """A copy of the run that was killed, to be damaged."""
    lab.take(cut_off.storage)
    return lab


@pytest.fixture
def mounts() -> Iterator[Callable[..., None]]:
    """Mount file systems for the test; skips where this user may not."""
    if os.getuid() or shutil.which("mount") is None:
        pytest.skip("mounting a file system needs root")
    mounted: list[str] = []

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
        mounted.append(arguments[-1])

    yield mount
    for place in reversed(mounted):
        subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    project = generate(tmp_path_factory.mktemp("tiny"), {})
    data = project / "src" / "my_model" / "data.py"
    text = data.read_text()
    data.write_text(text.replace("in data.target]", "in data.target[:120]]"))
    assert data.read_text() != text
    return Forks(project, *warm.TRAINING, "my_model.train", "my_model.export")
