"""What can be set from the command line."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gradlab.base.errors import GradlabError
from gradlab.services.machine import Device, Precision
from gradlab.train.trackers.tracker import Name as Tracker

# Marks a setting that can't alter the result: it may change when a run is continued.
FREE = {"free": True}


@dataclass
class ModelConfig:
    """The network."""

    width: int = 32
    """Channels of the first layers; the later ones have twice as many."""
    dropout: float = 0.2
    """Share of features dropped in training."""


@dataclass
class TrainConfig:
    """Train the model, or carry on where the run of this name was cut off."""

    name: str = field(default="default", metadata=FREE)
    """Name of the run: the same name carries on, another one starts anew."""
    fresh: bool = field(default=False, metadata=FREE)
    """Start this run over; the earlier one is kept beside it."""
    accept_changes: bool = field(default=False, metadata=FREE)
    """Take a finished run as it is, although the code or the data have changed since."""
    strict: bool = field(default=False, metadata=FREE)
    """Refuse to go on where the code or the data have changed."""
    max_minutes: float | None = field(default=None, metadata=FREE)
    """Save and stop after this time; the same command carries on."""
    workers: int | None = field(default=None, metadata=FREE)
    """Processes that load and augment the data (one less than there are CPUs, at most 4)."""
    device: Device = field(default="auto", metadata=FREE)
    """Where to compute (the fastest that works)."""
    save_seconds: float = field(default=5.0, metadata=FREE)
    """Time between checkpoints; longer where saving would take over 2 % of it."""
    profile: bool = field(default=False, metadata=FREE)
    """Trace ten steps for Perfetto, and show which operators take most of the time."""
    tracker: Tracker = field(default="tensorboard", metadata=FREE)
    """Where the metrics are shown too, by a library that reads its login from the environment."""
    epochs: int = 60
    """Passes over the training data."""
    max_steps: int | None = None
    """End the run after so many steps, if that is before its last epoch."""
    steps_per_epoch: int | None = None
    """Steps that count as an epoch, for training data that have no length."""
    patience: int | None = None
    """End the run after so many evaluations that were no better than the best before."""
    evaluate_every: int = 5
    """Epochs from one evaluation to the next."""
    batch_size: int = 64
    """Examples in a step, of all GPUs together."""
    learning_rate: float = 4e-3
    """Highest learning rate, reached after the warm-up."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises, before it falls as a cosine."""
    clip: float | None = None
    """Scale gradients down whose norm is larger."""
    accumulate: int = 1
    """Learn from a batch in so many parts, one after the other, where memory is short."""
    ema: float | None = None
    """Evaluate and keep an average of the weights, which decays by this in each step (0.999)."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over the other classes in training."""
    seed: int = 0
    """Decides all that is random: weights, order, augmentation, dropout."""
    precision: Precision = "auto"
    """Arithmetic of the network (the fastest that the device is made for)."""
    compile: bool = False
    """Compile the network first: slower to start, faster to run."""
    shard: bool = False
    """Split the model among the processes of torchrun (PyTorch), in place of a copy in each."""
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        bounds = {"epochs": 1, "evaluate_every": 1, "workers": 0, "save_seconds": 0, "warmup": 0}
        bounds |= {"max_steps": 1, "steps_per_epoch": 1, "patience": 1, "accumulate": 1, "ema": 0}
        bounds |= {"label_smoothing": 0}
        for name, lowest in bounds.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                option = name.replace("_", "-")
                raise GradlabError(f"--{option} is {value}: it must be at least {lowest}.")

    def steps(self, per_epoch: int) -> int:
        """Give the steps of a run, if none of its evaluations ends it."""
        return min(self.epochs * per_epoch, self.max_steps or sys.maxsize)

    def waits(self, per_epoch: int) -> int:
        """Give the steps without a better evaluation that end a run."""
        return (self.patience or sys.maxsize) * self.evaluate_every * per_epoch

    def settings(self) -> dict[str, Any]:
        """Give the settings that decide the result, as plain values."""
        free = {f.name for f in fields(self) if f.metadata.get("free")}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass
class EvaluateConfig:
    """Evaluate the best model of a run on the test split, as `task.py` says."""

    name: str = "default"
    """Name of the run."""
    device: Device = "auto"
    """Where to compute (the fastest that works)."""
    accept_changes: bool = False
    """Take the model although its code has changed since it was trained."""
    output: Path | None = None
    """Folder for evaluation.json and the picture (the run's own)."""


@dataclass
class ExportConfig:
    """Export the best model of a run for other programs, checked against itself."""

    name: str = "default"
    """Name of the run."""
    accept_changes: bool = False
    """Take the model although its code has changed since it was trained."""
    output: Path | None = None
    """The file to write (in the run's folder)."""
