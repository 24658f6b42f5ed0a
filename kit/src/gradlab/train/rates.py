"""A learning rate that is found by trying: some steps by ever higher rates, from fresh weights.

Promises: the same seed finds the same, to the last digit; of a run by the same name, which may be
under way, nothing is read or changed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..base.errors import GradlabError, only_observing
from ..base.files import prepare
from ..base.tables import columns
from ..services.machine import loader_workers
from . import devices, places, streams
from .curves import learning_rates

LOWEST, HIGHEST = 1e-6, 10.0
SMOOTH = 0.9  # share of the losses before in the smoothed one
DIVERGED = 4.0  # times the lowest loss: higher rates would only be worse
STEPS = 100
NOISY = 10  # of the first losses, which are smoothed over few, not looked at
LEAST = 0.01  # of the loss: a fall that is smaller is noise
SHOWN = 12  # rows


class Learner(Protocol):
    """What learns from a batch by a rate that it is given."""

    config: Any
    world: Any

    def start(self, total: int, state: None, data: Any) -> None:
        """Build all afresh."""

    def load_batches(self, data: Any, name: str, batches: Any, workers: int) -> Any:
        """Give a context of the batches."""

    def step(self, step: int, batch: Any, rate: float) -> Any:
        """Learn from a batch; give its losses."""

    def values(self, losses: list[Any]) -> list[dict[str, float]]:
        """Give the losses of some steps as numbers, the same in all processes."""

    def close(self) -> None:
        """Let go of what the processes share."""


class Sweep:
    """Rates from the lowest to the highest in equal factors, and the smoothed loss after each."""

    def __init__(self, steps: int) -> None:
        self.factor = (HIGHEST / LOWEST) ** (1 / (steps - 1))
        self.losses: list[float] = []
        self._mean = 0.0

    def rate(self, step: int) -> float:
        """Give the rate of a step, from 0."""
        return float(LOWEST * self.factor**step)

    def add(self, loss: float) -> bool:
        """Take the loss of the next step; tell whether it diverges, after which none is taken."""
        self._mean = SMOOTH * self._mean + (1 - SMOOTH) * loss
        smooth = self._mean / (1 - SMOOTH ** (len(self.losses) + 1))
        lowest = min(self.losses, default=math.inf)
        # A loss may be negative.
        if not math.isfinite(smooth) or smooth > lowest + (DIVERGED - 1) * abs(lowest):
            return True
        self.losses.append(smooth)
        return False

    def best(self) -> int:
        """Give the step by whose rate the loss fell fastest; GradlabError where it never fell."""
        begin, count = min(NOISY, len(self.losses)), len(self.losses)
        lowest = min(range(begin, count), key=self.losses.__getitem__, default=begin)
        falls = [self.losses[i + 1] - self.losses[i - 1] for i in range(begin + 1, lowest)]
        if not falls or self.losses[begin] - self.losses[lowest] < LEAST * abs(self.losses[begin]):
            raise GradlabError(
                "The loss fell by no learning rate, so none can be suggested: look at "
                "the data and the model.",
                exit_code=1,
            )
        return begin + 1 + falls.index(min(falls))

    def tell(self, folder: Path) -> None:
        """Print and draw what was found; GradlabError where it is nothing."""
        best, rates = self.best(), list(map(self.rate, range(len(self.losses))))
        shown = range(0, len(rates), math.ceil(len(rates) / SHOWN))
        rows = [(f"{rates[i]:.2e}", f"{self.losses[i]:.6g}") for i in shown]
        print("\n".join(columns([("learning rate", "smoothed loss"), *rows])))
        print(f"The loss falls fastest by: --learning-rate {rates[best]:.2g}")
        with only_observing(f"The losses could not be drawn in {folder}"):
            print(learning_rates(rates, self.losses, best, prepare(folder)))


def find(learner: Learner, dataset: Any, project: str) -> int:
    """Learn by ever higher rates, from fresh weights, until the loss diverges; tell which to take.

    Gives the exit code. Raises GradlabError where the loss falls by none.
    """
    config, sweep = learner.config, Sweep(STEPS)
    data = streams.source(dataset, config.seed)
    plan = data.plan(config.batch_size, config.steps_per_epoch, learner.world)
    batches, workers = replace(plan, stop=STEPS), data.workers(loader_workers(config.workers))
    with learner.world.kept():
        learner.start(STEPS, None, data)
        with learner.load_batches(data, "training", batches, workers) as loaded:
            for step, batch in enumerate(loaded):
                (losses,) = learner.values([learner.step(step, batch, sweep.rate(step))])
                if sweep.add(losses["loss"]):
                    break
        devices.in_first(learner.world, lambda: sweep.tell(places.kept(project, config.name)))
        devices.in_first(learner.world, lambda: places.bring(project, config.name))
        learner.close()
    return 0
