"""The device, the precision and the processes of a run, as far as no framework is needed for them.

Promises: what was asked for is taken or refused, with what would do; what is chosen works here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from ..base.errors import GradlabError, note
from ..services.machine import Device, Precision, cpus

Value = TypeVar("Value")
# How the libraries tell that another process has died.
LOST = ("closed by peer", "reset by peer", "Connection refused", "Broken pipe", "remote process")


class World(Protocol):
    """The processes of a run, as a framework knows them."""

    @property
    def rank(self) -> int:
        """This process's place among them, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""

    def share(self, value: Value) -> Value:
        """Give every process the first one's value."""

    def highest(self, value: int) -> int:
        """Give every process the highest of their values."""


class Alone:
    """The one process of a run, for a framework that has no other."""

    rank = 0
    size = 1
    first = True

    def share(self, value: Value) -> Value:
        """Give every process the first one's value: there is one."""
        return value

    def highest(self, value: int) -> int:
        """Give every process the highest of their values: there is one."""
        return value

    def kept(self) -> AbstractContextManager[None]:
        """Part from the other processes at the end: there are none."""
        return nullcontext()


def choose(wanted: Device, gpu: bool, problem: str | None, apple: bool) -> str:
    """Choose the device: what was asked for, else the fastest that works.

    `gpu` tells whether there is an NVIDIA GPU, `problem` why none can be used, `apple` whether
    Apple's can. Raises GradlabError where a device was asked for that does not work here.
    """
    if wanted == "cuda" and problem:
        raise GradlabError(f"--device cuda: {problem}. Leave the option out to run on what works.")
    if wanted == "mps" and not apple:
        raise GradlabError("--device mps: torch finds no Apple GPU. Leave the option out.")
    if wanted != "auto":
        return wanted
    if not problem:
        return "cuda"
    if gpu:
        note(f"! {problem}: running on the CPU. The torch that came with the machine may fit.")
    return "mps" if apple else "cpu"


def choose_precision(wanted: Precision, device: str, major: int) -> str:
    """Choose the precision: what was asked for, else the fastest that the device is made for.

    `major` is the compute capability of CUDA's.
    """
    if wanted == "fp16" and device == "cpu":
        raise GradlabError("--precision fp16 needs a GPU: take bf16 or fp32 on a CPU.")
    if wanted != "auto":
        return wanted
    if device != "cuda":
        return "fp32"
    # bf16 is emulated below Ampere; tensor cores for fp16 begin with Volta.
    return "bf16" if major >= 8 else "fp16" if major == 7 else "fp32"


def runs_code(arch: str, major: int, minor: int) -> bool:
    """Tell whether code built for an architecture such as sm_75 or compute_90 runs on a GPU."""
    kind, _, number = arch.partition("_")
    digits = "".join(char for char in number if char.isdigit())
    built = (int(digits[:-1]), int(digits[-1]))
    # Machine code runs on later minor versions; PTX is compiled for all later GPUs.
    return (built[0] == major or kind == "compute") and built <= (major, minor)


def threads() -> int | None:
    """Give the number of threads to compute with on the CPU; None where the user has set it."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    # One processor is for the loader: competing with it costs more than a thread gains.
    return max(1, cpus() - 1)


def refuse_torchrun(framework: str) -> None:
    """Raise GradlabError where torchrun has started several processes for a framework of one."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise GradlabError(
            f"{framework} trains in one process here, and torchrun has started several: give the "
            "command without torchrun."
        )


def refuse_shards(framework: str, asked: bool) -> None:
    """Raise GradlabError where a model is to be split for a framework that has one process."""
    if asked:
        raise GradlabError(
            f"--shard splits a PyTorch model among processes, and {framework} trains in one here: "
            "leave the option out."
        )


def in_first(world: World, work: Callable[[], Value]) -> Value | None:
    """Do something in the first process, which the others wait for; where it fails, all do.

    Gives None in the others. Raises GradlabError in all.
    """
    value, failure = None, None
    if world.first:
        try:
            value = work()
        except GradlabError as error:
            failure = error
    if failure := world.share(failure):
        raise failure
    return value


@contextmanager
def kept(processes: int, part: Callable[[], object]) -> Iterator[None]:
    """Part from the other processes at the end; GradlabError where they are lost before."""
    try:
        yield
    except RuntimeError as error:
        if processes > 1 and any(words in str(error) for words in LOST):
            raise GradlabError(
                "Another process of this run has ended, so this one can't go on: why, it says "
                "itself. The same command carries on from the last checkpoint.",
                exit_code=1,
            ) from error
        raise
    # Not after an error: it would wait for processes that may never come.
    if processes > 1:
        part()
