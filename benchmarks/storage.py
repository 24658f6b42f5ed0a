"""What datasets cost, against the plain way of having the same files.

    python benchmarks/storage.py [--rounds 7]

- 2,000 small files laid out as a job's input: by the store alone, from its manifest on, and by
  `gradlab run` under the engine `paths`, less a run whose input is one file, and with `rm -r` for
  the run removes them when the job has ended; in processor time, for nothing waits for the disk
- a dataset of many small files, as a job and as `gradlab datasets add` make it, by the clock, for
  all of it is synced
- the checksums of a dataset, which are compared once in a run, against reading it in 60 epochs
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir
from itertools import count
from pathlib import Path

import numpy as np
import ours
from checkpoints import timed
from measure import Row, alone, interleaved, processor, ratio

ROUNDS = 7
FEW, MANY = 2_000, 20_000  # files
EPOCHS = 60  # as the project's default has them
MAKES = """
jobs:
  job:
    uses: script@v1
    outputs:
      made: {type: dataset, with: {ref: made}}
    with: {image: "bash:5", script: cp -r %s /outputs/made}
"""
READS = """
jobs:
  job:
    uses: script@v1
    inputs:
      data: {type: dataset, with: {ref: %s}}
    with: {image: "bash:5", script: ls /inputs/data}
"""
numbers = count()


def rows(rounds: int) -> Iterator[Row]:
    """Measure inputs, outputs and checksums."""
    with tempfile.TemporaryDirectory() as folder:
        yield from inputs(Path(folder, "inputs"), rounds)
        yield from outputs(Path(folder, "outputs"), min(rounds, 5))
        yield from checksums(Path(folder, "checked"), min(rounds, 5))


def small_files(folder: Path, number: int) -> Path:
    """Write files of some hundred bytes, 200 in a folder."""
    for each in range(number):
        path = folder / f"{each // 200:04d}" / f"{each}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{each}\n" * 100)
    return folder


def copied(source: Path, folder: Path) -> Path:
    """Copy with `cp -r`, to a new place: a file system that is still freeing an old one is slow."""
    target = folder / f"copy-{next(numbers)}"
    subprocess.run(["cp", "-r", source, target], check=True)
    return target


def inputs(folder: Path, rounds: int) -> Iterator[Row]:
    """Compare laying out a job's input with copying its files."""
    source = small_files(folder / "source", FEW)
    small_files(folder / "single", 1)
    run = {}
    for name, ref in (("all", "small"), ("one", "one")):
        run[name] = ours.with_workflow(folder / name / "bench", READS % ref)
        run[name]("datasets", "add", ref, str(source if name == "all" else folder / "single"))
    project = folder / "all" / "bench"

    def lay() -> float:
        os.sync()
        begun = time.process_time()
        with chdir(project):
            store = ours.open_store(project)
            store.lay(store.find("small"), folder / f"laid-{next(numbers)}")
        return time.process_time() - begun

    def copy() -> float:
        os.sync()  # else what the machine has still to write takes part
        return processor(lambda: copied(source, folder))

    def copy_and_remove() -> float:
        os.sync()
        return processor(lambda: subprocess.run(["rm", "-r", copied(source, folder)], check=True))

    def ran(name: str) -> float:
        os.sync()
        return processor(lambda: run[name]("run", "job", "--fresh", "--engine", "paths"))

    kinds = {
        "cp": copy,
        "lay": lay,
        "cp, rm": copy_and_remove,
        "one": lambda: ran("one"),
        "all": lambda: ran("all"),
    }
    times = interleaved("a job's input", kinds, rounds)
    pairs = zip(times["all"], times["one"], strict=True)
    times["all"] = [more - less for more, less in pairs]
    what = f"a job's input of {FEW:,} small files"
    yield ratio(what, "cp -r", times, ("lay", "cp"), 2)
    yield ratio(f"{what}, in `gradlab run`", "cp -r, rm -r", times, ("all", "cp, rm"), 2)


def outputs(folder: Path, rounds: int) -> Iterator[Row]:
    """Compare what makes a dataset of many small files with a plain copy of them."""
    source = small_files(folder / "source", MANY)
    gradlab = ours.with_workflow(folder / "bench", MAKES % source)

    def copy() -> None:
        subprocess.run(["sync", "-f", copied(source, folder)], check=True)

    kinds = {
        "cp": lambda: timed(copy),
        "job": lambda: timed(lambda: gradlab("run", "job", "--fresh", "--engine", "paths")),
        "add": lambda: timed(lambda: gradlab("datasets", "add", "added", str(source))),
    }
    times = interleaved("a job's output", kinds, rounds)
    yield ratio(f"a job's output of {MANY:,} small files", "cp -r, sync", times, ("job", "cp"), 2)
    yield ratio("`gradlab datasets add` of them", "cp -r, sync", times, ("add", "cp"), 2)


def checksums(folder: Path, rounds: int) -> Iterator[Row]:
    """Compare the check of a dataset of 200 MB with reading it as a training does."""
    source, arrays = folder / "source", 1000
    source.mkdir(parents=True)
    for number in range(arrays):
        np.save(source / f"{number}.npy", np.random.default_rng(number).bytes(200_000))
    gradlab = ours.with_workflow(folder / "bench", READS % "added")
    gradlab("datasets", "add", "added", str(source))

    def read() -> None:
        for _ in range(EPOCHS):
            for path in sorted(source.iterdir()):
                np.frombuffer(np.load(path), np.uint8).astype(np.float32).mean()

    kinds = {
        "start": lambda: timed(lambda: gradlab("datasets")),
        "verify": lambda: timed(lambda: gradlab("datasets", "verify", "added")),
        "read": lambda: timed(read),
    }
    times = interleaved("checksums", kinds, rounds)
    pairs = zip(times["verify"], times["start"], strict=True)
    times["verify"] = [more - less for more, less in pairs]
    base = f"reading them in {EPOCHS} epochs"
    yield ratio("the checksums of 200 MB, once a run", base, times, ("verify", "read"), 0.05)


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
