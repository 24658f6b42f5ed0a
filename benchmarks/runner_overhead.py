"""What `gradlab run` costs per job beyond the time of the job's own script.

    python benchmarks/runner_overhead.py [--engine bubblewrap] [--jobs 10]

Each job reads the dataset of the one before it and commits one of its own, so that mounting,
hashing, flushing and the record are all in the figure. The first line is a run of one job:
Python's start and the check of the spec are in it too. The target is 0.3 s per job.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KIT = Path(__file__).parents[1] / "kit" / "src"
SCRIPT_SECONDS = 0.2
TARGET = 0.3
REPEATS = 5


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


def seconds(jobs: int, engine: str) -> float:
    """Run a chain of jobs once."""
    with tempfile.TemporaryDirectory() as folder:
        specs = Path(folder, ".gradient", "workflows")
        specs.mkdir(parents=True)
        (specs / "chain.yaml").write_text(workflow(jobs))
        Path(folder, "pyproject.toml").write_text('[project]\nname = "bench"\n')
        command = [sys.executable, "-m", "gradlab", "run", "chain", "--engine", engine]
        env = os.environ | {"PYTHONPATH": str(KIT)}
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> None:
    """Measure, and say whether the target is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", default="bubblewrap")
    parser.add_argument("--jobs", type=int, default=10)
    arguments = parser.parse_args()
    worst = 0.0
    for jobs in (1, arguments.jobs):
        times = [seconds(jobs, arguments.engine) for _ in range(REPEATS)]
        overhead = [t / jobs - SCRIPT_SECONDS for t in times]
        worst = max(overhead) if jobs > 1 else worst
        print(
            f"{arguments.engine}: a run of {jobs:>2} jobs costs "
            f"{statistics.median(overhead):.3f} s per job beyond its script "
            f"(from {min(overhead):.3f} to {max(overhead):.3f}, {REPEATS} runs)"
        )
    print(f"target {TARGET} s per job: {'met' if worst < TARGET else 'NOT MET'}")
    sys.exit(worst >= TARGET)


if __name__ == "__main__":
    main()
