"""Order and randomness depend on (seed, epoch, index) alone, on every machine and version."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gradlab.base.errors import GradlabError
from gradlab.train import keyed


class Noise(Dataset[Any]):
    """Each example draws from all the generators that transforms draw from."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[float, float, float, int]:
        return random.random(), np.random.normal(), torch.rand(()).item(), index


def batches(**changes: int) -> keyed.Batches:
    return keyed.Batches(**{"size": 10, "batch": 4, "seed": 3, "start": 0, "stop": 6} | changes)


def load(workers: int, start: int = 0) -> list[list[torch.Tensor]]:
    data = keyed.KeyedDataset(Noise(), seed=3)
    return list(DataLoader(data, batch_sampler=batches(start=start), num_workers=workers))


def same(left: list[list[torch.Tensor]], right: list[list[torch.Tensor]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


def test_the_order_is_the_same_in_every_version() -> None:
    assert keyed.key(0, "order", 1) == 8024286156118006313
    assert keyed.order(0, 0, 8).tolist() == [6, 5, 3, 7, 0, 1, 4, 2]


def test_an_order_holds_every_example_once_and_changes_with_epoch_and_seed() -> None:
    orders = [keyed.order(seed, epoch, 100).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_what_an_example_draws(workers: int) -> None:
    assert same(load(0), load(workers))


def test_a_resumed_loader_gives_what_would_have_come() -> None:
    assert same(load(0)[4:], load(2, start=4))


def test_examples_draw_anew_in_every_epoch() -> None:
    data = keyed.KeyedDataset(Noise(), seed=3)
    assert data[0, 5] == data[0, 5]
    assert data[0, 5][:3] != data[1, 5][:3]


def test_processes_share_each_global_batch_without_overlap() -> None:
    alone = list(batches())
    shares = [list(batches(rank=rank, world=2)) for rank in (0, 1)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert sorted(first + second) == sorted(whole)


def test_a_million_steps_in_costs_what_the_first_step_costs() -> None:
    assert next(iter(batches(start=10**6, stop=10**6 + 1)))[0][0] == 10**6 // 2


def test_dropout_depends_on_seed_step_and_process() -> None:
    def draw(*place: int) -> float:
        keyed.seed_step(*place)
        return torch.rand(()).item()

    assert draw(0, 1, 0) == draw(0, 1, 0)
    assert len({draw(0, 1, 0), draw(1, 1, 0), draw(0, 2, 0), draw(0, 1, 1)}) == 4


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(())


class Counted(Stream):
    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("kind", [Stream, Counted, set])
def test_a_stream_without_an_index_is_refused(kind: Any) -> None:
    with pytest.raises(GradlabError, match=f"{kind.__name__} has no length or no index"):
        keyed.KeyedDataset(kind(), 0)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batch": 11}, "from 10 training examples"),
        ({"batch": 0}, "--batch-size between 1 and 10"),
        ({"batch": 3, "world": 2}, "shared equally by 2"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(GradlabError, match=words):
        batches(**changes)
