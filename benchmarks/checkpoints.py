"""How long a checkpoint holds up the loop, against torch.save and fsync of the same state.

    python benchmarks/checkpoints.py [--rounds 5]

By the clock: a loop waits for a disk just as it waits for a processor. The first checkpoint of a
session takes longer than the others, for it also takes the memory that all of them are copied to.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measure import Row, alone, interleaved, ratio, seconds
from ours import Checkpoints

ROUNDS = 5
# Numbers of four bytes, and the seconds that a checkpoint of them may hold up the loop.
SIZES = {"381 MB": (95_250_000, 0.3), "1 GB": (250_000_000, 1.0)}
PLAIN = "torch.save and fsync"


def rows(rounds: int) -> Iterator[Row]:
    """Measure checkpoints of each size."""
    torch.set_num_threads(1)
    for size, (numbers, limit) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            times = blocked(size, Path(folder), numbers, rounds)
        what = f"a checkpoint of {size} holds up the loop"
        yield seconds(what, "", times["later"], limit)
        yield ratio(what, PLAIN, times, ("later", "plain"), 0.333)
        yield ratio("the first of a session", PLAIN, times, ("first", "plain"))


def blocked(size: str, folder: Path, numbers: int, rounds: int) -> dict[str, list[float]]:
    """Time what the loop waits for: in the first checkpoint, in a later one, in the plain way."""
    state = {"weights": torch.randn(numbers // 4), "moments": torch.randn(3, numbers // 4)}
    later = Checkpoints(folder / "later")
    for name in ("first", "later"):
        (folder / name).mkdir()

    def checkpoint(store: Checkpoints) -> float:
        took = timed(lambda: store.save(1, lambda: state, lambda: None, lambda: None))
        store.wait()
        return took

    def plain() -> None:
        with (folder / "plain.pt").open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())

    kinds = {
        "plain": lambda: timed(plain),
        "first": lambda: checkpoint(Checkpoints(folder / "first")),
        "later": lambda: checkpoint(later),
    }
    times = interleaved(f"checkpoints of {size}", kinds, rounds)
    shutil.rmtree(folder / "later")
    return times


def timed(work: Callable[[], object]) -> float:
    """Give the seconds that something takes, of what the machine had to write before apart."""
    os.sync()
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    alone(__doc__, rows, ROUNDS)
