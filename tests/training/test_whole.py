"""A network that needs more than its weights goes on, is evaluated and exported whole."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from .. import warm
from ..conftest import generate
from ..failing import Done, Forks
from .kinds import KINDS, REFUSED
from .test_kept import TINY, Tiny

HERE = Path(__file__).parent
# As the training's last evaluation that was better than all before: to the last bit.
AGAIN = """
import json, sys
from .data import datasets
from . import task
from .learner import load_best
from gradlab.train.measures import measure
path, learner = load_best("my_model", "default", "cpu")
values, _ = measure(learner, datasets().validation, "validation", task)
print(json.dumps(values))
"""


def replaced(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    project = generate(tmp_path_factory.mktemp("kinds"), {})
    package = project / "src" / "my_model"
    shutil.copy(HERE / "kinds.py", package)
    (package / "again.py").write_text(AGAIN)
    replaced(package / "data.py", "in data.target]", "in data.target[:120]]")
    replaced(package / "task.py", '("val_accuracy", "highest")', '("val_loss", "lowest")')
    replaced(package / "config.py", "    width: int", "    kind: str = ''\n    width: int")
    net = "Net(config.width, config.dropout)"
    replaced(package / "model.py", f"return {net}", f"return made(config.kind, {net})")
    replaced(package / "model.py", "from .config", "from .kinds import made\nfrom .config")
    return Forks(project, *warm.TRAINING, "my_model.train", "my_model.export")


def lab(forks: Forks, folder: Path) -> Tiny:
    # What is compiled is little: processes that share the work would take longer to start.
    env = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return Tiny(forks.project, folder / "storage", env, forks=forks)


def options(kind: str) -> list[str]:
    steps = ["--batch-size", "32", "--evaluate-every", "1", "--epochs", "8"]  # two in an epoch
    return ["train", *TINY, *steps, "--model.kind", kind]


def ended(done: Done) -> Done:
    assert done.code == 0, done.output
    return done


# Those whose average is more than that of the parameters and buffers that there are at first.
AVERAGED = ("Counter", "BornLater", "Growing", "Lazy", "Tied", "OlderNorms", "Types", "Turned")
# Compiled anew in each process, which takes a while: one is enough.
COMPILED = ("NotPersistent",)
CASES = [pytest.param(kind, [], id=kind) for kind in KINDS]
CASES += [pytest.param(kind, ["--ema", "0.9"], id=f"{kind}-averaged") for kind in AVERAGED]
CASES += [pytest.param(kind, ["--compile"], id=f"{kind}-compiled") for kind in COMPILED]
# Of what torch has no translation for.
NO_ONNX = {
    "Norms": "DispatchError: No ONNX function found",  # matrix_exp
    "Types": "DispatchError: No ONNX function found",  # sparse
    "Observed": "DispatchError: No ONNX function found",  # fused observers
    "scripted": "ValueError: Exporting a ScriptModule is not supported",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind, more", CASES)
def test_a_network_goes_on_and_is_evaluated_and_exported_whole(
    forks: Forks, tmp_path: Path, kind: str, more: list[str]
) -> None:
    whole, killed = (lab(forks, tmp_path / name) for name in ("whole", "killed"))
    command = [*options(kind), *more]
    calls = len(ended(whole.fork(*command)).calls)
    # Before its first evaluation, after it, and one more.
    for step in range(1 if "--compile" in more else 3):
        assert f"at step {step} of" in ended(killed.fork(*command, "--max-minutes", "0")).output
    done = killed.fork(*command, at=calls // 2, error="SIGKILL")
    assert done.code == -signal.SIGKILL, done.output
    assert "carrying on at step" in ended(killed.fork(*command)).output
    assert killed.results() == whole.results()
    found = json.loads(ended(killed.fork(module="my_model.again")).output.splitlines()[-1])
    assert {f"val_{name}": value for name, value in found.items()} == judged(whole)
    if more:
        return  # it is exported as without them
    exported = killed.fork("export")
    if kind in NO_ONNX:
        assert exported.code == 2
        assert f"can't be written as ONNX: {NO_ONNX[kind]}" in exported.output
    else:
        assert "the same as" in ended(exported).output


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_kept_is_refused_before_the_first_step(
    forks: Forks, tmp_path: Path, kind: str
) -> None:
    done = lab(forks, tmp_path).fork(*options(kind))
    assert done.code == 2, done.output
    assert REFUSED[kind][1] in done.output


def judged(lab: Tiny) -> Any:
    """Give the measures of the evaluation whose weights were kept, as they are recorded."""
    lines = [json.loads(line) for line in (lab.folder() / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in line.items() if k.startswith("val_")} for line in lines]
    return pytest.approx(min(filter(None, rows), key=lambda row: row["val_loss"]), 1e-5)
