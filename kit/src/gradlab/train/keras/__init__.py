"""What a run needs of Keras 3: its backend, the device, the precision, and batches.

Promises: the same program runs on TensorFlow and on JAX, by KERAS_BACKEND, and the same seed gives
the same bytes again on the same kind of device and number of threads. Nothing beside this package
imports Keras or TensorFlow; of its modules, on_jax and on_tensorflow alone know a backend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import keras
import numpy as np

from ...base.errors import GradlabError
from ...services import machine
from .. import devices, keyed
from ..collate import mapped, stack
from ..frameworks import Framework
from ..loader import Loader

Value = TypeVar("Value")
BACKENDS = ("tensorflow", "jax")


def backend_name() -> str:
    """Name the backend that Keras computes with: tensorflow or jax; GradlabError for another."""
    name = str(keras.backend.backend())
    if name not in BACKENDS:
        raise GradlabError(
            f"Keras computes with {name} here, and this project trains on TensorFlow or on JAX: "
            "set KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax."
        )
    return name


def backend() -> Any:
    """Give the module here that knows the backend."""
    return import_module(f".on_{backend_name()}", __package__)


def version() -> str:
    """Name Keras and its backend with their versions."""
    name = str(keras.backend.backend())
    library = sys.modules.get(name)
    return f"keras {keras.__version__} on {name} {getattr(library, '__version__', '')}".rstrip()


@dataclass(frozen=True)
class World(devices.Alone):
    """The one process of a run, and the one device that it computes on: cpu, cuda or tpu."""

    device: str
    threads: int | None = None  # of the CPU, where their number is fixed

    def precision(self, wanted: machine.Precision) -> str:
        """Choose the precision: what was asked for, else bf16 where the device is made for it.

        Raises GradlabError for fp16.
        """
        if wanted == "fp16":
            raise GradlabError(
                "--precision fp16: the losses of a Keras model are not scaled, as fp16 needs it. "
                "Take bf16 or fp32."
            )
        if wanted != "auto":
            return wanted
        return "bf16" if self.device != "cpu" and backend().is_made_for_bf16() else "fp32"

    def seed_step(self, seed: int, step: int) -> None:
        """Make what draws from random or NumPy in a step a function of (seed, step).

        What a layer draws, as Dropout does, it draws by a generator that is part of the model.
        """
        keyed.seed_step(seed, step)


def join(wanted: machine.Device, compiled: bool = False) -> World:
    """Choose the device, and algorithms that give the same bits each time.

    `compiled` tells whether XLA computes a step where that is a choice.

    Raises GradlabError for a device that doesn't work here, and for more than one process.
    """
    devices.refuse_torchrun("Keras")
    if wanted == "mps":
        raise GradlabError("--device mps: Keras can't use an Apple GPU here. Leave the option out.")
    machine.keep_freed_memory()
    return World(*backend().begin(wanted, compiled))


def loader(
    dataset: keyed.Dataset,
    name: str,
    batches: Iterable[list[keyed.Position]],
    workers: int = 0,
    collate: Callable[[Sequence[Any]], Any] = stack,
) -> Loader:
    """Give a Loader of batches of the backend's arrays, on the device."""
    move = partial(mapped, kind=np.ndarray, act=backend().on_device)
    return Loader(dataset, name, batches, workers, collate, None, move)


FRAMEWORK = Framework(
    version=version(),
    # Setting TensorFlow's seed discards what it has compiled, and the next step compiles it anew. A
    # layer draws by a generator of its own, whose state is the model's.
    seed=lambda _: None,
    begin_worker=lambda: None,
    device=lambda: backend().device(),
    reduced=lambda _: NotImplemented,
    # The threads of TensorFlow and of JAX hold locks.
    forks=False,
)
