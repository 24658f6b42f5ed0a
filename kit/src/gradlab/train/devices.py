"""What a run computes on: device, precision, and the processes that share it.

Promises: the same program runs alone or under torchrun, on CPU, CUDA or Apple's GPU, and the
same seed gives the same bytes again on the same kind of device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from ..base.errors import GradlabError, note
from ..services.machine import Device, Precision, cpus

Value = TypeVar("Value")
Network = TypeVar("Network", bound=nn.Module)
# The others wait while the first one evaluates and saves; to find each other takes less.
PATIENCE = timedelta(hours=2)
MEETING = timedelta(minutes=10)
# How the back ends tell that another process has died.
LOST = ("closed by peer", "reset by peer", "Connection refused", "Broken pipe", "remote process")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def gpu_problem() -> str | None:
    """Say why torch can't compute on this machine's NVIDIA GPU; None if it can."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            return f"torch {torch.__version__} was built without CUDA"
        return "torch finds no NVIDIA GPU or driver"
    major, minor = torch.cuda.get_device_capability()
    if any(_runs(arch, major, minor) for arch in torch.cuda.get_arch_list()):
        return None
    name = torch.cuda.get_device_name()
    return f"torch {torch.__version__} was not built for {name} (sm_{major}{minor})"


def gpu_name() -> str:
    """Name the NVIDIA GPUs of this machine, with their memory."""
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards)


def _runs(arch: str, major: int, minor: int) -> bool:
    """Tell whether code built for an architecture such as sm_75 or compute_90 runs on a GPU."""
    kind, _, number = arch.partition("_")
    digits = "".join(char for char in number if char.isdigit())
    built = (int(digits[:-1]), int(digits[-1]))
    # Machine code runs on later minor versions; PTX is compiled for all later GPUs.
    return (built[0] == major or kind == "compute") and built <= (major, minor)


def choose(wanted: Device) -> torch.device:
    """Choose the device: what was asked for, else the fastest that works.

    Raises GradlabError where a device was asked for that does not work here.
    """
    problem = gpu_problem()
    if wanted == "cuda" and problem:
        raise GradlabError(f"--device cuda: {problem}. Leave the option out to run on what works.")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise GradlabError("--device mps: torch finds no Apple GPU. Leave the option out.")
    if wanted != "auto":
        return torch.device(wanted)
    if not problem:
        return torch.device("cuda")
    if torch.cuda.is_available():
        note(f"! {problem}: running on the CPU. The torch that came with the machine may fit.")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_precision(device: torch.device, wanted: Precision) -> str:
    """Choose the precision: what was asked for, else the fastest that the device is made for."""
    if wanted == "fp16" and device.type == "cpu":
        raise GradlabError("--precision fp16 needs a GPU: take bf16 or fp32 on a CPU.")
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "fp32"
    # bf16 is emulated below Ampere; tensor cores for fp16 begin with Volta.
    major, _ = torch.cuda.get_device_capability(device)
    return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Give the context that computes in the precision."""
    dtype = DTYPES.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def place(network: Network, device: torch.device) -> Network:
    """Move a network to the device, with channels last where tensor cores gain by it."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 7:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.to(device)


def scaler(device: torch.device, precision: str) -> Any:
    """Give the gradient scaler: enabled for fp16 on CUDA, else one that does nothing."""
    enabled = precision == "fp16" and device.type == "cuda"
    if hasattr(torch.amp, "GradScaler"):  # torch >= 2.3
        return torch.amp.GradScaler("cuda", enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)


def make_repeatable() -> None:
    """Choose algorithms that give the same bits each time, where torch has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
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

    def share(self, value: Value) -> Value:
        """Give every process the first one's value; any that can be pickled."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
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

    def wrap(self, model: nn.Module) -> nn.Module:
        """Make the model's gradients those of all processes."""
        return nn.parallel.DistributedDataParallel(model) if self.size > 1 else model

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Part from the other processes at the end; GradlabError where they are lost before."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and any(words in str(error) for words in LOST):
                raise GradlabError(
                    "Another process of this run has ended, so this one can't go on: why, it says "
                    "itself. The same command carries on from the last save.",
                    exit_code=1,
                ) from error
            raise
        # Not after an error: it would wait for processes that may never come.
        if self.size > 1:
            dist.destroy_process_group()


def join(wanted: Device) -> World:
    """Join the processes that torchrun started, or be alone."""
    make_repeatable()
    if "OMP_NUM_THREADS" not in os.environ:
        # One processor is for the loader: competing with it costs more than a thread gains.
        torch.set_num_threads(max(1, cpus() - 1))
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
