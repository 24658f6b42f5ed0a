"""Keras on JAX: the device, and the step as one compiled function of the whole state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from ...services import machine
from .. import jax as room
from ..jax.profiler import Profiler
from .steps import Losses, Steps

State = list[list[Any]]
device = room.device


def begin(wanted: machine.Device, compiled: bool) -> tuple[str, int | None]:
    """Choose the device: cpu, cuda or tpu, and the CPU's threads; GradlabError if it isn't there.

    Of several GPUs it is the first.
    """
    world = room.join(wanted)
    jax.config.update("jax_default_device", world.mesh.devices.flat[0])
    return world.kind, machine.cpus() if world.kind == "cpu" else None


def is_made_for_bf16() -> bool:
    """Tell whether the device gains by bf16: TPUs, and NVIDIA's GPUs since Ampere."""
    return room.join("auto").precision("auto") == "bf16"


def profiler() -> Callable[[], Any]:
    """Give what makes a profiler, for train/profiles.py."""
    return Profiler


def on_device(array: np.ndarray[Any, Any]) -> Any:
    """Put an array on the device."""
    return jax.device_put(array)


def forward(model: Any, compiled: bool) -> Callable[[Any], Any]:
    """Give the function that gives a model's outputs of inputs, as the model is then."""

    @jax.jit
    def outputs(learned: list[Any], others: list[Any], inputs: Any) -> Any:
        return model.stateless_call(learned, others, inputs, training=False)[0]

    def infer(inputs: Any) -> Any:
        variables = model.trainable_variables, model.non_trainable_variables
        return outputs(*([each.value for each in part] for part in variables), inputs)

    return infer


class Learning(Steps):
    """Steps that hold the state themselves, whose memory they use again, until it settles."""

    def begin(self, compiled: bool) -> None:
        """Prepare the functions that JAX compiles, in any case."""
        model, optimizer = self.model, self.optimizer
        self._variables = [
            *(model.trainable_variables, model.non_trainable_variables),
            *(optimizer.variables, self.average.variables),
        ]
        every = [*model.trainable_variables, *model.non_trainable_variables]
        averaged = {id(each) for each in self.average.of}
        self._averaged = [at for at, each in enumerate(every) if id(each) in averaged]
        rates = [each is optimizer.learning_rate for each in optimizer.variables]
        self._rate = rates.index(True)
        self._state: State | None = None
        self._backward = jax.jit(self._gradients)
        self._apply = jax.jit(self._applied, donate_argnums=(0, 1))
        self._whole = jax.jit(self._learned, donate_argnums=0)

    def whole(self, batch: Any, rate: float, decay: float) -> Losses:
        """Learn from a batch at once."""
        self._state, losses = self._whole(self._taken(), batch, *_numbers(rate, decay))
        return dict(losses)

    def backward(self, part: Any) -> tuple[Losses, list[Any]]:
        """Give the losses and the gradients of a part."""
        state = self._taken()
        losses, gradients, state[1] = self._backward(state[0], state[1], part)
        self._state = state
        return losses, gradients

    def apply(self, gradients: list[Any], rate: float, decay: float) -> None:
        """Change the weights by their gradients, and the average by the weights."""
        self._state = self._apply(self._taken(), gradients, *_numbers(rate, decay))

    def settle(self) -> None:
        """Have the variables hold what the steps have made of them."""
        for variables, values in zip(self._variables, self._state or [], strict=False):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self._state = None

    def _taken(self) -> State:
        if self._state is not None:
            return self._state
        return [[variable.value for variable in part] for part in self._variables]

    def _learned(self, state: State, batch: Any, rate: Any, decay: Any) -> tuple[State, Losses]:
        learned, others, optimizer, average = state
        losses, gradients, others = self._gradients(learned, others, batch)
        state = [learned, others, optimizer, average]
        return self._applied(state, gradients, rate, decay), losses

    def _gradients(
        self, learned: list[Any], others: list[Any], batch: Any
    ) -> tuple[Losses, list[Any], list[Any]]:
        inputs, targets = batch

        def loss(learned: list[Any]) -> Any:
            outputs, after, added = self.model.stateless_call(
                learned, others, inputs, training=True, return_losses=True
            )
            losses = self.losses(outputs, targets, added)
            return losses["loss"], (losses, list(after))

        gradients, (losses, after) = jax.grad(loss, has_aux=True)(learned)
        return losses, gradients, after

    def _applied(self, state: State, gradients: list[Any], rate: Any, decay: Any) -> State:
        learned, others, optimizer, average = state
        optimizer[self._rate] = keras.ops.cast(rate, optimizer[self._rate].dtype)
        learned, optimizer = self.optimizer.stateless_apply(optimizer, gradients, learned)
        every = [*learned, *others]
        pairs = zip(average, (every[at] for at in self._averaged), strict=True)
        average = [(mine * decay + own * (1 - decay)).astype(mine.dtype) for mine, own in pairs]
        return [list(learned), others, list(optimizer), average]


def _numbers(*values: float) -> list[Any]:
    """Give numbers that have a type: what became of others would be compiled for once more."""
    return [np.float32(value) for value in values]
