"""How a step goes in Keras: what `train` and `evaluate` ask for, what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
from safetensors.numpy import load, save

from gradlab.services.machine import Device
from gradlab.train import (
    best_model,
    devices,
    keyed,
    profiles,
    runs,
    streams,
    weightfile,
)
from gradlab.train.keras import backend, backend_name, join, loader, version
from gradlab.train.keras.network import (
    Arrays,
    Average,
    arrays,
    built,
    load_optimizer,
    load_weights,
    unchanged,
)
from gradlab.train.keras.steps import as_float32, as_numpy
from gradlab.train.loader import Loader

from . import task
from .config import ModelConfig, TrainConfig
from .data import datasets
from .model import build

Losses = dict[str, Any]
Values = dict[str, float]
Lines = list[Values]


class Learner:
    """The network and what changes it, on the device."""

    steps: Any = None  # before it learns

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.world = join(config.device, config.compile)
        devices.refuse_shards("Keras", config.shard)
        self.team: Any = None  # of processes that split the network
        # Beside the options, what a run can't change on its way: the backends' last bits differ.
        self.settings = {"framework": f"keras on {backend_name()}"}
        keyed.split(config.batch_size, self.world.size, config.accumulate)
        self.profiler = backend().profiler() if config.profile else None

    def load(self, saved: Arrays, source: object) -> None:
        """Build the network with weights that were saved; GradlabError where they don't fit."""
        self._build(lambda: datasets().test)
        load_weights(self.network.weights, saved, source)
        self.average = Average(self.network, None, None)

    def start(self, total: int, state: dict[str, Any] | None, data: Any = None) -> None:
        """Build all afresh from the seed, or as a checkpoint has it, for so many steps in all."""
        config, self.total = self.config, total
        self._build(lambda: data)
        self.optimizer = keras.optimizers.AdamW(
            config.learning_rate, weight_decay=config.weight_decay, global_clipnorm=config.clip
        )
        self.optimizer.build(self.network.trainable_variables)
        if state:
            load_weights(self.network.variables, state["network"], "the saved run")
            load_optimizer(self.optimizer, state["optimizer"])
        self.average = Average(self.network, config.ema, state["average"] if state else None)
        losses = partial(task.losses, config=config)
        self.steps = backend().Learning(
            *(self.network, self.optimizer, losses, self.average),
            *(config.accumulate, config.compile),
        )

    def _build(self, data: Callable[[], Any]) -> None:
        """Build the network; `data` gives an example to one that doesn't know its own shapes."""
        self.precision = self.world.precision(self.config.precision)

        def inputs() -> Any:
            with self.load_batches(data(), "training", [[(0, 0)]], 0) as loaded:
                return next(loaded)[0]

        seed = keyed.key(self.config.seed, "weights")
        self.network = built(lambda: build(self.config.model), seed, self.precision, inputs)
        self.infer = backend().forward(self.network, self.config.compile)

    def close(self) -> None:
        """Let go of what the processes share, which is nothing."""

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold for `start` to go on from here."""
        self.steps.settle()
        return {
            "network": arrays(self.network.variables),
            "optimizer": arrays(self.optimizer.variables),
            "average": self.average.arrays(),
        }

    def load_batches(self, data: Any, name: str, batches: Any, workers: int) -> Loader:
        """Give the batches of (epoch, index) that are asked for, on the device."""
        return loader(streams.source(data, seed=0), name, batches, workers, task.collate)

    def profiled(self, batches: Iterable[Any], run: runs.Run | None) -> Iterable[Any]:
        """Trace some steps, if that was asked for."""
        make = self.profiler
        return profiles.traced(batches, run, True, make) if make else batches

    def step(self, step: int, batch: Any, rate: float | None = None) -> Losses:
        """Learn from a batch, by the step's rate or another; give its losses, on the device."""
        self.world.seed_step(self.config.seed, step)
        given = self.learning_rate(step) if rate is None else rate
        losses: Losses = self.steps.learn(step, batch, given)
        return losses

    def learning_rate(self, step: int) -> float:
        """Give the rate of a step: a linear warm-up, then a cosine down to zero."""
        warmup = max(1, round(self.config.warmup * self.total))
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def values(self, losses: list[Losses]) -> Lines:
        """Give the losses of some steps as numbers."""
        return [{name: float(loss) for name, loss in each.items()} for each in losses]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the network evaluate, not learn, and be as before in the end."""
        with self._kept(), unchanged(self.network.non_trainable_variables):
            yield

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Have the network hold what is evaluated and kept: the average of the weights, if any."""
        if self.steps:
            self.steps.settle()
        with self.average.taken():
            yield

    def evaluate(self, number: int, batch: Any) -> tuple[dict[str, float], task.Seen]:
        """Give the losses of a split's batch of this number, and what is seen of it."""
        inputs, targets = batch
        # Whatever is random in a network that evaluates, such as noise: no step has these seeds.
        self.world.seed_step(self.config.seed, -1 - number)
        outputs = as_float32(self.infer(inputs))
        losses = task.losses(outputs, targets)
        values = {name: float(loss) for name, loss in losses.items()}
        return values, task.seen(as_numpy(outputs), as_numpy(targets))

    def weights(self) -> Arrays:
        """Give a copy of the weights that are evaluated."""
        with self._kept():
            return arrays(self.network.weights)

    def whole(self, weights: Arrays) -> Arrays:
        """Give all of the weights: they are never split."""
        return weights

    def file(self, weights: Arrays, settings: dict[str, Any]) -> bytes:
        """Give the file of some weights, with the settings of their training."""
        return weightfile.pack(save(weights), settings)

    def files(self, best: Arrays, settings: dict[str, Any]) -> dict[str, bytes]:
        """Give the results of a run by their names: the weights of its end, and the best."""
        found = {"model": self.weights(), "best": best}
        return {f"{name}.safetensors": self.file(each, settings) for name, each in found.items()}

    def where(self) -> str:
        """Say on what it computes: on another device the last bits may differ."""
        threads = f", {self.world.threads} threads" if self.world.threads else ""
        return f"{self.world.device} ({self.precision}{threads}), {version()}"


def load_best(
    project: str, name: str, device: Device, accept: bool = False
) -> tuple[Path, Learner]:
    """Load the best model of a run, as built by the settings it was trained with.

    Raises GradlabError where the model's code is not that of the training, unless `accept`.
    """
    path, saved, settings = best_model.load(project, name, Path(__file__).parent, accept, load)
    model = ModelConfig(**settings["model"])
    learner = Learner(TrainConfig(model=model, device=device, precision="fp32"))
    learner.load(saved, path)
    return path, learner
