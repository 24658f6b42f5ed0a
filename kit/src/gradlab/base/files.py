"""Files that survive: written whole or not at all, and read as long as they can be.

Promises: after a kill, a crash or a full disk at any moment a file has its old or its new
content. What can't be read is neither absent nor damaged: that is an OSError which names the
file, after some tries.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from .errors import GradlabError, note
from .retries import SHORT, retry

CHUNK = 1 << 20  # bytes
Pieces = Sequence[bytes | memoryview]


def digest(*pieces: bytes | memoryview) -> str:
    """Give the first 64 bits of the SHA-256 of some bytes as 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()[:16]


def sha256(path: Path | str) -> str:
    """Give a file's SHA-256 as 64 hexadecimal digits; raises OSError."""

    def once() -> str:
        hashed = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            size = chunk_size(file)
            while chunk := file.read(size):
                hashed.update(chunk)
        return hashed.hexdigest()

    return retry(once, at=Path(path))


def chunk_size(file: FileIO) -> int:
    """Say how much to read at once: memory for all that a small file is not costs time."""
    return min(CHUNK, os.fstat(file.fileno()).st_size + 1)


def write_durably(
    path: Path, data: bytes | memoryview | Pieces, synced: bool = True, renamed: bool = True
) -> None:
    """Write a file so that after a crash at any moment the old or the new content is there.

    Raises OSError, with the old content kept and nothing left beside it. Unless it is `synced`, it
    costs less and survives a kill, but no crash of the machine. Unless it is `renamed`, it is
    written under its final name, and a reader has to check that it is whole: for network file
    systems, which don't promise that a rename is atomic.
    """
    if not renamed:
        _write(path, data, synced)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write(temporary, data, synced)
        os.replace(temporary, path)
        if synced:
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _write(path: Path, data: bytes | memoryview | Pieces, synced: bool) -> None:
    with path.open("wb") as file:
        file.writelines([data] if isinstance(data, bytes | memoryview) else data)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def write_in_place(path: Path, text: str) -> None:
    """Write a small text under its final name, with its folder, as often as that fails for now.

    Raises OSError. A reader has to check that it is whole.
    """
    retry(lambda: path.parent.mkdir(parents=True, exist_ok=True))
    retry(lambda: write_durably(path, text.encode(), renamed=False))


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


def read_text(path: Path) -> str:
    """Read a text, trying again while the file system fails."""
    return retry(lambda: path.read_text("utf-8"), at=path)


def read_bytes(path: Path) -> bytes:
    """Read a file, trying again while the file system fails."""
    return retry(path.read_bytes, at=path)


def read_part(path: Path, start: int, end: int) -> bytes:
    """Read what a file holds from one place to another, as far as it goes."""
    with open(path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), end - start, start)


def names(folder: Path) -> list[str]:
    """List the names in a folder, none if there is no such folder; never none for a failure."""
    try:
        return retry(lambda: os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def exists(path: Path) -> bool:
    """Tell whether a file or folder is there; OSError where that can't be told."""
    return retry(path.exists, at=path)


def age(path: Path) -> float:
    """Give the seconds since a file was written; raises FileNotFoundError."""
    return time.time() - retry(path.stat).st_mtime


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


def remove(path: Path, emptied: bool = True) -> None:
    """Delete a file, emptied first: what Google Drive moves to its trash fills the quota."""
    try:
        retry(lambda: _remove(path, emptied), SHORT)
    except FileNotFoundError:
        pass  # it went at a try that seemed to fail
    except OSError as error:
        note(f"! {path} could not be removed: {error}")


def _remove(path: Path, emptied: bool) -> None:
    if emptied and path.stat().st_nlink < 2:  # else somebody holds it who is about to read it
        os.truncate(path, 0)
    path.unlink()


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
