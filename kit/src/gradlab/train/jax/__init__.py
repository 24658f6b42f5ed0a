"""What a run needs of JAX: the devices that share its batches, their precision, and its arrays.

Promises: one process computes on all devices of a kind that the machine has; the global batches
and their order don't depend on how many they are, and the same seed gives the same bytes again
on the same devices. Nothing beside this package imports JAX.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ...base.errors import GradlabError, note
from ...services import machine
from .. import devices, keyed
from ..collate import mapped, stack
from ..frameworks import Arrays, Framework, Kind
from ..loader import Loader
from ..values import NUMPY

Value = TypeVar("Value")
AXIS = "devices"
OLDEST = 7.5  # compute capability of the oldest GPUs that JAX is built for, with a current CUDA
AMPERE = 8.0  # and of the first that have bf16
REPEATABLE = "--xla_gpu_deterministic_ops"


def make_repeatable() -> None:
    """Have XLA choose algorithms that give the same bits each time, unless the user has chosen."""
    flags = os.environ.get("XLA_FLAGS", "")
    if REPEATABLE not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {REPEATABLE}=true".strip()


# XLA reads the flags with the first array, and the module of a model may make one.
make_repeatable()


@dataclass(frozen=True)
class World(devices.Alone):
    """One process, and the devices that share each of its batches."""

    mesh: Mesh

    @property
    def devices(self) -> int:
        """Count the devices."""
        return int(self.mesh.devices.size)

    @property
    def kind(self) -> str:
        """Name the kind of device, as --device does: cpu, cuda or another, such as tpu."""
        platform = str(self.mesh.devices.flat[0].platform)
        return "cuda" if platform == "gpu" else platform

    @property
    def name(self) -> str:
        """Say what the devices are, as far as it alters the last bits."""
        cpu = self.kind == "cpu"
        return f"{machine.cpus()} CPUs" if cpu else str(self.mesh.devices.flat[0].device_kind)

    @cached_property
    def whole(self) -> NamedSharding:
        """How an array lies on the devices that each of them has all of."""
        return NamedSharding(self.mesh, PartitionSpec())

    @cached_property
    def shared(self) -> NamedSharding:
        """How a batch lies on the devices, each having as many of its examples."""
        return NamedSharding(self.mesh, PartitionSpec(AXIS))

    def precision(self, wanted: machine.Precision) -> str:
        """Choose the precision: what was asked for, else the fastest the device is made for.

        Raises GradlabError for fp16.
        """
        if wanted == "fp16":
            raise GradlabError(
                "--precision fp16: this training doesn't scale gradients, and in fp16 small ones "
                "would be lost. Take bf16, which has the range of fp32, or fp32."
            )
        if wanted != "auto":
            return wanted
        gains = self.kind == "tpu" or _capability(self.mesh.devices.flat[0]) >= AMPERE
        return "bf16" if gains else "fp32"

    def place(self, tree: Value) -> Value:
        """Give a pytree whose arrays lie on all devices."""
        placed: Value = jax.device_put(tree, self.whole)
        return placed

    def spread(self, batch: Any) -> Any:
        """Give a batch whose arrays are shared by the devices, or lie whole on each of them.

        They are shared where as many examples come to each; what is no array stays.
        """
        if self.devices == 1:
            return batch  # the compiled step brings it there itself, in less time

        def put(array: Any) -> Any:
            divides = array.ndim and array.shape[0] % self.devices == 0
            return jax.device_put(array, self.shared if divides else self.whole)

        return mapped(batch, np.ndarray, put)


def join(wanted: machine.Device) -> World:
    """Choose the devices: what was asked for, or GradlabError; else what JAX itself chooses."""
    devices.refuse_torchrun("JAX")
    machine.keep_freed_memory()
    if wanted == "mps":
        raise GradlabError("--device mps: JAX doesn't train on Apple's GPU. Leave the option out.")
    if wanted == "cpu":
        # Else JAX would take the memory of a GPU, too.
        jax.config.update("jax_platforms", "cpu")
    try:
        found = jax.devices(None if wanted == "auto" else wanted)
    except RuntimeError as error:
        raise GradlabError(
            f"--device {wanted}: {reason(error)}. Leave the option out to run on what works."
        ) from error
    if 0 < _capability(found[0]) < OLDEST:
        note(
            f"! JAX's builds for current CUDA need a GPU of sm_75 or newer, and this is "
            f"{found[0].device_kind}: where it fails, --device cpu or another machine may do."
        )
    return World(Mesh(np.array(found), (AXIS,)))


def device() -> tuple[str, str]:
    """Name the devices that training would compute on, or say why there is only the CPU."""
    found = jax.devices()
    if found[0].platform == "cpu":
        return (
            "",
            f"jax {jax.__version__} finds no GPU or TPU, or lacks their libraries",
        )
    return f"{len(found)} x {found[0].device_kind}", ""


def reason(error: Exception) -> str:
    """Say in a few words why JAX finds no device of a kind."""
    if "no platforms" in str(error) or "Unknown backend" in str(error):
        return f"jax {jax.__version__} finds no NVIDIA GPU, or was installed without CUDA"
    return str(error).partition("\n")[0].rstrip(".")


def _capability(device: Any) -> float:
    """Give the compute capability of an NVIDIA GPU; 0 for any other device."""
    try:
        return float(device.compute_capability)
    except (AttributeError, ValueError):  # AMD's GPUs have names there
        return 0.0


def loader(
    dataset: keyed.Dataset,
    name: str,
    batches: Iterable[list[keyed.Position]],
    workers: int,
    world: World,
    collate: Callable[[list[Any]], Any] = stack,
) -> Loader:
    """Give a Loader of batches on the devices."""
    return Loader(dataset, name, batches, workers, collate, move=world.spread)


def _holds(value: Any) -> bool:
    plain = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return plain and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _parts(array: Any) -> list[Any]:
    found = np.asarray(array)
    return [*reversed(NUMPY.form(found)), found.tobytes()]


def _whole(parts: list[Any]) -> Any:
    shape, dtype, content = parts
    return NUMPY.whole(dtype, shape, content)


def _numbers(array: Any) -> Any:
    small = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return np.asarray(array.astype(jnp.float32) if small else array)


FRAMEWORK = Framework(
    version=f"jax {jax.__version__}",
    forks=False,  # a fork has its locks and none of its threads
    seed=lambda _: None,  # there is no global generator
    begin_worker=lambda: None,
    device=device,
    reduced=lambda _: NotImplemented,
    arrays={
        "jax": Arrays(
            holds=_holds,
            form=lambda array: [array.dtype.name, list(array.shape)],
            # Not in the background: the next step takes the array's memory for its own results.
            copied=lambda array, buffer: NUMPY.copied(np.asarray(array), buffer),
            arrival=lambda _: [],
            content=NUMPY.content,
            whole=NUMPY.whole,
            numbers=_numbers,
        )
    },
    kinds={"jax_array": Kind(_holds, _parts, _whole)},
)
