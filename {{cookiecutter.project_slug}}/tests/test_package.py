"""What your part promises: data that fit the model, and a run that survives kill -9."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gradlab.services import session
from gradlab.train import keyed, measures, passing

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"])
Start = Callable[..., "subprocess.Popen[str]"]

config = import_module(f"{PACKAGE}.config")
data = import_module(f"{PACKAGE}.data")
learner = import_module(f"{PACKAGE}.learner")
task = import_module(f"{PACKAGE}.task")
SHORT = ["--max-steps", "60", "--batch-size", "8", "--save-seconds", "0", "--workers", "1"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a command of the package, which keeps everything in the test's own folder."""
    kept = session.storage(PACKAGE).path / "datasets"
    if kept.is_dir():  # which the data may be read from
        (tmp_path / "datasets").symlink_to(kept)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "GRADLAB_STORAGE": str(tmp_path)}

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", PACKAGE, *arguments]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env=env, text=True, cwd=tmp_path, **output)

    return run


def test_data_model_and_task_fit_together(tmp_path: Path) -> None:
    splits, learns = data.datasets(), learner.Learner(config.TrainConfig(device="cpu"))
    learns.start(1, None, splits.train)
    with learns.load_batches(splits.train, "training", [[(0, 0), (0, 1), (0, 2)]], 0) as batches:
        losses = learns.step(0, next(batches))
    (line,) = learns.values([losses])
    assert all(map(math.isfinite, line.values()))
    values, seen = measures.measure(learns, splits.test, "test", task)
    assert task.BEST[0].removeprefix("val_") in values
    assert task.draw(seen, tmp_path).is_file()


def test_no_example_is_in_two_splits() -> None:
    splits = data.datasets()
    splits.train.augmented = False  # else its examples are as no other's
    parts = [fingerprints(part) for part in (splits.train, splits.validation, splits.test)]
    assert sum(map(len, parts)) == len(set().union(*parts))


def fingerprints(part: Any) -> set[bytes]:
    """Give what tells the examples of a split apart; all that is random in them is the same."""
    found = set()
    for index in range(len(part)):
        keyed.seed_generators(0)
        plain, contents = passing.pickled(part[index])
        found.add(plain + b"".join(contents))
    return found


def test_both_lists_of_requirements_are_the_same() -> None:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith(("#", "--"))]
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert table["project"]["dependencies"] == asked


def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(start: Start, tmp_path: Path) -> None:
    whole = start("train", "--name", "whole", *SHORT)  # beside the other: starting takes longest
    killed = start("train", "--name", "killed", *SHORT)
    while not list(tmp_path.glob("runs/killed/checkpoints/*.safetensors")):
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    resumed = start("train", "--name", "killed", *SHORT)
    assert "carrying on at step" in resumed.communicate()[0]
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    models = [tmp_path / "runs" / name / "model.safetensors" for name in ("whole", "killed")]
    assert models[0].read_bytes() == models[1].read_bytes()
