"""A model's state by names, as any format keeps it: how two differ, and what is no array.

Promises: a state that doesn't fit a model is refused with the differences. What safetensors can't
hold, such as the dictionary of a get_extra_state, is kept as the bytes of a JSON text, the same
for equal values, under its name and ':plain'.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..base.errors import GradlabError
from ..services import session
from . import values

Weights = dict[str, Any]  # arrays of the framework
PLAIN = ":plain"
EXTRA = "_extra_state"


def text(name: str, value: Any) -> bytes:
    """Give a value of a state as text; GradlabError where it is neither an array nor plain."""
    return json.dumps(values.pack(value, f"The model's state '{name}'")).encode()


def value(name: str, array: Any) -> Any:
    """Give the value of a state that was kept under a name: the array, or what its text says."""
    if not name.endswith(PLAIN):
        return array
    return values.unpack(json.loads(array.numpy().tobytes()))


def bare(name: str) -> str:
    """Give the model's own name for what is kept under a name."""
    return name.removesuffix(PLAIN)


def compare(saved: Weights, made: Weights, source: object) -> None:
    """Raise GradlabError with the differences where a saved state doesn't fit the one made now."""
    then, now = _forms(saved), _forms(made)
    names = [name for name in then | now if then.get(name) != now.get(name)]
    if names:
        rows = [f"    {n}: saved {then.get(n, 'not')}, now {now.get(n, 'gone')}" for n in names[:8]]
        more = [f"    and {len(names) - 8} more"] if len(names) > 8 else []
        raise GradlabError(
            f"The model in {source} has other weights than build() makes now:\n"
            + "\n".join(rows + more)
            + f"\nPut the model back as it was, or {session.ways_to_start_over()}."
        )


def _forms(state: Weights) -> dict[str, object]:
    # Extra state may have another kind and shape from one step to the next.
    return {
        bare(name): "a value" if name.endswith((EXTRA, PLAIN)) else tuple(array.shape)
        for name, array in state.items()
    }


def prove(load: Callable[[], None]) -> None:
    """Raise GradlabError where loading a model's own state fails."""
    try:
        load()
    except GradlabError:
        raise
    except Exception as error:
        raise GradlabError(
            f"A run of the model that build() gives could not be carried on, for its state_dict "
            f"does not load again: {type(error).__name__}: {error}"
        ) from error
