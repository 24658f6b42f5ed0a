"""Which file system a path leads to, and whether it is still there.

Promises: only looks, and never mounts anything.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

DRIVE = "fuse.drive"
DRIVE_MOUNTPOINT = Path("/content/drive")
# Far away, or uploading in the background.
SLOW_FILESYSTEMS = (DRIVE, "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys", "fuse.sshfs")


def real(path: Path) -> Path:
    """Follow symbolic links, as far as the path exists: what counts is where it leads."""
    # Not resolve(), which raises for links in a circle and where a mount has died.
    return Path(os.path.realpath(path))


def filesystem(path: Path) -> str:
    """Name the type of file system that a path leads to, as in /proc/mounts; '' if unknown."""
    path = real(path)
    above = {str(place) for place in (path, *path.parents)}
    found = [(len(mount), n, kind) for n, (mount, kind) in enumerate(mounts()) if mount in above]
    # Of mounts at the same place the last one hides the others.
    return max(found, default=(0, 0, ""))[2]


class Mounted:
    """The file system of a path: once it is gone, writing would fill the disk below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = filesystem(path)

    def check(self, patience: float = 0.0) -> None:
        """Raise OSError (ENOTCONN) if it is gone and does not come back within some seconds."""
        end = time.monotonic() + patience
        while not self._is_there():
            if time.monotonic() >= end:
                raise OSError(errno.ENOTCONN, f"{self.path}: its {self.kind} is no longer mounted")
            time.sleep(1)

    def _is_there(self) -> bool:
        try:
            os.lstat(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            # Still in the table of mounts, but the program that serves it has died.
            if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                return False
        return filesystem(self.path) == self.kind


def mounts() -> list[tuple[str, str]]:
    """List the mountpoints, each with its type of file system, in the order of their mounting."""
    try:
        lines = Path("/proc/mounts").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    return [(_unescape(field[1]), field[2]) for field in fields if len(field) > 2]


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
