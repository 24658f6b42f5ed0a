"""What one job more costs `gradlab run`, and what a run costs that has next to none.

    python benchmarks/runner.py [--rounds 5]

Each job reads the dataset of the one before it and commits one of its own, so that mounting,
hashing, flushing and the record are all in the figure, with the start of the job's shell. A job's
figure is that of a run of twelve less that of two, divided by ten. By the clock, for a job waits
for the disk and for processes that start.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ours
from measure import Row, alone, interleaved, seconds

ROUNDS = 5
FEW, MANY = 2, 12  # jobs
ENGINES = ("bubblewrap", "paths")


def rows(rounds: int) -> Iterator[Row]:
    """Measure chains of jobs under each engine."""
    kinds = {
        f"{engine} {jobs}": lambda engine=engine, jobs=jobs: run(engine, jobs)
        for engine in ENGINES
        for jobs in (FEW, MANY)
    }
    times = interleaved("runner", kinds, rounds)
    for engine in ENGINES:
        few, many = times[f"{engine} {FEW}"], times[f"{engine} {MANY}"]
        each = [(m - f) / (MANY - FEW) for f, m in zip(few, many, strict=True)]
        yield seconds(f"the runner's part of a job ({engine})", "", each, 0.05)
    yield seconds(
        f"a run of {FEW} such jobs, its start included (paths)", "", times[f"paths {FEW}"]
    )


def workflow(jobs: int) -> str:
    """Give a chain of jobs that hardly do anything."""
    text = "jobs:\n"
    for number in range(jobs):
        text += f"  job{number}:\n"
        if number:
            text += f"    needs: [job{number - 1}]\n"
            text += f"    inputs: {{before: job{number - 1}.outputs.made}}\n"
        copy = "ls /inputs/before; " if number else ""
        text += f"    outputs: {{made: {{type: dataset, with: {{ref: made{number}}}}}}}\n"
        text += "    uses: script@v1\n    with:\n      image: python:3.11\n"
        text += f"      script: {copy}echo {number} > /outputs/made/file\n"
    return text


def run(engine: str, jobs: int) -> float:
    """Run a chain once; give the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        gradlab = ours.with_workflow(Path(folder), workflow(jobs))
        began = time.perf_counter()
        gradlab("run", "job", "--engine", engine)
        return time.perf_counter() - began


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
