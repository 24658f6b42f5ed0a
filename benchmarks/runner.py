"""What `gradlab run` costs per job beyond the time of the job's own script.

    python benchmarks/runner.py [--rounds 5]

Each of ten jobs reads the dataset of the one before it and commits one of its own, so that
mounting, hashing, flushing and the record are all in the figure, and a tenth of Python's start and
of the check of the spec. By the clock, for a job waits for the disk and for processes that start.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ours
from measure import Row, alone, interleaved, seconds

ROUNDS = 5
JOBS = 10
SCRIPT_SECONDS = 0.2
ENGINES = ("bubblewrap", "paths")


def rows(rounds: int) -> Iterator[Row]:
    """Measure a chain of jobs under each engine."""
    kinds = {engine: lambda engine=engine: per_job(engine) for engine in ENGINES}
    for engine, times in interleaved("runner", kinds, rounds).items():
        yield seconds(f"the runner's part of a job ({engine})", "", times, 0.05)


def workflow(jobs: int) -> str:
    """Give a chain of jobs, each of which takes the same time."""
    text = "jobs:\n"
    for number in range(jobs):
        text += f"  job{number}:\n"
        if number:
            text += f"    needs: [job{number - 1}]\n"
            text += f"    inputs: {{before: job{number - 1}.outputs.made}}\n"
        copy = "ls /inputs/before; " if number else ""
        text += f"    outputs: {{made: {{type: dataset, with: {{ref: made{number}}}}}}}\n"
        text += "    uses: script@v1\n    with:\n      image: python:3.11\n"
        text += f"      script: {copy}sleep {SCRIPT_SECONDS}; echo {number} > /outputs/made/file\n"
    return text


def per_job(engine: str) -> float:
    """Run the chain once; give the seconds of a job beyond its script."""
    with tempfile.TemporaryDirectory() as folder:
        gradlab = ours.with_workflow(Path(folder), workflow(JOBS))
        began = time.perf_counter()
        gradlab("run", "job", "--engine", engine)
        return (time.perf_counter() - began) / JOBS - SCRIPT_SECONDS


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
