"""Files that survive: written whole or not at all, named by what they hold.

Promises: after a kill, a crash or a full disk at any moment a file has its old or its new
content, and a file named by its content proves by itself that it is whole. What can't be read is
neither absent nor damaged: that is an OSError which names the file, after some tries.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .errors import GradlabError, note

Result = TypeVar("Result")
# What network file systems such as Google Drive's fail with now and then, to work a moment later.
PASSING = (errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.ENOTCONN, errno.ESTALE)
WAITS = (0.05, 0.5, 2, 4, 8)  # seconds between two tries
SHORT = WAITS[:2]  # where work waits meanwhile that can go on without
# After which a storage that uploads in the background is taken to have uploaded a file.
UPLOADED = 3 * 3600.0  # seconds
NAME = re.compile(r"(\d{10})-([0-9a-f]{16})\.(pt|jsonl)")


def digest(data: bytes | memoryview) -> str:
    """Give the first 64 bits of the SHA-256 as 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]


def file_name(step: int, data: bytes | memoryview, suffix: str) -> str:
    """Name a file by its step and content."""
    return f"{step:010d}-{digest(data)}.{suffix}"


def is_whole(path: Path) -> bool:
    """Tell whether a file has the content that its name promises; OSError if it can't be read."""
    if not (match := NAME.fullmatch(path.name)):
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
    found = (match for name in names(folder) if (match := NAME.fullmatch(name)))
    return sorted((folder / m[0] for m in found if m[3] == suffix), reverse=True)


def write_durably(path: Path, data: bytes | memoryview, synced: bool = True) -> None:
    """Write a file so that after a crash at any moment the old or the new content is there.

    Raises OSError, with the old content kept and nothing left beside it. Unless it is `synced`, it
    costs less and survives a kill, but no crash of the machine.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if synced:
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_result(path: Path, data: bytes) -> None:
    """Write a file that was asked for; GradlabError where that can't be done."""
    try:
        retry(lambda: write_durably(path, data))
    except OSError as error:
        raise GradlabError(
            f"{path} can't be written: {error}.\n"
            "Make room or permission there, then give the same command again.",
            exit_code=1,
        ) from error


def retry(
    work: Callable[[], Result], waits: Sequence[float] = WAITS, at: Path | None = None
) -> Result:
    """Do something again while the file system fails, a few times.

    The error that is raised names `at` where the kernel named no file.
    """
    try:
        for wait in waits:
            try:
                return work()
            except OSError as error:
                if error.errno not in PASSING:
                    raise
            time.sleep(wait)
        return work()
    except OSError as error:
        if at and error.filename is None:
            error.filename = str(at)
        raise


def read_text(path: Path) -> str:
    """Read a text, trying again while the file system fails."""
    return retry(lambda: path.read_text("utf-8"), at=path)


def read_bytes(path: Path) -> bytes:
    """Read a file, trying again while the file system fails."""
    return retry(path.read_bytes, at=path)


def names(folder: Path) -> list[str]:
    """List the names in a folder, none if there is no such folder; never none for a failure."""
    try:
        return retry(lambda: os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def exists(path: Path) -> bool:
    """Tell whether a file or folder is there; OSError where that can't be told."""
    return retry(path.exists, at=path)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where its file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems can't sync a folder; the file itself is synced.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what writers that died have left behind in a folder, as far as that works."""
    with suppress(OSError):
        for name in names(folder):
            if name.startswith(".") and name.endswith(".tmp"):
                retry((folder / name).unlink, SHORT)


def remove(path: Path) -> None:
    """Delete a file, emptied first: what Google Drive moves to its trash fills the quota."""
    try:
        retry(lambda: _remove(path), SHORT)
    except FileNotFoundError:
        pass  # it went at a try that seemed to fail
    except OSError as error:
        note(f"! {path} could not be removed: {error}")


def _remove(path: Path) -> None:
    if path.stat().st_nlink < 2:  # else somebody holds it who is about to read it
        os.truncate(path, 0)
    path.unlink()


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


def prepare(folder: Path) -> Path:
    """Make a folder and try to write in it; GradlabError where that can't be done."""
    probe = folder / f".probe.{os.getpid()}.tmp"  # swept, if this process dies

    def try_it() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(probe, b"can this folder be written?")
        probe.unlink()

    try:
        retry(try_it)
    except OSError as error:
        raise GradlabError(
            f"Nothing can be written to {folder}: {error.strerror}.\n"
            "Make room or permission there, or set GRADLAB_STORAGE to a folder that can be written."
        ) from error
    return folder
