"""A network that is split among processes: the same bytes after any kill, and a whole model."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import distributed as dist
from torch import nn

from gradlab.base.errors import GradlabError
from gradlab.train.torch import World
from gradlab.train.torch.shards import Team, _blocks, team

from .. import warm
from ..lab import PER_EPOCH, Lab, descendants

# Many more of them: KILLS=40
KILLS = int(os.environ.get("KILLS", "2"))
EPOCHS = 4
STEPS = EPOCHS * PER_EPOCH
MODULES = (*warm.TRAINING, "torch.distributed.fsdp", "torch.distributed.tensor")
QUICK = ["--epochs", str(EPOCHS), "--evaluate-every", "1", "--batch-size", "32", "--workers", "0"]
SMALL = [*QUICK, "--model.width", "8", "--save-seconds", "0"]
# All that may make a part of a step, or a state, another one than that of a copy of the network.
LEARNING = ("--clip", "0.5", "--accumulate", "2", "--ema", "0.9")
RESULTS = ("model.safetensors", "best.safetensors", "metrics.jsonl")


@dataclass
class Split(Lab):
    """A lab that trains in several processes."""

    processes: int = 2

    def start(self, *arguments: str):  # type: ignore[no-untyped-def]
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
        return super().start(*launcher, str(self.processes), "-m", *arguments)

    def between(self) -> bool:
        """Tell whether a shard is there, and no manifest that names it."""
        folder = self.work() / "checkpoints"
        try:
            named = "".join(path.read_text() for path in folder.glob("*.manifest"))
        except FileNotFoundError:
            return False
        return bool(named) and any(path.name not in named for path in folder.glob("*.shard"))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Has the launcher start its processes in a moment."""
    place = tmp_path_factory.mktemp("program") / "python"
    return {"PYTHON_EXEC": str(warm.program(place, MODULES))}


@pytest.fixture(scope="module")
def split(project: Path, python: dict[str, str]) -> Callable[[Path, int], Split]:
    def make(storage: Path, processes: int) -> Split:
        lab = Split(project, storage, dict(python), processes)
        lab.small, lab.modules = SMALL, MODULES
        return lab

    return make


@pytest.fixture(scope="module")
def whole(split: Callable[[Path, int], Split], tmp_path_factory: pytest.TempPathFactory) -> Split:
    """A run of two processes that was never cut off."""
    lab = split(tmp_path_factory.mktemp("whole"), 2)
    lab.train("--shard", *LEARNING)
    return lab


def is_copied(lab: Split) -> bool:
    return any((lab.folder() / "checkpoints").glob("*.manifest"))


def kill(lab: Split, moment: random.Random, way: str, *options: str) -> str:
    """Train until a moment, and kill one of the processes, or all; tell what was printed."""
    process = lab.start(lab.package, "train", *lab.small, *options)
    known = {*(lab.work() / "checkpoints").glob("*.manifest")}

    def has_saved() -> bool:
        return bool({*(lab.work() / "checkpoints").glob("*.manifest")} - known)

    wait = moment.uniform(0, 3)
    if way == "at the start":
        time.sleep(wait)
    else:
        while process.poll() is None and not has_saved():
            time.sleep(0.001)
    if way == "between":
        while process.poll() is None and not lab.between():
            time.sleep(0.0005)
    if way == "at random":
        time.sleep(wait)
    killed = descendants(process.pid)
    if killed and moment.random() < 0.5:
        killed = [moment.choice(killed)]
    else:
        process.send_signal(signal.SIGKILL)
    for pid in killed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    return str(output)


def cut_off(lab: Split, *options: str) -> None:
    """Kill a run at random moments; the first time between a shard and the manifest."""
    seed = random.randrange(1_000_000)
    print(f"The moments of the kills are those of seed {seed}.")
    moment = random.Random(seed)
    for number in range(KILLS):
        way = moment.choice(["between", "at random", "at the start"]) if number else "between"
        output = kill(lab, moment, way, *options)
        print(f"{way}: {output[-2000:]}")
        if "Finished." in output:
            break
        if lab.disk.exists() and is_copied(lab) and moment.random() < 0.5:
            shutil.rmtree(lab.disk)  # with its machine


def same(lab: Split, other: Split) -> None:
    for name in RESULTS:
        assert lab.sha(file=name) == other.sha(file=name)
    assert lab.steps() == list(range(1, STEPS + 1))
    kept = [path.suffix for path in (lab.folder() / "checkpoints").iterdir()]
    assert kept.count(".manifest") <= 2 + 7 * lab.disk.exists()
    assert kept.count(".shard") == lab.processes * kept.count(".manifest")


@pytest.mark.slow
def test_two_processes_killed_at_random_on_slow_storage_end_with_the_same_bytes(
    split: Callable[[Path, int], Split], whole: Split, tmp_path: Path
) -> None:
    lab = split(tmp_path / "storage", 2)
    lab.on_slow_storage()
    cut_off(lab, "--shard", *LEARNING)
    assert "starting" not in lab.train("--shard", *LEARNING)
    same(lab, whole)


@pytest.mark.slow
def test_four_processes_killed_at_random_in_half_precision_end_with_the_same_bytes(
    split: Callable[[Path, int], Split], tmp_path: Path
) -> None:
    options = ("--shard", "--precision", "bf16")
    lab, never_cut_off = (split(tmp_path / name, 4) for name in ("storage", "whole"))
    never_cut_off.train(*options)
    cut_off(lab, *options)
    assert "starting" not in lab.train(*options)
    same(lab, never_cut_off)


@pytest.mark.slow
def test_a_step_learns_what_it_learns_with_a_copy_in_each_process(
    split: Callable[[Path, int], Split], whole: Split, tmp_path: Path
) -> None:
    lab = split(tmp_path / "storage", 2)
    lab.train(*LEARNING)
    assert {*load_file(lab.folder() / RESULTS[0])} == {*load_file(whole.folder() / RESULTS[0])}
    own, other = (np.array([json.loads(line)["loss"] for line in metrics(e)]) for e in (lab, whole))
    # The norm of the gradients is summed in another order: that grows from step to step.
    assert np.allclose(own[:PER_EPOCH], other[:PER_EPOCH], rtol=0, atol=1e-4)
    assert np.allclose(own, other, rtol=0, atol=2e-2)
    judged = [json.loads(metrics(each)[PER_EPOCH - 1]) for each in (lab, whole)]
    # The average of the weights is what is judged.
    assert abs(judged[0]["val_loss"] - judged[1]["val_loss"]) < 1e-3


@pytest.mark.slow
def test_what_a_run_leaves_is_evaluated_exported_and_compared_without_torchrun(
    whole: Split, tmp_path: Path
) -> None:
    lab = Lab(whole.project, tmp_path / "storage")
    shutil.copytree(whole.storage, lab.storage)
    assert "on 360 test examples" in lab.run(lab.package, "evaluate")
    assert "the same as" in lab.run(lab.package, "export")
    lab.run("gradlab", "compare", str(lab.folder()), "--output", str(tmp_path / "compared"))
    evaluation = json.loads((lab.folder() / "evaluation.json").read_text())
    best = max(json.loads(line).get("val_accuracy", 0) for line in metrics(lab))
    assert abs(evaluation["accuracy"] - best) < 0.15
    output = lab.train("--shard", *LEARNING, code=2)
    assert "start them with torchrun --nproc-per-node N" in output
    assert "shard" in lab.train(*LEARNING, *SMALL, code=2)


def metrics(lab: Lab) -> list[str]:
    return (lab.folder() / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "size, precision, compiled, words",
    [
        (1, "fp32", False, "there is one: start them with torchrun"),
        (2, "fp16", False, "give --precision bf16 or fp32"),
        (2, "fp32", True, "does not go with --compile"),
    ],
)
def test_what_cannot_be_split_is_refused(
    size: int, precision: str, compiled: bool, words: str
) -> None:
    with pytest.raises(GradlabError, match=words):
        team(World(0, size, torch.device("cpu")), precision, compiled)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Team]:
    """A team of one process, which splits as one of several does."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/met", rank=0, world_size=1)
    yield Team(World(0, 1, torch.device("cpu")), dist.group.WORLD)
    dist.destroy_process_group()


class Rows(torch.optim.SGD):
    """Keeps a number for each row of a parameter."""

    def step(self) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["rows"] = parameter.detach().mean(1)


def test_an_optimizer_whose_state_would_not_come_back_is_refused(alone: Team) -> None:
    network = nn.Linear(4, 4, bias=False)
    alone.split(network)
    usual, other = torch.optim.AdamW(network.parameters()), Rows(network.parameters())
    for optimizer in (usual, other):
        network(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    alone.prove(usual)
    with pytest.raises(GradlabError, match=r"the state of Rows: its 'rows' has not the shape"):
        alone.prove(other)


def test_a_parameter_without_dimensions_is_refused_by_its_reason(alone: Team) -> None:
    network = nn.Linear(2, 2)
    network.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(GradlabError, match=r"--shard can't split the model .*scalar"):
        alone.split(network)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2))
        self.heads = nn.ModuleDict({"next": nn.Linear(4, 9), "other": nn.Linear(4, 9)})
        self.heads["next"].weight = self.words.weight


def test_modules_in_lists_are_gathered_apart_unless_they_share_parameters() -> None:
    network = Tied()
    assert _blocks(network) == [*network.layers, network.heads["other"]]
