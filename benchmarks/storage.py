"""What keeping things safe costs, against the plain way: ratios of interleaved timings, medians.

    python benchmarks/storage.py [--rounds 5] [--files 20000]

- a save of the training's state, while training waits for it, against torch.save and a sync
- a dataset of many small files, as a job and as `gradlab datasets add` make it, against `cp -r`
- the checksums of a dataset, which are compared once in a run, against reading it in 60 epochs
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count as count_up
from pathlib import Path

import numpy as np
import torch

KIT = Path(__file__).parents[1] / "kit" / "src"
sys.path.insert(0, str(KIT))
sys.path.insert(0, str(Path(__file__).parent))

from training import Times, interleaved, show  # noqa: E402

from gradlab.train.checkpoint import Store  # noqa: E402

SIZES = {"381 MB": 95_000_000, "1 GB": 250_000_000}  # of numbers of four bytes
EPOCHS = 60  # as the project's default has them
JOB = """
jobs:
  job:
    uses: script@v1
    outputs:
      made: {type: dataset, with: {ref: made}}
    with: {image: "bash:5", script: %s}
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name, numbers in SIZES.items():
            times = saves(Path(folder, name), numbers, arguments.rounds)
            show(f"waiting for a save of {name}, against torch.save", times, "save", "torch", 0.33)
            print(f"  {statistics.median(times['save']):.2f} s of waiting")
        times = files(Path(folder, "files"), arguments.files, arguments.rounds)
        show(f"a job's dataset of {arguments.files:,} files, against cp -r", times, "job", "cp", 2)
        show("datasets add of them, against cp -r", times, "add", "cp", 2)
        times = checksums(Path(folder, "checked"), arguments.rounds)
        show(f"checksums, against reading in {EPOCHS} epochs", times, "verify", "read", 0.05)


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that something takes, of what the machine had to write before apart."""
    os.sync()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def saves(folder: Path, numbers: int, rounds: int) -> Times:
    """Time the part of a save that training waits for, and torch.save with a sync."""
    (folder / "saves").mkdir(parents=True)
    state = {"weights": torch.randn(numbers // 4), "moments": torch.randn(3, numbers // 4)}
    store = Store(folder / "saves")

    def save() -> float:
        seconds = timed(lambda: store.save(1, lambda: state, lambda: None, lambda: None))
        store.wait()
        return seconds

    def plain() -> None:
        with (folder / "plain.pt").open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())

    times = interleaved({"save": save, "torch": lambda: timed(plain)}, rounds)
    shutil.rmtree(folder)
    return times


def files(folder: Path, count: int, rounds: int) -> Times:
    """Time what makes a dataset of many small files, and a plain copy of them."""
    source, project = folder / "source", folder / "project"
    for number in range(count):
        path = source / f"{number // 200:04d}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 100)
    gradlab = in_project(project, f"cp -r {source} /outputs/made")

    numbers = count_up()

    def copy() -> None:
        # To a new place: a file system that is still freeing an old one is slow.
        target = folder / f"copy-{next(numbers)}"
        subprocess.run(["cp", "-r", source, target], check=True)
        subprocess.run(["sync", "-f", target], check=True)

    kinds = {
        "cp": lambda: timed(copy),
        "job": lambda: timed(lambda: gradlab("run", "job", "--fresh", "--engine", "paths")),
        "add": lambda: timed(lambda: gradlab("datasets", "add", "added", str(source))),
    }
    return interleaved(kinds, rounds)


def checksums(folder: Path, rounds: int) -> Times:
    """Time the check of a dataset of 200 MB, and reading it as a training does."""
    source, arrays = folder / "source", 1000
    source.mkdir(parents=True)
    for number in range(arrays):
        np.save(source / f"{number}.npy", np.random.default_rng(number).bytes(200_000))
    gradlab = in_project(folder / "project", "true")
    gradlab("datasets", "add", "added", str(source))
    start = timed(lambda: gradlab("datasets"))

    def read() -> None:
        for _ in range(EPOCHS):
            for path in sorted(source.iterdir()):
                np.frombuffer(np.load(path), np.uint8).astype(np.float32).mean()

    def verify() -> float:
        return timed(lambda: gradlab("datasets", "verify", "added")) - start

    return interleaved({"verify": verify, "read": lambda: timed(read)}, rounds)


def in_project(project: Path, script: str) -> Callable[..., None]:
    """Make a project with a workflow of one job; give what runs `gradlab` in it."""
    specs = project / ".gradient" / "workflows"
    specs.mkdir(parents=True)
    (specs / "job.yaml").write_text(JOB % script)
    (project / "pyproject.toml").write_text('[project]\nname = "bench"\n')

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "gradlab", *arguments]
        env = os.environ | {"PYTHONPATH": str(KIT)}
        subprocess.run(command, cwd=project, env=env, check=True, stdout=subprocess.DEVNULL)

    return run


if __name__ == "__main__":
    main()
