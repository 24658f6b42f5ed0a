"""A checkpoint in several files: a shard from each process, and the manifest that names them all.

Promises: the manifest is a checkpoint only while each of its shards is there with the SHA-256
that it tells; a shard that no manifest names is no part of any.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..base.files import remove, sha256
from .copies import MANIFEST, SHARD, candidates, is_named_by, is_whole


class Shard(NamedTuple):
    """A file that one process has written: its name, SHA-256 and size in bytes."""

    name: str
    sha256: str
    size: int


def of(path: Path) -> Shard:
    """Describe a shard as it reads back; OSError where it can't be read."""
    return Shard(path.name, sha256(path), path.stat().st_size)


def manifest(step: int, shards: Sequence[Shard]) -> bytes:
    """Give the text of a manifest; its shards are those of the processes, from the first on."""
    return json.dumps({"step": step, "shards": [each._asdict() for each in shards]}).encode()


def named_in(data: bytes) -> list[Shard]:
    """Give the shards that a manifest names, in the order of their processes."""
    return [Shard(**each) for each in json.loads(data)["shards"]]


def belonging_to(path: Path) -> list[Shard]:
    """Give the shards of a checkpoint; none where it is a file by itself, or is damaged."""
    data = path.read_bytes() if path.suffix == f".{MANIFEST}" else b""
    return named_in(data) if is_named_by(path.name, data) else []


def wrong(folder: Path, shards: Sequence[Shard]) -> str:
    """Say which shard is missing or damaged, nothing if none is; OSError if one can't be read."""

    def look(shard: Shard) -> str:
        try:
            same = sha256(folder / shard.name) == shard.sha256
        except FileNotFoundError:
            return f"{shard.name} is missing"
        return "" if same else f"{shard.name} is damaged"

    # Hashing holds no lock: one thread would take as long as all processes' writing did.
    with ThreadPoolExecutor(min(len(shards), os.cpu_count() or 1) or 1) as pool:
        return next(filter(None, pool.map(look, shards)), "")


def is_complete(path: Path) -> bool:
    """Tell whether a checkpoint is whole, with all its shards; OSError if it can't be read."""
    try:
        return is_whole(path) and not wrong(path.parent, belonging_to(path))
    except FileNotFoundError:  # removed at this moment
        return False


def remove_all_but(kept: Sequence[Path], folder: Path) -> int:
    """Remove the checkpoints of a folder but those that are kept; tell how many files went.

    A manifest goes before its shards, so that none of them is ever missing one.
    """
    stale = [path for path in candidates(folder) if path not in kept]
    for path in stale:
        remove(path)
    lone = candidates(folder, SHARD)
    if lone:
        used = {shard.name for path in kept if path.exists() for shard in belonging_to(path)}
        lone = [path for path in lone if path.name not in used]
    for path in lone:
        remove(path)
    return len(stale) + len(lone)
