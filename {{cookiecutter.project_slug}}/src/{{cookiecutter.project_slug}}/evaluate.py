"""Evaluating: how well a model does on examples that had no part in its training."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlab.base.errors import only_observing
from gradlab.base.files import prepare, write_result
from gradlab.base.units import figures
from gradlab.train import keyed, places

from . import task
from .config import EvaluateConfig
from .data import datasets
from .learner import Learner, load_best

PROJECT = __name__.partition(".")[0]
BATCH = 256


def evaluate(config: EvaluateConfig) -> int:
    """Write the best model's measures of the test split as JSON, and what is drawn of it."""
    source, learner = load_best(PROJECT, config.name, config.device, config.accept_changes)
    test = datasets().test
    values, seen = measure(learner, test, "test")
    output = prepare(config.output or places.kept(PROJECT, config.name))
    report, count = output / "evaluation.json", keyed.size(test)
    result = {**{key: round(value, 6) for key, value in values.items()}, "examples": count}
    write_result(report, json.dumps(result, indent=2).encode() + b"\n")
    print(f"{source}: {figures(values)} on {count:,} test examples.\n{report}")
    with only_observing(f"What was seen could not be drawn in {output}"):
        print(task.draw(seen, output))
    return 0


def measure(
    learner: Learner,
    data: Any,
    name: str,
    workers: int = 0,
    look: Callable[[], object] = lambda: None,
) -> tuple[dict[str, float], task.Seen]:
    """Give the losses and metrics of a split, and what was seen of it.

    `look` is called before each batch and may raise, to leave it at that.
    """
    size = keyed.size(data)
    starts = range(0, size, BATCH)
    batches = [[(0, i) for i in range(at, min(at + BATCH, size))] for at in starts]
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
    losses = {key: total / size for key, total in sums.items()}
    return {**losses, **task.metrics(whole)}, whole
