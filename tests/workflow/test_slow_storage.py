"""`gradlab run` where the storage is slow and uploads later, or never."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

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
        mkdir -p /outputs/trained/sub; cp /bin/true /outputs/trained/sub/tool
        if [ $(wc -l < /outputs/trained/log) = 1 ]; then echo waits; sleep 60; fi
"""
HOURS_AGO = 3 * 3600


class Machine:
    """A machine with a disk of its own, which may vanish; what it keeps is on slow storage."""

    def __init__(self, project: Project, disk: Path) -> None:
        self.project, self.disk = project, disk
        self.kept = project.storage / "drafts" / "train" / "train"
        self.env = {
            "GRADLAB_STORAGE_SLOW": "1",
            "GRADLAB_SCRATCH": str(disk),
            "GRADLAB_MIRROR_MINUTES": "0.003",
        }

    def run(self) -> str:
        return self.project.ok("run", "train", **self.env)

    def lists(self) -> list[Path]:
        return sorted(self.kept.glob("*.json"))

    def dies(self, text: str = "[train] waits", after: Callable[[], object] | None = None) -> None:
        """Run the workflow until it says something and its draft is copied, then lose the disk."""
        runner = self.project.start("run", "train", **self.env)
        wait_for(runner, text)
        end = time.monotonic() + 10
        while not (after or self.lists)():
            assert time.monotonic() < end, "the draft was not copied"
            time.sleep(0.05)
        time.sleep(0.3)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
        self.is_lost()

    def is_lost(self) -> None:
        shutil.rmtree(self.disk)


@pytest.fixture
def machine(project: Project, tmp_path: Path) -> Machine:
    project.workflow(WORKFLOW)
    return Machine(project, tmp_path / "disk")


def log(project: Project) -> str:
    """Read what the newest version of what was trained holds."""
    return (project.versions("trained")[-1] / "data" / "log").read_text()


def test_a_lost_machine_loses_no_draft(project: Project, machine: Machine) -> None:
    machine.dies()
    output = machine.run()
    assert project.states(output) == {"make": "reused", "train": "ran"}
    assert "[train] good" in output
    assert log(project) == "step\nstep\n"
    assert "ok" in project.ok("datasets", "verify", **machine.env)
    assert (project.storage / "workflows/train/logs/train.log").is_file()


@pytest.mark.parametrize("what", ["a file", "all of it", "all but the manifest"])
def test_a_result_that_was_never_uploaded_is_made_again_from_the_copy(
    project: Project, machine: Machine, what: str
) -> None:
    machine.dies()
    machine.run()
    (version,) = project.versions("trained")
    place = {"a file": version / "data/log", "all of it": version}.get(what, version / "data")
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    machine.is_lost()
    output = machine.run()
    assert "was not uploaded whole" in output
    assert project.states(output) == {"make": "reused", "train": "ran"}
    assert "[train] carries on with the copy of its outputs" in output
    assert log(project).count("step") > 1


def test_a_new_run_does_not_find_what_the_finished_one_has_written(
    project: Project, machine: Machine
) -> None:
    machine.dies()
    machine.run()
    assert machine.lists()
    machine.dies()  # for it has one line again
    machine.run()
    assert [path.name[:2] for path in project.versions("trained")] == ["v1", "v2"]
    assert log(project) == "step\nstep\n"


def test_a_copy_that_is_surely_uploaded_stays_until_a_later_one_is(
    project: Project, machine: Machine
) -> None:
    often = 'for i in $(seq 300); do echo $i > /outputs/trained/"$i"; sleep 0.02; done; exit 1'
    project.workflow(WORKFLOW.replace("sleep 60", often))
    machine.dies()
    uploaded = machine.lists()[-1]
    for path in machine.kept.rglob("*"):
        os.utime(path, (time.time() - HOURS_AGO,) * 2)
    project.workflow(WORKFLOW.replace("= 1 ]", "= 2 ]").replace("sleep 60", often))
    seen: set[Path] = set()

    def many() -> bool:
        seen.update(machine.lists())
        return len(seen) > 12

    machine.dies(after=many)
    assert uploaded in machine.lists() and len(machine.lists()) < 8
    files = json.loads(uploaded.read_text())["files"].values()
    for digest in (file["sha256"] for file in files):
        data = (machine.kept / "files" / digest[:2] / digest).read_bytes()
        assert sha256(data).hexdigest() == digest


@pytest.mark.parametrize("fast_first", [True, False])
def test_a_draft_moves_between_a_fast_and_a_slow_storage(
    project: Project, machine: Machine, fast_first: bool
) -> None:
    slow = machine.env
    fast = {**slow, "GRADLAB_STORAGE_SLOW": "0", "GRADLAB_SCRATCH": str(machine.disk)}
    machine.env = fast if fast_first else slow
    machine.disk.mkdir()
    machine.dies(after=lambda: any(machine.kept.rglob("*")))
    machine.env = slow if fast_first else fast
    output = machine.run()
    assert "[train] carries on with the copy of its outputs" in output or not fast_first
    assert log(project) == "step\nstep\n"
