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
from gradlab.train import places

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
    network = learner.network
    output = config.output or places.kept(PROJECT, config.name) / "model.onnx"
    prepare(output.parent)
    test = datasets().test
    images = torch.stack([test[i][0] for i in range(16)])
    try:
        to_onnx(network.eval(), images, output)
    except OSError as error:
        raise GradlabError(
            f"{output} can't be written: {error}.\n"
            "Make room or permission there, then give the same command again.",
            exit_code=1,
        ) from error
    difference = largest_difference(network, images, output)
    if not difference <= TOLERANCE:
        raise GradlabError(f"{output} differs by {difference:.2g} from {source}.", exit_code=1)
    print(f"{output}: the same as {source} within {difference:.1g} on {len(images)} examples.")
    return 0


def to_onnx(network: nn.Module, images: Tensor, output: Path) -> None:
    """Write the network as ONNX for batches of any size."""
    options: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    if "dynamic_shapes" in inspect.signature(torch.onnx.export).parameters:  # torch >= 2.6
        batch = torch.export.Dim("batch")
        options |= {"dynamo": True, "dynamic_shapes": ({0: batch},), "verbose": False}
    else:
        options["dynamic_axes"] = {"images": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(network, (images,), str(output), **options)


@torch.no_grad()
def largest_difference(network: nn.Module, images: Tensor, path: Path) -> float:
    """Give the largest absolute difference between the file's outputs and the network's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    return float(np.abs(logits - network(images).numpy()).max())
