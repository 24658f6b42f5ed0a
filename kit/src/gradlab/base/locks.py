"""Locks that end with the process which holds them, however it ends.

Promises: no process that the holder has started keeps one. Threads of one process don't keep each
other out.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from .retries import retry

ENDING = ", about to end"
# C's struct flock: its kind, from where, start, length and owner; other systems than Linux begin
# with the start.
LINUX = sys.platform.startswith("linux")
FLOCK = "hhqqi4x" if LINUX else "qqihh"


class Held(Exception):
    """Another process has the lock; the text says which, as far as that is known."""

    beat = ""  # another one at each sign of life, where there are such signs

    @property
    def is_ending(self) -> bool:
        """Whether that process has said that it is about to end."""
        return str(self).endswith(ENDING)


class Lock:
    """A file that one process at a time can lock; opens it, OSError where that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = retry(lambda: os.open(path, os.O_RDWR | os.O_CREAT, 0o666), at=path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def take(self) -> None:
        """Lock it; Held at once where another process has it, OSError where there are no locks."""
        try:
            retry(lambda: self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB), at=self.path)
        except PermissionError:
            raise Held(self._holder()) from None
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        with suppress(OSError):  # only for a message
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, text.encode(), 0)

    def unlock(self) -> None:
        """Give it up."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN)

    def is_free(self) -> bool:
        """Tell whether no other process has it, without taking it; OSError as `take` raises it."""
        asked = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        asked = asked if LINUX else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
        found = fcntl.fcntl(self._handle, fcntl.F_GETLK, struct.pack(FLOCK, *asked))
        return bool(struct.unpack(FLOCK, found)[0 if LINUX else 3] == fcntl.F_UNLCK)

    def say_ending(self) -> None:
        """Tell those who wait for the lock that this process is about to end."""
        with suppress(OSError):  # only for those who wait
            if not self._holder().endswith(ENDING):
                os.pwrite(self._handle, ENDING.encode(), os.fstat(self._handle).st_size)

    def wait(self) -> None:
        """Lock it once no other process has it any more; OSError where there are no locks."""
        self._lock(fcntl.LOCK_EX)

    def _lock(self, how: int) -> None:
        """Lock it; EACCES where another process has it, by whichever number that is told."""
        try:
            # Not flock: loader workers would inherit it and hold it after their parent's death.
            fcntl.lockf(self._handle, how)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error

    def _holder(self) -> str:
        with suppress(OSError):
            return os.pread(self._handle, 500, 0).decode("utf-8", "replace")
        return ""
