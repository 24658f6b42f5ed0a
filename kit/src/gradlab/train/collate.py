"""Batches that are put together of examples, and taken apart, whatever they are nested in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def stack(examples: Sequence[Any]) -> Any:
    """Put examples together: arrays and numbers with a new first axis, texts in a list.

    Lists, tuples and dictionaries are put together part by part. Raises TypeError or ValueError
    where the examples are not alike.
    """
    first = examples[0]
    if any(type(example) is not type(first) for example in examples):
        raise TypeError("the examples are of different types")
    if isinstance(first, Mapping):
        if any(example.keys() != first.keys() for example in examples):
            raise ValueError("the examples have different keys")
        return {name: stack([example[name] for example in examples]) for name in first}
    if isinstance(first, list | tuple):
        return _made(first, [stack(column) for column in zip(*examples, strict=True)])
    if isinstance(first, str | bytes):
        return list(examples)
    array = np.stack([np.asarray(example) for example in examples])
    if array.dtype.hasobject:
        raise TypeError(f"a {type(first).__name__} is no number")
    return array


def mapped(batch: Any, kind: type, act: Callable[[Any], Any]) -> Any:
    """Give a batch in which what is of a kind is replaced by what `act` makes of it."""
    if isinstance(batch, kind):
        return act(batch)
    if isinstance(batch, Mapping):
        return {name: mapped(part, kind, act) for name, part in batch.items()}
    if isinstance(batch, list | tuple):
        return _made(batch, [mapped(part, kind, act) for part in batch])
    return batch


def _made(like: Any, parts: list[Any]) -> Any:
    """Give a list, tuple or named tuple of parts."""
    return like._make(parts) if hasattr(like, "_make") else type(like)(parts)
