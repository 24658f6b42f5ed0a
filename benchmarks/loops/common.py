"""What all loops have in common: model, data, loader, optimizer, schedule, and turns.

Each file beside this one is a program that trains the generated project's model on its data. All
take the same options, seed and threads. They take turns of some epochs each: one that has done
its turn says how many seconds it took, by the clock, and of the processor in the loop's process and
in the loader's workers since the turn before; then it rests until it is told to go on. A hook on
torch's optimizers counts the steps, for each of the loops calls one once in a step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.data import DataLoader, RandomSampler

SEED = 0
BATCH = 64


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
        self.workers = min(4, max(1, _cpus() - 1))

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


class Turns:
    """Lets the loop rest after each turn, unseen by the clock that intervals are read from."""

    def __init__(self, steps: int, turn: int) -> None:
        self.left, self.turn, self.rested = steps, turn, 0.0
        self.reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a framework prints is no report
        clock = time.monotonic
        time.monotonic = lambda: clock() - self.rested
        register_optimizer_step_post_hook(self._count)
        self._rest()
        self.spent = _spent()

    def _count(self, *_: object) -> None:
        self.left -= 1
        if self.left % self.turn == 0:
            self._report()
            if self.left:
                self._rest()

    def _report(self) -> None:
        wall, spent = time.perf_counter() - self.begun, _spent()
        loop, workers = (now - then for now, then in zip(spent, self.spent, strict=True))
        report = {"wall": wall, "loop": loop, "workers": workers}
        self.spent = spent
        print(json.dumps(report), file=self.reports, flush=True)

    def _rest(self) -> None:
        begun = time.perf_counter()
        if not sys.stdin.readline():
            sys.exit("told to end")
        self.begun = time.perf_counter()
        self.rested += self.begun - begun


def _spent() -> tuple[float, float]:
    """Give the processor time of this process, and of its children: the loader's workers."""
    me = psutil.Process()
    ended = me.cpu_times()
    living = [each.cpu_times() for each in me.children(recursive=True)]
    workers = ended.children_user + ended.children_system
    return time.process_time(), workers + sum(each.user + each.system for each in living)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    parser = argparse.ArgumentParser()
    parser.add_argument("package")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True, help="in each turn")
    parser.add_argument("--every", type=float, required=True)
    given = parser.parse_args()
    torch.set_num_threads(max(1, _cpus() - 1))  # as the project does
    work = Work(given.package, given.folder, given.turns * given.epochs, given.every)
    Turns(work.steps, given.epochs * work.per_epoch)
    loop(work)


if __name__ == "__main__":
    sys.exit("this is no loop: benchmarks/training.py starts the others")
