"""`gradlab run` whose storage is a bucket: machines come and go, what they made stays."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..services.bucket import NAME, Bucket, Fault
from ..services.s3 import KEYS
from .conftest import Project, wait_for

WORKFLOW = """
jobs:
  make:
    outputs: {made: {type: dataset, with: {ref: made}}}
    uses: script@v1
    with: {image: "bash:5", script: "echo good > /outputs/made/file"}
  train:
    needs: [make]
    inputs: {made: make.outputs.made}
    outputs: {trained: {type: dataset, with: {ref: trained}}}
    uses: script@v1
    with:
      image: bash:5
      script: |
        set -e
        cat /inputs/made/file
        echo step >> /outputs/trained/log
        if [ $(wc -l < /outputs/trained/log) = 1 ]; then echo waits; sleep 60; fi
"""


class Machine:
    """A machine with a disk of its own, which may vanish; what it keeps is in a bucket."""

    def __init__(self, project: Project, bucket: Bucket, disk: Path) -> None:
        self.project, self.bucket, self.disk = project, bucket, disk
        self.prefix = f"{disk.parent.name}/"
        self.env = {
            **bucket.env,
            "GRADLAB_STORAGE": f"s3://{NAME}/{disk.parent.name}",
            "GRADLAB_SCRATCH": str(disk),
            "GRADLAB_MIRROR_MINUTES": "0.003",
            "GRADLAB_LEASE_SECONDS": "2",
        }

    def ok(self, *arguments: str) -> str:
        return self.project.ok(*arguments, **self.env)

    def lists(self) -> list[str]:
        keys = self.bucket.keys(f"{self.prefix}drafts/train/train/")
        return [key for key in keys if key.endswith(".json")]

    def cut_off(self, text: str, then: Callable[[], object]) -> None:
        runner = self.project.start("run", "train", "--engine", "paths", **self.env)
        wait_for(runner, text)
        then()
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()

    def until_copied(self) -> None:
        end = time.monotonic() + 30
        while not self.lists():
            assert time.monotonic() < end, "the draft was not copied"
            time.sleep(0.05)


@pytest.fixture
def machine(project: Project, bucket: Bucket, tmp_path: Path) -> Machine:
    project.workflow(WORKFLOW)
    return Machine(project, bucket, tmp_path / "disk")


@pytest.mark.slow
def test_a_machine_that_is_lost_loses_nothing_and_another_carries_on(machine: Machine) -> None:
    machine.cut_off("[train] waits", machine.until_copied)
    shutil.rmtree(machine.disk)
    machine.bucket.requests.clear()
    output = machine.ok("run", "train", "--engine", "paths")
    assert machine.project.states(output) == {"make": "reused", "train": "ran"}
    assert "[train] carries on with the copy of its outputs" in output
    assert "[train] good" in output
    gets = [each for each in machine.bucket.requests if each.startswith("GET") and "/data/" in each]
    assert len(gets) == len({*gets}), "no file is fetched twice"
    assert "ok" in machine.ok("datasets", "verify")
    shown = machine.ok("datasets", "show", "trained")
    assert "trained:v1-" in shown and f"in s3://{NAME}/" in shown
    assert any(key.endswith("logs/train.log") for key in machine.bucket.keys(machine.prefix))
    # A run that is finished leaves nothing to wait for: the next one begins at once.
    assert "reused" not in machine.ok("run", "train", "--engine", "paths", "--job", "make")


def test_a_second_machine_is_told_that_another_is_at_work(machine: Machine, tmp_path: Path) -> None:
    machine.env["GRADLAB_LEASE_SECONDS"] = "60"

    def refused() -> None:
        other = machine.env | {"GRADLAB_SCRATCH": str(tmp_path / "other")}
        text = machine.project.fails(2, "run", "train", "--engine", "paths", "--fresh", **other)
        assert "another process is doing job 'train'" in text or "is at work on s3://" in text

    machine.cut_off("[train] waits", refused)
    # On its own machine a killed run is not waited for.
    began = time.monotonic()
    machine.ok("run", "train", "--engine", "paths")
    assert time.monotonic() - began < 45


def test_credentials_are_seen_nowhere(machine: Machine, tmp_path: Path) -> None:
    machine.project.workflow("""
        jobs:
          tell:
            outputs: {out: {type: dataset, with: {ref: told}}}
            env: {GRADLAB_STORAGE: "s3://elsewhere/x"}
            uses: script@v1
            with:
              image: bash:5
              script: "env; echo $AWS_SECRET_ACCESS_KEY | wc -c > /outputs/out/x"
          other:
            outputs: {out: {type: dataset, with: {ref: other}}}
            uses: script@v1
            with: {image: "bash:5", script: "env | grep -c AWS_ > /outputs/out/x || true"}
    """)
    output = machine.ok("run", "train", "--engine", "paths")
    assert "[tell] AWS_SECRET_ACCESS_KEY=***" in output, "its own storage's client needs it"
    secret = KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    assert secret.decode() not in output
    kept = machine.bucket.bring(machine.prefix, tmp_path / "kept")
    files = [path for top in (kept, machine.disk) for path in top.rglob("*") if path.is_file()]
    assert files and not [path for path in files if secret in path.read_bytes()]
    texts = {path.parts[-4]: path.read_text() for path in kept.glob("datasets/*/v*/data/x")}
    assert texts == {"told": f"{len(secret) + 1}\n", "other": "0\n"}, "no other job has them"


def test_a_bucket_that_refuses_ends_the_run_before_its_first_job(machine: Machine) -> None:
    machine.bucket.faults.append(Fault(status=403, code="AccessDenied"))
    text = machine.project.fails(1, "run", "train", "--engine", "paths", **machine.env)
    assert "the credentials that were found (403 AccessDenied)" in text and "[make]" not in text


def test_the_doctor_says_what_can_be_done_with_the_bucket(machine: Machine) -> None:
    text = machine.project.run("doctor", **machine.env).stdout
    assert f"s3://{NAME}/{machine.disk.parent.name} (persistent: set by GRADLAB_STORAGE)" in text
    assert "can be read and written" in text and "as the storage's" in text
    machine.env["GRADLAB_STORAGE"] = "s3://no-such-bucket/x"
    text = machine.project.run("doctor", **machine.env).stdout
    assert "x access" in text and "there is no such bucket" in text
