"""Where a Drive's files are: in the machine's cache, at Google's, or in Google's trash.

Promises: a file that was written is in the cache until the mount ends, and is uploaded when this
is told to; what is replaced or removed at Google's side goes to the trash, but for files that
were emptied before. Paths are those of the mount, "/MyDrive/...". Not for several threads at once.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from faults import TOP, Faults

HIDDEN = ".fuse_hidden"  # libfuse renames a file that is removed while it is open


class Store:
    """The files of one mount, which begins with an empty cache."""

    def __init__(self, cloud: Path, cache: Path, faults: Faults) -> None:
        self.cloud, self.cache, self.faults = cloud, cache, faults
        self.trash, self.incoming = cloud.parent / "trash", cloud.parent / "incoming"
        self.closed: dict[str, float] = {}  # what is to be uploaded, and since when
        self._appended: set[str] = set()
        self._emptied: set[str] = set()  # truncated to 0 and not written to since
        shutil.rmtree(cache, ignore_errors=True)
        for folder in (cloud / TOP, cache, self.trash, self.incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def local(self, path: str) -> Path:
        return self.cache / path.lstrip("/")

    def remote(self, path: str) -> Path:
        return self.cloud / path.lstrip("/")

    def real(self, path: str) -> Path:
        """Give the place of what the mount shows: the cache's file before Google's."""
        return self.local(path) if self.local(path).is_file() else self.remote(path)

    def copies(self, path: str) -> list[Path]:
        """List all places of a file or folder; Google's where there is none."""
        copies = [p for p in (self.local(path), self.remote(path)) if p.exists()]
        return copies or [self.remote(path)]

    def names(self, path: str) -> set[str]:
        """List the entries of a folder."""
        names = set(os.listdir(self.remote(path)))
        local = os.listdir(self.local(path)) if self.local(path).is_dir() else []
        return names.union(name for name in local if not name.startswith(HIDDEN))

    # Changes

    def make_local(self, path: str, copy: bool) -> Path:
        """Give the cache's file, brought there if it is not: to be written to."""
        local = self.local(path)
        if not local.is_file():
            local.parent.mkdir(parents=True, exist_ok=True)
            if copy:
                shutil.copy2(self.remote(path), local)
        return local

    def opened(self, path: str, flags: int) -> None:
        """Take note of how a file was opened for writing."""
        if flags & os.O_TRUNC:
            self._appended.discard(path)
            self._emptied.add(path)
        if flags & os.O_APPEND:
            self._appended.add(path)

    def written(self, path: str) -> None:
        self._emptied.discard(path)

    def truncate(self, path: str, length: int) -> None:
        os.truncate(self.make_local(path, copy=True), length)
        self.close(path)
        if length == 0:
            self._emptied.add(path)

    def close(self, path: str) -> None:
        """Take note that a changed file is to be uploaded."""
        if HIDDEN not in path and self.local(path).is_file():
            self.closed[path] = time.monotonic()

    def remove(self, path: str) -> None:
        os.lstat(self.real(path))
        self._drop(path)

    def _drop(self, path: str) -> None:
        self._to_trash(path)
        self.local(path).unlink(missing_ok=True)
        self.closed.pop(path, None)
        self._appended.discard(path)
        self._emptied.discard(path)

    def remove_folder(self, path: str) -> None:
        if any(file.is_file() for file in self.local(path).rglob("*")):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        os.rmdir(self.remote(path))
        shutil.rmtree(self.local(path), ignore_errors=True)

    def hide(self, old: str, new: str) -> None:
        """Keep a removed file for those that have it open."""
        os.link(self.make_local(old, copy=True), self.local(new))
        self._drop(old)

    def move(self, old: str, new: str) -> None:
        before = self.remote(old)
        if before.is_dir() and not before.is_symlink():
            os.rename(before, self.remote(new))
            shutil.rmtree(self.local(new), ignore_errors=True)
        else:
            os.lstat(self.real(old))
            os.stat(self.remote(new).parent)
            if self.remote(new).is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            # What stood there goes at once, even if the new content is still to come.
            self._drop(new)
            if os.path.lexists(before):
                os.rename(before, self.remote(new))
        if self.local(old).exists():
            self.local(new).parent.mkdir(parents=True, exist_ok=True)
            os.rename(self.local(old), self.local(new))
        self.closed = {renamed(p, old, new): since for p, since in self.closed.items()}
        self._appended = {renamed(p, old, new) for p in self._appended}
        self._emptied = {renamed(p, old, new) for p in self._emptied}

    # Google's side

    def used(self, changed: Iterable[str]) -> int:
        """Count the bytes that use up the quota; `changed` files are on their way there."""
        held = (file for top in (self.cloud, self.trash) for file in top.rglob("*"))
        coming = (self.local(path) for path in {*self.closed, *changed})
        return sum(file.stat().st_size for file in (*held, *coming) if file.is_file())

    def upload(self, path: str) -> None:
        """Bring a file to Google, if the quota admits it there; else it goes on waiting."""
        quota = self.faults.quota("upload")
        if quota and self.used([]) > quota.size:
            return
        remote, new = self.remote(path), self.incoming / "content"
        shutil.copy2(self.local(path), new)
        if path in self._appended and self.faults.now().get("append_stays_empty"):
            os.truncate(new, 0)
        self._to_trash(path)
        # A test may have taken the folder away.
        remote.parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, remote)
        del self.closed[path]
        self.faults.tell("upload", path=path, size=remote.stat().st_size)

    def _to_trash(self, path: str) -> None:
        remote = self.remote(path)
        if path in self._emptied or remote.is_symlink():
            remote.unlink(missing_ok=True)
        elif remote.exists():
            os.replace(remote, self.trash / f"{time.time_ns()}-{remote.name}")


def renamed(path: str, old: str, new: str) -> str:
    """Give a path after the renaming of itself, of a folder that it is in, or of another one."""
    inside = path == old or path.startswith(old + "/")
    return new + path.removeprefix(old) if inside else path
