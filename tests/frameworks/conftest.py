"""A project of each framework, its commands, and runs of it that were never cut off."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .. import warm
from ..conftest import generate
from ..lab import SMALL
from ..training.test_killed import COUNT, Counted
from . import FRAMEWORKS, Entry

STEPS = 70  # two epochs and some steps, beside the options that all runs of a lab have
EXAMPLES = """
import os
def drawn():
    with open(os.environ["COUNT"] + "-examples", "ab") as file:
        file.write(b"x")
"""
Edited = Callable[..., "FrameworkLab"]


@dataclass
class FrameworkLab(Counted):
    """A lab of a framework, which loads batches itself unless a test asks for workers."""

    entry: Entry = FRAMEWORKS[0]
    small: list[str] = field(default_factory=lambda: [*SMALL, "--workers", "0"], kw_only=True)

    def start(self, *arguments: str) -> Any:
        given = (arguments, self.project, self.environment())
        return warm.fork(self.entry.modules, *given, python=self.entry.python)

    def train(self, *options: str, code: int = 0) -> str:
        return super().train("--max-steps", str(STEPS), *options, code=code)

    def kill_at(self, step: int, *options: str) -> None:
        """Train up to a step and kill all; what was saved before is some steps older."""
        limit = self.count() + step
        self.env["LIMIT"] = str(limit)
        given = ("--max-steps", str(STEPS), "--save-seconds", "0", *options)
        output = self.train_until(lambda: self.count() > limit and self.checkpoints(), *given)
        del self.env["LIMIT"]
        assert "Finished" not in output and self.checkpoints(), output

    def results(self, name: str = "default") -> list[str]:
        """Give the SHA-256 of all that a finished run leaves."""
        files = ("model.safetensors", "best.safetensors", "metrics.jsonl")
        return [self.sha(name, file) for file in files]

    def examples(self) -> int:
        """Count the examples that were drawn to learn from, and forget them."""
        path = Path(self.env["COUNT"] + "-examples")
        found = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
        return found


@pytest.fixture(scope="session", params=FRAMEWORKS, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest, shared: Path) -> Entry:
    """The framework, with a cache of what it compiles, else each command would do it again."""
    found: Entry = request.param
    if not Path(found.python).exists():
        assert not os.environ.get("REQUIRE_ALL_TOOLS"), f"{found.python} is missing"
        pytest.skip("TensorFlow isn't there: make .venv/tensorflow/.ready")
    least = {"MIN_COMPILE_TIME_SECS": "0", "MIN_ENTRY_SIZE_BYTES": "-1"}
    found.env["JAX_COMPILATION_CACHE_DIR"] = str(shared / "compiled")
    found.env.update({f"JAX_PERSISTENT_CACHE_{name}": value for name, value in least.items()})
    return found


@pytest.fixture(scope="session")
def fresh(entry: Entry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as it was generated."""
    return generate(tmp_path_factory.mktemp("fresh"), {"framework": entry.framework})


@pytest.fixture(scope="session")
def counted_project(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that counts its steps as they begin, and the examples that are drawn."""
    copy = copied(fresh, tmp_path_factory.mktemp("counted"))
    (copy / "src" / copy.name / "count.py").write_text(COUNT + EXAMPLES)
    step = "                self.losses.append(self.learner.step("
    edit(copy, "train", step, f"{' ' * 16}__import__('my_model.count').count.count()\n{step}")
    drawn = "        if self.augmented:\n"
    edit(copy, "data", drawn, f"{drawn}{' ' * 12}__import__('my_model.count').count.drawn()\n")
    return copy


def copied(project: Path, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache")
    return Path(shutil.copytree(project, folder / project.name, ignore=ignored))


def edit(project: Path, module: str, old: str, new: str) -> None:
    path = project / "src" / project.name / f"{module}.py"
    text = path.read_text()
    assert old in text, f"{module}.py is tried with another text"
    path.write_text(text.replace(old, new))


def lab_of(project: Path, folder: Path, entry: Entry) -> FrameworkLab:
    env = {**entry.env, "COUNT": str(folder / "count")}
    return FrameworkLab(project, folder / "storage", env, entry)


@pytest.fixture
def lab(counted_project: Path, entry: Entry, tmp_path: Path) -> FrameworkLab:
    return lab_of(counted_project, tmp_path, entry)


@pytest.fixture
def edited(lab: FrameworkLab, entry: Entry, tmp_path: Path) -> Edited:
    """Make a copy of the project in which a text of a module is another one."""

    def make(module: str, old: str, new: str) -> FrameworkLab:
        project = copied(lab.project, tmp_path / f"edited-{module}")
        edit(project, module, old, new)
        return FrameworkLab(project, lab.storage, lab.env, lab.entry)

    return make


@pytest.fixture(scope="session")
def whole(
    counted_project: Path, entry: Entry, tmp_path_factory: pytest.TempPathFactory
) -> FrameworkLab:
    """A run that was never cut off."""
    lab = lab_of(counted_project, tmp_path_factory.mktemp("whole"), entry)
    lab.train()
    return lab


@pytest.fixture(scope="session")
def defaults(fresh: Path, entry: Entry, tmp_path_factory: pytest.TempPathFactory) -> FrameworkLab:
    """A run without any option that was never cut off, of a third of the usual epochs."""
    folder = tmp_path_factory.mktemp("defaults")
    project = copied(fresh, folder)
    edit(project, "config", "epochs: int = 60", "epochs: int = 20")
    lab = lab_of(project, folder, entry)
    lab.run(lab.package, "train", "--name", "train")
    return lab
