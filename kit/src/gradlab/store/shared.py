"""Locks that keep out the other processes of this machine, and those of others by a lease."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import note
from ..base.files import exists, read_text, write_durably
from ..base.locks import Held, Lock
from .backend import Backend
from .leases import Lease

PAUSE = 0.5  # seconds between two looks at another's lease


class SharedLock(Lock):
    """A lock of this machine, and with it the lease that keeps those of others out."""

    def __init__(self, path: Path, lease: Lease | None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path)
        self.lease = lease

    def __exit__(self, *error: object) -> None:
        if self.lease:
            self.lease.release()
        super().__exit__(*error)

    def take(self) -> None:
        """Take both; Held at once where another process has one of them."""
        super().take()
        if self.lease:
            try:
                self.lease.take()
            except BaseException:
                self.unlock()
                raise

    def take_after(self, tell: str) -> None:
        """Take both, after the end of a lease whose process renews it no more; Held by others.

        `tell` is said before it waits.
        """
        first: Held | None = None
        while True:
            try:
                self.take()
                return
            except Held as held:
                if not held.beat or (first and first.beat != held.beat) or held.is_ending:
                    raise
                if not first:
                    note(f"{tell}: {held}.\nIf that has died, its lease ends within a minute.")
                first = first or held
            time.sleep(PAUSE)

    @contextmanager
    def as_far_as_there_are_locks(self) -> Iterator[None]:
        """Let pass that the local file system has no locks, not that a lease can't be had."""
        try:
            yield
        except OSError:
            if self.lease:
                raise

    def is_free(self) -> bool:
        """Tell whether no other process has it, without keeping it; OSError as `take` raises it."""
        return super().is_free() and (self.lease is None or self.lease.is_free())

    def say_ending(self) -> None:
        """Tell those who wait for it that this process is about to end."""
        super().say_ending()
        if self.lease:
            with suppress(OSError):
                self.lease.say_ending()

    def wait(self) -> None:
        """Take both once no other process has them any more; OSError where that fails."""
        super().wait()
        while self.lease:
            try:
                self.lease.take()
                return
            except Held:
                time.sleep(PAUSE)


@dataclass(frozen=True)
class Keyed:
    """What several processes want: `key` on a backend, worked on below `work`, with a file there.

    A lease is there only where the locks of that folder don't keep everybody out, and others see
    at once what is written.
    """

    backend: Backend
    work: Path
    path: Path
    key: str

    def lock(self) -> SharedLock:
        """Give its lock."""
        return SharedLock(self.path, self._lease())

    def is_held(self) -> bool:
        """Tell whether another process has it; not to be asked about one's own."""
        if self.path.exists():
            with self.lock() as lock, lock.as_far_as_there_are_locks():
                return not lock.is_free()
            return False
        lease = self._lease()
        return lease is not None and not lease.is_free()

    def _lease(self) -> Lease | None:
        if self.backend.folder == self.work or not self.backend.list_is_current:
            return None
        return Lease(self.backend, self.key, _machine(self.work))


def _machine(work: Path) -> str:
    """Give a name to the folder whose locks keep the processes of this machine apart."""
    path, beside = work / "machine", work / f".machine.{secrets.token_hex(4)}.tmp"
    if not exists(path):
        work.mkdir(parents=True, exist_ok=True)
        write_durably(beside, secrets.token_hex(16).encode())
        with suppress(FileExistsError):  # of two processes one is the first
            os.link(beside, path)
        beside.unlink()
    return read_text(path)
