"""A model's weights in one file of safetensors, with its settings and a checksum of the whole.

Promises: equal weights and settings give equal bytes; a file of which any bit has changed is
refused, not believed; any program that reads safetensors reads it. The weights are a framework's:
its functions of safetensors write and read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..base.errors import GradlabError, note
from ..base.files import read_bytes

Weights = TypeVar("Weights")
# The file begins so, after the eight bytes that tell the header's length.
BEGIN = b'{"__metadata__":{"sha256":"'
PLACE = slice(8 + len(BEGIN), 8 + len(BEGIN) + 64)
UNKNOWN = b"0" * 64


def pack(plain: bytes, settings: dict[str, Any]) -> bytes:
    """Give the bytes of a file of safetensors with the settings in its metadata.

    `plain` is the file without: what safetensors' `save` gives of the weights.
    """
    metadata = {"sha256": UNKNOWN.decode(), "settings": json.dumps(settings, sort_keys=True)}
    end = 8 + int.from_bytes(plain[:8], "little")
    # Not by `save`, which would write the metadata in an order of its own each time.
    header = json.dumps(
        {"__metadata__": metadata, **json.loads(plain[8:end])}, separators=(",", ":")
    )
    text = header.encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + plain[end:]
    return data[: PLACE.start] + _checksum(data) + data[PLACE.stop :]


def unpack(
    path: Path, advice: str, load: Callable[[bytes], Weights]
) -> tuple[Weights, dict[str, Any]]:
    """Read the weights and settings of a file; `load` is safetensors' for the framework.

    Raises GradlabError with the advice where the file is damaged, or can't be read.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise GradlabError(
            f"{path} can't be read: {error}.\nGive the same command again when it can.", exit_code=1
        ) from error
    metadata = checked(data, path, advice)
    with _only_whole(path, advice):
        weights = load(data)
    return weights, json.loads(metadata["settings"])


def checked(data: bytes, path: Path, advice: str) -> dict[str, str]:
    """Give the metadata of a file's bytes; GradlabError with the advice if those are damaged."""
    kept = data[8 : PLACE.start] == BEGIN
    if kept and _checksum(data) != data[PLACE]:
        raise _damaged(path, advice)
    with _only_whole(path, advice):
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        json.loads(metadata["settings"])
    if not kept:
        note(f"! {path} has no checksum, as earlier versions wrote it: read unchecked.")
    return dict(metadata)


@contextmanager
def _only_whole(path: Path, advice: str) -> Iterator[None]:
    """Say of what can't be understood that it is damaged."""
    try:
        yield
    # What damaged bytes are taken for is for chance to say.
    except Exception as error:
        raise _damaged(path, advice) from error


def _checksum(data: bytes) -> bytes:
    whole = hashlib.sha256(data[: PLACE.start])
    whole.update(UNKNOWN)
    whole.update(memoryview(data)[PLACE.stop :])
    return whole.hexdigest().encode()


def _damaged(path: Path, advice: str) -> GradlabError:
    return GradlabError(
        f"{path} is damaged: it is not what was written there.\n{advice}", exit_code=1
    )
