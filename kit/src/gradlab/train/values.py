"""Values of any kind, arrays among them, as JSON and bytes have them, and back.

Promises: what is packed comes back equal, types of keys included; equal values give equal bytes;
no pickle, so what is read runs no code and any later version can read it. What only a framework
has, such as its tensors, is known while that is loaded.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from ..base.errors import GradlabError
from . import frameworks
from .frameworks import Arrays, Kind

Parts = dict[str, list[Any]]


class Snapshots:
    """Copies of a state, each in the memory of the one before: only one can be in use."""

    def __init__(self) -> None:
        self._buffers: list[Any] = []

    def take(self, state: Any) -> tuple[Any, list[memoryview], Callable[[], None]]:
        """Copy a state; give it as JSON has it, the bytes of its arrays, and how to wait for them.

        What lies on a GPU is still being copied then: wait before the bytes are read. Raises
        GradlabError for a value that can't be kept.
        """
        before, self._buffers = self._buffers, []
        kinds, copied = _arrays(), dict[str, list[Any]]()

        def take(value: Any) -> Parts | None:
            for name, kind in kinds.items():
                if kind.holds(value):
                    number = len(self._buffers)
                    buffer = before[number] if number < len(before) else None
                    self._buffers.append(kind.copied(value, buffer))
                    copied.setdefault(name, []).append(value)
                    contents.append(kind.content(self._buffers[-1]))
                    return {name: [number, *kind.form(value)]}
            return None

        contents: list[memoryview] = []
        packed = pack(state, "The state of the run", take)
        waits = [wait for name, arrays in copied.items() for wait in kinds[name].arrival(arrays)]

        def arrived() -> None:
            for wait in waits:
                wait()

        return packed, contents, arrived


def restored(packed: Any, data: list[memoryview]) -> Any:
    """Give the state of which a snapshot was taken, in memory that is no GPU's."""

    def give(kind: Arrays, parts: list[Any]) -> Any:
        number, dtype, shape = parts
        return kind.whole(dtype, shape, data[number])

    return unpack(packed, give)


def pack(value: Any, what: str, take: Callable[[Any], Parts | None] = lambda _: None) -> Any:
    """Give a value as JSON has it: all but lists and single values is {kind: parts}.

    `take` gives what stands for an array whose bytes are kept elsewhere. Raises GradlabError for
    a value of another kind, with `what` holds it.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [pack(part, what, take) for part in value]
    if taken := take(value):
        return taken
    kinds = _kinds()
    name = next((name for name, kind in kinds.items() if kind.holds(value)), None)
    try:
        parts = kinds[name or ""].parts(value)
    except ValueError as error:
        raise GradlabError(f"{what} holds {error}") from error
    except (KeyError, RuntimeError, TypeError) as error:
        raise GradlabError(
            f"{what} holds a {type(value).__module__}.{type(value).__qualname__}, which can't be "
            "saved: give numbers, texts, tensors and arrays, and lists, tuples, sets and "
            "dictionaries of them."
        ) from error
    return {name: pack(parts, what, take)}


def unpack(value: Any, give: Callable[[Arrays, list[Any]], Any] | None = None) -> Any:
    """Give the value that was packed; `give` gives the array for what `take` gave."""
    if isinstance(value, list):
        return [unpack(part, give) for part in value]
    if isinstance(value, dict):
        ((name, parts),) = value.items()
        if give and (kind := _arrays().get(name)):
            return give(kind, parts)
        if name not in (kinds := _kinds()):
            raise ValueError(f"it holds what only another framework has, called '{name}'")
        return kinds[name].whole(unpack(parts, give))
    return value


def _arrays() -> dict[str, Arrays]:
    """Give the kinds of arrays, by the names that files have."""
    known: dict[str, Arrays] = {"kept": NUMPY}
    for framework in frameworks.loaded():
        known |= framework.arrays
    return known


def _kinds() -> dict[str, Kind]:
    """Give the kinds of all other values, by the names that files have."""
    known = dict(KINDS)
    for framework in frameworks.loaded():
        known |= framework.kinds
    return known


def exactly(kind: type, parts: Callable[[Any], Any], whole: Callable[[Any], Any]) -> Kind:
    """Give the kind of the values of one type, and of none that is derived from it."""
    return Kind(lambda value: type(value) is kind, parts, whole)


def _pairs(value: Any) -> list[list[Any]]:
    return [list(pair) for pair in value.items()]


def _sorted(value: Any) -> list[Any]:
    return sorted(value, key=repr)  # a set has no order that lasts


def _name(dtype: Any) -> str | None:
    """Name a dtype so that NumPy finds it again; None for records and objects."""
    if dtype.hasobject or dtype.names:
        return None
    # Those of other libraries, such as bfloat16, are of no kind of NumPy's: they have a name.
    name = str(dtype.name if dtype.kind == "V" else dtype.str)
    try:
        return name if np.dtype(name) == dtype else None
    except TypeError:
        return None


def _copied(array: Any, buffer: Any) -> Any:
    form = (array.dtype, array.shape)
    if not isinstance(buffer, np.ndarray) or (buffer.dtype, buffer.shape) != form:
        return array.copy()
    np.copyto(buffer, array)
    return buffer


NUMPY = Arrays(
    holds=lambda value: type(value) is np.ndarray and _name(value.dtype) is not None,
    form=lambda array: [_name(array.dtype), list(array.shape)],
    copied=_copied,
    arrival=lambda _: [],
    content=lambda array: memoryview(array.reshape(-1).view(np.uint8)),
    whole=lambda dtype, shape, content: _array_of([shape, dtype, content]),
    numbers=lambda array: array,
)


def _array_bytes(array: Any) -> list[Any]:
    if (name := _name(array.dtype)) is None:
        raise TypeError(array.dtype)
    return [list(array.shape), name, array.tobytes()]


def _array_of(parts: list[Any]) -> Any:
    shape, dtype, data = parts
    return np.frombuffer(data, dtype).reshape(shape).copy()


KINDS = {
    "dict": exactly(dict, _pairs, dict),
    "ordered": exactly(OrderedDict, _pairs, OrderedDict),
    "counter": exactly(Counter, _pairs, lambda pairs: Counter(dict(pairs))),
    "tuple": exactly(tuple, list, tuple),
    "set": exactly(set, _sorted, set),
    "frozenset": exactly(frozenset, _sorted, frozenset),
    "bytes": exactly(bytes, lambda data: b64encode(data).decode(), b64decode),
    "bytearray": exactly(bytearray, bytes, bytearray),
    "complex": exactly(complex, lambda z: [z.real, z.imag], lambda z: complex(*z)),
    "array": exactly(np.ndarray, _array_bytes, _array_of),
    "number": Kind(
        lambda value: isinstance(value, np.generic), _array_bytes, lambda p: _array_of(p)[()]
    ),
}
