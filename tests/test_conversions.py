"""The pages of other tasks: each applies, is sound, learns, and survives kills to the byte."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import warm
from .conftest import TEMPLATE, generate
from .lab import QUICK, SMALL, Lab
from .pages import CONVERSIONS, Page, Shell, edit
from .training.test_kept import tensorboard_steps

RESULTS = ("best.safetensors", "model.safetensors", "metrics.jsonl")
# What the test split is to give: less, or more, would be no learning.
LEARNED = {
    "pictures": ("accuracy", 0.9, 1.0),
    "regression": ("mae", 0.0, 55.0),  # 71 for the mean of the training targets
    "text": ("accuracy", 0.65, 1.0),  # 0.35 for the most frequent chapter
    "transformers": ("accuracy", 0.7, 1.0),  # 0.52 for the play of most passages
    "two_optimizers": ("distance", 0.0, 12.0),  # 42 before the first step
}
# What a page's own libraries load, beside what every training does.
LOADED = {
    "transformers": (
        *("transformers", "transformers.models.auto.tokenization_auto"),
        *("transformers.models.gpt2.modeling_gpt2", "transformers.models.gpt2.tokenization_gpt2"),
    )
}
WITHOUT_WIDTH = {"transformers"}  # which is that of the pre-trained model
SAID = re.compile(r"Outside `data.py` and\s`model.py` (\d+) lines come and (\d+) go")
MOST = 20  # lines of a regression
STEPS = 24  # with an epoch or two in them
SHORT = ["--max-steps", str(STEPS), "--save-seconds", "0"]
KILLS = int(os.environ.get("KILLS", "2"))  # of each page's run


def modules(name: str) -> tuple[str, ...]:
    return (*warm.TRAINING, *LOADED.get(name, ()))


def page(name: str) -> Page:
    return Page(TEMPLATE, f"{CONVERSIONS}{name}.md")


@pytest.fixture(scope="module", params=sorted(LEARNED))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def shell(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A project in which a page was followed from its first to its last block."""
    folder = tmp_path_factory.mktemp(name)
    shell = Shell(generate(folder, {}), folder / "tools", modules(name))
    shell.follow(page(name))
    yield shell
    shutil.rmtree(folder)


def test_every_page_is_tried() -> None:
    assert {path.stem for path in (TEMPLATE / CONVERSIONS).iterdir()} == set(LEARNED)


def test_a_page_says_how_many_lines_change(name: str) -> None:
    blocks = [node.content for node in page(name).of("fence") if node.info == "diff"]
    files = re.split(r"(?m)^(?=--- )", "".join(blocks))
    counted = [file for file in files if not re.search(r"(?m)^\+\+\+ .*/(data|model)\.py$", file)]
    come, go = (
        len(re.findall(rf"(?m)^[{sign}](?![{sign}]{{2}} )", "".join(counted))) for sign in "+-"
    )
    said = SAID.search((TEMPLATE / page(name).name).read_text("utf-8"))
    assert said and (int(said[1]), int(said[2])) == (come, go)
    assert name != "regression" or come + go <= MOST


def test_a_page_fits_the_project_of_today(name: str, project: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(project, tmp_path / project.name))
    for block in page(name).of("fence"):
        edit(block, copy)
    subprocess.run([sys.executable, "-m", "ruff", "check", copy], check=True)


@pytest.mark.slow
def test_what_it_makes_learns_and_is_drawn(name: str, shell: Shell) -> None:
    run = shell.project / "storage" / "runs" / "default"
    metric, low, high = LEARNED[name]
    assert low <= json.loads((run / "evaluation.json").read_text())[metric] <= high
    (picture,) = {path.name for path in run.glob("*.png")} - {"curves.png"}
    assert (run / picture).read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_its_types_and_its_own_tests_stay_green(shell: Shell, shared: Path) -> None:
    shell.check(shared)


@pytest.mark.slow
def test_kills_at_random_moments_leave_the_same_bytes(
    name: str, shell: Shell, tmp_path: Path
) -> None:
    small = QUICK if name in WITHOUT_WIDTH else SMALL
    whole, killed = (
        Lab(shell.project, tmp_path / kind, small=small, modules=modules(name))
        for kind in ("whole", "killed")
    )
    datasets = shell.project / "storage" / "datasets"
    for lab in (whole, killed) if datasets.exists() else ():
        lab.storage.mkdir()
        (lab.storage / "datasets").symlink_to(datasets)
    whole.train(*SHORT)
    seed = time.time_ns()
    moment = random.Random(seed)
    for step in sorted(moment.sample(range(1, STEPS), KILLS)):
        wait = moment.uniform(0, 0.05)
        killed.train_until(
            lambda at=step, rest=wait: killed.recorded() >= at and not time.sleep(rest), *SHORT
        )
    killed.train(*SHORT)
    for file in RESULTS:
        assert whole.sha(file=file) == killed.sha(file=file), f"{name}: {file}, seed {seed}"
    assert tensorboard_steps(killed.folder()) == killed.steps() == list(range(1, STEPS + 1))
