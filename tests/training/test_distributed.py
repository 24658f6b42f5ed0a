"""The same command under torchrun: the same global batches, whatever the number of processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .. import warm
from ..lab import PER_EPOCH, SMALL, STEPS, Lab

pytestmark = pytest.mark.slow
# Of the loader's processes, test_loader.py has more.
ALONE = ("--save-seconds", "0", "--workers", "0")
# Without dropout and augmentation's luck the losses tell which batches were seen.
CALM = (*ALONE, "--model.dropout", "0")
# Each of the processes has gradients and parts of batches, and all have one average.
LEARNING = ("--clip", "0.5", "--accumulate", "2", "--ema", "0.9")


class Together(Lab):
    """A lab that trains in two processes."""

    def start(self, *arguments: str):  # type: ignore[no-untyped-def]
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
        return super().start(*launcher, *arguments)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Has the launcher start its processes in a moment."""
    place = tmp_path_factory.mktemp("program") / "python"
    return {"PYTHON_EXEC": str(warm.program(place, warm.TRAINING))}


@pytest.fixture
def pair(lab: Lab, python: dict[str, str]) -> Together:
    return Together(lab.project, lab.storage, python)


@pytest.fixture(scope="module")
def alone(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A run of one process that was never cut off."""
    lab = Lab(project, tmp_path_factory.mktemp("alone"))
    lab.train(*CALM)
    return lab


def after_two_epochs(lab: Lab) -> bool:
    """Tell whether a third of a run is recorded: its first step is saved then, however slow."""
    return lab.recorded() >= 2 * PER_EPOCH


def losses(lab: Lab) -> np.ndarray:
    lines = (lab.folder() / "metrics.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


@pytest.mark.parametrize("options", [(), LEARNING], ids=["defaults", "options of learning"])
def test_two_processes_resumed_by_two_end_with_the_same_bytes(
    pair: Together, tmp_path: Path, options: tuple[str, ...]
) -> None:
    command = (*ALONE, *options)
    never_cut_off = Together(pair.project, tmp_path / "whole", pair.env)
    never_cut_off.train(*command)
    # Its processes are started the usual way: each of them is killed itself.
    killed = Together(pair.project, pair.storage)
    killed.train_until(lambda: after_two_epochs(pair), *command, "--workers", "2")
    assert "carrying on at step" in pair.train(*command)
    for name in ("model.safetensors", "best.safetensors"):
        assert pair.sha(file=name) == never_cut_off.sha(file=name)
    assert pair.steps() == list(range(1, STEPS + 1))


@pytest.mark.parametrize("first, then", [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on_with_the_same_global_batches(
    lab: Lab, pair: Together, alone: Lab, first: int, then: int
) -> None:
    labs = {1: lab, 2: pair}
    labs[first].train_until(lambda: after_two_epochs(lab), *CALM)
    begun = int(lab.checkpoints()[-1].name[:10])
    output = labs[then].train(*CALM)
    assert "the same examples in the same order" in output
    assert lab.steps() == list(range(1, STEPS + 1))
    # Batch normalisation sees half a batch each, so the losses are close, not equal.
    one_epoch = slice(begun, begun + PER_EPOCH)
    seen, expected = losses(lab)[one_epoch], losses(alone)[one_epoch]
    assert np.corrcoef(seen, expected)[0, 1] > 0.95


def test_a_batch_that_cannot_be_shared_is_refused(pair: Together) -> None:
    command = (pair.package, "train", *SMALL, "--batch-size")
    output = pair.run(*command, "33", code=1)
    assert "A batch of 33 can't be shared equally by 2 processes" in output
    output = pair.run(*command, "32", "--accumulate", "32", code=1)
    assert "A batch of 32 can't be shared equally by 2 processes in 32 parts" in output


def test_a_second_run_of_two_processes_is_refused_by_all_of_them(pair: Together) -> None:
    first = Lab(pair.project, pair.storage).start(pair.package, "train", "--epochs", "1000")
    try:
        while not pair.recorded():
            assert first.poll() is None
        output = pair.run(pair.package, "train", "--epochs", "1000", code=1)
        assert output.count("is being trained by process") == 1
    finally:
        first.kill()
        first.communicate()
