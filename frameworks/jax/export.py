"""Export: the best model of a run as StableHLO, checked against the model itself.

The file holds the network with its weights, for the CPU, NVIDIA's GPUs and TPUs. It runs without
this project:  jax.export.deserialize(bytearray(Path("model.jax").read_bytes())).call(inputs)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from gradlab.base.errors import GradlabError
from gradlab.base.files import prepare, write_result
from gradlab.train import keyed, places
from gradlab.train.jax import trees

from . import task
from .config import ExportConfig
from .data import datasets
from .learner import Learner, load_best

PROJECT = __name__.partition(".")[0]
TOLERANCE = 1e-4
PLATFORMS = ("cpu", "cuda", "tpu")


def export(config: ExportConfig) -> int:
    """Write the model as StableHLO and compare its outputs with the model's on test examples."""
    source, learner = load_best(PROJECT, config.name, "cpu", config.accept_changes)
    output = config.output or places.kept(PROJECT, config.name) / "model.jax"
    inputs, shapes = some_inputs(datasets().test)
    prepare(output.parent)
    write_result(output, to_stablehlo(learner, shapes, source))
    difference = largest_difference(learner, inputs, output)
    if not difference <= TOLERANCE:
        raise GradlabError(f"{output} differs by {difference:.2g} from {source}.", exit_code=1)
    places.bring(PROJECT, config.name)
    count = len(jax.tree.leaves(inputs)[0])
    print(f"{output}: the same as {source} within {difference:.1g} on {count} examples.")
    return 0


def some_inputs(test: keyed.Dataset) -> tuple[Any, Any]:
    """Give the inputs of a batch, and their shapes: names for sizes that vary between batches."""
    examples = [test[i] for i in range(min(16, keyed.size(test)))]
    parts = [examples, *([example] for example in examples)]
    inputs, *others = [batch for batch, _ in map(task.collate, parts)]
    scope = jax.export.SymbolicScope()

    def shape(*arrays: Any) -> jax.ShapeDtypeStruct:
        columns = list(zip(*(array.shape for array in arrays), strict=True))
        names = ("batch", *(f"size{axis}" for axis in range(1, len(columns))))
        sizes = [
            names[axis] if len({*seen}) > 1 else str(seen[0]) for axis, seen in enumerate(columns)
        ]
        symbolic = jax.export.symbolic_shape(", ".join(sizes), scope=scope)
        return jax.ShapeDtypeStruct(symbolic, jax.dtypes.canonicalize_dtype(arrays[0].dtype))

    return inputs, jax.tree.map(shape, inputs, *others)


def to_stablehlo(learner: Learner, shapes: Any, source: object) -> bytes:
    """Give the network with its weights, for inputs of the shapes.

    Raises GradlabError where it can't be written for sizes that vary.
    """
    forward = jax.jit(lambda inputs: outputs(learner, inputs))
    try:
        written = jax.export.export(forward, platforms=PLATFORMS)(shapes)
        return bytes(written.serialize())
    except Exception as error:  # of many kinds, by what of the network has no such form
        raise GradlabError(
            f"{source} can't be written as StableHLO for batches of any size: "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}\n"
            "Let the network's __call__ take no decision by the size of a batch."
        ) from error


def outputs(learner: Learner, inputs: Any) -> Any:
    """Give the network's outputs as an evaluation has them."""
    return learner.outputs(learner.weights(), inputs, trees.key(0, "export"))


def largest_difference(learner: Learner, inputs: Any, path: Path) -> float:
    """Give the largest absolute difference between the file's outputs and the network's."""
    written = jax.export.deserialize(bytearray(path.read_bytes()))
    made, expected = written.call(inputs), outputs(learner, inputs)
    pairs = zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(np.asarray(one) - np.asarray(other)).max()) for one, other in pairs)
