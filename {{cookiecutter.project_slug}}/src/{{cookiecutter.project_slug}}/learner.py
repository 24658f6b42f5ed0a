"""How a step goes in PyTorch: what `train` and `evaluate` ask for, what a checkpoint holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from gradlab.services.machine import Device
from gradlab.train import keyed, places, runs, weightfile
from gradlab.train.collate import mapped
from gradlab.train.loader import Loader
from gradlab.train.torch import autocast, join, load_weights, loader, prove, weights

from . import task
from .config import ModelConfig, TrainConfig
from .model import build

Losses = dict[str, Tensor]
Values = dict[str, float]
Lines = list[Values]
Weights = dict[str, Tensor]


class Learner:
    """The network and what changes it, on the device, in one or several processes."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.world = join(config.device)
        self.precision = self.world.precision(config.precision)

    def load(self, saved: Weights, source: object) -> None:
        """Build the network with weights that were saved; GradlabError where they don't fit."""
        self.network = self.world.place(build(self.config.model))
        load_weights(self.network, saved, source)

    def start(self, total: int, state: dict[str, Any] | None) -> None:
        """Build all afresh from the seed, or as a checkpoint has it, for so many steps in all."""
        config, self.total = self.config, total
        keyed.seed_generators(keyed.key(config.seed, "weights"))
        self.network = self.world.place(build(config.model))
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.scaler = self.world.scaler(self.precision)
        if state is None:
            prove(self.network)
        else:
            load_weights(self.network, state["network"], "the saved run")
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
        model = torch.compile(self.network) if config.compile else self.network
        self.model = self.world.wrap(cast(nn.Module, model))

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold for `start` to go on from here."""
        return {
            "network": weights(self.network, copied=False),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_batches(
        self, data: Any, name: str, batches: Any, workers: int, seed: int = 0
    ) -> Loader:
        """Give the batches of (epoch, index) that are asked for, on the device."""
        keyed_data = keyed.KeyedDataset(data, seed)
        return loader(keyed_data, name, batches, workers, self.world.device, task.collate)

    def step(self, step: int, batch: Any) -> Losses:
        """Learn from a batch; give its losses, on the device."""
        self.world.seed_step(self.config.seed, step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step)
        inputs, targets = batch
        with autocast(self.world.device, self.precision):
            losses = task.losses(self.model(inputs), targets)
        self.scaler.scale(losses["loss"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return {name: loss.detach() for name, loss in losses.items()}

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
        """Have the network evaluate, not learn: no dropout, no gradients."""
        self.network.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.train()

    def evaluate(self, batch: Any) -> tuple[dict[str, float], task.Seen]:
        """Give the losses of a batch, and what is seen of it."""
        inputs, targets = batch
        with autocast(self.world.device, self.precision):
            outputs = _on_cpu(self.network(inputs))
        targets = _on_cpu(targets)
        losses = task.losses(outputs, targets)
        values = {name: float(loss) for name, loss in losses.items()}
        return values, task.seen(outputs, targets)

    def weights(self) -> Weights:
        """Give a copy of the network's weights."""
        return weights(self.network)

    def file(self, weights: Weights, settings: dict[str, Any]) -> bytes:
        """Give the file of some weights, with the settings of their training."""
        return weightfile.pack(save(weights), settings)

    def where(self) -> str:
        """Say on what it computes: on another device the last bits may differ."""
        threads = f", {torch.get_num_threads()} threads" if self.world.device.type == "cpu" else ""
        return (
            f"{self.world.device.type} ({self.precision}{threads}), "
            f"{self.world.size} process(es), torch {torch.__version__.partition('+')[0]}"
        )


def _on_cpu(value: Any) -> Any:
    """Give a tensor, or a structure of them, on the CPU, floating-point numbers as float32."""
    return mapped(value, Tensor, lambda t: (t.float() if t.is_floating_point() else t).cpu())


def load_best(
    project: str, name: str, device: Device, accept: bool = False
) -> tuple[Path, Learner]:
    """Load the best model of a run, as built by the settings it was trained with.

    Raises GradlabError where the model's code is not that of the training, unless `accept`.
    """
    advice = f"train first, with: python -m {project} train --name {name}"
    path = places.find(project, name, "best.safetensors", advice)
    again = f"To write it anew from the newest checkpoint: python -m {project} train --name {name}"
    saved, settings = weightfile.unpack(path, again, load)
    runs.compare_code(settings, Path(__file__).parent, path, accept)
    learner = Learner(TrainConfig(model=ModelConfig(**settings["model"]), device=device))
    learner.load(saved, path)
    return path, learner
