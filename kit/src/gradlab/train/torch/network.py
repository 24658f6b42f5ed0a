"""A network as more than its weights: all of it is kept, loaded and averaged, or refused.

Promises: what a step alters of a network comes back equal from a checkpoint and from a file of
weights: parameters, buffers of any type, also those that are not persistent, born later or of
another shape by now, and extra state. Where that can't be, it is refused before the first step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, is_lazy
from torch.optim import Optimizer, swa_utils

from ...base.errors import GradlabError
from .. import keyed
from .. import weights as named
from ..collate import mapped
from ..loader import Loader
from . import part_of

# What safetensors holds in any version.
SAFE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
SAFE |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def weights(network: nn.Module, copied: bool = True) -> named.Weights:
    """Give a network's state, on the CPU in memory of its own unless it may be shared.

    Raises GradlabError for a value that is neither a tensor nor plain.
    """
    return _kept(_state(network), copied)


def _kept(state: dict[str, Any], copied: bool) -> named.Weights:
    found: named.Weights = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in SAFE:
            value = part_of(value.detach())
            found[name] = value.cpu().contiguous().clone() if copied else value
        else:
            text = bytearray(named.text(name, value))
            found[name + named.PLAIN] = torch.frombuffer(text, dtype=torch.uint8)
    return found


def _as_part(value: Tensor, like: Tensor) -> Tensor:
    """Give a plain tensor as this process's part of one that is split as another one is."""
    if part_of(like) is like:
        return value
    split: Any = like
    form = {"shape": split.shape, "stride": split.stride()}
    value = value.to(part_of(like).device)
    whole: Tensor = type(split).from_local(value, split.device_mesh, split.placements, **form)
    return whole


def full_shapes(network: nn.Module) -> dict[str, torch.Size]:
    """Give the whole shapes of what of a network's weights is split, by their names."""
    return {n: v.shape for n, v in _state(network).items() if hasattr(v, "to_local")}


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load an optimizer's state; GradlabError where it is that of another kind of optimizer."""
    given = [each for group in optimizer.param_groups for each in group["params"]]

    def part(value: Any, parameter: Tensor) -> Any:
        fits = isinstance(value, Tensor) and value.dim() and value.shape == part_of(parameter).shape
        return _as_part(value, parameter) if fits else value

    state = {
        number: {key: part(value, given[number]) for key, value in values.items()}
        for number, values in saved["state"].items()
    }
    named.load_optimizer(optimizer, {**saved, "state": state})


def _state(network: nn.Module) -> dict[str, Any]:
    """Give all that a step may alter, as it is: what state_dict gives, then what it leaves out."""
    state = {n: v for n, v in network.state_dict().items() if not is_lazy(v)}
    for name, value in _beside(network):
        if name not in state and value is not None and not is_lazy(value):
            state[name + named.ASIDE] = value.detach()
    return state


def _beside(network: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Give what a step may alter, also where state_dict leaves it out."""
    yield from ((name, value) for name, value in _parameters(network) if value.requires_grad)
    yield from ((name, value) for name, _, _, value in _buffers(network))


def _parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return network.named_parameters(remove_duplicate=False)


def _buffers(network: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor | None]]:
    """Give the buffers, with their full names and where they are, also those that are None."""
    for prefix, module in network.named_modules(remove_duplicate=False):
        for name, buffer in module._buffers.items():
            yield f"{prefix}.{name}".lstrip("."), module, name, buffer


def load_weights(network: nn.Module, saved: named.Weights, source: object) -> None:
    """Load a state into a network; GradlabError with the differences where it doesn't fit.

    Buffers take the shape and type that were saved, and the parameters of lazy modules theirs.
    """
    loose = {name for name, *_ in _buffers(network)}
    loose |= {name for name, value in _parameters(network) if is_lazy(value)}
    named.compare(saved, weights(network, copied=False), source, loose)
    _load(network, saved)
    after = weights(network)
    named.refuse_others([n for n in saved if not _same(saved[n], after.get(n))], source)


def _load(network: nn.Module, saved: named.Weights, strict: bool = True) -> None:
    state = {named.bare(name): named.value(name, saved[name]) for name in saved}
    given, fresh = network.state_dict(), dict[object, Tensor]()
    for name, module, own, buffer in list(_buffers(network)):
        value = state.get(name)
        if isinstance(value, Tensor) and not _takes(buffer, value):
            key = name if buffer is None else id(buffer)  # some modules share theirs
            module._buffers[own] = fresh.setdefault(key, value.to(_device(network), copy=True))
    with torch.no_grad():
        for name, value in _beside(network):
            if name not in given and name in state and value is not None:
                value.copy_(_as_part(state[name], value))
    # With the versions of its modules, by which these understand what they load.
    now = network.state_dict()
    found = OrderedDict((name, _as_part(state[name], now[name])) for name in now if name in state)
    found._metadata = getattr(given, "_metadata", {})  # type: ignore[attr-defined]
    network.load_state_dict(found, strict=strict)


def _takes(buffer: Tensor | None, value: Tensor) -> bool:
    """Tell whether a value can be copied into a buffer, as not into torch.ones(1).expand(8)."""
    if isinstance(buffer, UninitializedBuffer):
        return True  # its module loads it
    if buffer is None or _form(buffer) != _form(value):
        return False
    return buffer.layout != torch.strided or 0 not in buffer.stride()


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.dtype, tensor.layout, tensor.shape


def _device(network: nn.Module) -> torch.device:
    return next((value.device for value in network.parameters()), torch.device("cpu"))


def _same(one: Tensor, other: Tensor | None) -> bool:
    if other is None or _form(one) != _form(other):
        return False
    # By their bytes, as NaN is no number's equal.
    return torch.equal(*(t.cpu().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)))


def prove(network: nn.Module) -> None:
    """Raise GradlabError where a network can't be restored from its own state."""
    for name, parameter in _parameters(network):
        if is_lazy(parameter):
            raise named.never_used(name)
    named.prove(lambda: load_weights(network, weights(network), "this run"))


def unwrapped(network: nn.Module) -> nn.Module:
    """Give the network itself where it is compiled, or parallel to itself."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner: Any = network.module if isinstance(network, parallel) else network
    inner = getattr(inner, "_orig_mod", inner)
    return network if inner is network else unwrapped(inner)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Have a network evaluate, not learn: no dropout, no gradients, no trace in it afterwards.

    So training ends the same however often it was evaluated, and by which of its processes.
    """
    modes = [(module, module.training) for module in network.modules()]
    learned = {name for name, _ in _parameters(network)}
    state = {n: v for n, v in _state(network).items() if named.bare(n) not in learned}
    before = _kept(state, copied=True)
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        _load(network, before, strict=False)


def infer(network: nn.Module, batches: Callable[[], Loader], seed: int) -> None:
    """Give lazy modules, if there are any, the sizes and weights that a first batch leads to."""
    if any(map(is_lazy, network.parameters())):
        with evaluating(network), batches() as loaded:
            for inputs, _ in loaded:
                keyed.seed_generators(keyed.key(seed, "lazy weights"))
                network(mapped(inputs, Tensor, lambda tensor: tensor.to(_device(network))))


@contextmanager
def no_onnx(source: object) -> Iterator[None]:
    """Raise GradlabError for what keeps torch from writing a network as ONNX, in a line."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # of many kinds, by what of the network ONNX doesn't have
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        raise GradlabError(
            f"{source} can't be written as ONNX: {type(cause).__name__}: "
            f"{str(cause).partition(chr(10))[0]}\nLet build() give a network of what ONNX has, or "
            "forward do without the rest where torch.onnx.is_in_onnx_export() is true."
        ) from error


class Average:
    """An average of a network's weights that decays with each step, and of its buffers.

    `tensors` holds it by names; what is no floating-point number is always the network's own.
    """

    def __init__(self, network: nn.Module, decay: float, saved: dict[str, Tensor]) -> None:
        self.network = network
        average: Any = swa_utils.get_ema_multi_avg_fn
        self._average = average(decay)
        now = dict(self._averaged())
        self.tensors = {name: torch.empty_like(now[name]).copy_(saved[name]) for name in saved}

    def _averaged(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in [*self.network.named_parameters(), *self.network.named_buffers()]:
            if value.layout == torch.strided and (value.is_floating_point() or value.is_complex()):
                yield name, part_of(value.detach())

    def update(self) -> None:
        """Take in the network's weights as they are after a step; the first time, as they are."""
        pairs = []
        for name, value in self._averaged():
            mine = self.tensors.get(name)
            if mine is None or _form(mine) != _form(value):
                self.tensors[name] = value.clone()
            else:
                pairs.append((mine, value))
        if pairs:
            self._average(*map(list, zip(*pairs, strict=True)), None)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the network hold the average meanwhile, in the place of its own weights."""
        self._exchange(list(self._averaged()))
        try:
            yield
        finally:
            # The last first, for some may lie in others' memory.
            self._exchange(list(self._averaged())[::-1])

    def _exchange(self, values: list[tuple[str, Tensor]]) -> None:
        for name, value in values:
            mine = self.tensors.get(name)
            if mine is not None and _form(mine) == _form(value):
                kept = value.clone()
                value.copy_(mine)
                mine.copy_(kept)
