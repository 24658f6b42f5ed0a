"""Export: the best model of a run as Keras' own file, checked against the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradlab.base.errors import GradlabError
from gradlab.base.files import prepare
from gradlab.train import keyed, places
from gradlab.train.keras.steps import as_numpy

from . import task
from .config import ExportConfig
from .data import datasets
from .learner import load_best

PROJECT = __name__.partition(".")[0]
TOLERANCE = 1e-4


def export(config: ExportConfig) -> int:
    """Write the model as model.keras, read it back and compare both on test examples."""
    source, learner = load_best(PROJECT, config.name, "cpu", config.accept_changes)
    output = config.output or places.kept(PROJECT, config.name) / "model.keras"
    if output.suffix != ".keras":
        raise GradlabError(f"--output {output}: the name of a file of Keras' ends in .keras.")
    prepare(output.parent)
    inputs, count = some_inputs(datasets().test)
    try:
        learner.network.save(output)
    except OSError as error:
        raise GradlabError(
            f"{output} can't be written: {error}.\n"
            "Make room or permission there, then give the same command again.",
            exit_code=1,
        ) from error
    difference = largest_difference(learner.network, read_back(output), inputs)
    if not difference <= TOLERANCE:
        raise GradlabError(f"{output} differs by {difference:.2g} from {source}.", exit_code=1)
    places.bring(PROJECT, config.name)
    print(f"{output}: the same as {source} within {difference:.1g} on {count} examples.")
    return 0


def some_inputs(test: keyed.Dataset) -> tuple[Any, int]:
    """Give the inputs of a batch, and how many examples it is of."""
    count = min(16, keyed.size(test))
    inputs, _ = task.collate([test[i] for i in range(count)])
    return inputs, count


def read_back(path: Path) -> keras.Model:
    """Read a model as any program with Keras would; GradlabError where that needs code of here."""
    try:
        return keras.saving.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise GradlabError(
            f"{path} does not load again: {reason}\nOf your own layers and models, Keras needs "
            "@keras.saving.register_keras_serializable() on the class, and a get_config that gives "
            "what its __init__ takes."
        ) from error


def largest_difference(model: keras.Model, other: keras.Model, inputs: Any) -> float:
    """Give the largest absolute difference between the outputs of two models."""
    pair = (keras.tree.flatten(as_numpy(each(inputs, training=False))) for each in (model, other))
    return max(float(np.abs(a - b).max()) for a, b in zip(*pair, strict=True))
