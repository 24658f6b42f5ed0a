"""How a model learns from a batch: what both backends have in common.

Promises: a step learns from one batch by the rate that it is given, whole or in equal parts one
after the other, whose gradients are averaged; losses that layers add, as regularizers do, count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import keras

from .network import Average

Losses = dict[str, Any]


class Steps(ABC):
    """The steps of a model and an optimizer that is built; `settle` before these are looked at.

    `losses` gives the losses of (outputs, targets), of which `loss` is learned from. Floating-point
    outputs come as float32. `parts` is in how many parts a batch is learned from, `compiled`
    whether by XLA where that is a choice.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        losses: Callable[[Any, Any], Losses],
        average: Average,
        parts: int = 1,
        compiled: bool = False,
    ) -> None:
        self.model, self.optimizer, self.average = model, optimizer, average
        self.parts, self._given = parts, losses
        self.begin(compiled)

    def learn(self, step: int, batch: Any, rate: float) -> Losses:
        """Learn from a batch; give its losses, on the device."""
        # The average begins as what the first step gives.
        decay = self.average.decay if step and self.average.decay else 0.0
        if self.parts == 1:
            return self.whole(batch, rate, decay)
        parts = _split(batch, self.parts)
        losses, gradients = self.backward(next(parts))
        for part in parts:
            more, others = self.backward(part)
            losses = {name: losses[name] + more[name] for name in losses}
            gradients = [a + b for a, b in zip(gradients, others, strict=True)]
        self.apply([each / self.parts for each in gradients], rate, decay)
        return {name: loss / self.parts for name, loss in losses.items()}

    def losses(self, outputs: Any, targets: Any, added: list[Any]) -> Losses:
        """Give the losses of a batch, with those that layers have added in the one to learn by."""
        losses = self._given(as_float32(outputs), targets)
        return {**losses, "loss": sum(added, losses["loss"])}

    @abstractmethod
    def begin(self, compiled: bool) -> None:
        """Prepare the functions that the backend compiles."""

    @abstractmethod
    def whole(self, batch: Any, rate: float, decay: float) -> Losses:
        """Learn from a batch at once."""

    @abstractmethod
    def backward(self, part: Any) -> tuple[Losses, list[Any]]:
        """Give the losses and the gradients of a part."""

    @abstractmethod
    def apply(self, gradients: list[Any], rate: float, decay: float) -> None:
        """Change the weights by their gradients, and the average by the weights."""

    @abstractmethod
    def settle(self) -> None:
        """Have the variables hold what the steps have made of them."""


def as_float32(outputs: Any) -> Any:
    """Give outputs, or a structure of them, floating-point numbers as float32."""

    def cast(value: Any) -> Any:
        floating = keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))
        return keras.ops.cast(value, "float32") if floating else value

    return keras.tree.map_structure(cast, outputs)


def as_numpy(outputs: Any) -> Any:
    """Give outputs or targets, or a structure of them, as arrays of NumPy's."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _split(batch: Any, count: int) -> Iterator[Any]:
    """Give a batch in equal parts."""
    columns = [keras.ops.split(array, count) for array in keras.tree.flatten(batch)]
    for row in zip(*columns, strict=True):
        yield keras.tree.pack_sequence_as(batch, list(row))
