"""What a job has left, made into what every engine and storage keeps of it.

Kept: what files hold, whether their owner may execute them, when they were last changed, symbolic
links that stay within, and empty folders. All else is taken away: other modes, owners, extended
attributes, names that share a file with another, pipes, sockets, devices, and what a writer of
this kit that was killed had not finished.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path

from ..base import folders
from ..base.files import names, sync_folder
from ..base.retries import retry
from . import transfer

UNFINISHED = re.compile(r"\..+\.\d+\.tmp", re.DOTALL)  # as files.write_durably names them
FEW = 16  # files: to sync each of them takes less time than to sync all of the disk
WITHOUT_ATTRIBUTES = (errno.ENOTSUP, errno.ENOSYS, errno.ENODATA, errno.EPERM)
KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def is_left_out(path: str) -> bool:
    """Tell whether a file is one that its writer has not finished."""
    return bool(UNFINISHED.fullmatch(os.path.basename(path)))


def seal(folder: Path) -> list[str]:
    """Take away from a folder what is not kept; name what can't be a part of it, and why.

    The folder's processes have ended. Raises OSError for what can't be read or changed.
    """
    left_out, waiting = [], [str(folder)]
    while waiting:
        top = waiting.pop()
        _set_mode(top)
        for name in sorted(names(Path(top))):
            path = f"{top}/{name}"
            found = folders.status(path)
            if found is None or stat.S_ISLNK(found.st_mode):
                continue
            if stat.S_ISDIR(found.st_mode):
                waiting.append(path)
            elif not stat.S_ISREG(found.st_mode) or UNFINISHED.fullmatch(name):
                kind = KINDS.get(stat.S_IFMT(found.st_mode), "a device")
                kind = "not written to its end" if stat.S_ISREG(found.st_mode) else kind
                left_out.append(f"{os.path.relpath(path, folder)} is {kind}")
                retry(lambda path=path: os.unlink(path))  # type: ignore[misc]
            else:
                _make_plain(path, found)
    return left_out


def _make_plain(path: str, found: os.stat_result) -> None:
    """Give a file the modes that are kept, and an owner and a content that are its own."""
    mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
    if stat.S_IMODE(found.st_mode) != mode:
        retry(lambda: os.chmod(path, mode))
    if found.st_nlink > 1 or found.st_uid != os.geteuid():
        own = f"{os.path.dirname(path)}/.copy.{os.getpid()}.tmp"
        transfer.copy_as_it_is(path, own)
        os.replace(own, path)
    _strip(path)


def _set_mode(folder: str) -> None:
    if stat.S_IMODE(os.lstat(folder).st_mode) != 0o755:
        retry(lambda: os.chmod(folder, 0o755))
    _strip(folder)


def _strip(path: str) -> None:
    """Remove extended attributes: capabilities give a program rights, lists of access take some."""
    if not hasattr(os, "listxattr"):
        return
    try:
        for name in os.listxattr(path):
            if not name.startswith("security.") or name == "security.capability":
                os.removexattr(path, name)
    except OSError as error:
        if error.errno not in WITHOUT_ATTRIBUTES:
            raise


def sync(folder: Path, paths: Collection[str]) -> None:
    """Bring files below a folder to the disk, and their folders: many of them in one go."""
    above = {os.path.dirname(path) for path in paths}
    if len(paths) + len(above) > FEW:
        _sync_all(folder)
        return
    for path in paths:
        with open(folder / path, "rb") as file:
            os.fsync(file.fileno())
    for inside in above:
        sync_folder(folder / inside)


def _sync_all(folder: Path) -> None:
    """Bring all that was written to a folder's file system to the disk."""
    system = ctypes.CDLL(None, use_errno=True)
    if not hasattr(system, "syncfs"):  # not Linux
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if system.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(handle)
