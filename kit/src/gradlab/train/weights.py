"""A network's state as tensors that any format keeps: weights, buffers and extra state.

Promises: whatever state_dict gives comes back equal, or the network is refused before its first
step. What safetensors can't hold, such as the dictionary of a get_extra_state, is kept as the
bytes of a JSON text, the same for equal values, under its name and ':plain'.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import GradlabError
from ..services import session
from .values import pack, unpack

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
            text = json.dumps(pack(value, f"The model's state '{name}'"))
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
    return unpack(json.loads(value.numpy().tobytes())) if name.endswith(PLAIN) else value


def _part_overlapping(network: nn.Module) -> None:
    """Give buffers such as torch.ones(1).expand(8), which can't be written, their own memory."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and 0 in buffer.stride():
                module._buffers[name] = buffer.contiguous()
