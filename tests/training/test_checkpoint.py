"""Checkpoints: what they hold, how long training waits for them, and those of version 0.1."""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

from gradlab.base.errors import GradlabError
from gradlab.train import checkpoint, runs
from gradlab.train.checkpoint import Checkpoints
from gradlab.train.torch import FRAMEWORK, TENSORS

from ..lab import Lab
from .test_weights import VALUES, equal

STATE: dict[str, Any] = {
    "step": 7,
    "network": {"weight": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2).bfloat16()},
    "optimizer": {0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999)}, "groups": [[0], []]},
    "nothing": torch.empty(0, 3),
}


@dataclass
class Options:
    """What a run is opened by."""

    name: str = "name"
    fresh: bool = False
    strict: bool = False
    save_seconds: float = 0.0
    seed: int = 0
    accept_changes: bool = False
    tracker: str = "tensorboard"

    def settings(self) -> dict[str, Any]:
        return {}


def save_now(store: Checkpoints, step: int, state: dict[str, Any]) -> Path:
    """Save, wait for it, and give the file."""
    done: list[int] = []
    store.save(step, lambda: state, lambda: None, lambda: done.append(step))
    store.wait()
    assert done == [step]
    return max(store.folder.glob("*.safetensors"))


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return Checkpoints(folder)


@pytest.mark.parametrize("value", [*VALUES, Counter("abca")], ids=lambda v: type(v).__name__)
def test_a_state_with_any_plain_value_comes_back_equal(store: Checkpoints, value: Any) -> None:
    state = {**STATE, "value": value, (1, None): [value]}
    save_now(store, 7, state)
    assert equal(store.load(), state)


def test_the_same_state_gives_the_same_bytes(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = save_now(store, 7, STATE), save_now(Checkpoints(tmp_path / "other"), 7, STATE)
    assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_any_program_that_reads_safetensors_reads_a_save(store: Checkpoints) -> None:
    path = save_now(store, 7, STATE)
    with safetensors.safe_open(path, "np") as file:
        arrays = [file.get_tensor(name) for name in sorted(file.keys())]
    assert np.array_equal(arrays[0].view(np.float32).reshape(3, 2), STATE["network"]["weight"])


@pytest.mark.parametrize("value", [object(), print, {"a": [torch.nn.Linear(1, 1)]}])
def test_a_state_that_cannot_be_kept_ends_the_run_at_its_first_save(
    store: Checkpoints, value: object
) -> None:
    with pytest.raises(GradlabError, match=r"The state of the run holds a .* can't be saved"):
        save_now(store, 1, {"value": value})


def test_too_little_memory_for_a_save_is_told_and_training_goes_on(
    store: Checkpoints, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_now(store, 1, {"nested": [STATE]})

    def fail(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(FRAMEWORK.arrays, "taken", replace(TENSORS, copied=fail))
    store.save(2, lambda: {"nested": [STATE]}, lambda: None, lambda: None)
    store.wait()
    assert "Step 2 could not be saved" in capsys.readouterr().err
    assert equal(store.load(), {"nested": [STATE]})


def test_the_best_model_is_written_with_the_save_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADLAB_STORAGE", str(tmp_path))
    (tmp_path / "src/project").mkdir(parents=True)
    run = runs.open_run(Options(), {}, tmp_path / "src/project")
    run.write_later("best.safetensors", lambda: b"best")
    with monkeypatch.context() as patch:
        huge = replace(TENSORS, copied=lambda *_: torch.empty(1 << 60))
        patch.setitem(FRAMEWORK.arrays, "taken", huge)
        run.save(1, {**STATE, "unjudged": []}, last=False)
        assert run.wait() == 0
    run.save(2, {**STATE, "unjudged": []}, last=False)
    assert run.wait() == 2
    assert (run.work / "best.safetensors").read_bytes() == b"best"


def test_what_training_does_meanwhile_is_not_in_the_save(
    store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, goes_on = checkpoint.write_durably, threading.Event()

    def write_slowly(*arguments: Any, **options: Any) -> None:
        goes_on.wait()
        write(*arguments, **options)

    monkeypatch.setattr(checkpoint, "write_durably", write_slowly)
    store.seconds = 0
    for step in (1, 2, 3):
        weights, moments = torch.full((4,), float(step)), {0: torch.full((2,), -float(step))}
        state = {"weights": weights, "moments": moments}
        store.save(step, lambda s=state: s, lambda: None, lambda: None)  # type: ignore[misc]
        assert not store.due, "one is under way"
        weights.zero_()
        moments[0].zero_()
        goes_on.set()
        store.wait()
        goes_on.clear()
        saved = store.load()
        assert saved and saved["weights"].tolist() == [step] * 4
        assert saved["moments"][0].tolist() == [-step] * 2


def test_a_second_save_waits_for_the_first(store: Checkpoints) -> None:
    order: list[str] = []

    def wait() -> None:
        time.sleep(0.2)
        order.append("first")

    store.save(1, lambda: {"a": 1}, wait, lambda: order.append("first saved"))
    store.save(2, lambda: {"a": 2}, lambda: order.append("second"), lambda: None)
    store.wait()
    assert order == ["first", "first saved", "second"]
    assert store.load() == {"a": 2}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch use one thread: two that share a core with other tests wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_training_waits_less_than_a_third_of_what_torch_save_takes(
    store: Checkpoints, tmp_path: Path, one_thread: None
) -> None:
    parts = {number: torch.randn(1_000_000) for number in range(16)}  # 64 MB
    save_now(store, 1, parts)  # takes the memory that later ones use again
    ours, theirs = [], []
    for step in range(2, 7):
        begun = time.perf_counter()
        store.save(step, lambda: parts, lambda: None, lambda: None)
        ours.append(time.perf_counter() - begun)
        store.wait()
        begun = time.perf_counter()
        with (tmp_path / "torch.pt").open("wb") as file:
            torch.save(parts, file)
            os.fsync(file.fileno())
        theirs.append(time.perf_counter() - begun)
    ratio = statistics.median(ours) / statistics.median(theirs)
    assert ratio < 1 / 3, f"{ratio:.2f}"


def test_a_run_of_version_0_1_goes_on_from_its_checkpoint(interrupted: Lab, whole: Lab) -> None:
    newest = interrupted.checkpoints()[-1]
    state = Checkpoints(newest.parent).load()
    assert state
    for seen in state["data"].values():
        seen["examples"] = torch.from_numpy(seen["examples"])
    buffer = io.BytesIO()
    torch.save(state, buffer)
    for path in interrupted.checkpoints():
        path.unlink()
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()[:16]
    (newest.parent / f"{newest.name[:10]}-{digest}.pt").write_bytes(buffer.getvalue())
    newest.parent.rename(newest.parent.with_name("saves"))
    output = interrupted.train("--save-seconds", "0")
    assert f"carrying on at step {int(newest.name[:10])}" in output
    assert interrupted.sha() == whole.sha()
    assert not list(newest.parent.parent.rglob("*.pt"))
