"""Order and randomness as functions of (seed, epoch, index) and (seed, step).

Promises: no random state is kept anywhere, so none has to be saved: whatever is asked for
epoch 7, example 41 or step 90,000 is the same in every process, with any number of loader
workers, after any number of interruptions, and costs the same wherever a run resumes.

    data = KeyedDataset(dataset, seed)                       # augmentation
    batches = Batches(len(dataset), 64, seed, start=step, stop=total)
    for x, y in DataLoader(data, batch_sampler=batches, num_workers=2):
        seed_step(seed, step, rank, device)                  # dropout
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from ..base.errors import GradlabError

Place = tuple[int, int]  # (epoch, index)
CPU = torch.device("cpu")


def key(*parts: int | str) -> int:
    """Hash the parts to 63 bits, the same on every machine and in every version."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


def order(seed: int, epoch: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the order of an epoch: a permutation of range(size), shape (size,), int64."""
    # NumPy keeps the raw stream of Philox the same in all versions, unlike permutation().
    stream = np.random.Philox(key=key(seed, "order", epoch)).random_raw(size)
    return np.argsort(stream, kind="stable").astype(np.int64)


def seed_generators(value: int) -> None:
    """Set the global CPU generators of random, NumPy and torch; the accelerators' stay."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    # Not torch.manual_seed: it visits every device, for 95 microseconds instead of 1.
    torch.default_generator.manual_seed(value)


def seed_step(seed: int, step: int, rank: int = 0, device: torch.device = CPU) -> None:
    """Make dropout and all else that is random in a step a function of (seed, step, rank)."""
    value = key(seed, "step", step, rank)
    seed_generators(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)
    elif device.type == "mps":
        torch.mps.manual_seed(value)


class KeyedDataset(Dataset[Any]):
    """A map-style dataset whose random transforms are functions of (seed, epoch, index).

    Takes (epoch, index) for an index. The dataset may draw from the global generators of
    random, NumPy (np.random.normal, not a generator of its own) and torch, as torchvision's
    transforms do. Raises GradlabError for an iterable dataset, which has no index.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise GradlabError(
                f"{type(dataset).__name__} has no length or no index, so a run over it cannot "
                "be resumed where it stopped: give it __len__ and __getitem__(index)."
            )
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(cast(Sized, self.dataset))

    def __getitem__(self, place: Place) -> Any:
        epoch, index = place
        seed_generators(key(self.seed, "example", epoch, index))
        return self.dataset[index]


@dataclass(frozen=True)
class Batches:
    """The batches of the steps from start to stop, each a list of (epoch, index).

    Serves as batch_sampler of a DataLoader. An epoch has size // batch steps; what is left
    over differs from epoch to epoch. Of every global batch the process `rank` of `world`
    takes each world-th example, so all of them together see the same batches as one alone.
    """

    size: int
    batch: int
    seed: int
    start: int
    stop: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batch > self.size:
            raise GradlabError(
                f"A batch of {self.batch} can't be drawn from {self.size} training examples: "
                f"take --batch-size between 1 and {self.size}."
            )
        if self.batch % self.world:
            raise GradlabError(
                f"A batch of {self.batch} can't be shared equally by {self.world} processes: "
                f"take a --batch-size that {self.world} divides."
            )

    @property
    def per_epoch(self) -> int:
        """Count the steps of an epoch."""
        return self.size // self.batch

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[Place]]:
        known, indices = -1, np.empty(0, np.int64)
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != known:
                known, indices = epoch, order(self.seed, epoch, self.size)
            batch = indices[place * self.batch : (place + 1) * self.batch]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world]]
