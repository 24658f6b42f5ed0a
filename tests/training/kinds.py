"""Networks that are more than their weights, by names: all that is kept of one alters its logits.

A copy of this file is in the project that test_whole.py trains, and is given its network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

FLOATS = ("float64", "bfloat16", "float16", "complex64", "complex128")
KINDS: dict[str, Callable[[Any], nn.Module]] = {}


def kind(make: Callable[[Any], nn.Module]) -> Callable[[Any], nn.Module]:
    """Let a function be a kind under its own name."""
    KINDS[make.__name__] = make
    return make


class Around(nn.Module):
    """The network, whose logits are scaled by what a training step alters."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def seen(self, images: Tensor) -> None:
        """Take note of a batch that is learned from."""

    def scale(self) -> Any:
        """Give the logits' scale."""
        return 1

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen(images)
        logits: Tensor = self.net(images) * self.scale()
        return logits


@kind
class Counter(Around):
    count = 0

    def seen(self, images: Tensor) -> None:
        self.count += len(images)

    def scale(self) -> float:
        return 1 + self.count / 500

    def get_extra_state(self) -> Any:
        return self.count

    def set_extra_state(self, state: Any) -> None:
        self.count = state


@kind
class Always(Counter):
    """It counts what it is evaluated by, too."""

    def forward(self, images: Tensor) -> Tensor:
        self.count += len(images) // 4
        return super().forward(images)


@kind
class Dictionary(Around):
    """The dictionary that it gives is its own, which it alters."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.state = {"images": 0, "names": ("x", None), "mean": torch.zeros(())}

    def seen(self, images: Tensor) -> None:
        self.state["images"] += len(images)
        self.state["mean"] += images.mean()

    def scale(self) -> Any:
        return 1 + self.state["images"] / 500 + self.state["mean"] * 0.1

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


@kind
class Generator(Around):
    """It draws from a generator of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.generator = torch.Generator()
        self.drawn = 0.0

    def seen(self, images: Tensor) -> None:
        self.drawn = float(torch.rand((), generator=self.generator))

    def scale(self) -> float:
        return 1 + self.drawn

    def get_extra_state(self) -> Any:
        return {"generator": self.generator.get_state(), "drawn": self.drawn}

    def set_extra_state(self, state: Any) -> None:
        self.generator.set_state(state["generator"])
        self.drawn = state["drawn"]


@kind
class NotPersistent(Around):
    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def seen(self, images: Tensor) -> None:
        self.mean += images.mean().detach().abs() * 0.1

    def scale(self) -> Any:
        return 1 + self.mean


@kind
class BornLater(Around):
    """Its buffers are none until the first step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("kept", None)
        self.register_buffer("unkept", None, persistent=False)

    def seen(self, images: Tensor) -> None:
        if self.kept is None:
            self.kept, self.unkept = images.new_zeros(1), images.new_zeros(1)
        self.kept += 0.01
        self.unkept += 0.02

    def scale(self) -> Any:
        return 1 if self.kept is None else 1 + self.kept + self.unkept


@kind
class Growing(Around):
    """Its buffers have another shape after each step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.register_buffer("kept", torch.zeros(0))
        self.register_buffer("unkept", torch.zeros(0, 2), persistent=False)

    def seen(self, images: Tensor) -> None:
        self.kept = torch.cat([self.kept, images.detach().mean().reshape(1)])
        self.unkept = torch.cat([self.unkept, images.new_ones(1, 2)])

    def scale(self) -> Any:
        return 1 + self.kept.sum() * 0.1 + self.unkept.sum() * 0.01


@kind
class Lazy(nn.Sequential):
    def __init__(self, net: nn.Module) -> None:
        del net
        convolution = [nn.Unflatten(1, (1, 8)), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()]
        parts = [*convolution, nn.ReLU(), nn.Flatten()]
        super().__init__(*parts, nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(10))


@kind
class Tied(Around):
    """Two layers that share a parameter, and a third that shares a part of its memory."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.one, self.other = nn.Linear(10, 10), nn.Linear(10, 10)
        self.other.weight = self.one.weight
        self.part = nn.Parameter(self.one.weight.data[:1])
        self.register_buffer("row", self.one.weight.data[1])
        self.register_buffer("mean", torch.zeros(2, 3))
        self.net.register_buffer("mean", self.mean)

    def seen(self, images: Tensor) -> None:
        self.mean += 0.01

    def forward(self, images: Tensor) -> Tensor:
        logits = self.other(self.one(super().forward(images)).relu())
        return logits + self.part + self.row + self.net.mean.sum()


@kind
class Norms(nn.Module):
    """Weights that are made of others at each call."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.layers = nn.Sequential(
            parametrizations.weight_norm(nn.Linear(10, 10)),
            parametrizations.spectral_norm(nn.Linear(10, 10)),
            parametrizations.orthogonal(nn.Linear(10, 10)),
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.net(images))
        return logits


@kind
class OlderNorms(nn.Module):
    """Those whose weight is neither a parameter nor a buffer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        pruned = prune.random_unstructured(nn.Linear(10, 10), "weight", 0.3)
        norms = weight_norm(nn.Linear(10, 10)), spectral_norm(nn.Linear(10, 10))
        self.layers = nn.Sequential(*norms, pruned)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(self.net(images))
        return logits


@kind
class Types(Around):
    """Buffers of all types and forms, which each step alters."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        for name in FLOATS:
            self.register_buffer(f"of_{name}", torch.ones(3, dtype=getattr(torch, name)))
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("small", torch.tensor([7], dtype=torch.int8))
        self.register_buffer("mask", torch.ones(20, dtype=torch.bool))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)
        self.register_buffer("wide", torch.ones(1).expand(8))
        self.register_buffer("sparse", torch.eye(3).to_sparse())

    def seen(self, images: Tensor) -> None:
        for name in FLOATS:
            getattr(self, f"of_{name}").mul_(1.01)
        self.turned.mul_(1.01)
        self.count += 1
        self.small += 1
        self.mask[int(self.count) % 20] = False
        self.sparse = (self.sparse * 1.01).coalesce()

    def scale(self) -> Any:
        value = sum(getattr(self, f"of_{name}").sum().real.float() for name in FLOATS)
        value = value + self.turned[0].sum() + self.count + self.small.sum() + self.mask.sum()
        return 1 + 0.01 * (value + self.wide.sum() + self.sparse.to_dense().sum())


@kind
class Observed(Around):
    """Quantisation-aware: its observers' buffers change their shape in the first step."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        from torch.ao import quantization

        self.layer = nn.Linear(10, 10)
        self.layer.qconfig = quantization.get_default_qat_qconfig("fbgemm")
        quantization.prepare_qat(self, inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.net(images))
        return logits


@kind
class Turned(Around):
    """Parameters whose memory has another order, and of other types."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net.to(memory_format=torch.channels_last))
        self.turned = nn.Parameter(torch.randn(10, 10).T)
        self.precise = nn.Parameter(torch.randn(10, dtype=torch.float64))
        self.short = nn.Parameter(torch.randn(10, dtype=torch.bfloat16))
        self.phase = nn.Parameter(torch.randn(10, dtype=torch.complex64))
        self.height = nn.Parameter(torch.tensor(1.0))
        self.empty = nn.Parameter(torch.zeros(0))
        self.frozen = nn.Parameter(torch.randn(10), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images) @ self.turned * self.height + self.frozen
        return (logits + self.precise + self.short + self.phase.abs()).float()


@kind
class Frozen(Around):
    """A part of it evaluates while the rest learns."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


@kind
def parallel(net: nn.Module) -> nn.Module:
    return nn.DataParallel(Counter(net))


@kind
def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(NotPersistent(net), backend="eager")  # type: ignore[return-value]


@kind
def compiled_in_place(net: nn.Module) -> nn.Module:
    whole = NotPersistent(net)
    whole.net.compile(backend="eager")
    return whole


@kind
def scripted(net: nn.Module) -> nn.Module:
    return torch.jit.script(net)  # type: ignore[no-any-return]


class Holding(Around):
    """A network with an extra state, or a buffer, that can't be kept."""

    state: Any = None

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


def holding(net: nn.Module, state: Any) -> nn.Module:
    network = Holding(net)
    network.state = state
    return network


def buffered(net: nn.Module, buffer: Tensor) -> nn.Module:
    net.register_buffer("table", buffer)
    return net


class OneWay(Around):
    def get_extra_state(self) -> Any:
        return 1


class Forgetful(Holding):
    """What it gives is another state each time that it is loaded."""

    def get_extra_state(self) -> Any:
        return self.state or 1

    def set_extra_state(self, state: Any) -> None:
        self.state = state + 1


class Unused(Around):
    """A lazy module that forward does not use."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.layer = nn.LazyLinear(10)


# Each with what the refusal says.
REFUSED: dict[str, tuple[Callable[[Any], nn.Module], str]] = {
    "an object": (lambda net: holding(net, object()), "'_extra_state' holds a builtins.object"),
    "a file": (lambda net: holding(net, [sys.stdout]), "give numbers, texts, tensors and arrays"),
    "quantised": (
        lambda net: buffered(net, torch.quantize_per_tensor(torch.ones(3), 0.1, 3, torch.qint8)),
        "'table' holds a tensor of torch.qint8",
    ),
    "compressed": (
        lambda net: buffered(net, torch.eye(3).to_sparse_csr()),
        "'table' holds a tensor of torch.float32 and torch.sparse_csr",
    ),
    "one way": (OneWay, "its state_dict does not load again"),
    "forgetful": (Forgetful, "_extra_state of the model is not what was saved"),
    "unused": (Unused, "'layer.weight' of the model that build() gives has no shape"),
}


def made(kind: str, net: nn.Module) -> nn.Module:
    """Make a network of a kind around another one."""
    return REFUSED[kind][0](net) if kind in REFUSED else KINDS[kind](net)
