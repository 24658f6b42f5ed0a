"""A network as the state that it has: all its variables by their paths, kept, loaded, averaged.

Promises: what a step alters of a network or an optimizer comes back equal from a checkpoint:
weights, statistics of batch normalisation, the counters of random layers. What doesn't fit is
refused with the differences, and nothing of it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from .. import weights as named

Arrays = dict[str, np.ndarray[Any, Any]]


def built(build: Callable[[], Any], seed: int, precision: str, inputs: Callable[[], Any]) -> Any:
    """Build a network from a seed that computes in the precision, fp32 or bf16.

    Its weights are float32.
    `inputs` gives the inputs of a batch, for a network that doesn't know their shapes by itself.
    """
    # Names that Keras makes up are counted in a process: the same network would get others next.
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed & 0xFFFFFFFF)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy({"fp32": "float32", "bf16": "mixed_bfloat16"}[precision])
    try:
        network = build()
        if not network.built:
            network(inputs(), training=False)
    finally:
        keras.config.set_dtype_policy(before)
    return network


def by_name(variables: Sequence[Any]) -> dict[str, Any]:
    """Give variables by their paths; a path that comes again gets a number."""
    found: dict[str, Any] = {}
    for variable in variables:
        name, number = variable.path, 1
        while name in found:
            number += 1
            name = f"{variable.path}#{number}"
        found[name] = variable
    return found


def arrays(variables: Sequence[Any]) -> Arrays:
    """Give the values of variables by their names, in memory of their own."""
    return {name: _array(variable) for name, variable in by_name(variables).items()}


def _array(variable: Any) -> np.ndarray[Any, Any]:
    return np.array(keras.ops.convert_to_numpy(variable), copy=True)


def load_weights(variables: Sequence[Any], saved: Arrays, source: object) -> None:
    """Load values into a network's variables; GradlabError with the differences."""
    named.compare(saved, arrays(variables), source, set())
    _assign(variables, saved)


def load_optimizer(optimizer: Any, saved: Arrays) -> None:
    """Load an optimizer's state; GradlabError where it is that of another optimizer."""
    named.compare_optimizer(saved, arrays(optimizer.variables))
    _assign(optimizer.variables, saved)


def _assign(variables: Sequence[Any], values: Arrays) -> None:
    for name, variable in by_name(variables).items():
        variable.assign(values[name])


@contextmanager
def unchanged(variables: Sequence[Any]) -> Iterator[None]:
    """Have variables be as before in the end, whatever changes them meanwhile."""
    before = arrays(variables)
    try:
        yield
    finally:
        _assign(variables, before)


class Average:
    """An average of a network's weights and statistics that decays with each step.

    `variables` hold it. Counters, and whatever else is no floating-point number, stay the
    network's own.
    """

    def __init__(self, network: Any, decay: float | None, saved: Arrays | None) -> None:
        self.decay = decay
        every = [*network.trainable_variables, *network.non_trainable_variables]
        floating = [each for each in every if keras.backend.is_float_dtype(each.dtype)]
        self.of = floating if decay is not None else []
        self.variables = [
            keras.Variable(_array(each), dtype=each.dtype, trainable=False, name=each.name)
            for each in self.of
        ]
        if saved:
            for name, mine in zip(by_name(self.of), self.variables, strict=True):
                mine.assign(saved[name])

    def arrays(self) -> Arrays:
        """Give the average by the names of the network's variables."""
        pairs = zip(by_name(self.of), self.variables, strict=True)
        return {name: _array(variable) for name, variable in pairs}

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the network hold the average meanwhile, in the place of its own weights."""
        own = arrays(self.of)
        _assign(self.of, self.arrays())
        try:
            yield
        finally:
            _assign(self.of, own)
