"""Judging: how well the best model does on examples that had no part in its training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from gradlab.base.errors import only_observing
from gradlab.base.files import prepare, write_result
from gradlab.train import keyed, places, runs, weightfile
from gradlab.train.curves import confusion_matrix
from gradlab.train.torch import autocast, join, load_weights, loader

from .config import EvaluateConfig, ModelConfig
from .data import LABELS, datasets
from .model import build

PROJECT = __name__.partition(".")[0]
BATCH = 256
Counts = np.ndarray[Any, np.dtype[np.int64]]


def evaluate(config: EvaluateConfig) -> int:
    """Write accuracy and confusion matrix of the best model as JSON and PNG."""
    device = join(config.device).device
    source, network = load_best(config.name, config.accept_changes)
    loss, counts = judge(network.to(device), datasets().test, device)
    output = prepare(config.output or places.kept(PROJECT, config.name))
    result = {
        "accuracy": accuracy(counts),
        "loss": round(loss, 6),
        "examples": int(counts.sum()),
        "labels": LABELS,
        "confusion_matrix": counts.tolist(),
    }
    report = output / "evaluation.json"
    write_result(report, json.dumps(result, indent=2).encode() + b"\n")
    picture = output / "confusion_matrix.png"
    with only_observing(f"{picture} could not be drawn"):
        confusion_matrix(counts, LABELS, picture)
    print(f"{source}: {accuracy(counts):.2%} of {counts.sum()} test examples right.")
    print(f"{report}\n{picture}")
    return 0


def load_best(name: str, accept: bool = False) -> tuple[Path, nn.Module]:
    """Load the best model of a run, as built by the settings it was trained with.

    Raises GradlabError where the model's code is not that of the training, unless `accept`.
    """
    advice = f"train first, with: python -m {PROJECT} train --name {name}"
    path = places.find(PROJECT, name, "best.safetensors", advice)
    again = f"To write it anew from the newest checkpoint: python -m {PROJECT} train --name {name}"
    saved, settings = weightfile.unpack(path, again, load)
    runs.compare_code(settings, Path(__file__).parent, path, accept)
    network = build(ModelConfig(**settings["model"]))
    load_weights(network, saved, path)
    return path, network


@torch.no_grad()
def judge(
    network: nn.Module,
    dataset: Dataset[Any],
    device: torch.device,
    precision: str = "fp32",
    workers: int = 0,
    name: str = "test",
    look: Callable[[], object] = lambda: None,
) -> tuple[float, Counts]:
    """Give the mean loss and the counts of shape (classes, classes), true classes in rows.

    `look` is called before each batch and may raise, to leave it at that.
    """
    size = len(cast(Sized, dataset))
    batches = [
        [(0, i) for i in range(start, min(start + BATCH, size))] for start in range(0, size, BATCH)
    ]
    # A worker costs more than it gives below some batches.
    workers = min(workers, len(batches) // 8)
    data = keyed.KeyedDataset(dataset, 0)
    counts = np.zeros((len(LABELS), len(LABELS)), np.int64)
    loss = 0.0
    network.eval()
    with loader(data, name, batches, workers) as loaded:
        for inputs, targets in loaded:
            look()
            with autocast(device, precision):
                logits = network(inputs.to(device)).float().cpu()
            loss += cross_entropy(logits, targets, reduction="sum").item()
            np.add.at(counts, (targets.numpy(), logits.argmax(1).numpy()), 1)
    network.train()
    return loss / size, counts


def accuracy(counts: Counts) -> float:
    """Give the share of the examples on the diagonal."""
    return float(np.trace(counts) / counts.sum())
