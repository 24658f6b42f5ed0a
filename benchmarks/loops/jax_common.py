"""What JAX's loops have in common: the project's model and data, and turns as of all loops."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
from turns import BATCH, SEED, Turns, cpus, options

__all__ = ["BATCH", "SEED", "Work", "main"]


class Work:
    """What there is to do: some epochs of the data, in turns."""

    def __init__(self, package: str, turns: int, epochs: int, every: float) -> None:
        self.package, self.every = package, every
        self.config = self.part("config").TrainConfig()
        self.data = self.part("data").datasets().train
        self.epochs, per_epoch = turns * epochs, len(self.data) // BATCH
        self.steps = self.epochs * per_epoch
        self.workers = min(4, max(1, cpus() - 1))
        self._turns = Turns(self.steps, epochs * per_epoch)

    def part(self, name: str) -> Any:
        """Import a module of the project."""
        return importlib.import_module(f"{self.package}.{name}")

    def done(self, losses: Any) -> None:
        """Count a step, by what it gives; the last of a turn is waited for."""
        if self._turns.ends:
            jax.block_until_ready(losses)
        self._turns.count()


def main(loop: Callable[[Work], object]) -> None:
    """Train in turns."""
    given = options()
    loop(Work(given.package, given.turns, given.epochs, given.every))
