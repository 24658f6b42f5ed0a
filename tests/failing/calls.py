"""Calls of the file system that are counted, of which one fails: for programs in Python.

Promises: only calls for paths below the given folders count, in any thread of this process, not of
its children; each is told in a log as it happens, `<operation> <path>`; the one that is to fail
raises as the kernel would, or kills the process. Loaded before all else, by `sitecustomize`.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

VARIABLE = "FAILING_CALLS"
# Operations, and the functions of `os` that do them; a path or a descriptor comes first.
OPERATIONS = {
    "list": ("listdir", "scandir"),
    "open": ("open",),
    "stat": ("stat", "lstat", "fstat", "readlink", "statvfs"),
    "read": ("read", "pread", "readv"),
    "write": ("write", "pwrite", "writev", "sendfile", "copy_file_range"),
    "fsync": ("fsync", "fdatasync"),
    "rename": ("rename", "replace", "link", "symlink"),
    "remove": ("unlink", "remove", "rmdir"),
    "change": ("mkdir", "truncate", "ftruncate", "utime", "chmod"),
}
SETS = ("supports_dir_fd", "supports_fd", "supports_follow_symlinks", "supports_effective_ids")
readlink, write_log, open_log, real_open = os.readlink, os.write, os.open, io.open


class Plan:
    """Which calls count, which of them fails, or kills, and which take their time."""

    def __init__(
        self,
        under: list[str],
        log: str,
        at: int = 0,
        error: str = "EIO",
        slow: str = "",
        seconds: float = 0.0,
        only: str = "*",
    ) -> None:
        self.under = [(folder, folder.rstrip("/") + "/") for folder in under]
        self.at = at
        self.number = getattr(errno, error, 0)  # 0: SIGKILL
        self.slow, self.seconds, self.only = slow, seconds, only
        self.count = 0
        self.log = open_log(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.one_at_a_time = threading.Lock()

    def counts(self, path: str) -> bool:
        """Tell whether a path lies in one of the folders."""
        return any(path == folder or path.startswith(top) for folder, top in self.under)

    def meet(self, operation: str, path: str) -> bool:
        """Count a call; tell whether it is the one that fails."""
        with self.one_at_a_time:
            wanted = fnmatchcase(f"{operation} {path}", self.only)
            self.count += wanted
            failing = wanted and self.count == self.at
            write_log(self.log, f"{operation} {path}{' FAILED' * failing}\n".encode())
            if failing and not self.number:
                os.kill(os.getpid(), signal.SIGKILL)
        if self.slow and operation == "open" and fnmatchcase(path, self.slow):
            time.sleep(self.seconds)
        return failing


current: Plan | None = None
_within = threading.local()


def place(given: Any, folder: int | None = None) -> str:
    """Give the absolute path that a call's argument means, which may be a descriptor."""
    if hasattr(given, "fileno"):  # as the functions of fcntl take them
        given = given.fileno()
    if isinstance(given, int):
        return readlink(f"/proc/self/fd/{given}")
    path = os.fsdecode(given if given is not None else ".")
    top = readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd()
    return os.path.normpath(os.path.join(top, path))


def meet(operation: str, *given: Any, folder: int | None = None) -> None:
    """Count a call for these paths, and fail where it is the one."""
    if current is None or getattr(_within, "busy", False):
        return
    _within.busy = True
    try:
        paths = [place(each, folder) for each in given]
    except OSError:
        return
    finally:
        _within.busy = False
    hit = next(filter(current.counts, paths), None)
    if hit is not None and current.meet(operation, hit):
        named = [] if isinstance(given[0], int) else [hit]
        raise OSError(current.number, os.strerror(current.number), *named)


def _watched(operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
    count = 2 if operation == "rename" else 1

    def call(*arguments: Any, **options: Any) -> Any:
        folder = options.get("dir_fd", options.get("src_dir_fd"))
        meet(operation, *(arguments[:count] or (None,)), folder=folder)
        return real(*arguments, **options)

    call.__name__ = real.__name__
    return call


class File(io.FileIO):
    """A file whose reads and writes count."""

    def readinto(self, *arguments: Any) -> Any:
        meet("read", self.fileno())
        return super().readinto(*arguments)

    def read(self, *arguments: Any) -> Any:
        meet("read", self.fileno())
        return super().read(*arguments)

    def readall(self) -> Any:
        meet("read", self.fileno())
        return super().readall()

    def write(self, *arguments: Any) -> Any:
        meet("write", self.fileno())
        return super().write(*arguments)

    def truncate(self, *arguments: Any) -> Any:
        meet("change", self.fileno())
        return super().truncate(*arguments)


def opened(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """Open a file as `open` does, so that its reads and writes count."""
    if current is None or opener is not None or not current.counts(place(file)):
        return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if not isinstance(file, int):
        meet("open", file)
    raw = File(file, mode.replace("b", "").replace("t", ""), closefd)
    if buffering == 0:
        return raw
    kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
    buffer = io.BufferedReader(raw) if mode.strip("bt") == "r" else kind(raw)
    if "b" in mode:
        return buffer
    return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)


def install() -> None:
    """Put the counting calls in the place of the real ones, once."""
    for operation, names in OPERATIONS.items():
        for name in names:
            real = getattr(os, name)
            watched = _watched(operation, real)
            setattr(os, name, watched)
            for known in (getattr(os, each) for each in SETS):
                if real in known:
                    known.add(watched)
    for name in ("lockf", "flock"):
        setattr(fcntl, name, _watched("lock", getattr(fcntl, name)))
    io.open = builtins.open = opened


def begin(text: str) -> None:
    """Count from now on, by a plan in JSON; this process only, not its children.

    `clock` is by how many seconds this process's clock is ahead.
    """
    global current
    plan = json.loads(text)
    if ahead := plan.pop("clock", 0):
        now, now_ns = time.time, time.time_ns
        time.time = lambda: now() + ahead
        time.time_ns = lambda: now_ns() + ahead * 10**9
    current = Plan(**plan)
