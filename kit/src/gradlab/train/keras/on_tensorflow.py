"""Keras on TensorFlow: the device, its threads, and the step as a function of TensorFlow's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from ...base.errors import GradlabError
from ...services import machine
from .. import devices
from .steps import Losses, Steps

THREADS = "OMP_NUM_THREADS"


def begin(wanted: machine.Device, compiled: bool) -> tuple[str, int | None]:
    """Choose the device, cpu or cuda, and the CPU's threads; GradlabError where it can't be had."""
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "cuda" and not gpus:
        raise no_gpu(_without_gpu())
    on_gpu = wanted != "cpu" and bool(gpus)
    # On a CPU, XLA computes the same each time, and refuses some of its operations where it must.
    if on_gpu or not compiled:
        tf.config.experimental.enable_op_determinism()
    # All this can be chosen until TensorFlow computes for the first time: then it is as it is.
    with suppress(RuntimeError):
        tf.config.set_visible_devices([] if wanted == "cpu" else gpus[:1], "GPU")
        for gpu in gpus[:1]:
            tf.config.experimental.set_memory_growth(gpu, True)
    if on_gpu:
        return "cuda", None
    return "cpu", _fixed_threads()


def device() -> tuple[str, str]:
    """Name the GPU that training would compute on, or say why there is only the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")), ""
    return "", _without_gpu()


def _without_gpu() -> str:
    built = tf.test.is_built_with_cuda()
    without = f"TensorFlow {tf.__version__} was built without CUDA"
    return "TensorFlow finds no NVIDIA GPU that it can use" if built else without


def _fixed_threads() -> int:
    """Fix the number of threads, by which sums differ in their last bits; give it."""
    number = devices.threads() or int(os.environ[THREADS].partition(",")[0])
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(number)
        tf.config.threading.set_inter_op_parallelism_threads(number)
    return int(tf.config.threading.get_intra_op_parallelism_threads()) or machine.cpus()


def no_gpu(problem: str) -> GradlabError:
    """Say that the GPU that was asked for can't be had, and why."""
    return GradlabError(
        f"--device cuda: {problem}. Leave the option out to run on what works.",
    )


def is_made_for_bf16() -> bool:
    """Tell whether the GPU gains by bf16: NVIDIA's do since Ampere."""
    details = map(tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU"))
    return any(each.get("compute_capability", (0, 0)) >= (8, 0) for each in details)


def profiler() -> Callable[[], Any]:
    """Give what makes a profiler; GradlabError, for TensorFlow's gives no trace to be shown."""
    raise GradlabError(
        "--profile: TensorFlow's profiler gives no trace that can be shown here. Leave the option "
        "out, or trace a run of its own on JAX, with KERAS_BACKEND=jax."
    )


def on_device(array: np.ndarray[Any, Any]) -> Any:
    """Put an array on the device."""
    return tf.convert_to_tensor(array)


def _compiled(function: Callable[..., Any], compiled: bool) -> Any:
    return tf.function(function, jit_compile=compiled or None, autograph=False)


def forward(model: Any, compiled: bool) -> Callable[[Any], Any]:
    """Give the function that gives a model's outputs of inputs, as the model is then."""
    infer: Callable[[Any], Any] = _compiled(partial(model, training=False), compiled)
    return infer


class Learning(Steps):
    """Steps that change the variables of the model and the optimizer themselves."""

    def begin(self, compiled: bool) -> None:
        """Prepare the functions that TensorFlow compiles, by XLA where asked for."""
        self._backward = _compiled(self._gradients, compiled)
        self._apply = _compiled(self._applied, compiled)
        self._whole = _compiled(self._learned, compiled)

    def whole(self, batch: Any, rate: float, decay: float) -> Losses:
        """Learn from a batch at once."""
        with _known():
            return dict(self._whole(batch, *_numbers(rate, decay)))

    def backward(self, part: Any) -> tuple[Losses, list[Any]]:
        """Give the losses and the gradients of a part."""
        with _known():
            losses, gradients = self._backward(part)
        return losses, [tf.convert_to_tensor(each) for each in gradients]

    def apply(self, gradients: list[Any], rate: float, decay: float) -> None:
        """Change the weights by their gradients, and the average by the weights."""
        self._apply(gradients, *_numbers(rate, decay))

    def settle(self) -> None:
        """Have the variables hold what the steps have made of them, as they always do."""

    def _learned(self, batch: Any, rate: Any, decay: Any) -> Losses:
        losses, gradients = self._gradients(batch)
        self._applied(gradients, rate, decay)
        return losses

    def _gradients(self, batch: Any) -> tuple[Losses, list[Any]]:
        inputs, targets = batch
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            outputs = self.model(inputs, training=True)
            losses = self.losses(outputs, targets, self.model.losses)
        zero = tf.UnconnectedGradients.ZERO
        return losses, tape.gradient(losses["loss"], variables, unconnected_gradients=zero)

    def _applied(self, gradients: list[Any], rate: Any, decay: Any) -> None:
        self.optimizer.learning_rate.assign(rate)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        for mine, own in zip(self.average.variables, self.average.of, strict=True):
            mine.assign(tf.cast(mine, mine.dtype) * decay + tf.cast(own, mine.dtype) * (1 - decay))


@contextmanager
def _known() -> Iterator[None]:
    """Say in plain words what XLA can't compute."""
    try:
        yield
    except tf.errors.UnimplementedError as error:
        reason = error.message.partition("\n")[0]
        raise GradlabError(f"--compile: {reason} Leave the option out.") from error


def _numbers(*values: float) -> list[Any]:
    """Give numbers as tensors: a function would be compiled anew for each other number."""
    return [tf.constant(value, tf.float32) for value in values]
