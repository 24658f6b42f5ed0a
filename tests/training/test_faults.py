"""Storage that fails: what was saved stays, training goes on, and the result is the same."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlab.store.copies import is_whole

from ..lab import PER_EPOCH, SMALL, STEPS, Lab


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero_the_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-4096] + bytes(4096))


@pytest.mark.parametrize("damage", [flip_a_byte, cut_the_end, zero_the_tail, Path.unlink])
def test_a_damaged_newest_save_is_told_and_the_one_before_it_taken(
    interrupted: Lab, whole: Lab, damage: Callable[[Path], None]
) -> None:
    older, newest = interrupted.checkpoints()[-2:]
    damage(newest)
    output = interrupted.train()
    assert f"carrying on at step {int(older.name[:10]):,} of" in output
    if damage is not Path.unlink:
        assert f"{newest} is damaged: taking the one before it." in output
    assert interrupted.sha() == whole.sha()
    assert interrupted.steps() == list(range(1, STEPS + 1))


def test_a_run_without_a_whole_save_says_that_it_starts_from_the_beginning(
    interrupted: Lab, whole: Lab
) -> None:
    for path in interrupted.checkpoints():
        cut_the_end(path)
    assert "is whole: starting from the beginning." in interrupted.train()
    assert interrupted.sha() == whole.sha()


def test_damaged_saves_are_gone_once_there_are_two_whole_ones(interrupted: Lab) -> None:
    damaged = interrupted.checkpoints()[-1]
    flip_a_byte(damaged)
    interrupted.train("--save-seconds", "0")
    assert damaged not in interrupted.checkpoints()
    assert len(interrupted.checkpoints()) == 2


def test_lost_metrics_and_events_are_told_and_do_not_stop_the_run(
    interrupted: Lab, whole: Lab
) -> None:
    shutil.rmtree(interrupted.folder() / "tensorboard")
    os.truncate(interrupted.folder() / "metrics.jsonl", 100)
    assert "lost its last" in interrupted.train()
    assert interrupted.sha() == whole.sha()
    assert len(interrupted.steps()) == len(set(interrupted.steps())) < STEPS


def test_a_disk_that_fills_up_costs_nothing_but_the_time(
    lab: Lab, whole: Lab, tmp_path: Path, mounts: Callable[..., None]
) -> None:
    lab.storage.mkdir()
    mounts("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(lab.storage))
    ballast = lab.storage / "ballast"

    def fill() -> bool:
        if len(lab.checkpoints()) < 1 or ballast.exists():
            return False
        free = shutil.disk_usage(lab.storage).free
        ballast.write_bytes(bytes(free))
        return False

    output = lab.train_until(fill, "--save-seconds", "0")
    assert "No space left on device" in output and "Going on." in output
    assert output.count("metrics.jsonl could not be written") == 1
    assert "The run is finished, but" in output and "Make room" in output
    assert lab.checkpoints(), "the checkpoint from before the disk was full is kept"
    ballast.unlink()
    lab.train("--save-seconds", "0")
    assert lab.sha() == whole.sha()
    assert lab.steps() == list(range(1, STEPS + 1))


def test_a_store_that_fails_for_a_while_is_used_again_when_it_works(lab: Lab) -> None:
    kept, away = lab.folder() / "checkpoints", lab.folder() / "away"
    process = lab.start(lab.package, "train", *SMALL, "--epochs", "999", "--save-seconds", "0")
    wait_until(lambda: lab.checkpoints(), process)
    kept.rename(away)
    failed = next(line for line in process.stdout if "could not be saved" in line)
    away.rename(kept)
    known = lab.checkpoints()
    wait_until(lambda: lab.checkpoints()[-1] not in known, process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Going on." in failed + output
    assert "saved. The same command carries on." in output


def test_a_run_whose_last_save_failed_is_not_finished(lab: Lab) -> None:
    # Room for all files but a checkpoint.
    options = ("--epochs", "2", "--save-seconds", "999")
    process = lab.start(lab.package, "train", *SMALL, *options)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (53_000, 53_000))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "File too large" in output and "Finished" not in output
    assert f"does not hold all of it: the checkpoint of step {2 * PER_EPOCH}." in output
    assert (lab.folder() / "model.safetensors").exists()
    assert "Finished" in lab.train(*options)
    assert len(lab.checkpoints()) == 1


def wait_until(reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not reached():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def test_a_read_only_store_is_refused_before_any_training(
    lab: Lab, tmp_path: Path, mounts: Callable[..., None]
) -> None:
    lab.storage.mkdir()
    mounts("-t", "tmpfs", "-o", "ro", "tmpfs", str(lab.storage))
    output = lab.train(code=2)
    assert f"Nothing can be written to {lab.folder().parent}: Read-only file system." in output
    assert "GRADLAB_STORAGE" in output


def test_a_save_of_a_changed_model_is_refused_with_the_weights_that_differ(
    interrupted: Lab, tmp_path: Path
) -> None:
    changed = Lab(tmp_path / "changed", interrupted.storage)
    shutil.copytree(interrupted.project / "src", changed.project / "src")
    shutil.copy(interrupted.project / "pyproject.toml", changed.project)
    model = changed.project / "src" / changed.package / "model.py"
    model.write_text(model.read_text().replace("_block(width, width),", "_block(width, 9),", 1))
    model.write_text(model.read_text().replace("_block(width, 2", "_block(9, 2", 1))
    assert "src/my_model/model.py has changed" in changed.train(code=2)
    output = changed.train("--accept-changes", code=2)
    assert "features.1.0.weight: saved (8, 8, 3, 3), now (9, 8, 3, 3)" in output
    assert "--fresh" in output and "Traceback" not in output


def test_a_name_that_could_leave_the_storage_is_refused(lab: Lab) -> None:
    assert "--name '../x' can't name a folder" in lab.train("--name", "../x", code=2)
    assert not lab.storage.exists()


def test_a_run_that_is_not_finished_can_be_evaluated(interrupted: Lab) -> None:
    assert "on 360 test examples" in interrupted.run(interrupted.package, "evaluate")


def test_evaluation_without_a_model_says_how_to_get_one(lab: Lab) -> None:
    output = lab.run(lab.package, "evaluate", "--name", "never", code=2)
    assert f"train first, with: python -m {lab.package} train --name never" in output


@pytest.fixture
def on_drive(lab: Lab, tmp_path: Path) -> Lab:
    """A lab whose storage is slow, with a machine's own disk beside it."""
    lab.env = {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(tmp_path / "scratch")}
    return lab


def test_slow_storage_holds_the_run_when_the_machine_is_gone(
    on_drive: Lab, whole: Lab, tmp_path: Path
) -> None:
    on_drive.train_until(lambda: any(map(is_whole, on_drive.checkpoints())), "--save-seconds", "0")
    shutil.rmtree(tmp_path / "scratch")
    assert "carrying on at step" in on_drive.train("--save-seconds", "0")
    assert on_drive.sha() == whole.sha()
    assert on_drive.sha(file="metrics.jsonl") == whole.sha(file="metrics.jsonl")
    assert (on_drive.folder() / "curves.png").stat().st_size > 1000


def test_half_an_upload_is_told_and_the_save_before_it_taken(
    on_drive: Lab, whole: Lab, tmp_path: Path
) -> None:
    on_drive.train("--max-minutes", "0.03", "--save-seconds", "0")
    on_drive.train("--max-minutes", "0.02", "--save-seconds", "0")
    assert len(on_drive.checkpoints()) >= 2
    cut_the_end(on_drive.checkpoints()[-1])
    shutil.rmtree(tmp_path / "scratch")
    assert "is damaged or not uploaded whole" in on_drive.train()
    assert on_drive.sha() == whole.sha()
    assert on_drive.steps() == list(range(1, STEPS + 1))


def test_a_save_that_arrived_without_its_metrics_is_the_last_choice(
    on_drive: Lab, whole: Lab, tmp_path: Path
) -> None:
    on_drive.train("--max-minutes", "0.03", "--save-seconds", "0")
    on_drive.train("--max-minutes", "0.02", "--save-seconds", "0")
    newest = on_drive.checkpoints()[-1]
    for path in newest.parent.glob(f"{newest.name[:10]}-*.jsonl"):
        path.unlink()
    shutil.rmtree(tmp_path / "scratch")
    assert f"carrying on at step {int(newest.name[:10])}" not in on_drive.train()
    assert on_drive.sha() == whole.sha()
    assert on_drive.steps() == list(range(1, STEPS + 1))


def test_slow_storage_that_fails_does_not_hold_up_training(on_drive: Lab, whole: Lab) -> None:
    (on_drive.storage / "runs").mkdir(parents=True)
    on_drive.folder().write_text("a file where the folder should be")
    output = on_drive.train("--save-seconds", "0", code=1)
    assert "could not be brought up to date" in output and "The run is finished, but" in output
    on_drive.folder().unlink()
    on_drive.train()
    assert on_drive.sha() == whole.sha()


def test_evaluation_finds_the_best_model_on_slow_storage(on_drive: Lab, tmp_path: Path) -> None:
    on_drive.train()
    shutil.rmtree(tmp_path / "scratch")
    assert "on 360 test examples" in on_drive.run(on_drive.package, "evaluate")
    assert (on_drive.folder() / "confusion_matrix.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("option", ["--epochs", "--evaluate-every"])
def test_a_number_that_makes_no_sense_is_refused(lab: Lab, option: str) -> None:
    assert f"{option} is 0: it must be at least 1." in lab.train(option, "0", code=2)


def test_a_run_started_over_on_another_machine_is_the_one_that_goes_on(
    lab: Lab, tmp_path: Path
) -> None:
    def train(machine: str, *options: str) -> str:
        lab.env = {"GRADLAB_STORAGE_SLOW": "1", "GRADLAB_SCRATCH": str(tmp_path / machine)}
        small = ["--epochs", "1", "--model.width", "4", "--batch-size", "256", "--workers", "0"]
        return lab.run(lab.package, "train", *small, *options)

    assert "Finished" in train("a")
    assert "starting at step 0" in train("b", "--fresh", "--max-minutes", "0")
    (lab.folder() / "generation").write_bytes(b"")  # not uploaded, where the checkpoints were
    assert "carrying on at step" in train("b", "--max-minutes", "0")
    output = train("a")
    assert "carrying on at step" in output and "finished" not in output.partition("\n")[0]
