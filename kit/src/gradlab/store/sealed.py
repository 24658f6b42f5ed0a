"""Records that prove by themselves that they are whole: JSON with the SHA-256 of the rest.

Promises: a record with one changed bit is never taken for a good one. One that ends too early
is told from one that is damaged, for a writer that was killed leaves the first kind. Records of
earlier versions of this kit, without a checksum, are still read.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..base.retries import retry

CHECKSUM = "checksum"
END = re.compile(rb',\n "checksum": "([0-9a-f]{64})"\n}\n\Z')


class Damaged(ValueError):
    """A record that was whole once, and is not any more."""


class Unfinished(Damaged):
    """A record whose end is missing: never written, or not uploaded."""


def to_text(data: dict[str, Any]) -> str:
    """Write a record, each of its entries on a line of its own."""
    entries = []
    for name, value in data.items():
        text = json.dumps(value)
        if isinstance(value, dict) and value:
            lines = (f"  {json.dumps(key)}: {json.dumps(each)}" for key, each in value.items())
            text = "{\n" + ",\n".join(lines) + "\n }"
        entries.append(f" {json.dumps(name)}: {text}")
    text = "{\n" + ",\n".join(entries)
    return f'{text},\n "{CHECKSUM}": "{hashlib.sha256(text.encode()).hexdigest()}"\n}}\n'


def from_bytes(text: bytes) -> dict[str, Any]:
    """Read a record; raises Unfinished or Damaged."""
    if not text.rstrip().endswith(b"}"):
        raise Unfinished("it has no end")
    end = END.search(text, max(0, len(text) - 100))
    if end and hashlib.sha256(text[: end.start()]).hexdigest() != end[1].decode():
        raise Damaged("its checksum differs")
    try:
        data = json.loads(text)
    except ValueError as error:
        raise Damaged(f"it is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise Damaged("it is no record")
    if data.pop(CHECKSUM, None) is not None and not end:
        raise Damaged("its checksum is damaged")
    return data


def load(path: Path) -> dict[str, Any]:
    """Read a file's record; raises Unfinished, Damaged or OSError (where it can't be read)."""
    return from_bytes(retry(path.read_bytes))
