"""The data that decide a run's result, as they are seen when it begins.

Promises: examples are looked at as training draws them, evenly spread, thousands of them or as
many as come in some seconds: a change to others of a large dataset is not seen. What other
processors and libraries round otherwise is no change. What can't be compared, such as examples
that differ each time they are drawn or have no index, is left out, and no failure here stops the
training.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import frameworks, keyed
from .loader import Loader
from .streams import Stream, source

SECONDS = 0.5  # to look at the examples of one dataset, once `ENOUGH` were seen
ENOUGH = 2_000  # examples
LONGEST = 3.0  # seconds, however few were seen
PATIENCE = 5.0  # seconds: slower examples are not looked at
TWICE = 4  # examples that are drawn twice
MOST = 10_000  # examples of one dataset
# Of the sum of an example's values: other processors and libraries round otherwise.
TOLERANCE = 1e-5
Seen = dict[str, Any]
Splits = Mapping[str, Any]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def look(splits: Splits, seed: int, workers: int) -> Seen:
    """Look at the examples of each dataset, as training draws them in its first epoch.

    Gives for each its size and, of the examples that were seen, float64 of shape (n, 4).
    """
    return {
        name: {"size": len(data), "examples": _look(data, min(1, workers))}
        for name, split in splits.items()
        if not isinstance(data := source(split, seed), Stream)
    }


def _look(dataset: keyed.KeyedDataset, workers: int) -> Numbers:
    places = _spread(len(dataset))
    first = places[:TWICE]
    batches = [first, first]
    done = len(first)
    while done < len(places):
        batches.append(places[done : 2 * done])
        done *= 2
    try:
        seen = list(_draw(dataset, batches, workers)) if places else []
    # An example that can't be drawn is for training to tell, which names it.
    except Exception:
        seen = []
    keyed_alone = bool(seen) and bool(_alike(seen[0], seen[1]).all())
    return np.concatenate(seen[1:]) if keyed_alone else np.empty((0, 4))


def _draw(
    dataset: keyed.Dataset, batches: list[list[keyed.Position]], workers: int
) -> Iterator[Numbers]:
    # In a worker, as in training: a dataset may open files when it is first asked.
    loader = Loader(dataset, "looked at", batches, workers, collate=_summaries, patience=PATIENCE)
    with loader as loaded:
        begun, count = time.monotonic(), 0  # once the workers are there
        for number, seen in enumerate(loaded):
            yield seen
            count += len(seen)
            if number and time.monotonic() > begun + (SECONDS if count > ENOUGH else LONGEST):
                return


def _spread(size: int) -> list[keyed.Position]:
    """Give the places of the first epoch so that any number of the first ones is spread evenly."""
    step = max(1, round(size * 0.618))
    while np.gcd(step, size) != 1:
        step += 1
    return [(0, number * step % size) for number in range(min(size, MOST))]


def _summaries(examples: list[Any]) -> Numbers:
    return np.array([_summary(example) for example in examples])


def _summary(example: Any) -> list[float]:
    """Give of an example: the sum of its numbers, with weights too, their size, and a checksum."""
    sums, check = np.zeros(3), 0
    for part in _parts(example):
        if isinstance(part, bytes):
            check = zlib.crc32(part, check)
            continue
        check = zlib.crc32(repr(part.shape).encode(), check)
        values = part.astype(np.float64).ravel()
        weights = 1 + np.arange(values.size) % 61 / 61
        sums += [values.sum(), (values * weights).sum(), np.abs(values).sum()]
    return [*sums.tolist(), float(check)]


def _parts(value: Any) -> Iterator[Any]:
    """Give the parts of an example: arrays of measured numbers, and bytes of what is exact."""
    if isinstance(value, Mapping):
        value = [value[name] for name in sorted(value, key=str)]
    for _, kind in frameworks.arrays():
        value = kind.numbers(value) if kind.holds(value) else value
    if isinstance(value, list | tuple):
        for each in value:
            yield from _parts(each)
    elif isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fciub":
        # Pictures are decoded a little otherwise by other versions of a library.
        measured = value.dtype.kind in "fc" or (value.dtype.itemsize == 1 and value.size > 1)
        yield np.abs(value) if value.dtype.kind == "c" else value if measured else value.tobytes()
    elif isinstance(value, float):
        yield np.array(value)
    elif isinstance(value, str | bytes | int):
        yield repr(value).encode()


def _alike(then: Numbers, now: Numbers) -> Any:
    """Tell for each example whether it is the same, but for rounding."""
    with np.errstate(invalid="ignore"):  # infinities
        close = np.abs(then[:, :3] - now[:, :3]) <= TOLERANCE * np.abs(then[:, 2:3]) + 1e-12
    same = close | (np.isnan(then[:, :3]) & np.isnan(now[:, :3]))
    return same.all(1) & (then[:, 3] == now[:, 3])


def changed(then: Seen, now: Seen) -> list[str]:
    """Say in which datasets the examples differ, a line for each."""
    lines = []
    for name in then.keys() & now.keys():
        old, new = then[name]["size"], now[name]["size"]
        # Earlier versions kept a tensor.
        seen = [np.asarray(each[name]["examples"]) for each in (then, now)]
        count = min(map(len, seen))
        alike = _alike(seen[0][:count], seen[1][:count])
        if old != new:
            lines.append(f"the {name} data have {new:,} examples, {old:,} before")
        elif not alike.all():
            index = _spread(new)[int(np.argmin(alike))][1]
            number = int((~alike).sum())
            lines.append(
                f"the {name} data: {number:,} of {count:,} examples looked at differ, "
                f"example {index} for one"
            )
    return sorted(lines)
