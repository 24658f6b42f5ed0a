"""What training needs of a framework, and which frameworks this process has loaded.

Promises: `train/<framework>/` alone imports one, and everything else meets it here. None has to
be named or registered: a framework counts once its library is loaded, be it by the model, a
dataset or a transform; until then none is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

NAMES = ("torch", "jax", "keras")  # of a library, and of the module here that knows it


@dataclass(frozen=True)
class Kind:
    """A kind of value: which ones it holds, their parts, and the whole made of these again."""

    holds: Callable[[Any], bool]
    parts: Callable[[Any], Any]
    whole: Callable[[Any], Any]


@dataclass(frozen=True)
class Arrays:
    """A kind of array, whose bytes are kept beside the values that are around it."""

    holds: Callable[[Any], bool]  # whether a value is one
    form: Callable[[Any], list[Any]]  # the dtype's name and the shape
    copied: Callable[[Any, Any], Any]  # begins to copy, into the second if that fits
    arrival: Callable[[Sequence[Any]], list[Callable[[], None]]]  # wait for copies just begun
    content: Callable[[Any], memoryview]  # the bytes of one that is contiguous
    whole: Callable[[str, Sequence[int], Any], Any]  # the one of a form, with these bytes
    numbers: Callable[[Any], Any]  # an array of NumPy's, of this or a wider dtype


@dataclass(frozen=True)
class Framework:
    """What a framework's module gives to those that don't know it."""

    version: str  # as a message has it
    seed: Callable[[int], object]  # of its global generators, but for those of accelerators
    begin_worker: Callable[[], object]  # what a loader's worker does first
    reduced: Callable[[Any], Any]  # how pickle is to send a value (reducer_override)
    device: Callable[[], tuple[str, str]]  # the name of what it computes on, or why only on the CPU
    arrays: Mapping[str, Arrays] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    forks: bool = True  # whether a process that has loaded it may be forked
    unpickled: Callable[[bytes], Any] | None = None  # reads what version 0.1 has saved


_loaded: dict[str, Framework] = {}


def named(name: str) -> Framework:
    """Give a framework by its name; imports it where that is still to be done."""
    if name not in _loaded:
        _loaded[name] = import_module(f".{name}", __package__).FRAMEWORK
    return _loaded[name]


def loaded() -> Collection[Framework]:
    """Give the frameworks whose libraries this process has loaded."""
    for name in NAMES:
        if name not in _loaded and name in sys.modules:
            named(name)
    return _loaded.values()


def versions() -> str:
    """Name the loaded frameworks with their versions, for a message."""
    return ", ".join(framework.version for framework in loaded())


def arrays() -> Iterator[tuple[str, Arrays]]:
    """Give the loaded frameworks' kinds of arrays with their names."""
    for framework in loaded():
        yield from framework.arrays.items()
