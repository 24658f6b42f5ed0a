"""A model that is split among the processes of torchrun, each with a part of every parameter.

Promises: a step learns the same as with the model copied to each process, but for the last bits;
what a process keeps is its own part, as plain tensors; the whole model comes together in the first
process, a tensor at a time, as one that was never split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import device_mesh, fsdp
from torch.optim import Optimizer

from ...base.errors import GradlabError, reason
from .. import weights as named
from . import PATIENCE, World, part_of
from .network import full_shapes

fully_shard: Any = getattr(fsdp, "fully_shard", None)  # torch >= 2.6
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def team(world: World, precision: str, compiled: bool) -> Team:
    """Give the processes that split a model; GradlabError where --shard can't be had."""
    why = ""
    if fully_shard is None:
        why = f"needs torch 2.6 or newer, and this is {torch.__version__}: update it"
    elif world.size == 1:
        why = (
            "splits the model among several processes, and there is one: start them with "
            "torchrun --nproc-per-node N -m, or leave the option out"
        )
    elif precision == "fp16":
        why = "can't scale the gradients of fp16: give --precision bf16 or fp32"
    elif compiled:
        why = "does not go with --compile: leave one of them out"
    if why:
        raise GradlabError(f"--shard {why}.")
    return Team(world, dist.new_group(backend="gloo", timeout=PATIENCE))


@dataclass(frozen=True)
class Team:
    """The processes that split a model; their messages beside the steps go by a group apart."""

    world: World
    group: Any
    proved: set[int] = field(default_factory=set)  # the ids of optimizers

    @property
    def rank(self) -> int:
        """This process's place among them, from 0."""
        return self.world.rank

    @property
    def size(self) -> int:
        """How many they are."""
        return self.world.size

    def exchange(self, value: Any) -> list[Any]:
        """Give all processes' values, in their order; not in the way of what a step exchanges."""
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def split(self, network: nn.Module) -> None:
        """Split a network's parameters among the processes, and move it to the device.

        The modules in its lists are gathered one by one as they compute, all others together.
        Raises GradlabError for a network that can't be split.
        """
        mesh = device_mesh.init_device_mesh(self.world.device.type, (self.size,))
        try:
            for module in [*_blocks(network), network]:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
        # What it is that FSDP can't split, such as a parameter without dimensions, it says itself.
        except Exception as error:
            raise GradlabError(
                f"--shard can't split the model that build() gives: {reason(error)}.\n"
                "Change that, or leave the option out."
            ) from error
        network.to(self.world.device)  # buffers of modules without parameters

    def same_buffers(self, network: nn.Module) -> None:
        """Give all processes the first one's buffers, as copies of a model in each have them."""
        kinds = defaultdict[torch.dtype, list[Tensor]](list)
        for buffer in network.buffers():
            kinds[buffer.dtype].append(buffer.detach())
        for buffers in kinds.values():
            together = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.broadcast(together, 0)
            parts = torch.split(together, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))

    def prove(self, optimizer: Optimizer) -> None:
        """Raise GradlabError where an optimizer's state is not split as its parameters are."""
        if id(optimizer) in self.proved:
            return
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and not _is_restored(value, parameter):
                    raise GradlabError(
                        f"--shard can't keep the state of {type(optimizer).__name__}: its '{name}' "
                        "has not the shape of its parameter. Take an optimizer whose state has, "
                        "such as AdamW or SGD, or leave the option out."
                    )
        self.proved.add(id(optimizer))

    def whole(self, network: nn.Module, parts: named.Weights) -> named.Weights:
        """Give the first process the whole of weights of which each has its part, {} the others."""
        shapes = full_shapes(network)
        found = {name: self._gathered(part, shapes.get(name)) for name, part in parts.items()}
        return found if self.rank == 0 else {}

    def _gathered(self, part: Tensor, shape: torch.Size | None) -> Tensor:
        """Gather a tensor in the first process; the others give their part, which may be empty."""
        if shape is None:  # of the first process alone
            return part
        if self.rank:
            if part.numel():
                dist.send(part, 0)
            return part
        together = torch.empty(shape, dtype=part.dtype)
        for rank, piece in enumerate(together.chunk(self.size)):  # as it was split
            if rank == 0:
                piece.copy_(part)
            elif piece.numel():
                dist.recv(piece, rank)
        return together


def _is_restored(value: Tensor, parameter: Tensor) -> bool:
    """Tell whether a checkpoint of its parts gives back what an optimizer has of a parameter."""
    if part_of(value) is not value:
        return bool(value.shape == parameter.shape)
    return value.dim() == 0 or bool(value.shape != part_of(parameter).shape)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Give the modules in the outermost lists of a network that share no parameter with others."""
    everywhere = _uses(network)
    inside = ((block, _uses(block)) for block in _listed(network))
    return [b for b, uses in inside if uses and all(everywhere[p] == uses[p] for p in uses)]


def _uses(network: nn.Module) -> Counter[nn.Parameter]:
    """Count under how many names a network has each of its parameters."""
    return Counter(value for _, value in network.named_parameters(remove_duplicate=False))


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(module, LISTS) and not isinstance(child, LISTS[1:]):
            yield child
        else:
            yield from _listed(child)
