"""Keras on JAX: the device, and the step as one compiled function of the whole state."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from ...services import machine
from . import no_gpu
from .steps import Losses, Steps

# Read when JAX starts its backend, which is when the first device is asked for.
DETERMINISTIC = "--xla_gpu_deterministic_ops"
State = list[list[Any]]


def begin(wanted: machine.Device) -> tuple[str, int | None]:
    """Choose the device: cpu, cuda or tpu; GradlabError where it can't be had."""
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}=true".strip()
    if wanted == "cpu":
        jax.config.update("jax_platforms", "cpu")  # else a GPU's memory would be taken as well
    platform = None if wanted == "auto" else wanted
    try:
        device = jax.devices(platform)[0]
    except RuntimeError as error:
        if wanted != "cuda":
            raise
        raise no_gpu(f"JAX {jax.__version__} finds no NVIDIA GPU that it can use") from error
    jax.config.update("jax_default_device", device)
    kind = "cuda" if device.platform == "gpu" else device.platform
    return kind, None


def is_made_for_bf16() -> bool:
    """Tell whether the accelerator gains by bf16: TPUs, and NVIDIA's GPUs since Ampere."""
    device = jax.devices()[0]
    capability = str(getattr(device, "compute_capability", "0"))
    return device.platform == "tpu" or float(capability) >= 8


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
        self._state, losses = self._whole(self._taken(), batch, rate, decay)
        return dict(losses)

    def backward(self, part: Any) -> tuple[Losses, list[Any]]:
        """Give the losses and the gradients of a part."""
        state = self._taken()
        losses, gradients, state[1] = self._backward(state[0], state[1], part)
        self._state = state
        return losses, gradients

    def apply(self, gradients: list[Any], rate: float, decay: float) -> None:
        """Change the weights by their gradients, and the average by the weights."""
        self._state = self._apply(self._taken(), gradients, rate, decay)

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
