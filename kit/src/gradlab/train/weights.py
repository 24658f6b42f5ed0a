"""A network's state as tensors that any format keeps: weights, buffers and extra state.

Promises: whatever state_dict gives comes back equal, or the network is refused before its first
step. What safetensors can't hold, such as the dictionary of a get_extra_state, is kept as the
bytes of a JSON text, the same for equal values, under its name and ':plain'.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base.errors import GradlabError
from ..services import session

Weights = dict[str, Tensor]
PLAIN = ":plain"
EXTRA = "_extra_state"
SAFE = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
SAFE |= {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def weights(network: nn.Module, copied: bool = True) -> Weights:
    """Give a network's state, on the CPU in memory of its own unless it may be shared.

    Raises GradlabError for a value that is neither a tensor nor plain.
    """
    found: Weights = {}
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in SAFE:
            value = value.detach()
            found[name] = value.cpu().contiguous().clone() if copied else value
        else:
            text = json.dumps(_packed(value, name))
            found[name + PLAIN] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    return found


def load_weights(network: nn.Module, saved: Weights, source: object) -> None:
    """Load a state into a network; GradlabError with the differences where it doesn't fit."""
    then, now = _forms(saved), _forms(weights(network, copied=False))
    names = [name for name in then | now if then.get(name) != now.get(name)]
    if names:
        rows = [f"    {n}: saved {then.get(n, 'not')}, now {now.get(n, 'gone')}" for n in names[:8]]
        more = [f"    and {len(names) - 8} more"] if len(names) > 8 else []
        raise GradlabError(
            f"The model in {source} has other weights than build() makes now:\n"
            + "\n".join(rows + more)
            + f"\nPut the model back as it was, or {session.ways_to_start_over()}."
        )
    _part_overlapping(network)
    network.load_state_dict({_name(name): _value(name, value) for name, value in saved.items()})


def prove(network: nn.Module) -> None:
    """Raise GradlabError where a network can't be restored from its own state."""
    state = weights(network)
    try:
        load_weights(network, state, "this run")
    except GradlabError:
        raise
    except Exception as error:
        raise GradlabError(
            f"A run of the model that build() gives could not be carried on, for its state_dict "
            f"does not load again: {type(error).__name__}: {error}"
        ) from error


def _forms(state: Weights) -> dict[str, object]:
    # Extra state may have another kind and shape from one step to the next.
    return {
        _name(name): "a value" if name.endswith((EXTRA, PLAIN)) else tuple(value.shape)
        for name, value in state.items()
    }


def _name(name: str) -> str:
    return name.removesuffix(PLAIN)


def _value(name: str, value: Tensor) -> Any:
    return _unpacked(json.loads(value.numpy().tobytes())) if name.endswith(PLAIN) else value


def _part_overlapping(network: nn.Module) -> None:
    """Give buffers such as torch.ones(1).expand(8), which can't be written, their own memory."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and 0 in buffer.stride():
                module._buffers[name] = buffer.contiguous()


def _packed(value: Any, name: str) -> Any:
    """Give a value as JSON has it: all but lists and single values is {kind: parts}."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_packed(part, name) for part in value]
    kind = next((kind for kind, known in KINDS.items() if known.holds(value)), None)
    try:
        return {kind: _packed(KINDS[kind or ""].parts(value), name)}
    except (KeyError, RuntimeError, TypeError) as error:
        raise GradlabError(
            f"The model's state '{name}' holds a {type(value).__module__}."
            f"{type(value).__qualname__}, which can't be saved: give numbers, texts, tensors and "
            "arrays, and lists, tuples, sets and dictionaries of them."
        ) from error


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(part) for part in value]
    if isinstance(value, dict):
        ((kind, parts),) = value.items()
        return KINDS[kind].whole(_unpacked(parts))
    return value


@dataclass(frozen=True)
class Kind:
    """A kind of value: which ones it holds, their parts, and the whole made of these again."""

    holds: Callable[[Any], bool]
    parts: Callable[[Any], Any]
    whole: Callable[[Any], Any]


def _exactly(kind: type, parts: Callable[[Any], Any], whole: Callable[[Any], Any]) -> Kind:
    return Kind(lambda value: type(value) is kind, parts, whole)


def _pairs(value: Any) -> list[list[Any]]:
    return [list(pair) for pair in value.items()]


def _sorted(value: Any) -> list[Any]:
    return sorted(value, key=repr)  # a set has no order that lasts


def _dtype(text: str) -> Any:
    return getattr(torch, text.partition(".")[2])


def _bytes_of(tensor: Tensor) -> list[Any]:
    if tensor.layout == torch.sparse_coo:
        whole = tensor.detach().coalesce()
        return [list(whole.shape), whole.indices(), whole.values()]
    dense = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    data = dense.flatten().view(torch.uint8).numpy().tobytes()
    return [list(tensor.shape), str(tensor.dtype), data]


def _tensor_of(parts: list[Any]) -> Tensor:
    shape, second, third = parts
    if isinstance(second, Tensor):
        return torch.sparse_coo_tensor(second, third, shape, check_invariants=True).coalesce()
    data = np.frombuffer(third, np.uint8).copy()
    return torch.from_numpy(data).view(_dtype(second)).reshape(shape)


def _array_bytes(array: Any) -> list[Any]:
    if array.dtype.hasobject or array.dtype.names:
        raise TypeError(array.dtype)
    return [list(array.shape), array.dtype.str, array.tobytes()]


def _array_of(parts: list[Any]) -> Any:
    shape, dtype, data = parts
    return np.frombuffer(data, dtype).reshape(shape).copy()


KINDS = {
    "dict": _exactly(dict, _pairs, dict),
    "ordered": _exactly(OrderedDict, _pairs, OrderedDict),
    "tuple": _exactly(tuple, list, tuple),
    "set": _exactly(set, _sorted, set),
    "frozenset": _exactly(frozenset, _sorted, frozenset),
    "bytes": _exactly(bytes, lambda data: b64encode(data).decode(), b64decode),
    "bytearray": _exactly(bytearray, bytes, bytearray),
    "complex": _exactly(complex, lambda z: [z.real, z.imag], lambda z: complex(*z)),
    "size": _exactly(torch.Size, list, torch.Size),
    "dtype": _exactly(torch.dtype, str, _dtype),
    "device": _exactly(torch.device, str, torch.device),
    "array": _exactly(np.ndarray, _array_bytes, _array_of),
    "number": Kind(
        lambda value: isinstance(value, np.generic), _array_bytes, lambda p: _array_of(p)[()]
    ),
    "tensor": Kind(lambda value: isinstance(value, Tensor), _bytes_of, _tensor_of),
}
