"""An edit between two runs of the workflow that every project brings: what is trained and told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from safetensors import safe_open

from .conftest import Bake
from .lab import Lab

pytestmark = pytest.mark.slow
SMALLER = {
    "epochs: int = 60": "epochs: int = 4",
    "width: int = 32": "width: int = 4",
    "evaluate_every: int = 5": "evaluate_every: int = 1",
}
# Another augmentation, other data of the same size, another default.
EDITS = {
    "data.py": [
        ("uniform(-12, 12)", "uniform(-40, 40)"),
        ("    kinds =", "    images += 1\n    kinds ="),
    ],
    "config.py": [("learning_rate: float = 4e-3", "learning_rate: float = 2e-3")],
}
TELLS = (
    "/data.py has changed",
    "/config.py has changed",
    "the validation data: 359 of 359 examples looked at differ",
    "the default of learning_rate is 0.002, 0.004 before",
)
IMAGE = "        image = self.images[index]\n"
# While there is that file, each example takes its time, so that a kill comes before the end.
SLOWLY = f"{IMAGE}        import os, time; os.path.exists('SLOW') and time.sleep(0.006)\n"
RUN = ("gradlab", "run", "train", "--engine", "paths")


def replace(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture
def lab(bake: Bake, tmp_path: Path) -> Lab:
    """Give a project whose workflow takes some seconds, or longer with `slow` there."""
    lab = Lab(bake(), tmp_path / "storage", warm_jobs=True)
    lab.env = {"GRADLAB_NETWORK": "off"}
    replace(source(lab) / "config.py", *SMALLER.items())
    replace(source(lab) / "data.py", (IMAGE, SLOWLY.replace("SLOW", str(lab.project / "slow"))))
    return lab


def source(lab: Lab) -> Path:
    return lab.project / "src" / lab.package


def edit(lab: Lab) -> None:
    """Edit what decides the result, in each way."""
    for name, changes in EDITS.items():
        replace(source(lab) / name, *changes)


def models(lab: Lab) -> list[Path]:
    return sorted((lab.storage / "models" / lab.package).glob("*.json"))


def learned_from(lab: Lab) -> list[int]:
    """Give the steps after which the newest model's code or data were others."""
    top = lab.storage / "datasets" / f"{lab.package}-model"
    newest = max(top.glob("v*"), key=lambda path: int(re.split("[v-]", path.name)[1]))
    with safe_open(newest / "data/best.safetensors", "np") as file:
        settings = json.loads(file.metadata()["settings"])
    return [entry["after_step"] for entry in settings["learned_from"]]


def kill_in_training(lab: Lab) -> None:
    """Run the workflow and kill it once its training has saved something."""
    (lab.project / "slow").touch()
    process = lab.start(*RUN)
    while not [*(lab.storage / "drafts").glob("train/train/outputs/run/runs/train/checkpoints/0*")]:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (lab.project / "slow").unlink()


def test_what_other_code_has_trained_is_trained_anew_and_only_then_registered(lab: Lab) -> None:
    lab.run(*RUN)
    assert len(models(lab)) == 1
    edit(lab)
    output = lab.run(*RUN)
    assert all(line in output for line in TELLS) and "trained anew" in output, output
    assert "starting at step 0" in output and learned_from(lab) == [0]
    assert len(models(lab)) == 2


def test_a_fresh_run_starts_a_training_over_that_someone_else_has_finished(lab: Lab) -> None:
    lab.run(lab.package, "train", "--name", "train")
    given = lab.storage.with_name("given")
    shutil.copytree(lab.storage, given)
    lab.run("gradlab", "datasets", "add", f"{lab.package}-run", str(given))
    output = lab.run(*RUN, "--fresh")
    assert "starting over, for the workflow's run is a fresh one" in output
    assert "starting at step 0" in output


def test_a_run_that_was_killed_carries_on_with_edited_code_and_says_so(lab: Lab) -> None:
    kill_in_training(lab)
    edit(lab)
    output = lab.run(*RUN)
    assert all(line in output for line in TELLS), output
    assert "carries on with its training runs" in output
    assert re.search(r"goes on from step [1-9]", output), output
    first, second = learned_from(lab)
    assert first == 0 and second > 0 and len(models(lab)) == 1


def test_a_mended_last_step_trains_nothing_again(lab: Lab) -> None:
    evaluation = source(lab) / "evaluate.py"
    replace(evaluation, ('    print(f"{source}', '    oops\n    print(f"{source}'))
    assert "oops" in lab.run(*RUN, code=1)
    replace(evaluation, ("    oops\n", ""))
    states = dict(line.split()[:2] for line in lab.run(*RUN).splitlines()[-4:])
    assert states == {"checkout": "ran", "train": "reused", "evaluate": "ran", "register": "ran"}
