"""The task: towards what the network learns, how that is measured, and what is drawn of it.

To learn something else, change this file: nothing else here or in the kit names a loss or a
metric. For a regression, say, BEST is ("val_mae", "lowest"), and `draw` calls
`gradlab.train.curves.predicted_against_true`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from gradlab.train.collate import stack
from gradlab.train.curves import confusion_matrix

from .config import TrainConfig
from .data import LABELS

BEST = ("val_accuracy", "highest")
"""Which measure of the validation split decides what weights are kept: the highest or lowest."""

BATCH = 256  # examples that are evaluated at once
Array = np.ndarray[Any, Any]
Seen = dict[str, Array]
# Puts a batch together, a list of what the dataset gives; for examples of unequal size, one that
# pads. Write that in data.py: the processes that load batches then do without JAX.
collate = stack


def losses(
    outputs: jax.Array, targets: jax.Array, config: TrainConfig | None = None
) -> dict[str, jax.Array]:
    """Give the losses of a batch, each its examples' mean; `loss` is learned from, all recorded.

    Training gives its settings, an evaluation none. Both compile it.
    """
    labels = jax.nn.one_hot(targets, outputs.shape[-1])
    if config and config.label_smoothing:
        labels = optax.smooth_labels(labels, config.label_smoothing)
    return {"loss": optax.softmax_cross_entropy(outputs, labels).mean()}


def seen(outputs: Array, targets: Array) -> Seen:
    """Give what `metrics` and `draw` need of a batch that was evaluated, the examples first."""
    return {"predicted": outputs.argmax(1), "true": targets}


def metrics(split: Seen) -> dict[str, float]:
    """Measure what was seen of a whole split."""
    return {"accuracy": float(np.mean(split["predicted"] == split["true"]))}


def draw(split: Seen, folder: Path) -> Path:
    """Draw what was seen of the test split; give the picture."""
    return confusion_matrix(split["true"], split["predicted"], LABELS, folder)
