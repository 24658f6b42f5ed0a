"""A cluster of two nodes for all tests, and a project whose jobs it does."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..workflow.conftest import Project, make_project
from .cluster import Cluster, lacking, until

__all__ = ["make_project"]

TABLE = 'C5: {partition: low, time: "10:00", cpus: 1, engine: paths}\n'


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Cluster]:
    if program := lacking():
        pytest.skip(f"{program} is not installed (apt-get install slurm-wlm)")
    # A socket's path is short.
    top = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(top)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(top, ignore_errors=True)


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Iterator[Cluster]:
    """Give the cluster without a job."""
    yield whole_cluster
    whole_cluster.clear()


@pytest.fixture
def project(make_project: Callable[[str], Project], cluster: Cluster) -> Project:
    project = make_project("demo")
    project.env["SLURM_CONF"] = cluster.env["SLURM_CONF"]
    (project.root / "slurm.yaml").write_text(TABLE)
    return project


def job(script: str, name: str = "job", more: str = "") -> str:
    """Give a job as YAML: a script, with an output that is a dataset of the job's name."""
    lines = "".join(f"\n            {line}" for line in script.splitlines())
    return f"""
      {name}:
        resources: {{instance-type: C5}}
        outputs: {{out: {{type: dataset, with: {{ref: {name}}}}}}}
        {more}
        uses: script@v1
        with:
          image: bash:5
          script: |{lines}"""


# Counts in its output up to a number, and says by its exit code that there is more.
COUNTS = """\
trap 'told=1' TERM
n=$(cat /outputs/out/n 2>/dev/null || echo 0)
while [ $n -lt LIMIT ]; do
  n=$((n + 1)); echo $n > /outputs/out/part; mv /outputs/out/part /outputs/out/n
  echo $n >> /outputs/out/counted; echo $n 2>/dev/null >> HERE/counted; sleep 0.1
  [ -z "$told" ] || exit 75
done"""


def counting(project: Project, limit: int) -> None:
    """Write a workflow with a job that counts, and one that needs it."""
    script = COUNTS.replace("LIMIT", str(limit)).replace("HERE", str(project.root))
    needs = "needs: [job]\n        inputs: {n: job.outputs.out}"
    last = job("cp /inputs/n/n /outputs/out/n", "last", needs)
    project.workflow(f"    jobs:{job(script)}{last}\n")


def counted(project: Project) -> list[int]:
    """List what was counted, by all attempts; under bubblewrap as their outputs tell."""
    places = [
        project.root / "counted",
        *(version / "data/counted" for version in project.versions("job")),
    ]
    places += project.storage.glob("drafts/train/job*/outputs/out/counted")
    path = next((path for path in places if path.exists()), None)
    return [int(line) for line in path.read_text().split()] if path else []


def is_counted(project: Project, limit: int) -> None:
    """Check that all is done, nothing twice but what was cut off."""
    assert [(version / "data/n").read_text() for version in project.versions("last")] == [
        f"{limit}\n"
    ]
    assert sorted(set(counted(project))) == list(range(1, limit + 1))


def run(project: Project, *options: str, code: int = 0) -> str:
    """Run the workflow on the cluster, to its end."""
    command = ("run", "train", "--engine", "slurm", *options)
    return project.ok(*command) if not code else project.fails(code, *command)


def submitted(output: str) -> int:
    """Read how many jobs a command has submitted."""
    found = re.search(r"(\d+) jobs submitted", output)
    return int(found[1]) if found else 0


def started(project: Project, reached: Callable[[], object], what: str) -> subprocess.Popen[str]:
    """Start the workflow on the cluster and see it reach something."""
    runner: subprocess.Popen[str] = project.start("run", "train", "--engine", "slurm")
    until(reached, what, 30)
    return runner


def ended(runner: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = runner.communicate(timeout=120)
    assert runner.returncode == code, output
    return output


def tell(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to those processes that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
