"""The faults of a Drive, read from a file that a test may change at any time.

Promises: a changed `faults.json` is in force at the next operation; everything that happens is
told in `events.jsonl`. Both lie beside the folder of what Google holds.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

TOP = "MyDrive"
FAULTS = "faults.json"
EVENTS = "events.jsonl"


@dataclass(frozen=True)
class Quota:
    """How many bytes an account may hold, and the error number when it holds them."""

    size: int
    error: int


class Faults:
    """The faults that are in force, and what they have done so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version: tuple[int, int] | None = None
        self._current: dict[str, Any] = {}
        self._writes = 0
        self._busy = threading.RLock()

    def now(self) -> dict[str, Any]:
        """Give the faults of this moment; a new set starts all counts anew."""
        with self._busy:
            try:
                state = (self.folder / FAULTS).stat()
            except FileNotFoundError:
                return {}
            if self._version != (version := (state.st_mtime_ns, state.st_ino)):
                self._current = json.loads((self.folder / FAULTS).read_text())
                self._version, self._writes = version, 0
            return self._current

    def meet(self, operation: str, path: str) -> None:
        """Crash, or raise EIO, where an operation is to meet that."""
        with self._busy:
            faults = self.now()
            if faults.get("crash"):
                self.crash("crash")
            self._writes += operation == "write"
            if self._writes == faults.get("crash_at_write"):
                self.crash("crash_at_write")
            for fault in faults.get("eio", []):
                if _hits(fault, operation, path):
                    if "count" in fault:
                        fault["count"] -= 1
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

    def stuck(self, path: str) -> bool:
        """Tell whether a file is not uploaded, however long it waits."""
        return fnmatchcase(path, self.now().get("stuck", ""))

    def refuse(self, name: str) -> None:
        """Raise the error that the fault of this name asks for, if there is one."""
        if number := self.now().get(name):
            number = getattr(errno, number)
            raise OSError(number, os.strerror(number))

    def quota(self, at: str) -> Quota | None:
        """Give the quota, if it shows at this moment: `write` or `upload`."""
        faults = self.now()
        if "quota" not in faults or faults.get("quota_at", "write") != at:
            return None
        return Quota(faults["quota"], getattr(errno, faults.get("quota_error", "ENOSPC")))

    def crash(self, name: str) -> None:
        """Kill this process; the fault is used up, so that a new mount does not die of it."""
        # No operation comes through between the account of the crash and the crash.
        with self._busy:
            self.tell("crash")
            rest = {key: value for key, value in self.now().items() if key != name}
            write_whole(self.folder / FAULTS, json.dumps(rest))
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, event: str, **facts: object) -> None:
        tell(self.folder, event, **facts)


def _hits(fault: dict[str, Any], operation: str, path: str) -> bool:
    return (
        fnmatchcase(path, fault.get("path", "*"))
        and operation in fault.get("operations", [operation])
        and fault.get("count", 1) > 0
        and time.time() < fault.get("until", float("inf"))
    )


def tell(folder: Path, event: str, **facts: object) -> None:
    """Add a line to the account of what happened."""
    with (folder / EVENTS).open("a") as file:
        file.write(json.dumps({"event": event, **facts}) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Replace a file so that nobody sees half of it."""
    new = path.with_name(f".{path.name}.{time.time_ns()}")
    new.write_text(text)
    os.replace(new, path)
