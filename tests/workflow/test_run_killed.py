"""`kill -9` of the runner and all its children at any moment, then the same command again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..lab import descendants
from ..services.processes import send
from .conftest import HAS_BUBBLEWRAP, Project, wait_for

KILLS = 12

# Each step of `train` depends on all before it, and the file is replaced as a whole: what a
# resumed run ends with shows whether it took up exactly what the killed one had written.
TRAIN = """
import hashlib, json, os, sys
folder, data = sys.argv[1:]
print("trains")
path = f"{folder}/state.json"
state = {"step": 0, "weights": open(f"{data}/seed").read()}
if os.path.exists(path):
    state = json.load(open(path))
for step in range(state["step"], 200):
    weights = hashlib.sha256(f"{state['weights']} {step}".encode()).hexdigest()
    state = {"step": step + 1, "weights": weights}
    with open(f"{path}.tmp", "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)
    with open(f"{folder}/steps", "a") as file:
        print(step, file=file)
    import time; time.sleep(0.02)
"""
WORKFLOW = """
    "on": {github: {branches: {only: main}}}
    jobs:
      checkout:
        outputs: {repo: {type: volume}}
        uses: git-checkout@v1
        with: {url: context.event.github.url}
      seed:
        outputs: {data: {type: dataset, with: {ref: data}}}
        uses: script@v1
        with: {image: "bash:5", script: "sleep 0.1; echo 7 > /outputs/data/seed"}
      train:
        needs: [checkout, seed]
        inputs: {repo: checkout.outputs.repo, data: seed.outputs.data}
        outputs:
          model: {type: dataset, with: {ref: model}}
          log: {type: dataset, with: {ref: log}}
        uses: script@v1
        with:
          image: python:3.11
          script: |
            set -e
            cd /inputs/repo
            python train.py /outputs/model /inputs/data
            sed -i /x/d /outputs/model/steps && mv /outputs/model/steps /outputs/log/steps
      register:
        needs: [train]
        inputs: {model: train.outputs.model, log: train.outputs.log}
        outputs: {model-id: {type: string}}
        uses: create-model@v1
        with: {name: demo, type: Custom}
"""


def kill_everything(runner: subprocess.Popen[str]) -> None:
    """Kill a process and all that descend from it, as a machine that goes away does."""
    family: list[int] = []
    while found := {runner.pid, *descendants(runner.pid)} - {*family}:
        send(signal.SIGSTOP, *found)  # so that none starts another one unseen
        family += found
    send(signal.SIGKILL, *family)
    runner.wait()


def check_every_version_is_whole(project: Project) -> None:
    """Compare each version that is to be seen with its manifest."""
    for manifest in (project.storage / "datasets").glob("*/v*/manifest.json"):
        files = json.loads(manifest.read_text())["files"]
        data = manifest.parent / "data"
        found = {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()}
        assert found == set(files)
        for name, entry in files.items():
            content = (data / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]


def model(project: Project) -> bytes:
    """Read the newest model."""
    return (project.versions("model")[-1] / "data" / "state.json").read_bytes()


@pytest.mark.parametrize("engine", ["bubblewrap", "paths"])
@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(
    project: Project, tmp_path: Path, engine: str
) -> None:
    if engine == "bubblewrap" and not HAS_BUBBLEWRAP:
        pytest.skip("bubblewrap is not installed")
    (project.root / "train.py").write_text(TRAIN)
    project.workflow(WORKFLOW)
    unbroken = Project(project.root, tmp_path / "unbroken", project.env)
    unbroken.ok("run", "train", "--engine", engine, GRADLAB_STORAGE=str(unbroken.storage))

    seed = random.randrange(1 << 32)
    moments, begun = random.Random(seed), set[str]()
    for number in range(KILLS):
        runner = project.start("run", "train", "--engine", engine)
        if number % 3 == 2:  # surely during the training, however slow this machine is
            wait_for(runner, "[train] trains")
        time.sleep(moments.uniform(0.05, 0.8) if number % 3 < 2 else moments.uniform(0, 0.4))
        assert runner.poll() is None, f"seed {seed}: it ended before it was killed"
        kill_everything(runner)
        check_every_version_is_whole(project)
        begun |= {path.name for path in (project.storage / "drafts" / "train").glob("*")}
    project.ok("run", "train", "--engine", engine)
    assert model(project) == model(unbroken), f"seed {seed}"
    assert "train" in begun, f"seed {seed}: no kill hit the training"
    check_the_end(project, seed)


@pytest.mark.slow
def test_a_machine_lost_at_random_moments_loses_at_most_what_was_not_yet_copied(
    project: Project, tmp_path: Path
) -> None:
    slow = {
        "GRADLAB_STORAGE_SLOW": "1",
        "GRADLAB_SCRATCH": str(tmp_path / "scratch"),
        "GRADLAB_MIRROR_MINUTES": "0.001",
    }
    (project.root / "train.py").write_text(TRAIN)
    project.workflow(WORKFLOW)
    unbroken = Project(project.root, tmp_path / "unbroken", project.env)
    unbroken.ok("run", "train", GRADLAB_STORAGE=str(unbroken.storage))

    seed = random.randrange(1 << 32)
    moments, copies = random.Random(seed), 0
    for number in range(KILLS):
        runner = project.start("run", "train", **slow)
        wait_for(runner, "[train] trains" if number % 2 else "[checkout]")
        time.sleep(moments.uniform(0, 0.5))
        kill_everything(runner)
        shutil.rmtree(tmp_path / "scratch")
        check_every_version_is_whole(project)
        copies += any((project.storage / "drafts" / "train" / "train").glob("*.json"))
    output = project.ok("run", "train", **slow)
    assert model(project) == model(unbroken), f"seed {seed}"
    assert copies, f"seed {seed}: no draft was ever copied"
    assert "[train] carries on with the copy of its outputs" in output, f"seed {seed}"
    assert "DAMAGED" not in project.ok("datasets", "verify", **slow)


COMMIT = """
    jobs:
      job:
        outputs:
          a: {type: dataset, with: {ref: a}}
          b: {type: dataset, with: {ref: b}}
          v: {type: volume}
          s: {type: string}
        uses: script@v1
        with:
          image: bash:5
          script: |
            for i in $(seq 60); do echo $i > /outputs/a/$i; echo $i > /outputs/b/$i; done
            echo 1 > /outputs/v/file; echo x > /outputs/s; echo written
      next:
        needs: [job]
        inputs: {a: job.outputs.a, v: job.outputs.v, s: job.outputs.s}
        uses: script@v1
        with: {image: "bash:5", script: "cat /inputs/v/file /inputs/s /inputs/a/60"}
"""


@pytest.mark.parametrize("left", [0, 30])
def test_a_success_whose_record_was_lost_with_the_power_is_not_repeated(
    project: Project, left: int
) -> None:
    project.workflow(COMMIT.replace("cat /inputs/v/file", "false; exit 1"))
    assert project.run("run", "train", "--engine", "paths").returncode == 1
    records = sorted((project.storage / "workflows" / "train" / "jobs").glob("job-*.json"))
    assert '"succeeded"' in records[-1].read_text() and '"committing"' in records[-2].read_text()
    os.truncate(records[-1], left)
    project.workflow(COMMIT)
    output = project.ok("run", "train", "--engine", "paths")
    assert project.states(output) == {"job": "reused", "next": "ran"}
    assert len(project.versions("a")) == len(project.versions("b")) == 1
    check_every_version_is_whole(project)


@pytest.mark.slow
def test_a_run_killed_while_it_commits_commits_everything_once(project: Project) -> None:
    project.workflow(COMMIT)
    seed = random.randrange(1 << 32)
    moments = random.Random(seed)
    for number in range(1, KILLS + 1):
        runner = project.start("run", "train", "--engine", "paths")
        wait_for(runner, "[job] written")
        time.sleep(moments.uniform(0, 0.25))
        kill_everything(runner)
        check_every_version_is_whole(project)
        if not done(project):
            project.ok("run", "train", "--engine", "paths")
        check_every_version_is_whole(project)
        for name in "ab":
            versions = project.versions(name)
            assert len(versions) == number, f"seed {seed}"
            assert len(list((versions[-1] / "data").iterdir())) == 60


TWO = """
    jobs:
      first:
        outputs: {a: {type: dataset, with: {ref: a}}}
        uses: script@v1
        with: {image: "bash:5", script: echo 1 > /outputs/a/file}
      second:
        needs: [first]
        outputs: {b: {type: dataset, with: {ref: b}}}
        uses: script@v1
        with: {image: "bash:5", script: "[ -e /outputs/b/file ] || ! touch /outputs/b/file"}
"""


def test_a_kill_just_after_a_job_succeeded_leaves_nothing_of_its_draft(project: Project) -> None:
    project.workflow(TWO)
    project.fails(1, "run", "train")
    left = project.storage / "drafts" / "train" / "first"
    (left / "outputs" / "a").mkdir(parents=True)
    (left / "draft.json").write_text("{}")
    assert "[first] reused" in project.ok("run", "train")
    assert not left.exists()


def check_the_end(project: Project, seed: int) -> None:
    for name in ("data", "model", "log"):
        assert len(project.versions(name)) == 1, f"seed {seed}: {name} was committed twice"
    check_every_version_is_whole(project)
    assert len(list((project.storage / "models" / "demo").iterdir())) == 1
    left = [path for path in (project.storage / "drafts").rglob("*") if path.is_file()]
    assert not left, f"seed {seed}"


def done(project: Project) -> bool:
    """Tell whether the last run has completed; the newest record may be cut off."""
    for record in sorted((project.storage / "workflows" / "train").glob("run-*.json"))[::-1]:
        try:
            return bool(json.loads(record.read_text())["finished"])
        except ValueError:
            continue
    return False
