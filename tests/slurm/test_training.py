"""A project's own workflow on a cluster that cuts its jobs off: the bytes of one that never was."""

from __future__ import annotations

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
        ("epochs: int = 60", "epochs: int = 40"),
        ("width: int = 32", "width: int = 8"),
    ):
        assert given in text
        text = text.replace(given, taken)
    config.write_text(text)
    kind = re.findall(
        r"instance-type: (\S+)", (project / ".gradient/workflows/train.yaml").read_text()
    )
    rows = [f"{each}: {{cpus: 1, engine: paths}}\n" for each in sorted(set(kind))]
    (project / "slurm.yaml").write_text("".join(rows))
    return project


def is_under_way(cluster: Cluster, runner: Any) -> bool:
    """Tell whether a job runs, or none will any more."""
    return bool(where(cluster)) or runner.poll() is not None


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
    done = 0
    for number in range(CUTS):
        way = moment.choice([*WAYS, "submission"])
        if way == "submission":
            tell([runner.pid, *descendants(runner.pid)], signal.SIGKILL)
            runner.communicate()
            runner = lab.start(*command)
        else:
            until(partial(is_under_way, cluster, runner), "a job", 60)
            time.sleep(moment.uniform(0, 4))
            if runner.poll() is not None:
                break
            WAYS[way](cluster)
        done = number + 1
    output, _ = runner.communicate(timeout=900)
    assert runner.returncode == 0, output
    print(f"{done} cuts")
    run = newest(lab, f"{lab.package}-run") / "runs" / "train"
    for name in FILES:
        assert sha(run / name) == plain.sha("train", name)
    for dataset in ("run", "model"):
        assert len(list((lab.storage / "datasets" / f"{lab.package}-{dataset}").glob("v*"))) == 1
    assert len(list((lab.storage / "models" / lab.package).glob("*.json"))) == 1
    shutil.rmtree(lab.storage)
