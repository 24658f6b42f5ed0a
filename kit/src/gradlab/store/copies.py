"""Files that are named by what they hold, and which copies of one thing can go.

Promises: a file named by its content proves by itself that it is whole. Of the copies so many
stay that at every moment one of them has been uploaded.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..base.files import digest, names
from ..base.retries import retry

# After which a storage that uploads in the background is taken to have uploaded a file.
UPLOADED = 3 * 3600.0  # seconds
NAMED = re.compile(r"(\d{10})-([0-9a-f]{16})\.(pt|jsonl)")


def file_name(step: int, data: bytes | memoryview, suffix: str) -> str:
    """Name a file by its step and content."""
    return f"{step:010d}-{digest(data)}.{suffix}"


def is_whole(path: Path) -> bool:
    """Tell whether a file has the content that its name promises; OSError if it can't be read."""
    if not (match := NAMED.fullmatch(path.name)):
        return False
    try:
        return retry(lambda: _digest_of(path), at=path) == match[2]
    except FileNotFoundError:
        return False


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def step_of(path: Path) -> int:
    """Read the step from a file's name."""
    return int(path.name[:10])


def candidates(folder: Path, suffix: str = "pt") -> list[Path]:
    """List the files of a folder that are named as saves, the newest first, unverified.

    Raises OSError where the folder can't be listed, but not if it isn't there.
    """
    found = (match for name in names(folder) if (match := NAMED.fullmatch(name)))
    return sorted((folder / m[0] for m in found if m[3] == suffix), reverse=True)


def outdated(copies: Sequence[Path], kept: int = 2) -> list[Path]:
    """Say which copies can go, of files given from the newest to the oldest.

    The newest may not be uploaded yet, and a removal may arrive before them. So older ones stay,
    each up to four times as old as the one after it, back to one that is `UPLOADED` seconds old.
    """
    ages, age = dict[Path, float](), 0.0
    for path in copies:
        with suppress(FileNotFoundError):
            # At least that of the one before, for clocks are set back.
            age = max(age, time.time() - retry(path.stat).st_mtime)
            ages[path] = age
    left, place = list(ages), kept
    while place < len(left):
        after = ages[left[place - 1]]
        before = ages[left[place + 1]] if place + 1 < len(left) else float("inf")
        if after >= UPLOADED or before <= 4 * after:
            del left[place]
        else:
            place += 1
    return [path for path in ages if path not in left]
