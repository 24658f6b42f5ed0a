"""A project's own workflow on a cluster that cuts its jobs off: the bytes of one that never was."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ..conftest import generate
from ..kit import paths
from ..lab import Lab, descendants
from ..test_own_workflows import newest, sha
from .cluster import Cluster, until
from .conftest import tell
from .ways import WAYS, where

# Many more of them: CUTS=60
CUTS = int(os.environ.get("CUTS", "5"))
FILES = ("model.safetensors", "metrics.jsonl", "best.safetensors")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that trains for some seconds."""
    project = generate(tmp_path_factory.mktemp("small"), {})
    config = project / "src" / project.name / "config.py"
    text = config.read_text()
    for given, taken in (
        ("epochs: int = 60", f"epochs: int = {8 * CUTS}"),  # not over before the last cut
        ("width: int = 32", "width: int = 8"),
    ):
        assert given in text
        text = text.replace(given, taken)
    config.write_text(text)
    kind = re.findall(
        r"instance-type: (\S+)", (project / ".gradient/workflows/train.yaml").read_text()
    )
    rows = [f"{each}: {{cpus: 1, engine: paths}}\n" for each in sorted(set(kind))]
    rows.append("two: {nodes: 2, cpus: 1, engine: paths}\n")
    (project / "slurm.yaml").write_text("".join(rows))
    return project


def is_under_way(cluster: Cluster, runner: Any) -> bool:
    """Tell whether a job runs, or none will any more."""
    return bool(where(cluster)) or runner.poll() is not None


def has_finished(lab: Lab) -> bool:
    """Tell whether the workflow's newest run has finished."""
    records = sorted((lab.storage / "workflows/train").glob("run-*.json"))
    return bool(records) and bool(json.loads(records[-1].read_text())["finished"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_workflow_that_is_cut_off_ends_with_the_same_bytes(
    small: Path, tmp_path: Path, cluster: Cluster
) -> None:
    plain = Lab(small, tmp_path / "plain")
    plain.run(plain.package, "train", "--name", "train")
    seed = random.randrange(1_000_000)
    print(f"The moments of the cuts are those of seed {seed}.")
    moment = random.Random(seed)
    lab = Lab(small, tmp_path / "storage", {"SLURM_CONF": cluster.env["SLURM_CONF"]})
    command = ("gradlab", "run", "train", "--engine", "slurm")
    runner = lab.start(*command)
    done, ends = 0, {0}
    for number in range(CUTS):
        way = moment.choice([*WAYS, "submission"])
        if way == "submission":
            tell([runner.pid, *descendants(runner.pid)], signal.SIGKILL)
            runner.communicate()
            if has_finished(lab):  # the command would begin another run
                ends.add(-signal.SIGKILL)
                break
            runner = lab.start(*command)
        else:
            until(partial(is_under_way, cluster, runner), "a job", 60)
            time.sleep(moment.uniform(0, 4))
            if runner.poll() is not None:
                break
            WAYS[way](cluster)
        done = number + 1
    output, _ = runner.communicate(timeout=900)
    assert runner.returncode in ends, output
    print(f"{done} cuts")
    run = newest(lab, f"{lab.package}-run") / "runs" / "train"
    for name in FILES:
        assert sha(run / name) == plain.sha("train", name)
    for dataset in ("run", "model"):
        assert len(list((lab.storage / "datasets" / f"{lab.package}-{dataset}").glob("v*"))) == 1
    assert len(list((lab.storage / "models" / lab.package).glob("*.json"))) == 1
    shutil.rmtree(lab.storage)


GANG = """\
jobs:
  train:
    resources: {instance-type: two}
    outputs: {run: {type: dataset, with: {ref: run}}}
    env: {GRADLAB_STORAGE: /outputs/run, PYTHONPATH: SRC, OMP_NUM_THREADS: "1"}
    uses: script@v1
    with:
      image: bash:5
      script: torchrun -m PACKAGE train --name train OPTIONS
"""


@pytest.mark.slow
@pytest.mark.parametrize("cut, shard", [(None, []), ("requeued", ["--shard"]), ("lost", [])])
def test_torchrun_is_a_gang_of_all_machines(
    small: Path, tmp_path: Path, cluster: Cluster, cut: str | None, shard: list[str]
) -> None:
    """It ends with the bytes of the same number of processes on one machine."""
    plain = Lab(small, tmp_path / "plain", small=["--epochs", "20", "--workers", "0", *shard])
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    plain.run(*launcher, plain.package, "train", "--name", "train", *plain.small)
    lab = Lab(small, tmp_path / "storage", {"SLURM_CONF": cluster.env["SLURM_CONF"]})
    text = GANG.replace("SRC", paths(small / "src")).replace("PACKAGE", lab.package)
    text = text.replace("OPTIONS", " ".join(plain.small))
    (small / ".gradient/workflows/gang.yaml").write_text(text)
    runner = lab.start("gradlab", "run", "gang", "--engine", "slurm")
    metrics = lab.storage / "drafts/gang/train/outputs/run/runs/train/metrics.jsonl"
    if cut:
        until(lambda: metrics.exists() and metrics.stat().st_size > 2000, "the first steps", 120)
        WAYS[cut](cluster)
    output, _ = runner.communicate(timeout=400)
    assert runner.returncode == 0, output
    assert sha(newest(lab, "run") / "runs/train/model.safetensors") == plain.sha("train")
