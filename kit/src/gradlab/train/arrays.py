"""One file for nested plain values and the bytes of arrays, in the format of safetensors.

Promises: equal values give equal bytes; a file runs no code and loads in any later version; it
is given in pieces, so that writing it takes no memory of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

STATE = "state"
LENGTH = 8  # bytes that tell the header's length


def pieces(values: Any, arrays: Sequence[memoryview]) -> list[bytes | memoryview]:
    """Give the pieces of a file: its header, with the values as JSON has them, and the arrays."""
    ends = list(accumulate(array.nbytes for array in arrays))
    header: dict[str, Any] = {"__metadata__": {STATE: _json(values)}}
    for number, (array, end) in enumerate(zip(arrays, ends, strict=True)):
        place = {"shape": [array.nbytes], "data_offsets": [end - array.nbytes, end]}
        header[f"{number:06d}"] = {"dtype": "U8", **place}
    text = _json(header).encode()
    text += b" " * (-len(text) % LENGTH)
    return [len(text).to_bytes(LENGTH, "little") + text, *arrays]


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def parse(data: bytes) -> tuple[Any, list[memoryview]]:
    """Read a file; give the values and the bytes of the arrays. ValueError if it is none."""
    end = LENGTH + int.from_bytes(data[:LENGTH], "little")
    try:
        header = json.loads(data[LENGTH:end])
        values = json.loads(header.pop("__metadata__")[STATE])
        places = [entry["data_offsets"] for entry in header.values()]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no {error} in it") from error
    content = memoryview(data)[end:]
    return values, [content[start:stop] for start, stop in places]
