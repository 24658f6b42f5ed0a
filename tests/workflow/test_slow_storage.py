"""`gradlab run` where the storage is slow and uploads later, or never.

Where a test deletes something of the storage, that was not uploaded before its machine was lost.
"""

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

from gradlab.base import files

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
        self.options: list[str] = []
        self.env = {
            "GRADLAB_STORAGE_SLOW": "1",
            "GRADLAB_SCRATCH": str(disk),
            "GRADLAB_MIRROR_MINUTES": "0.003",
        }

    def run(self) -> str:
        return self.project.ok("run", "train", *self.options, **self.env)

    def lists(self) -> list[Path]:
        return sorted(self.kept.glob("*.json"))

    def dies(self, text: str = "[train] waits", after: Callable[[], object] | None = None) -> None:
        """Run the workflow until it says something and its draft is copied, then lose the disk."""

        def copied() -> None:
            end = time.monotonic() + 10
            while not (after or self.lists)():
                assert time.monotonic() < end, "the draft was not copied"
                time.sleep(0.05)
            time.sleep(0.3)

        cut_off(self.project, text, copied, "auto", *self.options, **self.env)
        self.is_lost()

    def is_lost(self) -> None:
        shutil.rmtree(self.disk)


def cut_off(
    project: Project,
    text: str,
    then: Callable[[], object] = lambda: None,
    engine: str = "paths",
    *options: str,
    **env: str,
) -> None:
    """Run the workflow until it says something, do something, then kill it with all its jobs."""
    runner = project.start("run", "train", "--engine", engine, *options, **env)
    wait_for(runner, text)
    then()
    os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()


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


@pytest.mark.parametrize("slow_again", [True, False])
def test_a_new_run_does_not_find_what_the_finished_one_has_written(
    project: Project, machine: Machine, slow_again: bool
) -> None:
    machine.dies()
    machine.run()
    assert machine.lists()
    if not slow_again:
        machine.env["GRADLAB_STORAGE_SLOW"] = "0"
    machine.dies(after=lambda: any(machine.kept.rglob("*")))  # for it has one line again
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
    machine.options = ["--accept-changes"]
    seen: set[Path] = set()

    def many() -> bool:
        seen.update(machine.lists())
        return len(seen) > 12

    machine.dies(after=many)
    assert uploaded in machine.lists() and len(machine.lists()) < 8
    listed = json.loads(uploaded.read_text())["files"].values()
    for digest in (file["sha256"] for file in listed):
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


# What stays in the copy

WAITS = "if [ ! -e $HERE/go ]; then touch $HERE/go; echo waits; sleep 60; fi"


def jobs(project: Project, **scripts: str) -> None:
    """Write a workflow of jobs that need each other in this order; HERE is the project's folder."""
    text, before = "jobs:\n", ""
    for name, script in scripts.items():
        needs = f"\n    needs: [{before}]" if before else ""
        text += f"""  {name}:{needs}
    outputs: {{out: {{type: dataset, with: {{ref: {name}}}}}}}
    uses: script@v1
    env: {{HERE: {project.root}}}
    with:
      image: bash:5
      script: |-
        set -e
        {script}
"""
        before = name
    project.workflow(text)


@pytest.mark.parametrize("slow", [True, False])
def test_a_job_that_is_done_again_keeps_what_it_writes_when_it_is_cut_off(
    project: Project, machine: Machine, slow: bool
) -> None:
    if not slow:
        machine.env = {}
    last = "test -e $HERE/good; echo > /outputs/out/x"
    jobs(project, train="echo step >> /outputs/out/log", last=last)
    project.fails(1, "run", "train", "--engine", "paths", **machine.env)
    again = "echo again >> /outputs/out/log; test $(wc -l < /outputs/out/log) = 3"
    jobs(project, train=again, last=last)
    for _ in range(2):
        project.fails(1, "run", "train", "--engine", "paths", **machine.env)
    (project.root / "good").touch()
    project.ok("run", "train", "--engine", "paths", **machine.env)
    (version,) = [v for v in project.versions("train") if v.name.startswith("v2-")]
    assert (version / "data/log").read_text() == "again\nagain\nagain\n"


def is_new(path: Path) -> bool:
    return path.stat().st_mtime > time.time() - HOURS_AGO / 2


def test_a_copy_that_was_passed_over_does_not_push_out_the_one_that_was_taken(
    project: Project, machine: Machine
) -> None:
    machine.dies()
    good = machine.lists()[-1]
    data = json.loads(good.read_text())
    del data["checksum"]
    data["files"]["trained/more"] = {"size": 1, "sha256": "0" * 64, "executable": False}
    good.with_name("00000090.json").write_text(json.dumps(data))
    for path in machine.kept.rglob("*"):
        os.utime(path, (time.time() - HOURS_AGO,) * 2)
    project.workflow(WORKFLOW.replace("= 1 ]", "= 2 ]"))
    machine.options = ["--accept-changes"]
    machine.dies(after=lambda: [path for path in machine.lists() if is_new(path)])
    for path in filter(is_new, machine.lists()):
        path.unlink()
    project.workflow(WORKFLOW)
    assert "carries on with the copy of its outputs" in machine.run()
    assert log(project).count("step") > 1


def test_a_copy_of_a_run_whose_record_was_lost_is_taken_up(
    project: Project, machine: Machine, tmp_path: Path
) -> None:
    machine.dies()
    machine.run()
    record = project.storage / "workflows"
    shutil.copytree(record, tmp_path / "uploaded")
    machine.dies()
    shutil.rmtree(record)
    shutil.copytree(tmp_path / "uploaded", record)
    assert "[train] carries on with the copy of its outputs" in machine.run()


def test_a_volume_that_was_lost_with_its_machine_is_made_from_its_copy(
    project: Project, machine: Machine
) -> None:
    project.workflow("""
        jobs:
          train:
            outputs: {made: {type: volume}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                echo line >> /outputs/made/log; sleep 0.5
          last:
            needs: [train]
            inputs: {made: train.outputs.made}
            outputs: {out: {type: dataset, with: {ref: out}}}
            uses: script@v1
            with:
              image: bash:5
              script: |
                cp /inputs/made/log /outputs/out/
                if [ $(wc -l < /inputs/made/log) = 1 ]; then echo waits; sleep 60; fi
    """)
    machine.dies("[last] waits")
    assert "[train] carries on with the copy of its outputs" in machine.run()
    assert (project.versions("out")[-1] / "data/log").read_text() == "line\nline\n"


def test_a_list_that_was_never_written_to_its_end_does_not_end_the_copying(
    project: Project, machine: Machine
) -> None:
    machine.dies()
    broken = machine.kept / "00000090.json"
    broken.touch()
    project.workflow(WORKFLOW.replace("= 1 ]", "= 2 ]"))
    machine.options = ["--accept-changes"]
    machine.dies(after=lambda: machine.lists()[-1] != broken and machine.lists()[1:])
    assert broken not in machine.lists()
    assert "carries on with the copy of its outputs" in machine.run()


def test_a_file_that_is_held_for_a_copy_keeps_what_it_held(tmp_path: Path) -> None:
    (tmp_path / "save").write_text("content")
    os.link(tmp_path / "save", tmp_path / "held")
    files.remove(tmp_path / "save")
    assert (tmp_path / "held").read_text() == "content"


# What was lost while the run went on


def test_a_version_that_is_lost_while_the_run_goes_on_is_brought_again(
    project: Project, machine: Machine
) -> None:
    jobs(
        project,
        make="echo 1 > /outputs/out/x",
        last=f"rm -r {project.storage}/datasets/make/v*; echo 1 > /outputs/out/x",
    )
    project.ok("run", "train", "--engine", "paths", **machine.env)
    assert "ok" in project.ok("datasets", "verify", "make", **machine.env)
    assert len(project.versions("make")) == 1


def test_what_is_made_again_with_the_same_content_is_no_reason_to_train_again(
    project: Project, machine: Machine
) -> None:
    jobs(
        project,
        make="echo 1 > /outputs/out/x",
        train="sleep 0.1; echo 1 > /outputs/out/x",
        last=f"{WAITS}; echo 1 > /outputs/out/x",
    )
    text = (project.root / ".gradient/workflows/train.yaml").read_text()
    inputs = "    needs: [make]\n    inputs: {made: make.outputs.out}"
    project.workflow(text.replace("    needs: [make]", inputs))
    cut_off(project, "[last] waits", **machine.env)
    machine.is_lost()
    shutil.rmtree(project.versions("make")[0])
    output = project.ok("run", "train", "--engine", "paths", **machine.env)
    assert project.states(output) == {"make": "ran", "train": "reused", "last": "ran"}


OWN = """
jobs:
  train:
    inputs: {before: {type: dataset, with: {ref: trained}}}
    outputs: {out: {type: dataset, with: {ref: trained}}}
    uses: script@v1
    with: {image: "bash:5", script: "echo 1 > /outputs/out/x"}
  last:
    needs: [train]
    env: {HERE: FOLDER}
    outputs: {out: {type: dataset, with: {ref: last}}}
    uses: script@v1
    with: {image: "bash:5", script: "WAITS; echo 1 > /outputs/out/x"}
"""


def test_a_first_run_that_was_cut_off_does_not_take_its_own_version_for_an_earlier_one(
    project: Project,
) -> None:
    waits = WAITS.replace("$HERE", str(project.root))
    project.workflow(OWN.replace("FOLDER", str(project.root)).replace("WAITS", waits))
    cut_off(project, "[last] waits")
    output = project.ok("run", "train", "--engine", "paths")
    assert project.states(output) == {"train": "reused", "last": "ran"}


def test_a_dataset_that_a_run_began_with_and_that_was_lost_has_to_come_again(
    project: Project, machine: Machine, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "x").write_text("1")
    add = ("datasets", "add", "mine", str(data))
    project.ok(*add, **machine.env)
    (data / "x").write_text("2")
    project.ok(*add, **machine.env)
    jobs(project, train=f"cat /inputs/mine/x > /outputs/out/x; {WAITS}")
    text = (project.root / ".gradient/workflows/train.yaml").read_text()
    inputs = "  train:\n    inputs: {mine: {type: dataset, with: {ref: mine}}}"
    project.workflow(text.replace("  train:", inputs))
    cut_off(project, "[train] waits", **machine.env)
    machine.is_lost()
    shutil.rmtree(project.versions("mine")[-1])
    text = project.fails(2, "run", "train", "--engine", "paths", **machine.env)
    assert "which this run began with, is not in" in text and "Add the same files again" in text
    project.ok(*add, **machine.env)
    project.ok("run", "train", "--engine", "paths", **machine.env)
    assert (project.versions("train")[0] / "data/x").read_text() == "2"


def test_one_job_begun_anew_leaves_no_finished_draft_for_the_next_run(
    project: Project, machine: Machine
) -> None:
    jobs(
        project,
        a="echo line >> /outputs/out/x; sleep 0.5",
        b="echo line >> /outputs/out/x; sleep 0.5",
        c="test -e $HERE/good; echo 1 > /outputs/out/x",
    )
    project.fails(1, "run", "train", "--engine", "paths", **machine.env)
    (project.root / "good").touch()
    project.ok("run", "train", "--engine", "paths", "--fresh", "--job", "a", **machine.env)
    project.ok("run", "train", "--engine", "paths", **machine.env)
    assert (project.versions("b")[-1] / "data/x").read_text() == "line\n"


def test_what_was_about_to_become_a_version_goes_back_into_the_outputs(
    project: Project, machine: Machine
) -> None:
    project.env.update(GRADLAB_STORAGE_SLOW="0")
    cut_off(project, "[train] waits")
    (machine.kept / "commit/trained").mkdir()
    (machine.kept / "outputs/trained").rename(machine.kept / "commit/trained/data")
    project.ok("run", "train", "--engine", "paths")
    assert log(project) == "step\nstep\n"
