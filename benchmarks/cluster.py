"""What a job of a workflow costs on a cluster beyond Slurm's own, and a thousand submissions.

    python benchmarks/cluster.py [--rounds 3]

A real Slurm on this machine, with one node of one processor, does jobs that wait for nothing: as
batch scripts, and as jobs of a workflow with a dataset each. A job's figure is that of twelve less
that of two, divided by ten, and what is shown is the difference of the two kinds.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ours
from measure import Row, alone, interleaved, seconds, tell

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.slurm.cluster import Cluster, lacking, until

ROUNDS = 3
FEW, MANY, THOUSAND = 2, 12, 1000  # jobs
TABLE = "default: {cpus: 1, engine: paths}\n"
JOB = """\
  job{number}:
    outputs: {{made: {{type: dataset, with: {{ref: made{number}}}}}}}
    uses: script@v1
    with:
      image: python:3.11
      script: echo {number} > /outputs/made/file
"""


def rows(rounds: int) -> Iterator[Row]:
    """Measure both kinds in turn, then a thousand submissions."""
    if program := lacking():
        tell(f"cluster: left out, for {program} is not installed (apt-get install slurm-wlm)")
        return
    top = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(top, nodes=1, cpus=1)
    try:
        cluster.start()
        kinds = {
            f"{kind.__name__} {jobs}": lambda kind=kind, jobs=jobs: kind(cluster, jobs)
            for kind in (scripts, workflow)
            for jobs in (FEW, MANY)
        }
        times = interleaved("cluster", kinds, rounds)
        own, plain = (_each(times, kind) for kind in ("workflow", "scripts"))
        more = [a - b for a, b in zip(own, plain, strict=True)]
        yield seconds("a job on a cluster, beyond a batch script's own", "", more, 0.3)
        yield seconds(f"{THOUSAND:,} jobs submitted", "", [submitted(cluster)], 60)
    finally:
        cluster.stop()
        shutil.rmtree(top, ignore_errors=True)


def _each(times: dict[str, list[float]], kind: str) -> list[float]:
    pairs = zip(times[f"{kind} {FEW}"], times[f"{kind} {MANY}"], strict=True)
    return [(many - few) / (MANY - FEW) for few, many in pairs]


def scripts(cluster: Cluster, jobs: int) -> float:
    """Have Slurm do batch scripts; give the seconds from their release to the last one's end."""
    _held(cluster)
    for _ in range(jobs):
        cluster.ask("sbatch", "-c1", "--output=/dev/null", "--wrap=echo x > /dev/null")
    return _released(cluster)


def workflow(cluster: Cluster, jobs: int) -> float:
    """Have Slurm do the jobs of a workflow; give the same."""
    with tempfile.TemporaryDirectory() as folder:
        _held(cluster)
        _submit(cluster, Path(folder), jobs)
        return _released(cluster)


def submitted(cluster: Cluster) -> float:
    """Give the seconds that submitting a thousand jobs takes."""
    with tempfile.TemporaryDirectory() as folder:
        _held(cluster)
        began = time.perf_counter()
        _submit(cluster, Path(folder), THOUSAND)
        took = time.perf_counter() - began
        cluster.ask("scancel", "--me")
        return took


def _submit(cluster: Cluster, folder: Path, jobs: int) -> None:
    text = "jobs:\n" + "".join(JOB.format(number=number) for number in range(jobs))
    gradlab = ours.with_workflow(folder, text, SLURM_CONF=cluster.env["SLURM_CONF"])
    (folder / "slurm.yaml").write_text(TABLE)
    gradlab("run", "job", "--engine", "slurm", "--detach")


def _held(cluster: Cluster) -> None:
    cluster.ask("scontrol", "update", "PartitionName=low", "State=DOWN")


def _released(cluster: Cluster) -> float:
    began = time.perf_counter()
    cluster.ask("scontrol", "update", "PartitionName=low", "State=UP")
    until(lambda: not cluster.queue(), "the end of all jobs", 120)
    return time.perf_counter() - began


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
