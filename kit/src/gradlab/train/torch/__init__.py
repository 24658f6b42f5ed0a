"""What a run needs of PyTorch: device, precision, the processes that share it, and batches.

Promises: the same program runs alone or under torchrun, on CPU, CUDA or Apple's GPU, and the
same seed gives the same bytes again on the same kind of device. Nothing beside this package
imports torch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from operator import methodcaller
from pickle import PickleBuffer
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.nn.parameter import is_lazy
from torch.utils.data import default_collate

from ...services import machine
from .. import devices, keyed
from ..collate import mapped
from ..frameworks import Arrays, Framework, Kind
from ..loader import Loader
from ..values import exactly

Value = TypeVar("Value")
Network = TypeVar("Network", bound=nn.Module)
# The others wait while the first one evaluates and saves; to find each other takes less.
PATIENCE = timedelta(hours=2)
MEETING = timedelta(minutes=10)
CPU = torch.device("cpu")


def gpu_problem() -> str | None:
    """Say why torch can't compute on this machine's NVIDIA GPU; None if it can."""
    if not torch.cuda.is_available():
        without = f"torch {torch.__version__} was built without CUDA"
        return "torch finds no NVIDIA GPU or driver" if torch.version.cuda else without
    major, minor = torch.cuda.get_device_capability()
    if any(devices.runs_code(arch, major, minor) for arch in torch.cuda.get_arch_list()):
        return None
    gpu = f"{torch.cuda.get_device_name()} (sm_{major}{minor})"
    return f"torch {torch.__version__} was not built for {gpu}"


def gpu_name() -> str:
    """Name the NVIDIA GPUs of this machine, with their memory."""
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)


def device() -> tuple[str, str]:
    """Name the GPU that training would compute on, or say why there is none."""
    if (problem := gpu_problem()) is None:
        return gpu_name(), ""
    return ("Apple GPU", "") if torch.backends.mps.is_available() else ("", problem)


def choose(wanted: machine.Device) -> torch.device:
    """Choose the device: what was asked for, or GradlabError; else the fastest that works."""
    there, apple = torch.cuda.is_available(), torch.backends.mps.is_available()
    return torch.device(devices.choose(wanted, there, gpu_problem(), apple))


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Give the context that computes in the precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def make_repeatable() -> None:
    """Choose algorithms that give the same bits each time, where torch has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # In the place of use_deterministic_algorithms, which loads the compiler: that takes a second.
    torch.set_deterministic_debug_mode("warn")
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")  # read by it when it is loaded
    # Filling fresh memory finds programs that read what they never wrote, and costs time.
    if hasattr(torch.utils, "deterministic"):  # torch >= 2.2
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("high")


@dataclass(frozen=True)
class World:
    """The processes of a run, one for each GPU, and this one's place among them."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes and speaks."""
        return self.rank == 0

    def precision(self, wanted: machine.Precision) -> str:
        """Choose the precision: what was asked for, else the fastest the device is made for."""
        gpu = self.device.type == "cuda"
        major = torch.cuda.get_device_capability(self.device)[0] if gpu else 0
        return devices.choose_precision(wanted, self.device.type, major)

    def place(self, network: Network) -> Network:
        """Move a network to the device, with channels last where tensor cores gain by it."""
        gains = self.device.type == "cuda" and torch.cuda.get_device_capability(self.device)[0] >= 7
        if gains and not any(map(is_lazy, network.parameters())):  # those have no form yet
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.to(self.device)

    def scaler(self, precision: str) -> Any:
        """Give the gradient scaler: enabled for fp16 on CUDA, else one that does nothing."""
        enabled = precision == "fp16" and self.device.type == "cuda"
        if hasattr(torch.amp, "GradScaler"):  # torch >= 2.3
            return torch.amp.GradScaler("cuda", enabled=enabled)
        return torch.cuda.amp.GradScaler(enabled=enabled)

    def seed_step(self, seed: int, step: int) -> None:
        """Make dropout and all else that is random in a step a function of (seed, step, rank)."""
        value = keyed.seed_step(seed, step, self.rank)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)
        elif self.device.type == "mps":
            torch.mps.manual_seed(value)

    def share(self, value: Value) -> Value:
        """Give every process the first one's value; any that can be pickled."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0, device=CPU)
        return box[0]

    def highest(self, value: int) -> int:
        """Give every process the highest of their values."""
        if self.size == 1:
            return value
        box = torch.tensor(value)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def mean(self, values: Tensor) -> Tensor:
        """Average a tensor over the processes; the result lies on the CPU."""
        values = values.detach().float().cpu()
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def team(self, precision: machine.Precision, compiled: bool) -> Any:
        """Give the processes as those that split a model; GradlabError where they can't."""
        from .shards import team  # loads what takes a second

        return team(self, self.precision(precision), compiled)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make the model's gradients those of all processes."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    def kept(self) -> AbstractContextManager[None]:
        """Part from the other processes at the end; GradlabError where they are lost before."""
        return devices.kept(self.size, dist.destroy_process_group)


def join(wanted: machine.Device) -> World:
    """Join the processes that torchrun started, or be alone."""
    make_repeatable()
    machine.keep_freed_memory()
    torch.set_num_threads(devices.threads() or torch.get_num_threads())
    device = choose(wanted)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=MEETING))
    store.set_timeout(MEETING)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return World(rank, size, device)


def loader(
    dataset: keyed.Dataset,
    name: str,
    batches: Iterable[list[keyed.Position]],
    workers: int = 0,
    device: torch.device = CPU,
    collate: Callable[[list[Any]], Any] = default_collate,
) -> Loader:
    """Give a Loader of batches of tensors on the device, pinned on the way to CUDA's."""
    to = methodcaller("to", device, non_blocking=True)
    pin = partial(mapped, kind=Tensor, act=Tensor.pin_memory) if device.type == "cuda" else None
    move = partial(mapped, kind=Tensor, act=to) if device != CPU else None
    return Loader(dataset, name, batches, workers, collate, pin, move)


def in_parts(batch: Any, count: int) -> list[Any]:
    """Give a batch in as many parts as are to be learned from one after the other."""

    def part(at: int) -> Any:
        return mapped(batch, Tensor, lambda tensor: tensor.tensor_split(count)[at])

    return [part(at) for at in range(count)] if count > 1 else [batch]


def on_cpu(value: Any) -> Any:
    """Give a tensor, or a structure of them, on the CPU, floating-point numbers as float32."""
    return mapped(value, Tensor, lambda t: (t.float() if t.is_floating_point() else t).cpu())


def _whole(dtype: str, shape: Sequence[int], content: Any) -> Tensor:
    tensor: Tensor = torch.empty(shape, dtype=_dtype(dtype))
    TENSORS.content(tensor)[:] = memoryview(content)
    return tensor


def _dtype(text: str) -> Any:
    return getattr(torch, text.partition(".")[2])


def _copied(tensor: Any, buffer: Any) -> Any:
    tensor = part_of(tensor)
    on_gpu, form = tensor.is_cuda, (tensor.dtype, tensor.shape)
    if not isinstance(buffer, Tensor) or (buffer.dtype, buffer.shape) != form:
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
    return buffer.copy_(tensor.detach(), non_blocking=on_gpu)


def part_of(tensor: Any) -> Any:
    """Give this process's part of a tensor that is split."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _arrival(tensors: Sequence[Tensor]) -> list[Callable[[], None]]:
    gpus = {tensor.device for tensor in tensors if tensor.is_cuda}
    return [torch.cuda.current_stream(gpu).record_event().synchronize for gpu in gpus]


TENSORS = Arrays(
    holds=lambda v: isinstance(v, Tensor) and v.layout == torch.strided and not v.is_quantized,
    form=lambda tensor: [str(tensor.dtype), list(part_of(tensor).shape)],
    copied=_copied,
    arrival=_arrival,
    content=lambda tensor: memoryview(tensor.reshape(-1).view(torch.uint8).numpy()),
    whole=_whole,
    numbers=lambda t: (t.float() if t.is_floating_point() else t).detach().cpu().numpy(),
)


def _reduced(value: Any) -> Any:
    """Give how pickle is to send a tensor of a batch: its bytes apart, so that none is copied."""
    plain = type(value) is Tensor and TENSORS.holds(value) and value.is_contiguous()
    if not plain or value.device != CPU or value.requires_grad or not value.numel():
        return NotImplemented
    value = value.resolve_conj().resolve_neg()
    return lying, (*TENSORS.form(value), PickleBuffer(TENSORS.content(value)))


def lying(dtype: str, shape: Sequence[int], content: Any) -> Any:
    """Give the tensor of a form that lies in some bytes."""
    return torch.frombuffer(content, dtype=torch.uint8).view(_dtype(dtype)).reshape(shape)


def _parts(tensor: Tensor) -> list[Any]:
    if tensor.layout == torch.sparse_coo:
        sparse = tensor.detach().coalesce()
        return [list(sparse.shape), sparse.indices(), sparse.values()]
    if tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(
            f"a tensor of {tensor.dtype} and {tensor.layout} on {tensor.device}, which can't be "
            "saved: keep the plain tensors that it is made of, such as its values and indices, or "
            "its int_repr, scale and zero point."
        )
    dense = tensor.detach().cpu().contiguous().resolve_conj().resolve_neg()
    return [*reversed(TENSORS.form(tensor)), TENSORS.content(dense).tobytes()]


def _tensor(parts: list[Any]) -> Tensor:
    shape, second, third = parts
    if isinstance(second, Tensor):
        return torch.sparse_coo_tensor(second, third, shape, check_invariants=True).coalesce()
    return _whole(second, shape, third)


FRAMEWORK = Framework(
    version=f"torch {torch.__version__}",
    # Not torch.manual_seed: it visits every device, for 95 microseconds instead of 1.
    seed=torch.default_generator.manual_seed,
    begin_worker=partial(torch.set_num_threads, 1),
    reduced=_reduced,
    device=device,
    arrays={"taken": TENSORS},
    kinds={
        "size": exactly(torch.Size, list, torch.Size),
        "dtype": exactly(torch.dtype, str, _dtype),
        "device": exactly(torch.device, str, torch.device),
        "tensor": Kind(lambda value: isinstance(value, Tensor), _parts, _tensor),
    },
    unpickled=lambda data: torch.load(io.BytesIO(data), map_location="cpu", weights_only=True),
)
