"""What losses and metrics mean to a run: which evaluation is the best, and which loss is none."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ..base.errors import GradlabError
from ..services import session
from . import keyed
from .loader import Loader

Values = dict[str, float]
Seen = dict[str, np.ndarray[Any, Any]]


class Learner(Protocol):
    """What evaluates a network, as each framework does it."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Have the network evaluate, not learn."""

    def load_batches(self, data: Any, name: str, batches: Any, workers: int) -> Loader:
        """Give the batches of (epoch, index) that are asked for."""

    def evaluate(self, number: int, batch: Any) -> tuple[Values, Seen]:
        """Give the losses of a batch, and what is seen of it."""


class Task(Protocol):
    """How many examples are evaluated at once, and how a whole split is measured."""

    BATCH: int

    def metrics(self, split: Seen) -> Values:
        """Measure what was seen of a split."""


def measure(
    learner: Learner,
    data: Any,
    name: str,
    task: Task,
    workers: int = 0,
    look: Callable[[], object] = lambda: None,
) -> tuple[Values, Seen]:
    """Give the losses and metrics of a split, and what was seen of it.

    `look` is called before each batch and may raise, to leave it at that.
    """
    size = keyed.size(data)
    starts = range(0, size, task.BATCH)
    batches = [[(0, i) for i in range(at, min(at + task.BATCH, size))] for at in starts]
    # A worker costs more than it gives below some batches.
    workers = min(workers, len(batches) // 8)
    sums, seen = defaultdict[str, float](float), defaultdict[str, list[Any]](list)
    with learner.evaluating(), learner.load_batches(data, name, batches, workers) as loaded:
        for number, (places_of, batch) in enumerate(zip(batches, loaded, strict=True)):
            look()
            losses, parts = learner.evaluate(number, batch)
            for key, loss in losses.items():
                sums[key] += loss * len(places_of)
            for key, part in parts.items():
                seen[key].append(part)
    whole = {key: np.concatenate(parts) for key, parts in seen.items()}
    return {key: total / size for key, total in sums.items()} | task.metrics(whole), whole


def is_better(values: Mapping[str, float], before: float | None, best: tuple[str, str]) -> bool:
    """Tell whether an evaluation is better than the best before it, None for none.

    `best` is by which metric, and whether the highest or lowest; GradlabError if it isn't there.
    """
    name, way = best
    if name not in values or way not in ("highest", "lowest"):
        raise GradlabError(
            f"task.py says BEST = {best!r}: give one of {', '.join(values)}, and 'highest' or "
            "'lowest'."
        )
    if before is None or math.isnan(before) or math.isnan(values[name]):
        return before is None or (math.isnan(before) and not math.isnan(values[name]))
    return values[name] > before if way == "highest" else values[name] < before


def refuse_infinite(lines: Sequence[Mapping[str, float]], step: int) -> None:
    """Raise GradlabError where one of the losses by a step is no number any more."""
    losses = [(name, value) for line in lines for name, value in line.items()]
    name, value = next((each for each in losses if not math.isfinite(each[1])), ("loss", 0.0))
    if not math.isfinite(value):
        raise GradlabError(
            f"The {name.replace('_', ' ')} became {value} by step {step}: try a lower "
            f"--learning-rate or --precision fp32, and {session.ways_to_start_over()}.",
            exit_code=1,
        )
