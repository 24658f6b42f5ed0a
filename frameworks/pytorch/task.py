"""The task: towards what the network learns, how that is measured, and what is drawn of it.

To learn something else, change this file: nothing else here or in the kit names a loss or a
metric. For a regression, say, BEST is ("val_mae", "lowest"), and `draw` calls
`gradlab.train.curves.predicted_against_true`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from gradlab.train.curves import confusion_matrix

from .config import TrainConfig
from .data import LABELS

BEST = ("val_accuracy", "highest")
"""Which measure of the validation split decides what weights are kept: the highest or lowest."""

BATCH = 256  # examples that are evaluated at once
Seen = dict[str, np.ndarray[Any, Any]]
# Puts a batch together, a list of what the dataset gives; for examples of unequal size, pad here.
collate = default_collate


def losses(
    outputs: Tensor, targets: Tensor, config: TrainConfig | None = None
) -> dict[str, Tensor]:
    """Give the losses of a batch, each its examples' mean; `loss` is learned from, all recorded.

    Training gives its settings, an evaluation none.
    """
    smoothing = config.label_smoothing if config else 0.0
    return {"loss": cross_entropy(outputs, targets, label_smoothing=smoothing)}


def seen(outputs: Tensor, targets: Tensor) -> Seen:
    """Give what `metrics` and `draw` need of a batch that was evaluated, the examples first."""
    return {"predicted": outputs.argmax(1).numpy(), "true": targets.numpy()}


def metrics(split: Seen) -> dict[str, float]:
    """Measure what was seen of a whole split."""
    return {"accuracy": float(np.mean(split["predicted"] == split["true"]))}


def draw(split: Seen, folder: Path) -> Path:
    """Draw what was seen of the test split; give the picture."""
    return confusion_matrix(split["true"], split["predicted"], LABELS, folder)
