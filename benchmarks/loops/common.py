"""What all loops have in common: model, data, loader, optimizer, schedule, and turns.

Each file beside this one is a program that trains the generated project's model on its data. All
take the same options, seed and threads. They take turns of some epochs each: one that has done
its turn says how many seconds it took, by the clock, and of the processor in the loop's process and
in the loader's workers since the turn before; then it rests until it is told to go on. A hook on
torch's optimizers counts the steps, for each of the loops calls one once in a step.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.data import DataLoader, RandomSampler
from turns import BATCH, SEED, Turns, cpus, options

__all__ = ["BATCH", "SEED", "Interval", "Work", "main"]


@dataclass
class Work:
    """What there is to do: `epochs` of the data; `folder` is for logs and checkpoints."""

    package: str
    folder: Path
    epochs: int
    every: float  # seconds between checkpoints, 0 for none

    def __post_init__(self) -> None:
        self.config = self.part("config").TrainConfig()
        self.data = self.part("data").datasets().train
        self.per_epoch = len(self.data) // BATCH
        self.steps = self.epochs * self.per_epoch
        self.workers = min(4, max(1, cpus() - 1))

    def part(self, name: str) -> Any:
        """Import a module of the project."""
        return importlib.import_module(f"{self.package}.{name}")

    def network(self) -> torch.nn.Module:
        """Build the project's model."""
        model: torch.nn.Module = self.part("model").build(self.config.model)
        return model

    def optimizer(self, network: torch.nn.Module) -> torch.optim.AdamW:
        """Give the project's optimizer."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.AdamW(network.parameters(), rate, weight_decay=decay)

    def schedule(self, optimizer: Optimizer) -> torch.optim.lr_scheduler.OneCycleLR:
        """Give a warm-up and a cosine, as the project has them."""
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, self.config.learning_rate, self.steps)

    def loader(self) -> DataLoader[Any]:
        """Load all epochs with one sampler, so that workers start once, as in the project."""
        sampler = RandomSampler(self.data, num_samples=self.steps * BATCH)
        return DataLoader(self.data, BATCH, sampler=sampler, num_workers=self.workers)


class Interval:
    """Says when a checkpoint is due, for loops in which nothing else does."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def is_over(self) -> bool:
        """Tell whether the interval is over; then the next one begins."""
        over = bool(self.seconds) and time.monotonic() - self.last >= self.seconds
        self.last = time.monotonic() if over else self.last
        return over


def main(loop: Callable[[Work], object]) -> None:
    """Train in turns."""
    given = options()
    torch.set_num_threads(max(1, cpus() - 1))  # as the project does
    work = Work(given.package, given.folder, given.turns * given.epochs, given.every)
    turns = Turns(work.steps, given.epochs * work.per_epoch)
    register_optimizer_step_post_hook(turns.count)
    loop(work)


if __name__ == "__main__":
    sys.exit("this is no loop: benchmarks/training.py starts the others")
