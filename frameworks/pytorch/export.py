"""Export: the best model of a run as ONNX, checked against the model itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.base.errors import GradlabError
from gradlab.base.files import prepare
from gradlab.train import keyed, places
from gradlab.train.torch.network import no_onnx, unwrapped

from . import task
from .config import ExportConfig
from .data import datasets
from .learner import load_best

PROJECT = __name__.partition(".")[0]
TOLERANCE = 1e-4


def export(config: ExportConfig) -> int:
    """Write the model as ONNX and compare its outputs with torch's on test examples."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise GradlabError(
            f"Export needs {error.name}: install it with  "
            "python -m pip install --find-links vendor '.[export]'"
        ) from error
    source, learner = load_best(PROJECT, config.name, "cpu", config.accept_changes)
    network = unwrapped(learner.network).eval()
    output = config.output or places.kept(PROJECT, config.name) / "model.onnx"
    prepare(output.parent)
    inputs, varying = some_inputs(datasets().test)
    try:
        with no_onnx(source):
            to_onnx(network, inputs, varying, output)
    except OSError as error:
        raise GradlabError(
            f"{output} can't be written: {error}.\n"
            "Make room or permission there, then give the same command again.",
            exit_code=1,
        ) from error
    difference = largest_difference(network, inputs, output)
    if not difference <= TOLERANCE:
        raise GradlabError(f"{output} differs by {difference:.2g} from {source}.", exit_code=1)
    places.bring(PROJECT, config.name)
    print(f"{output}: the same as {source} within {difference:.1g} on {len(inputs)} examples.")
    return 0


def some_inputs(test: keyed.Dataset) -> tuple[Tensor, dict[int, str]]:
    """Give the inputs of a batch, and names of the axes whose size varies from batch to batch."""
    examples = [test[i] for i in range(min(16, keyed.size(test)))]
    parts = [examples, *([example] for example in examples)]
    inputs = [batch for batch, _ in map(task.collate, parts)]
    if not isinstance(inputs[0], Tensor):
        raise GradlabError(
            f"The network takes a {type(inputs[0]).__name__}, and export.py writes one that takes "
            "a tensor: say in its `to_onnx` how the others are called, and which sizes vary."
        )
    sizes = zip(*(batch.shape for batch in inputs), strict=True)
    names = ("batch", *(f"size{axis}" for axis in range(1, inputs[0].dim())))
    return inputs[0], {axis: names[axis] for axis, seen in enumerate(sizes) if len({*seen}) > 1}


def to_onnx(network: nn.Module, inputs: Tensor, varying: dict[int, str], output: Path) -> None:
    """Write the network as ONNX, for inputs of any size in the axes that vary."""
    options: dict[str, Any] = {"input_names": ["inputs"], "output_names": ["outputs"]}
    if "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters:  # torch >= 2.6
        sizes = {axis: torch.export.Dim(name) for axis, name in varying.items()}
        options |= {"dynamo": True, "dynamic_shapes": (sizes,), "verbose": False}
    else:
        options["dynamic_axes"] = {"inputs": varying, "outputs": {0: "batch"}}
    torch.onnx.export(network, (inputs,), str(output), **options)


@torch.no_grad()
def largest_difference(network: nn.Module, inputs: Tensor, path: Path) -> float:
    """Give the largest absolute difference between the file's outputs and the network's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"inputs": inputs.numpy()})
    return float(np.abs(outputs - network(inputs).numpy()).max())
