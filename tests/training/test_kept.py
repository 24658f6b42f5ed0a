"""What a run keeps: whatever call of the storage fails and whatever bit of it flips.

The runs are tiny and forked, so that many cases cost little. A seed is in each test's name.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradlab.base.errors import GradlabError
from gradlab.store.copier import Copier
from gradlab.store.copies import is_whole
from gradlab.store.folder import SlowMount
from gradlab.train import checkpoint, weightfile
from gradlab.train.compare import compare_command
from gradlab.train.record import Record
from gradlab.train.run_copies import RunCopies

from ..failing import ERRORS, Done, Forks, flip_a_bit, kept
from ..kit import paths
from ..lab import Lab
from .test_checkpoint import save_now

# More of each kind are tried where this is set, as by hand before a release.
CASES = int(os.environ.get("CASES", "4"))
TINY = ["--epochs", "4", "--evaluate-every", "2", "--batch-size", "16", "--model.width", "4"]
TINY += ["--workers", "0", "--save-seconds", "0"]
RESULTS = ("model.safetensors", "best.safetensors", "metrics.jsonl")


@dataclass
class Tiny(Lab):
    """A run of 16 steps on 72 examples, in a fork."""

    forks: Forks | None = None
    last: list[Done] = field(default_factory=list)

    def fork(self, *arguments: str, module: str = "", **how: object) -> Done:
        assert self.forks
        env = {"GRADLAB_STORAGE": str(self.storage), **self.env}
        under = [self.storage, self.storage.parent / "scratch"]
        done = self.forks.run(module or self.package, *arguments, env=env, under=under, **how)  # type: ignore[arg-type]
        # Workers that a library has started see its end by SIGKILL, and may say so.
        if done.code != -signal.SIGKILL:
            assert "Traceback" not in done.output, done.failed + done.output
        return done

    def fork_train(self, **how: object) -> Done:
        return self.fork("train", *TINY, **how)

    def results(self) -> dict[str, bytes]:
        return {name: (self.folder() / name).read_bytes() for name in RESULTS}

    def copied_from(self, other: Tiny) -> Tiny:
        """Take over the state of another lab, in the place of this one's."""
        for name in ("storage", "scratch"):
            shutil.rmtree(self.storage.parent / name, ignore_errors=True)
            if (other.storage.parent / name).exists():
                shutil.copytree(other.storage.parent / name, self.storage.parent / name)
        return self


@pytest.fixture
def tiny(forks: Forks, tmp_path: Path) -> Tiny:
    return Tiny(forks.project, tmp_path / "storage", forks=forks)


@pytest.fixture(scope="module")
def never_cut_off(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    lab = Tiny(forks.project, tmp_path_factory.mktemp("whole") / "storage", forks=forks)
    assert lab.fork_train().code == 0
    return lab


@pytest.fixture(scope="module", params=["folder", "slow storage"])
def cut_off(
    request: pytest.FixtureRequest, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Tiny:
    """A run that was killed in its middle, when it had two checkpoints."""
    lab = Tiny(forks.project, tmp_path_factory.mktemp("cut") / "storage", forks=forks)
    if request.param == "slow storage":
        lab.on_slow_storage()
    for _ in range(2):
        assert lab.fork("train", *TINY, "--max-minutes", "0").code == 0
    assert lab.fork_train(at=60, error="SIGKILL").code == -signal.SIGKILL
    assert len(lab.checkpoints()) >= 2
    return lab


def ends_right(lab: Tiny, done: Done, whole: Tiny) -> Done:
    """Give the same command again if it failed; then all is as if nothing had been."""
    outputs = done.output
    if done.code:
        again = lab.fork_train()
        outputs += again.output
        assert again.code == 0, outputs
    assert lab.results() == whole.results(), outputs
    assert "starting at step 0" not in outputs and "from the beginning" not in outputs, outputs
    return done


@pytest.mark.parametrize("seed", range(CASES))
def test_any_call_that_fails_once_costs_no_run(
    cut_off: Tiny, tiny: Tiny, never_cut_off: Tiny, seed: int
) -> None:
    tiny.env = cut_off.env
    if cut_off.env:
        tiny.on_slow_storage()
    # Opening, middle and end in turn, each with all errors in turn.
    moment = random.Random(seed)
    count = 330 if cut_off.env else 150
    at = moment.randrange(1, 50) if seed % 2 else moment.randrange(50, count)
    done = tiny.copied_from(cut_off).fork_train(at=at, error=ERRORS[seed % len(ERRORS)])
    ends_right(tiny, done, never_cut_off)


def test_a_failed_listing_is_not_taken_for_an_empty_folder(
    cut_off: Tiny, tiny: Tiny, never_cut_off: Tiny
) -> None:
    tiny.env = cut_off.env
    if cut_off.env:
        tiny.on_slow_storage()
    calls = tiny.copied_from(cut_off).fork_train().calls
    found = [
        n for n, call in enumerate(calls, 1) if call.startswith("list") and "checkpoints" in call
    ]
    for at, error in ((found[0], "EIO"), (found[0], "ENOSPC"), (found[1], "ESTALE")):
        done = tiny.copied_from(cut_off).fork_train(at=at, error=error)
        if done.code:
            assert "can't be" in done.output and "No space left" in done.output, done.output
        ends_right(tiny, done, never_cut_off)


@pytest.mark.parametrize("file", [".metrics.jsonl.", "checkpoints/."])
@pytest.mark.parametrize("cut_off", ["slow storage"], indirect=True)
def test_what_was_brought_back_by_half_is_brought_back_whole_by_the_next_session(
    cut_off: Tiny, tiny: Tiny, never_cut_off: Tiny, file: str
) -> None:
    tiny.env = cut_off.env
    tiny.on_slow_storage()
    tiny.copied_from(cut_off)
    shutil.rmtree(tiny.storage.parent / "scratch")
    done = tiny.fork_train(at=1, only=f"rename */{file}*", error="ENOSPC")
    assert done.code, done.output
    ends_right(tiny, done, never_cut_off)


@pytest.mark.parametrize("seed", range(CASES))
def test_a_flipped_bit_of_a_cut_off_run_is_mended_or_told(
    cut_off: Tiny, tiny: Tiny, never_cut_off: Tiny, seed: int
) -> None:
    tiny.env = cut_off.env
    if cut_off.env:
        tiny.on_slow_storage()
    moment = random.Random(seed)
    tiny.copied_from(cut_off)
    flipped = flip_a_bit(moment.choice(kept(tiny.storage.parent)), moment)
    done = tiny.fork_train()
    assert done.code == 0, flipped + done.output
    assert tiny.results() == never_cut_off.results(), flipped + done.output
    assert tensorboard_steps(tiny.folder()) == tiny.steps() == list(range(1, 17)), flipped


@pytest.fixture(scope="module")
def answers(never_cut_off: Tiny) -> dict[str, str]:
    """What a whole run gives, by the file on which it depends."""
    return {name: ask(never_cut_off, name).output for name in QUESTIONS}


# The file that is read, and the command that reads it.
QUESTIONS = {"best.safetensors": "evaluate", "metrics.jsonl": "compare"}


def ask(lab: Tiny, file: str, **how: object) -> Done:
    if QUESTIONS[file] == "evaluate":
        done = lab.fork("evaluate", **how)
    else:
        done = lab.fork("compare", str(lab.folder()), "--output", "out", module="gradlab", **how)
    return Done(done.code, done.output.replace(str(lab.storage), ""))


@pytest.mark.parametrize("seed", range(CASES))
@pytest.mark.parametrize("file", QUESTIONS)
def test_a_flipped_bit_of_a_finished_run_is_never_believed(
    never_cut_off: Tiny, tiny: Tiny, answers: dict[str, str], file: str, seed: int
) -> None:
    path = tiny.copied_from(never_cut_off).folder() / file
    flipped = flip_a_bit(path, random.Random(seed))
    done = ask(tiny, file)
    right = done.code == 0 and done.output.endswith(answers[file])
    assert right or (done.code == 1 and f"{file} is damaged" in done.output), flipped + done.output


@pytest.mark.parametrize("seed", range(CASES))
def test_a_failing_call_alters_no_answer(
    never_cut_off: Tiny, tiny: Tiny, answers: dict[str, str], seed: int
) -> None:
    file = list(QUESTIONS)[seed % 2]
    at, error = random.Random(seed).randrange(1, 30), ERRORS[seed // 2 % len(ERRORS)]
    done = ask(tiny.copied_from(never_cut_off), file, at=at, error=error)
    if done.code == 0:
        undrawn = "could not be drawn" in done.output
        lines = [line for line in answers[file].splitlines() if not (undrawn and ".png" in line)]
        assert lines and all(line in done.output for line in lines), done.output
    else:
        assert "can't be" in done.output or "Nothing can be written" in done.output, done.output


@pytest.mark.parametrize("file", RESULTS)
def test_the_same_command_mends_what_a_finished_run_gave(
    never_cut_off: Tiny, tiny: Tiny, file: str
) -> None:
    path = tiny.copied_from(never_cut_off).folder() / file
    flip_a_bit(path, random.Random(file))
    assert f"{path} was damaged" in tiny.fork_train().output
    assert tiny.results() == never_cut_off.results()


# Slow storage keeps copies with checksums instead.
@pytest.mark.parametrize("cut_off", ["folder"], indirect=True)
@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_what_was_recorded_is_made_anew_from_its_other_half(
    cut_off: Tiny, tiny: Tiny, never_cut_off: Tiny, name: str
) -> None:
    path = tiny.copied_from(cut_off).folder() / name
    path = next(iter(kept(path))) if path.is_dir() else path
    flip_a_bit(path, random.Random(1))
    done = tiny.fork_train()
    assert f"{path} " in done.output.replace(":", " ") and "made anew" in done.output
    assert tiny.results() == never_cut_off.results()
    assert tensorboard_steps(tiny.folder()) == tiny.steps()


def tensorboard_steps(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0})
    return [event.step for event in events.Reload().Scalars("loss")]


def test_tensorboard_shows_all_steps_where_the_next_machines_clock_is_behind(tiny: Tiny) -> None:
    for ahead in (7200, 3600, 0):
        assert tiny.fork("train", *TINY, "--max-minutes", "0", clock=ahead).code == 0
    assert tiny.fork_train(clock=-3600).code == 0
    assert tensorboard_steps(tiny.folder()) == list(range(1, 17))


def test_another_machine_on_slow_storage_leaves_each_step_once(
    tiny: Tiny, never_cut_off: Tiny
) -> None:
    tiny.on_slow_storage()
    assert tiny.fork("train", *TINY, "--max-minutes", "0", clock=3600).code == 0
    shutil.rmtree(tiny.storage.parent / "scratch")
    assert tiny.fork_train().code == 0
    assert tiny.results() == never_cut_off.results()
    assert tensorboard_steps(tiny.folder()) == list(range(1, 17))


def test_what_only_observes_may_fail_in_any_way(
    forks: Forks, tiny: Tiny, never_cut_off: Tiny, tmp_path: Path
) -> None:
    # No TeX here, a TensorBoard that does not fit, and a log on a disk that is full.
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    (tmp_path / "broken" / "tensorboard").mkdir(parents=True)
    (tmp_path / "broken" / "tensorboard" / "__init__.py").write_text("raise TypeError('protobuf')")
    env = os.environ | {
        "GRADLAB_STORAGE": str(tiny.storage),
        "MATPLOTLIBRC": str(tmp_path / "matplotlibrc"),
        "PATH": "/nonexistent",
        "PYTHONPATH": paths(tmp_path / "broken", forks.project / "src"),
        "OMP_NUM_THREADS": "1",
    }
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "my_model", "train", *TINY]
        done = subprocess.run(command, cwd=forks.project, env=env, stderr=full, check=False)
    assert done.returncode == 0
    assert not (tiny.folder() / "curves.png").exists()
    assert tiny.results() == never_cut_off.results()


def test_a_killed_writers_leftovers_are_gone_with_the_next_session(tiny: Tiny) -> None:
    assert tiny.fork_train(at=1, only="rename *.model.*", error="SIGKILL").code < 0
    assert leftovers(tiny)
    assert tiny.fork_train().code == 0
    assert not leftovers(tiny)


def leftovers(lab: Tiny) -> list[Path]:
    return list(lab.storage.rglob(".*.tmp"))


def test_a_save_arrives_however_many_there_are_while_it_is_copied(tmp_path: Path) -> None:
    store, step = checkpoint.Checkpoints(tmp_path / "work" / "checkpoints"), [0]

    def save() -> None:
        step[0] += 1
        save_now(store, step[0], {"step": step[0]})

    class Slow(SlowMount):
        def put(self, key: str, source: Path) -> str:
            for _ in range(3):
                save()
            return super().put(key, source)

    store.folder.mkdir(parents=True)
    (tmp_path / "work" / "metrics.jsonl").write_text("")
    kept = Slow(tmp_path / "kept")
    copier = Copier(kept, RunCopies(tmp_path / "work", kept, "run"))
    for _ in range(3):
        save()
        assert copier.sync()
        assert any(map(is_whole, kept.path("run/checkpoints").glob("*.safetensors")))
    assert copier.flush()


def test_a_checkpoint_comes_back_from_slow_storage_without_going_through_memory(
    tmp_path: Path,
) -> None:
    work, kept = tmp_path / "work", SlowMount(tmp_path / "kept")
    store = checkpoint.Checkpoints(work / "checkpoints")
    store.folder.mkdir(parents=True)
    (work / "metrics.jsonl").write_text("")
    save_now(store, 1, {"weights": torch.arange(8 * 2**20)})  # 64 MiB
    assert Copier(kept, RunCopies(work, kept, "run")).flush()
    (saved,) = store.folder.glob("*.safetensors")
    whole = saved.read_bytes()
    saved.unlink()
    tracemalloc.start()
    RunCopies(work, kept, "run").restore()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert saved.read_bytes() == whole
    assert len(whole) >= 2**26 and peak < 2**23
    assert not list(store.folder.glob(".*.tmp"))


def test_saving_takes_two_hundredths_of_the_time_all_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saving = [0.0], [0.0]

    def work(seconds: float) -> None:
        now[0] += seconds
        saving[0] += seconds

    def state() -> dict[str, object]:
        work(1.0)
        return {}

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    # In the background: the best model, and the file.
    monkeypatch.setattr(checkpoint.time, "thread_time", lambda: 2.0)
    store = checkpoint.Checkpoints(tmp_path)
    while now[0] < 1000:
        now[0] += 1.0
        if store.due:
            store.save(round(now[0]), state, lambda: None, lambda: None)
            store.wait()
            saving[0] += 2.0
    # Then come the last checkpoint and the results.
    assert 0.01 < (saving[0] + 6.0) / now[0] <= 0.02


def test_a_run_with_another_metric_is_told_which_it_has(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.add(1, 1, {"loss": 1.0, "val_loss": 2.0, "val_f1": 0.5})
    record.close()
    (tmp_path / "config.json").write_text(json.dumps({}))
    (tmp_path / "best.safetensors").write_bytes(weightfile.pack(save({"a": torch.ones(2)}), {}))
    with pytest.raises(GradlabError, match=r"no val_accuracy.*have val_loss, val_f1"):
        compare_command((tmp_path,), tmp_path / "out")


@pytest.mark.parametrize("place", ["length", "checksum", "settings", "data"])
def test_a_model_of_which_a_bit_has_changed_is_refused(tmp_path: Path, place: str) -> None:
    weights = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.zeros(())}
    data = bytearray(weightfile.pack(save(weights), {"name": "x"}))
    path = tmp_path / "best.safetensors"
    path.write_bytes(data)
    found, settings = weightfile.unpack(path, "Train again.", load)
    assert settings == {"name": "x"}
    assert torch.equal(found["b"], weights["b"])
    where = {"length": 0, "checksum": 50, "settings": data.index(b"name"), "data": len(data) - 4}
    data[where[place]] ^= 4
    path.write_bytes(data)
    with pytest.raises(GradlabError, match=r"is damaged: .*\nTrain again"):
        weightfile.unpack(path, "Train again.", load)
