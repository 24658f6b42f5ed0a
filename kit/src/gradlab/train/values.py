"""Values of any kind, tensors among them, as JSON and bytes have them, and back.

Promises: what is packed comes back equal, types of keys included; equal values give equal bytes;
no pickle, so what is read runs no code and any later version of torch can read it.
"""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..base.errors import GradlabError

TAKEN = "taken"
VERSION = f"this kit, on torch {torch.__version__},"
Take = Callable[[Tensor], list[Any]]


class Snapshots:
    """Copies of a state, each in the memory of the one before: only one can be in use."""

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def take(self, state: Any) -> tuple[Any, list[memoryview], Callable[[], None]]:
        """Copy a state; give it as JSON has it, the bytes of its tensors, and how to wait for them.

        What lies on a GPU is still being copied then: wait before the bytes are read. Raises
        GradlabError for a value that can't be kept.
        """
        before, self._buffers = self._buffers, []
        gpus = set[torch.device]()

        def take(tensor: Tensor) -> list[Any]:
            number = len(self._buffers)
            buffer = before[number] if number < len(before) else None
            self._buffers.append(_copied(tensor.detach(), buffer))
            if tensor.is_cuda:
                gpus.add(tensor.device)
            return [number, str(tensor.dtype), list(tensor.shape)]

        packed = pack(state, "The state of the run", take)
        return packed, [_bytes(buffer) for buffer in self._buffers], _arrival(gpus)


def _copied(tensor: Tensor, buffer: Tensor | None) -> Tensor:
    """Begin to copy a tensor, into a buffer that fits or one of its own."""
    on_gpu = tensor.is_cuda
    if buffer is None or (buffer.dtype, buffer.shape) != (tensor.dtype, tensor.shape):
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
    return buffer.copy_(tensor, non_blocking=on_gpu)


def _bytes(buffer: Tensor) -> memoryview:
    data: Any = buffer.reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)


def _arrival(gpus: set[torch.device]) -> Callable[[], None]:
    """Give what waits until all copies that were begun on some GPUs have arrived."""
    events = [torch.cuda.current_stream(gpu).record_event() for gpu in gpus]

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait


def restored(packed: Any, data: list[memoryview]) -> Any:
    """Give the state of which a snapshot was taken, on the CPU."""

    def give(parts: list[Any]) -> Tensor:
        number, dtype, shape = parts
        return _tensor_of([shape, dtype, data[number]])

    return unpack(packed, give)


def unpickled(data: bytes) -> Any:
    """Give a state as version 0.1 saved it, by torch.save."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _can_be_taken(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def pack(value: Any, what: str, take: Take | None = None) -> Any:
    """Give a value as JSON has it: all but lists and single values is {kind: parts}.

    `take` gives what stands for a tensor whose bytes are kept elsewhere. Raises GradlabError for
    a value of another kind, with `what` holds it.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [pack(part, what, take) for part in value]
    if take and _can_be_taken(value):
        return {TAKEN: take(value)}
    kind = next((kind for kind, known in KINDS.items() if known.holds(value)), None)
    try:
        parts = KINDS[kind or ""].parts(value)
    except (KeyError, RuntimeError, TypeError) as error:
        raise GradlabError(
            f"{what} holds a {type(value).__module__}.{type(value).__qualname__}, which can't be "
            "saved: give numbers, texts, tensors and arrays, and lists, tuples, sets and "
            "dictionaries of them."
        ) from error
    return {kind: pack(parts, what, take)}


def unpack(value: Any, give: Callable[[list[Any]], Any] | None = None) -> Any:
    """Give the value that was packed; `give` gives the tensor for what `take` gave."""
    if isinstance(value, list):
        return [unpack(part, give) for part in value]
    if isinstance(value, dict):
        ((kind, parts),) = value.items()
        if give and kind == TAKEN:
            return give(parts)
        return KINDS[kind].whole(unpack(parts, give))
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
    whole = torch.empty(shape, dtype=_dtype(second))
    if whole.numel():
        _bytes(whole)[:] = memoryview(third)
    return whole


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
    "counter": _exactly(Counter, _pairs, lambda pairs: Counter(dict(pairs))),
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
