"""How a step goes in PyTorch: what `train` and `evaluate` ask for, what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import Optimizer

from gradlab.services.machine import Device
from gradlab.train import best_model, keyed, profiles, runs, streams, weightfile
from gradlab.train.loader import Loader
from gradlab.train.torch import autocast, in_parts, join, loader, on_cpu
from gradlab.train.torch.network import (
    Average,
    evaluating,
    infer,
    load_optimizer,
    load_weights,
    prove,
    weights,
)

from . import task
from .config import ModelConfig, TrainConfig
from .model import build

Losses = dict[str, Tensor]
Values = dict[str, float]
Lines = list[Values]
Weights = dict[str, Tensor]


class Learner:
    """The network and what changes it, on the device, in one or several processes."""

    average: Average | None = None

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.world = join(config.device)
        self.settings = dict[str, Any]()  # beside the options, what a run can't change on its way
        keyed.split(config.batch_size, self.world.size, config.accumulate)
        # The processes that split the network, if they do.
        self.team = self.world.team(config.precision, config.compile) if config.shard else None

    def load(self, saved: Weights, source: object) -> None:
        """Build the network with weights that were saved; GradlabError where they don't fit."""
        self.precision = self.world.precision(self.config.precision)
        self.network = self.world.place(build(self.config.model))
        load_weights(self.network, saved, source)

    def start(self, total: int, state: dict[str, Any] | None, data: Any = None) -> None:
        """Build all afresh from the seed, or as a checkpoint has it, for so many steps in all."""
        config, self.total = self.config, total
        self.precision = self.world.precision(config.precision)
        keyed.seed_generators(keyed.key(config.seed, "weights"))
        network = build(config.model)
        self.network = network if self.team else self.world.place(network)
        first = partial(self.load_batches, data, "training", [[(0, 0)]], 0)
        infer(self.network, first, config.seed)
        if self.team:
            self.team.split(self.network)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.scaler = self.world.scaler(self.precision)
        if state is None:
            prove(self.network)
        else:
            load_weights(self.network, state["network"], "the saved run")
        if config.ema is not None:
            self.average = Average(self.network, config.ema, state["average"] if state else {})
        if state:
            load_optimizer(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        self.model = self._shared(self.network)

    def _shared(self, network: nn.Module) -> nn.Module:
        """Give what learns: the network, compiled where asked for, in step with all processes."""
        if self.team:
            return network
        model = torch.compile(network) if self.config.compile else network
        return self.world.wrap(cast(nn.Module, model))

    def close(self) -> None:
        """Let go of what the processes share, before they part: later it might wait for ever."""
        self.model = self.network

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold for `start` to go on from here."""
        return {
            "network": weights(self.network, copied=False),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.tensors if self.average else {},
        }

    def load_batches(self, data: Any, name: str, batches: Any, workers: int) -> Loader:
        """Give the batches of (epoch, index) that are asked for, on the device."""
        source = streams.source(data, seed=0)
        return loader(source, name, batches, workers, self.world.device, task.collate)

    def profiled(self, batches: Iterable[Any], run: runs.Run | None) -> Iterable[Any]:
        """Trace some steps of the first process, if that was asked for."""
        return profiles.traced(batches, run, self.config.profile, torch.profiler.profile)

    def step(self, step: int, batch: Any, rate: float | None = None) -> Losses:
        """Learn from a batch, by the step's rate or another; give its losses, on the device."""
        if self.team:
            self.team.same_buffers(self.network)
        self.world.seed_step(self.config.seed, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) if rate is None else rate
        parts = [self._backward(part) for part in in_parts(batch, self.config.accumulate)]
        self._update(self.optimizer)
        if self.average:
            self.average.update()
        return {name: sum((part[name] for part in parts[1:]), parts[0][name]) for name in parts[0]}

    def _backward(self, part: Any) -> Losses:
        """Add a part's gradients to the others'; give its share of the losses."""
        (inputs, targets), config = part, self.config
        with autocast(self.world.device, self.precision):
            losses = task.losses(self.model(inputs), targets, config)
        if config.accumulate > 1:
            losses = {name: loss / config.accumulate for name, loss in losses.items()}
        self.scaler.scale(losses["loss"]).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _update(self, optimizer: Optimizer) -> None:
        """Change an optimizer's weights by their gradients, and let go of all gradients."""
        if self.config.clip is not None:
            self.scaler.unscale_(optimizer)
            own = [each for group in optimizer.param_groups for each in group["params"]]
            nn.utils.clip_grad_norm_(own, self.config.clip)
        self.scaler.step(optimizer)
        if self.team:
            self.team.prove(optimizer)
        self.scaler.update()
        self.network.zero_grad(set_to_none=True)

    def learning_rate(self, step: int) -> float:
        """Give the rate of a step: a linear warm-up, then a cosine down to zero."""
        warmup = max(1, round(self.config.warmup * self.total))
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        done = (step - warmup) / max(1, self.total - warmup)
        return self.config.learning_rate * (1 + math.cos(math.pi * done)) / 2

    def values(self, losses: list[Losses]) -> Lines:
        """Give the losses of some steps as numbers, averaged over the processes."""
        names = list(losses[0]) if losses else []
        columns = [self.world.mean(torch.stack([each[n] for each in losses])) for n in names]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return [dict(zip(names, row, strict=True)) for row in rows]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Have the network evaluate, not learn, and be as before in the end."""
        with self._kept(), evaluating(self.network):
            yield

    def _kept(self) -> AbstractContextManager[None]:
        """Have the network hold what is evaluated and kept: the average of the weights, if any."""
        return self.average.taken() if self.average else nullcontext()

    def evaluate(self, number: int, batch: Any) -> tuple[dict[str, float], task.Seen]:
        """Give the losses of a split's batch of this number, and what is seen of it."""
        inputs, targets = batch
        # Whatever is random in a network that evaluates, such as noise: no step has these seeds.
        self.world.seed_step(self.config.seed, -1 - number)
        with autocast(self.world.device, self.precision):
            outputs = on_cpu(self.network(inputs))
        targets = on_cpu(targets)
        losses = task.losses(outputs, targets)
        values = {name: float(loss) for name, loss in losses.items()}
        return values, task.seen(outputs, targets)

    def weights(self) -> Weights:
        """Give a copy of the weights that are evaluated; where they are split, of this part."""
        with self._kept():
            return weights(self.network)

    def whole(self, weights: Weights) -> Weights:
        """Give the first process all of the weights of which each has its part."""
        return self.team.whole(self.network, weights) if self.team else weights

    def file(self, weights: Weights, settings: dict[str, Any]) -> bytes:
        """Give the file of some weights, with the settings of their training."""
        return weightfile.pack(save(weights), settings)

    def files(self, best: Weights, settings: dict[str, Any]) -> dict[str, bytes]:
        """Give the results of a run by their names: the weights of its end, and the best."""
        found = {"model": self.weights(), "best": best}
        return {f"{n}.safetensors": self.file(self.whole(w), settings) for n, w in found.items()}

    def where(self) -> str:
        """Say on what it computes: on another device the last bits may differ."""
        threads = f", {torch.get_num_threads()} threads" if self.world.device.type == "cpu" else ""
        return (
            f"{self.world.device.type} ({self.precision}{threads}), "
            f"{self.world.size} process(es), torch {torch.__version__.partition('+')[0]}"
        )


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
