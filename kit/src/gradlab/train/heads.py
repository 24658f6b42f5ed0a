"""What the newest checkpoint of a run says of it, read without its arrays and without NumPy.

Promises: reads the beginning of a file only, so that a checkpoint of gigabytes costs as much as a
small one; what is no checkpoint is a ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .arrays import LENGTH, STATE

FIRST = 1 << 14  # bytes that hold most headers
LARGEST = 1 << 27  # bytes: no header is longer
Part = Callable[[int, int], bytes]  # gives a file's bytes from one place to another


def read(part: Part) -> dict[str, Any]:
    """Give what a checkpoint holds beside arrays, as it was packed; ValueError if it is none."""
    try:
        return _plain(json.loads(metadata(part)[STATE]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no {error} in it") from error


def metadata(part: Part) -> dict[str, str]:
    """Give the metadata of a file of safetensors; ValueError if it is none."""
    data = part(0, FIRST)
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    if len(data) < LENGTH or end > LARGEST:
        raise ValueError("it has no header")
    if end > len(data):
        data += part(len(data), end)
    header = json.loads(data[LENGTH:end])
    return dict(header.get("__metadata__", {})) if isinstance(header, dict) else {}


def at(value: Any, *names: str) -> Any:
    """Give what lies deeper in what was packed, None where nothing does."""
    for name in names:
        value = _plain(value).get(name) if isinstance(value, dict) else None
    return value


def plain(value: Any) -> Any:
    """Give what was packed as JSON would have it: dictionaries, lists and single values."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, parts),) = value.items()
    return {n: plain(each) for n, each in _plain(value).items()} if kind == "dict" else plain(parts)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Give a dictionary that was packed, its values as they are."""
    return {name: each for name, each in value.get("dict", ()) if isinstance(name, str)}
