"""Order and randomness as functions of (seed, epoch, index) and (seed, step).

Promises: no random state is kept anywhere, so none has to be saved: whatever is asked for
epoch 7, example 41 or step 90,000 is the same in every process, with any number of loader
workers, after any number of interruptions, and costs the same wherever a run resumes.

    data = KeyedDataset(dataset, seed)                       # augmentation
    batches = Batches(len(dataset), 64, seed, start=step, stop=total)
    with Loader(data, "training", batches, workers=2) as loaded:
        for x, y in loaded:
            seed_step(seed, step, rank)                      # dropout
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Protocol, cast

import numpy as np

from ..base.errors import GradlabError
from . import frameworks
from .devices import World

Position = tuple[int, int]  # (epoch, index)


class Dataset(Protocol):
    """Examples by their index; how many there are tells len()."""

    def __getitem__(self, index: Any, /) -> Any:
        """Give an example."""


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
    """Set the global generators of random, NumPy and each loaded framework; no accelerator's."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    for framework in frameworks.loaded():
        framework.seed(value)


def seed_step(seed: int, step: int, rank: int = 0) -> int:
    """Make what is random in a step a function of (seed, step, rank).

    That sets the generators of seed_generators; gives what those of an accelerator are set to.
    """
    value = key(seed, "step", step, rank)
    seed_generators(value)
    return value


def seed_example(seed: int, place: Position) -> None:
    """Make what is random in loading an example a function of (seed, epoch, index)."""
    seed_generators(key(seed, "example", *place))


def size(dataset: Dataset) -> int:
    """Count the examples of a dataset with an index; GradlabError for any other."""
    if is_stream(dataset):
        raise GradlabError(
            f"{type(dataset).__name__} has no length or no index, so a run over it cannot be "
            "resumed where it stopped: give it __len__ and __getitem__(index). Training data may "
            "have state_dict and load_state_dict instead, as torchdata.nodes.Loader has."
        )
    return len(cast(Sized, dataset))


class KeyedDataset:
    """A map-style dataset whose random transforms are functions of (seed, epoch, index).

    Takes (epoch, index) for an index. The dataset may draw from the global generators of
    random, NumPy (np.random.normal, not a generator of its own) and a framework, as torchvision's
    transforms do of torch's. Raises GradlabError for an iterable dataset, which has no index.
    """

    indexed = True

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self._size = size(dataset)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, place: Position) -> Any:
        seed_example(self.seed, place)
        return self.dataset[place[1]]

    def workers(self, asked: int) -> int:
        """Give the number of worker processes: as many as are asked for."""
        return asked

    def plan(self, batch: int, per_epoch: int | None, world: World) -> Batches:
        """Plan the batches of a run; GradlabError where `per_epoch` says what an epoch is."""
        if per_epoch:
            raise GradlabError(
                "--steps-per-epoch is for training data without an index: here an epoch is a pass "
                "over all examples. To end the run sooner, take --max-steps."
            )
        return Batches(len(self), batch, self.seed, 0, 0, world.rank, world.size)

    def state(self) -> dict[str, Any]:
        """Give what a checkpoint has to hold of the data: nothing, for each place says all."""
        return {}

    def start(self, state: dict[str, Any] | None) -> None:
        """Go on from a state, or begin."""


def is_stream(dataset: object) -> bool:
    """Tell whether a dataset can't be asked for its size or for an example by its index."""
    # Torch's and Hugging Face's are called so, and have an index that refuses.
    named = any(kind.__name__ == "IterableDataset" for kind in type(dataset).__mro__)
    return named or not all(hasattr(dataset, name) for name in ("__len__", "__getitem__"))


def split(batch: int, world: int, parts: int = 1, whom: str = "processes") -> None:
    """Raise GradlabError unless a batch has as many examples for each part of each process.

    `whom` names what shares it where that is no process.
    """
    by = [f"equally by {world} {whom}"] * (world > 1) + [f"in {parts} parts"] * (parts > 1)
    if batch % (world * parts):
        raise GradlabError(
            f"A batch of {batch} can't be shared {' '.join(by)}: take a --batch-size that "
            f"{world * parts} divides{', or another --accumulate' * (parts > 1)}."
        )


@dataclass(frozen=True)
class Batches:
    """The batches of the steps from start to stop, each a list of (epoch, index).

    Serves a Loader, or a DataLoader of torch's as batch_sampler. An epoch has size // batch
    steps; what is left over differs from epoch to epoch. Of every global batch the process `rank`
    of `world` takes each world-th example, so all together see the same batches as one alone.
    Unless they are `shuffled`, the examples come as they are counted.
    """

    size: int
    batch: int
    seed: int
    start: int
    stop: int
    rank: int = 0
    world: int = 1
    shuffled: bool = True

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batch > self.size:
            raise GradlabError(
                f"A batch of {self.batch} can't be drawn from {self.size} training examples: "
                f"take --batch-size between 1 and {self.size}."
            )
        split(self.batch, self.world, 1)

    @property
    def per_epoch(self) -> int:
        """Count the steps of an epoch."""
        return self.size // self.batch

    def between(self, start: int, stop: int) -> Batches:
        """Give those of other steps."""
        return replace(self, start=start, stop=stop)

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[Position]]:
        known, indices = -1, np.empty(0, np.int64)
        for step in range(self.start, self.stop):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != known:
                known, indices = epoch, self._order(epoch)
            batch = indices[place * self.batch : (place + 1) * self.batch]
            yield [(epoch, int(index)) for index in batch[self.rank :: self.world]]

    def _order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return order(self.seed, epoch, self.size) if self.shuffled else np.arange(self.size)
