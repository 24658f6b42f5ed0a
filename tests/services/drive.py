"""A Google Drive as a file system, at its worst where a test says so.

    python drive.py CLOUD CACHE MOUNTPOINT

CLOUD is the folder of what Google holds, CACHE is on the machine's disk. Stays in the foreground
until it is unmounted.

Promises: a FUSE mount of type `fuse.drive`; a written file is in CACHE first and reaches CLOUD
some time after it was closed; what has not reached it when the mount ends is lost; folders,
renames and removals reach CLOUD at once, which is the worst order there can be. Setting the
attribute `user.drive.flush` of the mountpoint waits until everything is in CLOUD. Without faults
it behaves like a usual disk.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

# By plain names: on a machine this file is a program, with those modules and mfusepy beside it.
from faults import TOP, Faults
from mfusepy import FUSE, Operations
from store import HIDDEN, Store, renamed

FLUSH = "user.drive.flush"
LIMIT = 15 * 10**9  # bytes of a free account
BLOCK = 4096
POLL_SECONDS = 0.02
STATE = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
TIMES = ("st_atime", "st_mtime", "st_ctime")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Handle:
    """A file that a program has open."""

    path: str
    writable: bool
    changed: bool


def operation(
    method: Callable[Concatenate[Drive, str, P], R],
) -> Callable[Concatenate[Drive, str, P], R]:
    """Let the faults come first."""

    @wraps(method)
    def guarded(self: Drive, path: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.faults.meet(method.__name__, path)
        return method(self, path, *args, **kwargs)

    return guarded


class Drive(Operations):  # type: ignore[misc]
    """The operations of the file system; see mfusepy for their meaning."""

    use_ns = True

    def __init__(self, cloud: Path, cache: Path) -> None:
        self.faults = Faults(cloud.parent)
        self.store = Store(cloud, cache, self.faults)
        self.handles: dict[int, Handle] = {}
        self.one_at_a_time = threading.RLock()
        if "locks" in self.faults.now():
            self.lock = self.flock = self._refuse_lock

    def init(self, path: str) -> None:
        threading.Thread(target=self._serve, daemon=True).start()
        self.faults.tell("mount")

    def destroy(self, path: str) -> None:
        self.faults.tell("unmount", lost=sorted(self.store.closed))

    # Files

    @operation
    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        with self.one_at_a_time:
            state = os.lstat(self.store.real(path))
        found = {key: getattr(state, key) for key in STATE}
        return found | {key: getattr(state, key + "_ns") for key in TIMES}

    @operation
    def create(self, path: str, mode: int, flags: int) -> int:
        _only_in_top(path)
        with self.one_at_a_time:
            os.stat(self.store.remote(path).parent)
            local = self.store.make_local(path, copy=False)
            fh = os.open(local, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
            self.store.opened(path, flags | os.O_TRUNC)
            self.handles[fh] = Handle(path, writable=True, changed=True)
            return fh

    @operation
    def open(self, path: str, flags: int) -> int:
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        with self.one_at_a_time:
            if writable:
                # Not with O_APPEND, which would overrule the offset of each write.
                local = self.store.make_local(path, copy=True)
                fh = os.open(local, os.O_RDWR | flags & os.O_TRUNC)
                self.store.opened(path, flags)
            else:
                fh = os.open(self.store.real(path), os.O_RDONLY)
            self.handles[fh] = Handle(path, writable, changed=bool(flags & os.O_TRUNC))
            return fh

    @operation
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @operation
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        quota = self.faults.quota("write")
        with self.one_at_a_time:
            growth = offset + len(data) - os.fstat(fh).st_size
            if quota and growth > 0 and self._used() + growth > quota.size:
                raise OSError(quota.error, os.strerror(quota.error))
            self.handles[fh].changed = True
            self.store.written(path)
            return os.pwrite(fh, data, offset)

    @operation
    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        with self.one_at_a_time:
            self.store.truncate(path, length)

    @operation
    def fsync(self, path: str, datasync: int, fh: int) -> None:
        # As far as the machine's disk only, which is what makes it no promise.
        os.fsync(fh)

    @operation
    def flush(self, path: str, fh: int) -> None:
        # A program's close waits for this, not for the release.
        with self.one_at_a_time:
            self._close(self.handles[fh])

    def release(self, path: str, fh: int) -> None:
        with self.one_at_a_time:
            self._close(self.handles.pop(fh))
        os.close(fh)

    def _close(self, handle: Handle) -> None:
        if handle.changed:
            handle.changed = False
            self.store.close(handle.path)

    @operation
    def unlink(self, path: str) -> None:
        with self.one_at_a_time:
            self.store.remove(path)

    @operation
    def chmod(self, path: str, mode: int) -> None:
        with self.one_at_a_time:
            for place in self.store.copies(path):
                os.chmod(place, mode)

    @operation
    def chown(self, path: str, uid: int, gid: int) -> None:
        with self.one_at_a_time:
            for place in self.store.copies(path):
                os.chown(place, uid, gid)

    @operation
    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        with self.one_at_a_time:
            for place in self.store.copies(path):
                os.utime(place, ns=times or (time.time_ns(), time.time_ns()))

    # Folders and links

    @operation
    def readdir(self, path: str, fh: int) -> list[str]:
        with self.one_at_a_time:
            names = self.store.names(path)
        if len(names) > self.faults.now().get("entries", len(names)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return [".", "..", *sorted(names)]

    @operation
    def mkdir(self, path: str, mode: int) -> None:
        _only_in_top(path)
        with self.one_at_a_time:
            if self.store.local(path).is_file():
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            os.mkdir(self.store.remote(path), mode)

    @operation
    def rmdir(self, path: str) -> None:
        with self.one_at_a_time:
            self.store.remove_folder(path)

    @operation
    def symlink(self, target: str, source: str) -> None:
        self.faults.refuse("symlink")
        _only_in_top(target)
        os.symlink(source, self.store.remote(target))

    @operation
    def readlink(self, path: str) -> str:
        return os.readlink(self.store.remote(path))

    @operation
    def rename(self, old: str, new: str) -> None:
        _only_in_top(new)
        with self.one_at_a_time:
            if HIDDEN in new:
                self.store.hide(old, new)
            else:
                self.faults.refuse("rename")
                self.store.move(old, new)
            for handle in self.handles.values():
                handle.path = renamed(handle.path, old, new)

    # The whole

    @operation
    def statfs(self, path: str) -> dict[str, int]:
        with self.one_at_a_time:
            total = self.faults.now().get("quota", LIMIT)
            free = max(0, total - self._used())
        blocks = {"f_blocks": total // BLOCK, "f_bfree": free // BLOCK, "f_bavail": free // BLOCK}
        return blocks | {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_namemax": 255}

    def _used(self) -> int:
        return self.store.used(h.path for h in self.handles.values() if h.changed)

    @operation
    def setxattr(self, path: str, name: str, value: bytes, *options: int) -> None:
        """Upload all that is closed, if that is what is asked for; raises EDQUOT if it can't."""
        if name != FLUSH:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        with self.one_at_a_time:
            for waiting in sorted(self.store.closed):
                self.store.upload(waiting)
            if self.store.closed:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    def _serve(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            faults = self.faults.now()
            if faults.get("crash"):
                self.faults.crash("crash")
            delay = faults.get("upload_seconds", 0.0)
            if delay != "never":
                self._upload_since(time.monotonic() - delay)

    def _upload_since(self, end: float) -> None:
        with self.one_at_a_time:
            in_use = {h.path for h in self.handles.values() if h.writable}
            for path, since in sorted(self.store.closed.items()):
                if path not in in_use and since <= end and not self.faults.stuck(path):
                    self.store.upload(path)

    def _refuse_lock(self, path: str, fh: int, *request: object) -> None:
        self.faults.refuse("locks")


def _only_in_top(path: str) -> None:
    if not path.startswith(f"/{TOP}/"):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def main() -> None:
    # libfuse changes the working folder.
    cloud, cache, mountpoint = (Path(place).absolute() for place in sys.argv[1:])
    os.umask(0)
    FUSE(
        Drive(cloud, cache),
        str(mountpoint),
        foreground=True,
        allow_other=True,
        fsname="drive",
        subtype="drive",
        # Each operation has to come here, where the faults are.
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )


if __name__ == "__main__":
    main()
