"""`gradlab runs`: trainings of each state, many of them, damaged and unreadable ones."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gradlab.inventory.trainings import trainings
from gradlab.store import remote
from gradlab.store.folder import Folder
from gradlab.store.location import Location
from gradlab.store.objects import ObjectStore

from ..lab import STEPS, Lab
from ..services.bucket import NAME, Bucket, Fault

MANY = 1000
SECONDS = 2.0


def listed(lab: Lab) -> dict[str, dict[str, Any]]:
    rows = json.loads(lab.run("gradlab", "runs", "--json"))
    return {row["run"]: row for row in rows}


def test_a_run_is_listed_as_cut_off_running_finished_or_failed(
    whole: Lab, interrupted: Lab
) -> None:
    lab, before = interrupted, listed(interrupted)["default"]
    assert before["state"] == "cut off" and 0 < before["steps"] < STEPS
    lab.train_until(lambda: listed(lab)["default"]["state"] == "running", "--save-seconds", "0")
    lab.train("--save-seconds", "0")
    row, alone = listed(lab)["default"], listed(whole)["default"]
    assert (row["state"], row["steps"], row["problems"]) == ("finished", STEPS, [])
    assert row["sessions"] > before["sessions"] > 1 and alone["sessions"] == 1
    same = ("metric", "best", "best_step", "last", "steps", "code", "data")
    assert [row[name] for name in same] == [alone[name] for name in same]
    lines = map(json.loads, (lab.folder() / "metrics.jsonl").read_text().splitlines())
    values = [line["val_accuracy"] for line in lines if "val_accuracy" in line]
    assert row["last"] == values[-1] and row["best"] == pytest.approx(max(values), 1e-5)
    lab.train("--name", "bad", "--learning-rate", "1e9", code=1)
    assert listed(lab)["bad"]["state"] == "failed"
    table = lab.run("gradlab", "runs")
    assert "runs/default" in table and f"accuracy {max(values):.4g}" in table


def copies(whole: Lab, top: Path, count: int) -> Path:
    """Make a storage of many runs, whose files are those of one."""
    for number in range(count):
        shutil.copytree(whole.folder(), top / f"runs/n{number:04}", copy_function=os.link)
    return top


def test_a_thousand_runs_are_listed_in_two_seconds_and_a_damaged_one_hides_none(
    whole: Lab, tmp_path: Path
) -> None:
    kept = copies(whole, tmp_path / "kept", MANY)
    place = Location(Folder(kept), kept)
    for name, damage in (("n0001", b"\xff" * 100), ("n0002", b"")):
        for path in (kept / "runs" / name / "checkpoints").glob("*.safetensors"):
            path.unlink()
            path.write_bytes(damage)
    began = time.process_time()
    found = {each.name: each for each in trainings(place)}
    assert time.process_time() - began < SECONDS
    assert len(found) == MANY
    assert {name for name, each in found.items() if each.summary.problems} == {"n0001", "n0002"}
    assert "is damaged" in found["n0001"].summary.problems[0]
    assert found["n0001"].summary.step == STEPS, "by its name"
    assert {each.state for each in found.values()} == {"finished", "cut off"}


def test_in_a_bucket_one_that_can_not_be_read_hides_none(
    whole: Lab, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "SHORT", (0.01,))
    bucket.take(f"{tmp_path.name}/", copies(whole, tmp_path / "kept", 3))
    bucket.faults.append(Fault("GET", "n0001/", status=403, code="AccessDenied"))
    place = Location(ObjectStore(f"s3://{NAME}/{tmp_path.name}"), tmp_path / "work")
    one, bad, other = trainings(place)
    assert one.summary == other.summary and one.summary.step == STEPS and one.summary.last
    assert all("can't be read" in each for each in bad.summary.problems) and bad.kept.size
    assert bad.name == "n0001" and bad.where.startswith("s3://")
