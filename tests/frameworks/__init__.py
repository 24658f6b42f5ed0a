"""What a project of any framework promises; PyTorch's own tests are in tests/training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .. import warm

TENSORFLOW = Path(sys.executable).parents[1] / "tensorflow/bin/python"


@dataclass(frozen=True)
class Entry:
    """A framework, as it is tried."""

    name: str  # of the test
    framework: str  # the answer
    modules: tuple[str, ...]  # that its commands load
    env: dict[str, str] = field(default_factory=dict)
    # What of learner.py is replaced to have another optimizer.
    optimizer: tuple[str, str] = ("", "")
    python: str = sys.executable  # which has the framework, and all that the tests need
    traces: bool = True  # by --profile


# Code of another quality, with the same promises, is made in a fifth of the time.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"
KERAS = ("keras.optimizers.AdamW(", "keras.optimizers.SGD(")
FRAMEWORKS = (
    Entry(
        "jax",
        "jax",
        warm.JAX,
        {"XLA_FLAGS": QUICK_TO_COMPILE},
        optimizer=("optax.scale_by_adam()", "optax.trace(0.9)"),
    ),
    Entry(
        "keras-jax",
        "keras",
        warm.KERAS,
        {"KERAS_BACKEND": "jax", "XLA_FLAGS": QUICK_TO_COMPILE},
        KERAS,
    ),
    Entry("keras-tensorflow", "keras", warm.TENSORFLOW, {}, KERAS, str(TENSORFLOW), traces=False),
)
# What is alike on each backend of a framework is tried on one, for each test takes a while.
ONE_OF_EACH = [entry for entry in FRAMEWORKS if entry.python == sys.executable]


def on(entries: Sequence[Entry]) -> pytest.MarkDecorator:
    """Try something with some of them."""
    return pytest.mark.parametrize(
        "entry", entries, ids=lambda entry: entry.name, indirect=True, scope="session"
    )
