"""Backends that are folders: one on a disk, and one on a mount that is slow and uploads later."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from ..base import files, folders
from ..base.retries import SHORT, retry
from ..services import mounts
from . import transfer, tree
from .backend import Data
from .tree import File
from .uploads import Upload

Result = TypeVar("Result")


class Folder:
    """A folder on a disk, which is worked on in place."""

    rename_is_atomic = True
    writes_arrive_later = False
    list_is_current = True
    parallel = 1

    def __init__(self, top: Path) -> None:
        self.top = top
        self.folder: Path | None = top
        self._mounted = mounts.Mounted(top)

    def __str__(self) -> str:
        return str(self.top)

    def path(self, key: str) -> Path:
        """Give where a key's file can be read in place."""
        return self.top / key

    def where(self, key: str) -> str:
        """Name the place of a key's file, as people know it."""
        return str(self.top / key)

    def list(self, folder: str) -> list[str]:
        """Name what lies in a folder, in no order; nothing if it isn't there."""
        return files.names(self.top / folder)

    def below(self, folder: str) -> dict[str, int]:
        """Give the size in bytes of each file below a folder, by its path there."""
        if not folders.is_folder(self.top / folder):
            return {}
        found = tree.walk(self.top / folder)
        return {path: state.st_size for path, state in found if stat.S_ISREG(state.st_mode)}

    def size(self, key: str) -> int | None:
        """Give a file's size in bytes, None if it isn't there."""
        found = folders.status(self.top / key)
        return found.st_size if found and stat.S_ISREG(found.st_mode) else None

    def age(self, key: str) -> float:
        """Give the seconds since a file was written; raises FileNotFoundError."""
        return files.age(self.top / key)

    def clock(self) -> float:
        """Say by how many seconds its clock is ahead of this machine's, as it was measured once."""
        return 0.0

    def idle(self, folder: str) -> float:
        """Give the seconds since something was last put into a folder, 0 if that can't be told."""
        try:
            return files.age(self.top / folder)
        except FileNotFoundError:
            return 0.0

    def stamp(self, key: str) -> str:
        """Give a text that is another once a file is; FileNotFoundError if it isn't there."""
        found = retry((self.top / key).stat)
        return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"

    def sha256(self, key: str) -> str:
        """Give the SHA-256 of what a file holds; raises FileNotFoundError."""
        return files.sha256(self.top / key)

    def read(self, key: str) -> bytes:
        """Give what a file holds; raises FileNotFoundError."""
        return files.read_bytes(self.top / key)

    def part(self, key: str, start: int, end: int) -> bytes:
        """Give what a file holds from one place to another, as far as it goes, without patience."""
        return retry(lambda: files.read_part(self.top / key, start, end), SHORT)

    def write(self, key: str, data: Data, synced: bool = True) -> None:
        """Make a file that holds some bytes, in place of one that is there."""
        self._place(key, lambda path: files.write_durably(path, data, synced))

    def put(self, key: str, source: Path) -> str:
        """Make a file that holds what a local one does; give its SHA-256."""

        def copy(path: Path) -> str:
            beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            sha256 = transfer.copy_file(source, beside)
            os.replace(beside, path)
            files.sync_folder(path.parent)
            return sha256

        return self._place(key, copy)

    def create(self, key: str, data: bytes) -> bool:
        """Make a file unless one is there; tell whether it holds this data, which nobody else's is.

        Of several that try at once one succeeds, or none.
        """

        def make(path: Path) -> None:
            with path.open("xb") as file:
                file.write(data)

        try:
            self._place(key, make)
            return True
        except FileExistsError:
            return self.read(key) == data

    def _place(self, key: str, make: Callable[[Path], Result]) -> Result:
        """Make a file, with its folder where that isn't there."""
        path = self.top / key

        def once() -> Result:
            try:
                return make(path)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                return make(path)

        return retry(once)

    def get(self, key: str, target: Path) -> str:
        """Make a local file that holds what a file does; give its SHA-256."""
        return transfer.copy_file(self.top / key, target)

    def bring(self, folder: str, target: Path) -> None:
        """Copy a folder with all in it into an empty local one, as far as it is kept as it was."""
        transfer.clone(self.top / folder, target)

    def fetch(self, key: str, target: str, file: File) -> None:
        """Copy a file to a local one, not synced; GradlabError where it is not what it was."""
        transfer.copy_checked(f"{self.top}/{key}", target, file)

    def delete(self, key: str) -> None:
        """Remove a file if it is there; that it can't be is said, and stops nothing."""
        files.remove(self.top / key, emptied=self.writes_arrive_later)

    def discard(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""
        folders.discard(self.top / folder)

    def move(self, folder: str, target: str) -> None:
        """Put a folder in the place of another, which goes; cut off, it can be given again."""
        if folders.exists(self.top / folder):
            self.discard(target)
            folders.move(self.top / folder, self.top / target)

    def sweep(self, folder: str) -> None:
        """Remove what writers that died have left in a folder, as far as that works."""
        files.sweep(self.top / folder)

    def uploads(self) -> Sequence[Upload]:
        """Give the uploads in parts that were begun and have not ended: here there are none."""
        return ()

    def abort(self, upload: Upload) -> None:
        """End an upload that has not ended."""

    def check(self, patience: float = 0.0) -> None:
        """Raise OSError if it is gone as a whole, and not back within some seconds."""
        self._mounted.check(patience)


class SlowMount(Folder):
    """A folder on a mount such as Google Drive's: far away, and uploaded in the background.

    Files are written under their final names, since a rename may come late or not at all there,
    and read back.
    """

    rename_is_atomic = False
    writes_arrive_later = True
    list_is_current = False

    def write(self, key: str, data: Data, synced: bool = True) -> None:
        """Make a file that holds some bytes, in place of one that is there."""
        whole = data if isinstance(data, bytes) else b"".join(data)
        self._place(key, lambda path: files.write_durably(path, whole, synced, False))
        if self.read(key) != whole:
            raise self._otherwise(key)

    def put(self, key: str, source: Path) -> str:
        """Make a file that holds what a local one does; give its SHA-256."""
        sha256 = self._place(key, lambda path: transfer.copy_file(source, path))
        if files.sha256(self.top / key) != sha256:
            raise self._otherwise(key)
        return sha256

    def _otherwise(self, key: str) -> OSError:
        return OSError(errno.EIO, f"{self.top / key} reads back otherwise than it was written")
