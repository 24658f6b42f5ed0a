"""The commands: python -m <package> train | find-rate | evaluate | export, each with --help."""

from __future__ import annotations

import sys
from typing import Annotated

import tyro

from gradlab import cli
from gradlab.base import signals

from .config import EvaluateConfig, ExportConfig, TrainConfig

# Options are called --epochs, not --config.epochs.
PLAIN = tyro.conf.arg(name="")


def train(config: Annotated[TrainConfig, PLAIN]) -> int:
    """Train the model, or carry on where the run of this name was cut off."""
    from .train import train

    return train(config)


def find_rate(config: Annotated[TrainConfig, PLAIN]) -> int:
    """Find a learning rate: try ever higher ones on fresh weights, by the options of train."""
    from gradlab.train.rates import find

    from .data import datasets
    from .learner import Learner

    return find(Learner(config), datasets().train, str(__package__))


def evaluate(config: Annotated[EvaluateConfig, PLAIN]) -> int:
    """Evaluate the best model of a run on the test split."""
    from .evaluate import evaluate

    return evaluate(config)


def export(config: Annotated[ExportConfig, PLAIN]) -> int:
    """Export the best model of a run for other programs."""
    from .export import export

    return export(config)


if __name__ == "__main__":
    signals.take()
    sys.exit(cli.main(f"python -m {__package__}", [train, find_rate, evaluate, export]))
