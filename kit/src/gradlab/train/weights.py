"""A model's state by names, as any format keeps it: how two differ, and what is no array.

Promises: a state that doesn't fit a model is refused with the differences. What safetensors can't
hold, such as the dictionary of a get_extra_state, is kept as the bytes of a JSON text, the same
for equal values, under its name and ':plain'; what a model leaves out of its own state, such as a
buffer that is not persistent, under its name and ':aside'.
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
ASIDE = ":aside"
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
    return name.removesuffix(PLAIN).removesuffix(ASIDE)


def compare(saved: Weights, made: Weights, source: object, loose: set[str]) -> None:
    """Raise GradlabError with the differences where a saved state doesn't fit the one made now.

    What is `loose` may have another form, or none yet. Earlier versions kept nothing aside.
    """
    then, now = _forms(saved, loose), _forms(made, loose)
    aside = {bare(name) for name in made if ASIDE in name}
    fits = {name for name in then | now if then.get(name) == now.get(name)}
    fits |= (loose - now.keys()) | (aside - then.keys())
    if names := [name for name in then | now if name not in fits]:
        rows = [f"    {n}: saved {then.get(n, 'not')}, now {now.get(n, 'gone')}" for n in names[:8]]
        more = [f"    and {len(names) - 8} more"] if len(names) > 8 else []
        raise GradlabError(
            f"The model in {source} has other weights than build() makes now:\n"
            + "\n".join(rows + more)
            + f"\nPut the model back as it was, or {session.ways_to_start_over()}."
        )


def _forms(state: Weights, loose: set[str]) -> dict[str, str]:
    # Extra state and buffers may have another kind and shape from one step to the next.
    free = {name for name in state if name.endswith((EXTRA, PLAIN)) or bare(name) in loose}
    return {bare(n): "a value" if n in free else _form(array) for n, array in state.items()}


def _form(array: Any) -> str:
    dtype = str(array.dtype).rpartition(".")[2]
    return f"{tuple(array.shape)}" + f" {dtype}" * (dtype != "float32")


def refuse_others(names: list[str], source: object) -> None:
    """Raise GradlabError where some of a state is another one after it was loaded."""
    if names:
        raise GradlabError(
            f"The model in {source} does not load whole: after it, "
            f"{', '.join(map(bare, names[:8]))} of the model is not what was saved.\n"
            "Let set_extra_state take all that get_extra_state gives, and nothing change it."
        )


def never_used(name: str) -> GradlabError:
    """Say that a lazy parameter has no shape after the model was tried."""
    return GradlabError(
        f"'{name}' of the model that build() gives has no shape, though the model was tried on an "
        "example: let forward use its module, or give that its sizes, as nn.Linear has them."
    )


def load_optimizer(optimizer: Any, saved: dict[str, Any]) -> None:
    """Load an optimizer's state; GradlabError where it is that of another kind of optimizer."""
    made = _settings(optimizer)
    optimizer.load_state_dict(saved)
    # Loading takes the saved groups as they are: the first step would miss what they lack.
    if missing := sorted(made - _settings(optimizer)):
        raise GradlabError(
            f"The saved run has another optimizer, without {', '.join(missing)}.\n"
            f"Put the optimizer back as it was, or {session.ways_to_start_over()}."
        )


def compare_optimizer(saved: Weights, made: Weights) -> None:
    """Raise GradlabError where an optimizer's saved state is not one of the optimizer made now."""
    then, now = ({n: _form(array) for n, array in state.items()} for state in (saved, made))
    if other := sorted(n for n in then | now if then.get(n) != now.get(n)):
        rows = [f"    {n}: saved {then.get(n, 'not')}, now {now.get(n, 'gone')}" for n in other[:8]]
        raise GradlabError(
            "The saved run has another optimizer, or one for another model:\n"
            + "\n".join(rows + [f"    and {len(other) - 8} more"] * (len(other) > 8))
            + f"\nPut the optimizer back as it was, or {session.ways_to_start_over()}."
        )


def _settings(optimizer: Any) -> set[str]:
    return {name for group in optimizer.state_dict()["param_groups"] for name in group}


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
