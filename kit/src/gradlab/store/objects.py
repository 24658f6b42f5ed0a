"""A backend that a URL names: an object store such as S3, or what else fsspec has a client for.

Promises: what is listed is there now, from no cache. A file gets into its place at once: an object
by itself, on a server with folders by a rename. `create` makes a file once, whoever else tries.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from ..base import files
from ..base.errors import GradlabError, note
from ..services import urls
from . import clients, leftovers, transfer, uploads
from .backend import Data
from .looking import Looking
from .refusals import StorageError
from .tree import File
from .uploads import Upload

EXCLUSIVE = ("s3", "gcs", "sftp")  # whose clients can write only where nothing is
MOVING = ".moving"  # in a folder of which a copy is complete, that is about to go


class ObjectStore(Looking):
    """What lies below a URL."""

    rename_is_atomic = False
    writes_arrive_later = False
    list_is_current = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.folder: Path | None = None
        self.parallel = 16 if self._is_whole else 1

    def age(self, key: str) -> float:
        """Give the seconds since a file was written, by the storage's own clock."""
        return time.time() + self._ahead - self._written(key)

    def idle(self, folder: str) -> float:
        """Give the seconds since something was last put into a folder, 0 if that can't be told."""
        try:
            return min((self.age(f"{folder}/{name}") for name in self.below(folder)), default=0.0)
        except FileNotFoundError:
            return 0.0

    def clock(self) -> float:
        """Say by how many seconds its clock is ahead of this machine's, as it was measured once."""
        return self._ahead

    @cached_property
    def _ahead(self) -> float:
        probe, begun = f".clock/{secrets.token_hex(8)}", time.time()
        self.write(probe, b"what is the time?")
        middle = (begun + time.time()) / 2
        # Whole seconds, as S3 tells them, are half a second too early on average.
        ahead = self._written(probe) + 0.5 - middle
        self.delete(probe)
        return ahead if abs(ahead) > 1 else 0.0

    def write(self, key: str, data: Data, synced: bool = True) -> None:
        """Make a file that holds some bytes, in place of one that is there."""
        whole = data if isinstance(data, bytes) else b"".join(data)
        self._place(key, lambda path: self._system.pipe_file(path, whole))

    def put(self, key: str, source: Path) -> str:
        """Make a file that holds what a local one does; give its SHA-256."""
        before = _state(source)
        parts = clients.parts(self.url, before[0])

        def send() -> None:
            self._place(key, lambda path: self._system.put_file(str(source), path, **parts))

        sha256 = transfer.beside(lambda: files.sha256(source), send, before[0] >= clients.PART)
        there = before[0] if self._is_whole else self.size(key)
        if _state(source) != before or there != before[0]:
            text = f"{source} was changed while it was copied to {self.where(key)}"
            raise StorageError(errno.EBUSY, text)
        return sha256

    def _place(self, key: str, make: Callable[[str], object]) -> None:
        """Make a file, by a rename where an unfinished one would show."""
        path = self._path(key)
        beside = path if self._is_whole else f"{path}.{secrets.token_hex(4)}.tmp"

        def once() -> None:
            try:
                make(beside)
            except FileNotFoundError:
                if self._is_whole:
                    raise
                self._make_folder(path)
                make(beside)
            if beside != path:
                self._system.mv(beside, path)

        try:
            self._do(key, once)
        except FileNotFoundError as error:
            text = f"{self.where(key)} can't be written: {error}"
            raise StorageError(errno.ENXIO, text) from error

    def _make_folder(self, path: str) -> None:
        self._system.makedirs(path.rpartition("/")[0], exist_ok=True)

    def create(self, key: str, data: bytes) -> bool:
        """Make a file unless one is there; tell whether it holds this data, which nobody else's is.

        Where the storage has no such write, two that try at once may both be refused.
        """
        if self._can_exclude:
            return self._create(key, data)
        claim = f"{key}.claims/{secrets.token_hex(8)}"
        if self.size(key) is not None:
            return self.read(key) == data
        self.write(claim, data)
        # Each writes before it looks, so of two at least one sees the other.
        alone = [*self.below(f"{key}.claims")] == [claim.rpartition("/")[2]]
        if alone and (alone := self.size(key) is None):
            self.write(key, data)
        self.delete(claim)
        return alone

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)

        def once() -> None:
            if self._is_whole:
                self._system.pipe_file(path, data, mode="create")
                return
            self._make_folder(path)
            with self._system.open(path, "xb") as file:
                file.write(data)

        try:
            self._do(key, once)
            return True
        except OSError as error:
            # SFTP doesn't say why it failed.
            if not isinstance(error, FileExistsError) and self.size(key) is None:
                raise
            # Perhaps made by this very write, whose answer was lost.
            return self.read(key) == data

    @cached_property
    def _can_exclude(self) -> bool:
        """Whether a second write is refused, as it was seen: some servers ignore the condition."""
        if urls.extra_of(self.url) not in EXCLUSIVE:
            return False
        probe = f".probe/{secrets.token_hex(8)}"
        try:
            return self._create(probe, b"first") and not self._create(probe, b"second")
        except StorageError:
            return False
        finally:
            self.delete(probe)

    def get(self, key: str, target: Path) -> str:
        """Make a local file that holds what a file does; give its SHA-256."""
        self._do(key, lambda: self._system.get_file(self._path(key), str(target)))
        with target.open("rb") as file:
            os.fsync(file.fileno())
        return files.sha256(target)

    def bring(self, folder: str, target: Path) -> None:
        """Copy a folder with all in it into an empty local one, as far as it is kept as it was."""
        names = self.below(folder)
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
        transfer.each(lambda n: self.get(f"{folder}/{n}", target / n), names, self.parallel)

    def fetch(self, key: str, target: str, file: File) -> None:
        """Copy a file to a local one, not synced; GradlabError where it is not what it was."""
        try:
            self._do(key, lambda: self._system.get_file(self._path(key), target))
        except FileNotFoundError:
            raise GradlabError(f"{self.where(key)} is missing", exit_code=1) from None
        transfer.check_fetched(target, file, self.where(key))

    def delete(self, key: str) -> None:
        """Remove a file if it is there; that it can't be is said, and stops nothing."""
        try:
            self._do(key, lambda: self._system.rm_file(self._path(key)), hurry=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            note(f"! {self.where(key)} could not be removed: {error}")

    def discard(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""
        with suppress(FileNotFoundError):
            self._do(folder, lambda: self._system.rm(self._path(folder), recursive=True))

    def move(self, folder: str, target: str) -> None:
        """Put a folder in the place of another, which goes; cut off, it is done by the next one."""
        if not self._is_whole:
            if self.below(folder):
                self.discard(target)
                self._do(folder, lambda: self._system.mv(self._path(folder), self._path(target)))
            return
        marker = f"{folder}/{MOVING}"
        if self.size(marker) is None or self.read(marker).decode() != target:
            names = self.below(folder)
            if not names:
                return
            self.discard(target)
            transfer.each(
                lambda name: self._copy(f"{folder}/{name}", f"{target}/{name}"),
                names,
                self.parallel,
            )
            self.write(marker, target.encode())
        left = [f"{folder}/{name}" for name in self.below(folder) if name != MOVING]
        transfer.each(self.delete, left, self.parallel)
        self.discard(folder)

    def _copy(self, key: str, target: str) -> None:
        path, to = self._path(key), self._path(target)
        self._do(key, lambda: self._system.cp_file(path, to))

    def sweep(self, folder: str) -> None:
        """Remove what writers that died have left in a folder, as far as that works."""
        for name in [] if self._is_whole else self.list(folder):
            if name.endswith(".tmp"):
                self.delete(f"{folder}/{name}")
        with suppress(OSError):  # some servers can't list them, and some users may not
            for upload in self._uploads(folder, hurry=True):
                if upload.age > leftovers.ABANDONED_AFTER:
                    self.abort(upload)

    def uploads(self) -> Sequence[Upload]:
        """Give the uploads in parts that were begun, by whomever, and have not ended."""
        return self._uploads("")

    def _uploads(self, folder: str, hurry: bool = False) -> Sequence[Upload]:
        if urls.extra_of(self.url) != "s3":
            return ()
        found = uploads.unfinished
        return self._do(
            folder, lambda: [*found(self._system, self._root, self._ahead, folder)], hurry=hurry
        )

    def abort(self, upload: Upload) -> None:
        """End an upload that has not ended, and remove its parts."""
        with suppress(FileNotFoundError):
            self._do(upload.key, lambda: uploads.abort(self._system, self._root, upload))

    def check(self, patience: float = 0.0) -> None:
        """Raise OSError if it is gone as a whole, and not back within some seconds."""
        if not patience:
            return  # the next request tells it
        end = time.monotonic() + patience
        while True:
            try:
                self.list("")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(1)


def _state(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino
