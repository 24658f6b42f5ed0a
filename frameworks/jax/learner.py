"""How a step goes in JAX: what `train` and `evaluate` ask for, what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from safetensors.numpy import save

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
from gradlab.train.jax import join, loader, trees
from gradlab.train.jax.profiler import Profiler
from gradlab.train.loader import Loader

from . import task
from .config import ModelConfig, TrainConfig
from .model import build

Losses = dict[str, jax.Array]
Values = dict[str, float]
Lines = list[Values]
Weights = dict[str, Any]
State = dict[str, Any]


class Learner:
    """The network and what changes it, on the devices, as arrays by their names.

    `arrays` has the parameters that are learned, the statistics that a step alters beside them,
    the optimizer's state, and the average of the weights, if one is asked for.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.world = join(config.device)
        devices.refuse_shards("JAX", config.shard)
        self.team: Any = None  # of processes that split the network
        self.settings = dict[str, Any]()  # beside the options, what a run can't change on its way

    def load(self, saved: Weights, source: object) -> None:
        """Build the network with weights that were saved; GradlabError where they don't fit."""
        parameters, statistics = self._build()
        fit = trees.fitting(saved, parameters | statistics, source)
        self.arrays = self.world.place({"parameters": fit, "statistics": {}, "average": {}})

    def start(self, total: int, state: State | None, data: Any = None) -> None:
        """Build all afresh from the seed, or as a checkpoint has it, for so many steps in all."""
        config, self.total = self.config, total
        keyed.split(config.batch_size, self.world.devices, config.accumulate, "devices")
        parameters, statistics = self._build()
        self.optimizer = optimizer(config)
        changed, average = self.optimizer.init(parameters), {}
        if config.ema is not None:
            average = {n: a for n, a in (parameters | statistics).items() if _is_float(a)}
        if state:
            both = trees.fitting(state["network"], parameters | statistics, "the saved run")
            parameters, statistics = ({n: both[n] for n in e} for e in (parameters, statistics))
            changed = trees.restored(changed, state["optimizer"])
            average = state["average"]
        arrays = {"parameters": parameters, "statistics": statistics, "average": average}
        # Copied, for a step gives the memory that it takes its arrays from to its results.
        self.arrays = self.world.place(trees.copies({**arrays, "optimizer": changed}))

    def _build(self) -> tuple[Weights, Weights]:
        """Build the network from the seed, and what computes with it; give its arrays."""
        self.precision = self.world.precision(self.config.precision)
        network = build(self.config.model, nnx.Rngs(trees.key(self.config.seed, "weights")))
        network.train()
        self.learning, *states = nnx.split(network, nnx.Param, nnx.RngState, ...)
        network.eval()
        self.judging = nnx.graphdef(network)
        parameters, self.streams, statistics = states
        self.forms = trees.forms(parameters), trees.forms(statistics)
        whole = self.world.whole
        self.update = jax.jit(self._update, donate_argnums=0, out_shardings=whole)
        self.judge = jax.jit(self._judge, out_shardings=whole)
        return trees.named(parameters), trees.named(statistics)

    def close(self) -> None:
        """Let go of what processes share: there is one."""

    def state(self) -> State:
        """Give what a checkpoint has to hold for `start` to go on from here."""
        arrays = self.arrays
        return {
            "network": arrays["parameters"] | arrays["statistics"],
            "optimizer": trees.named(arrays["optimizer"]),
            "average": arrays["average"],
        }

    def load_batches(self, data: Any, name: str, batches: Any, workers: int) -> Loader:
        """Give the batches of (epoch, index) that are asked for, on the devices."""
        source = streams.source(data, seed=0)
        return loader(source, name, batches, workers, self.world, task.collate)

    def profiled(self, batches: Iterable[Any], run: runs.Run | None) -> Iterable[Any]:
        """Trace some steps, if that was asked for."""
        return profiles.traced(batches, run, self.config.profile, Profiler)

    def step(self, step: int, batch: Any, rate: float | None = None) -> Losses:
        """Learn from a batch, by the step's rate or another; give its losses, on the devices."""
        rate = self.learning_rate(step) if rate is None else rate
        losses: Losses
        self.arrays, losses = self.update(self.arrays, batch, np.int32(step), np.float32(rate))
        return losses

    def _update(self, arrays: State, batch: Any, step: Any, rate: Any) -> tuple[State, Losses]:
        """Compute a step: give what is learned and kept after it, and its losses."""
        gradients, statistics, losses = self._gradients(arrays, batch, step)
        parameters, before = arrays["parameters"], arrays["optimizer"]
        changes, changed = self.optimizer.update(gradients, before, parameters)
        changes = jax.tree.map(lambda change: -rate * change, changes)
        parameters = dict(optax.apply_updates(parameters, changes))
        average = self._averaged(arrays["average"], parameters | statistics, step)
        after = {"parameters": parameters, "statistics": statistics, "average": average}
        return {**after, "optimizer": changed}, losses

    def _gradients(self, arrays: State, batch: Any, step: Any) -> tuple[Weights, Weights, Losses]:
        """Give the gradients of a batch, learned from in parts, its statistics and losses."""
        parameters, count = arrays["parameters"], self.config.accumulate
        key = jax.random.fold_in(trees.key(self.config.seed, "step"), step)

        def gradients(statistics: Any, number: Any, part: Any) -> Any:
            own = jax.random.fold_in(key, number)
            return jax.grad(self._loss, has_aux=True)(parameters, statistics, part, own)

        def learn(before: Any, part: Any) -> Any:
            sums, statistics = before
            more, (statistics, losses) = gradients(statistics, *part)
            return (jax.tree.map(jnp.add, sums, more), statistics), losses

        if count == 1:
            sums, (statistics, losses) = gradients(arrays["statistics"], 0, batch)
            return sums, statistics, losses
        begun = jax.tree.map(jnp.zeros_like, parameters), arrays["statistics"]
        numbered = jnp.arange(count), trees.parts(batch, count)
        (sums, statistics), lines = jax.lax.scan(learn, begun, numbered)
        means = jax.tree.map(lambda total: total / count, sums)
        return means, statistics, {name: line.mean() for name, line in lines.items()}

    def _loss(self, parameters: Weights, statistics: Weights, batch: Any, key: jax.Array) -> Any:
        """Give the loss of a batch, and beside it the statistics after it and all losses."""
        inputs, targets = batch
        outputs, after = self._forward(self.learning, parameters, statistics, inputs, key)
        losses = task.losses(outputs, targets, self.config)
        return losses["loss"], (after, losses)

    def _forward(
        self, graph: Any, parameters: Weights, statistics: Weights, inputs: Any, key: jax.Array
    ) -> tuple[Any, Weights]:
        """Give the network's outputs, as float32, and its statistics after it."""
        inputs, lower = trees.cast((inputs, parameters), self.precision)
        learned, altered = map(trees.filled, self.forms, (lower, statistics))
        drawn = trees.reseeded(self.streams, key)
        network = nnx.merge(graph, learned, drawn, altered, copy=True)
        outputs = network(inputs)
        after = trees.named(nnx.split(network, nnx.Param, nnx.RngState, ...)[-1])
        trees.refuse_altered(statistics, after)
        return trees.full(outputs), after

    def _averaged(self, average: Weights, now: Weights, step: Any) -> Weights:
        """Give the average after a step: after the first of all, the weights as they are."""
        kept = jnp.where(step == 0, 0.0, self.config.ema or 0.0)

        def mean(name: str) -> jax.Array:
            both = kept * average[name] + (1 - kept) * now[name]
            return jnp.asarray(both, now[name].dtype)

        return {name: mean(name) for name in average}

    def learning_rate(self, step: int) -> float:
        """Give the rate of a step: a linear warm-up, then a cosine down to zero."""
        warmup = max(1, round(self.config.warmup * self.total))
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def values(self, losses: list[Losses]) -> Lines:
        """Give the losses of some steps as numbers."""
        lines = jax.device_get(losses)
        return [{name: float(value) for name, value in line.items()} for line in lines]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the network evaluate: nothing of it is altered by that."""
        yield

    def evaluate(self, number: int, batch: Any) -> tuple[Values, task.Seen]:
        """Give the losses of a split's batch of this number, and what is seen of it."""
        found = self.judge(self._evaluated(), batch, np.int32(number))
        losses, outputs, targets = jax.device_get(found)
        return {name: float(loss) for name, loss in losses.items()}, task.seen(outputs, targets)

    def _evaluated(self) -> Weights:
        """Give what is evaluated and kept: the average of the weights, if any."""
        arrays = self.arrays
        return arrays["parameters"] | arrays["statistics"] | arrays["average"]

    def _judge(self, weights: Weights, batch: Any, number: Any) -> tuple[Losses, Any, Any]:
        inputs, targets = batch
        key = jax.random.fold_in(trees.key(self.config.seed, "evaluation"), number)
        outputs = self.outputs(weights, inputs, key)
        return task.losses(outputs, targets), outputs, targets

    def outputs(self, weights: Weights, inputs: Any, key: jax.Array) -> Any:
        """Give what the network makes of inputs when it evaluates."""
        parameters, statistics = ({n: weights[n] for n in trees.named(f)} for f in self.forms)
        outputs, _ = self._forward(self.judging, parameters, statistics, inputs, key)
        return outputs

    def weights(self) -> Weights:
        """Give a copy of the weights that are evaluated."""
        return trees.copies(self._evaluated())

    def whole(self, weights: Weights) -> Weights:
        """Give all of the weights: they are never split."""
        return weights

    def file(self, weights: Weights, settings: dict[str, Any]) -> bytes:
        """Give the file of some weights, with the settings of their training."""
        return weightfile.pack(save(weights), settings)

    def files(self, best: Weights, settings: dict[str, Any]) -> dict[str, bytes]:
        """Give the results of a run by their names: the weights of its end, and the best."""
        found = {"model": self.weights(), "best": best}
        return {f"{name}.safetensors": self.file(each, settings) for name, each in found.items()}

    def where(self) -> str:
        """Say on what it computes: on another device the last bits may differ."""
        world = self.world
        return (
            f"{world.kind} ({self.precision}, {world.name}), "
            f"{world.devices} device(s), jax {jax.__version__}"
        )


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Give what makes changes of gradients: a step multiplies them by its learning rate."""
    clip = [] if config.clip is None else [optax.clip_by_global_norm(config.clip)]
    adamw = optax.scale_by_adam(), optax.add_decayed_weights(config.weight_decay)
    return optax.chain(*clip, *adamw)


def _is_float(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def load_best(
    project: str, name: str, device: Device, accept: bool = False
) -> tuple[Path, Learner]:
    """Load the best model of a run, as built by the settings it was trained with.

    Raises GradlabError where the model's code is not that of the training, unless `accept`.
    """
    path, saved, settings = best_model.load(
        project, name, Path(__file__).parent, accept, trees.load
    )
    model = ModelConfig(**settings["model"])
    learner = Learner(TrainConfig(model=model, device=device, precision="fp32"))
    learner.load(saved, path)
    return path, learner
