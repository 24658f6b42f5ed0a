"""Evaluating: how well a model does on examples that had no part in its training."""

from __future__ import annotations

import json

from gradlab.base.errors import only_observing
from gradlab.base.files import prepare, write_result
from gradlab.base.units import figures
from gradlab.train import keyed, measures, places

from . import task
from .config import EvaluateConfig
from .data import datasets
from .learner import load_best

PROJECT = __name__.partition(".")[0]


def evaluate(config: EvaluateConfig) -> int:
    """Write the best model's measures of the test split as JSON, and what is drawn of it."""
    source, learner = load_best(PROJECT, config.name, config.device, config.accept_changes)
    test = datasets().test
    values, seen = measures.measure(learner, test, "test", task)
    output = prepare(config.output or places.kept(PROJECT, config.name))
    report, count = output / "evaluation.json", keyed.size(test)
    result = {**{key: round(value, 6) for key, value in values.items()}, "examples": count}
    write_result(report, json.dumps(result, indent=2).encode() + b"\n")
    print(f"{source}: {figures(values)} on {count:,} test examples.\n{report}")
    with only_observing(f"What was seen could not be drawn in {output}"):
        print(task.draw(seen, output))
    places.bring(PROJECT, config.name)
    return 0
