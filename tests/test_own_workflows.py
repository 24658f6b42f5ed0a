"""The workflows that a generated project brings, run as its user runs them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.check.check import check

from .conftest import Bake
from .lab import Lab, descendants
from .services.processes import is_running, until
from .workflow.conftest import HAS_BUBBLEWRAP, needs_bubblewrap


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def newest(lab: Lab, dataset: str) -> Path:
    versions = (lab.storage / "datasets" / dataset).iterdir()
    return max(versions, key=lambda path: int(path.name[1:].partition("-")[0])) / "data"


@pytest.mark.parametrize("machine", ["P4000", "A100-80G", "C5"])
def test_the_workflows_have_no_finding_on_any_kind_of_machine(bake: Bake, machine: str) -> None:
    for path in (bake(gradient_machine=machine) / ".gradient/workflows").iterdir():
        assert check(path) == []


def test_the_readme_shows_the_workflow_as_it_is(project: Path, lab: Lab) -> None:
    (shown,) = re.findall(r"```mermaid\n(.*?)```", (project / "README.md").read_text(), re.S)
    assert shown.strip() == lab.run("gradlab", "show", "train", "--mermaid").strip()


@pytest.fixture(scope="module")
def shorter(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose trainings are a quarter as long unless told otherwise, and smaller."""
    copy = tmp_path_factory.mktemp("shorter") / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for file, given, taken in (
        (f"src/{project.name}/config.py", "epochs: int = 60\n", "epochs: int = 15\n"),
        (f"src/{project.name}/config.py", "width: int = 32\n", "width: int = 8\n"),
        (".gradient/workflows/sweep.yaml", "--epochs 30 ", "--epochs 6 "),
    ):
        text = (copy / file).read_text()
        assert given in text
        (copy / file).write_text(text.replace(given, taken))
    return copy


@pytest.fixture(scope="module")
def plain(shorter: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """What the plain command makes, without any workflow."""
    lab = Lab(shorter, tmp_path_factory.mktemp("plain"))
    lab.run(lab.package, "train", "--name", "train")
    return lab


@pytest.fixture
def brief(shorter: Path, tmp_path: Path) -> Lab:
    """A project whose trainings are shorter, with a storage of its own."""
    return Lab(shorter, tmp_path / "storage")


def within_seconds(lab: Lab, moment: random.Random) -> Callable[[], object]:
    end = time.monotonic() + moment.uniform(0.2, 4)
    return lambda: time.monotonic() > end


def after(event: Callable[[], object], seconds: float) -> Callable[[], object]:
    """Tell when something has altered and some time has passed."""
    before, ends = event(), list[float]()

    def reached() -> bool:
        if not ends and event() != before:
            ends.append(time.monotonic() + seconds)
        return bool(ends) and time.monotonic() > ends[0]

    return reached


def in_training(lab: Lab, moment: random.Random) -> Callable[[], object]:
    metrics = lab.storage / "drafts/train/train/outputs/run/runs/train/metrics.jsonl"

    def size() -> int:
        try:
            return metrics.stat().st_size
        except FileNotFoundError:
            return 0

    return after(size, moment.uniform(0, 0.5))


def after_a_version(lab: Lab, moment: random.Random) -> Callable[[], object]:
    datasets = lab.storage / "datasets"
    return after(lambda: sorted(datasets.glob("*/*")), moment.uniform(0, 1))


@pytest.mark.slow
@needs_bubblewrap
def test_kills_of_the_runner_and_all_its_children_cost_nothing_but_time(
    brief: Lab, plain: Lab
) -> None:
    """Under bubblewrap it ends with the model of the plain command, judged and registered."""
    seed = random.randrange(1_000_000)
    print(f"The moments of the kills are those of seed {seed}.")
    lab, moment = brief, random.Random(seed)
    lab.env = {"GRADLAB_NETWORK": "off"}
    command = ("gradlab", "run", "train", "--engine", "bubblewrap")
    for kind in (within_seconds, in_training, within_seconds, in_training, after_a_version):
        reached = kind(lab, moment)
        process = lab.start(*command)
        while process.poll() is None and not reached():
            time.sleep(0.01)
        for pid in [process.pid, *descendants(process.pid)]:
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)
        process.communicate()
        assert "DAMAGED" not in lab.run("gradlab", "datasets", "verify")
    output = lab.run(*command)
    run = newest(lab, f"{lab.package}-run") / "runs" / "train"
    for name in ("model.safetensors", "metrics.jsonl", "best.safetensors"):
        assert sha(run / name) == plain.sha("train", name)
    best = newest(lab, f"{lab.package}-model") / "best.safetensors"
    assert sha(best) == plain.sha("train", "best.safetensors")
    entries = (lab.storage / "models" / lab.package).glob("*.json")
    models = [json.loads(entry.read_text()) for entry in entries]
    (model,) = [model for model in models if model["id"] in output]
    assert model["model"].split()[-1] in output
    right = re.search(r"accuracy ([\d.]+) on 360 test examples", output)
    assert right and model["metrics"]["accuracy"] == pytest.approx(float(right[1]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["bubblewrap", "paths"])
def test_a_signal_to_every_process_of_a_run_saves_the_training(lab: Lab, engine: str) -> None:
    if engine == "bubblewrap" and not HAS_BUBBLEWRAP:
        pytest.skip("bubblewrap is not installed")
    lab.env = {"GRADLAB_NETWORK": "off"}
    process = lab.start("gradlab", "run", "train", "--engine", engine)
    run = lab.storage / "drafts/train/train/outputs/run/runs/train"
    metrics = run / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.stat().st_size, 200, "the first step")
    started = descendants(process.pid)
    for pid in [process.pid, *started]:
        os.kill(pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    stopped = re.search(r"Stopped at step ([\d,]+) of [\d,]+, saved", output)
    assert stopped, output
    newest_save = max((run / "checkpoints").glob("*.safetensors"), key=lambda path: path.name)
    assert int(newest_save.name[:10]) == int(stopped[1].replace(",", "")), output
    until(lambda: not any(map(is_running, started)), 10, "the end of all processes")


@pytest.mark.slow
def test_the_sweep_keeps_the_best_model_and_shows_the_comparison(brief: Lab) -> None:
    lab = brief
    lab.warm_jobs = True
    output = lab.run("gradlab", "run", "sweep")
    best = newest(lab, f"{lab.package}-sweep")
    header, *rows = (best / "comparison.csv").read_text().splitlines()
    assert header == "run,learning_rate,val_accuracy,val_loss,epoch"
    assert sorted(row.split(",")[0] for row in rows) == ["fast", "middle", "slow"]
    assert rows[0].split(",")[2] == max(row.split(",")[2] for row in rows)
    assert f"The best is {rows[0].split(',')[0]}" in output
    assert (best / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    assert (best / "best.safetensors").stat().st_size > 10_000


def test_a_folder_that_is_no_run_is_not_compared(lab: Lab, tmp_path: Path) -> None:
    output = lab.run("gradlab", "compare", str(tmp_path), code=2)
    assert f"{tmp_path} is not the folder of a run that has ended: no config.json." in output
