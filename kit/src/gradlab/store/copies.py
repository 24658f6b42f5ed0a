"""Files that are named by what they hold, and which copies of one thing can go.

Promises: a file named by its content proves by itself that it is whole. Of the copies so many
stay that at every moment one of them has been uploaded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..base.files import digest, names, sha256
from .backend import Backend

# After which a storage that uploads in the background is taken to have uploaded a file.
UPLOADED = 3 * 3600.0  # seconds
NAMED = re.compile(r"(\d{10})-([0-9a-f]{16})\.(safetensors|pt|jsonl|manifest|shard)")
CHECKPOINT, LINES = "safetensors", "jsonl"
OLDER = "pt"  # what version 0.1 saved
MANIFEST, SHARD = "manifest", "shard"  # of a checkpoint in several files: what they are, and each
ENTRIES = (CHECKPOINT, OLDER, MANIFEST)  # each is a checkpoint


def file_name(step: int, *pieces: bytes | memoryview, suffix: str = CHECKPOINT) -> str:
    """Name a file by its step and content."""
    return f"{step:010d}-{digest(*pieces)}.{suffix}"


def is_named_by(name: str, data: bytes) -> bool:
    """Tell whether some bytes are what a file's name promises."""
    return file_name(step_of(name), data, suffix=name.rpartition(".")[2]) == name


def is_named_by_digest(name: str, whole: str) -> bool:
    """Tell whether a file's name promises what has this SHA-256."""
    match = NAMED.fullmatch(name)
    return match is not None and whole.startswith(match[2])


def is_whole(path: Path) -> bool:
    """Tell whether a file has the content that its name promises; OSError if it can't be read."""
    try:
        return is_named_by_digest(path.name, sha256(path))
    except FileNotFoundError:
        return False


def step_of(name: str) -> int:
    """Read the step from a file's name."""
    return int(name[:10])


def candidates(folder: Path, *suffixes: str) -> list[Path]:
    """List the checkpoints in a folder, or files named like them, the newest first, unverified.

    Raises OSError where the folder can't be listed, but not if it isn't there.
    """
    wanted = suffixes or ENTRIES
    found = (match for name in names(folder) if (match := NAMED.fullmatch(name)))
    return sorted((folder / m[0] for m in found if m[3] in wanted), reverse=True)


def outdated(copies: Sequence[str], backend: Backend, kept: int = 2) -> list[str]:
    """Say which copies on a backend can go, of some given from the newest to the oldest.

    Where writes arrive later, the newest may not be uploaded yet, and a removal may arrive before
    them. So older ones stay, each up to four times as old as the one after it, back to one that is
    `UPLOADED` seconds old.
    """
    if not backend.writes_arrive_later:
        return list(copies[kept:])
    ages, age = dict[str, float](), 0.0
    for copy in copies:
        with suppress(FileNotFoundError):
            # At least that of the one before, for clocks are set back.
            age = max(age, backend.age(copy))
            ages[copy] = age
    left, place = list(ages), kept
    while place < len(left):
        after = ages[left[place - 1]]
        before = ages[left[place + 1]] if place + 1 < len(left) else float("inf")
        if after >= UPLOADED or before <= 4 * after:
            del left[place]
        else:
            place += 1
    return [copy for copy in ages if copy not in left]
