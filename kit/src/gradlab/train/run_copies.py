"""The copies of a run on a storage that is not worked on, and the way back from there.

Promises: checkpoints are copied under their own names, which hold their digests, so that half a
copy is known for what it is; the metrics travel beside each, and arrive before it, and so do the
shards of one in several files: it counts with all of them only. What a run
shows, such as its curves, is copied as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..base.errors import GradlabError, note
from ..base.files import names, read_bytes, remove, sha256, sync_folder, write_durably
from ..store import leases, shards
from ..store.backend import Backend
from ..store.copies import (
    ENTRIES,
    LINES,
    MANIFEST,
    NAMED,
    SHARD,
    candidates,
    file_name,
    is_named_by,
    is_named_by_digest,
    step_of,
)
from ..store.shards import is_complete
from ..store.transfer import copy_file
from .places import CHECKPOINTS, CHECKSUM, EVENTS, METRICS

HELD = ".held"  # of the folder of checkpoints: what is being copied


class RunCopies:
    """The copies of the run in `work`, on a fast disk, below a key of a backend."""

    def __init__(self, work: Path, backend: Backend, key: str) -> None:
        self.work, self.backend, self.key = work, backend, key
        self._late = backend.writes_arrive_later
        self._copied: dict[str, tuple[int, int]] = {}
        self._whole: list[str] = []

    def restore(self) -> None:
        """Bring the newest whole checkpoint and its metrics to the fast disk, if it is newer there.

        Raises GradlabError where they can't be read, which is no reason to start over.
        """
        try:
            self._restore()
        except OSError as error:
            raise GradlabError(
                f"The run in {self.backend.where(self.key)} can't be read: {error}.\nGive the same "
                "command again when it can; --name starts another run.",
                exit_code=1,
            ) from error

    def _restore(self) -> None:
        local = next(
            (step_of(p.name) for p in candidates(self.work / CHECKPOINTS) if is_complete(p)), -1
        )
        found = self._found(*ENTRIES)
        metrics = (name for name in self._found(LINES) if self._read(name) is not None)
        recorded = next(map(step_of, metrics), -1)
        # One without its metrics, which were not uploaded, is the last choice.
        for name in sorted(found, key=lambda n: (step_of(n) <= recorded, n), reverse=True):
            beside = self._fetched(name)
            parts = self._fetched_shards(name, beside) if beside else None
            if beside is None or parts is None:
                place = self.backend.where(self._key(name))
                note(f"! {place} is damaged or not uploaded whole: passed over.")
                continue
            if step_of(name) > local:
                # Metrics first: cut off between the two, the next restore would take a checkpoint
                # that is there for all of it.
                self._restore_metrics(step_of(name))
                for path, own in [*parts, (beside, name)]:
                    os.replace(path, path.with_name(own))
                sync_folder(beside.parent)
            for path, _ in [*parts, (beside, name)]:
                remove(path)
            # The newest of these is known to be whole.
            self._whole = [self._key(other) for other in found if other <= name]
            return

    def _fetched(self, name: str) -> Path | None:
        """Copy a checkpoint to the fast disk, under a name that is swept; None if it isn't whole.

        Not through memory: a checkpoint may be as large as that.
        """
        beside = self.work / CHECKPOINTS / f".{name}.{os.getpid()}.tmp"
        with suppress(FileNotFoundError):
            if is_named_by_digest(name, self.backend.get(self._key(name), beside)):
                return beside
        remove(beside)
        return None

    def _fetched_shards(self, name: str, beside: Path) -> list[tuple[Path, str]] | None:
        """Copy the shards of a checkpoint that was fetched, with their names; None if one is wrong.

        One that is a file by itself has none.
        """
        fetched: list[tuple[Path, str]] = []
        is_manifest = name.endswith(f".{MANIFEST}")
        for shard in shards.named_in(beside.read_bytes()) if is_manifest else ():
            path = self._fetched(shard.name)
            if path is None or sha256(path) != shard.sha256:
                for each in filter(None, [beside, path, *(path for path, _ in fetched)]):
                    remove(each)
                return None
            fetched.append((path, shard.name))
        return fetched

    def _restore_metrics(self, step: int) -> None:
        # A later copy will do as well: it begins with the same lines. An earlier one lacks some.
        found = self._found(LINES)
        for name in sorted(found, key=lambda n: (step_of(n) >= step, n), reverse=True):
            if (lines := self._read(name)) is not None:
                write_durably(self.work / METRICS, lines)
                return
        # Of a run that was begun where it was worked on: the record looks whether they are whole.
        with suppress(FileNotFoundError):
            write_durably(self.work / METRICS, self.backend.read(f"{self.key}/{METRICS}"))

    def _key(self, name: str) -> str:
        return f"{self.key}/{CHECKPOINTS}/{name}"

    def _found(self, *suffixes: str) -> list[str]:
        """Name the copies with some suffixes, the newest first."""
        listed = self.backend.list(f"{self.key}/{CHECKPOINTS}")
        found = filter(None, map(NAMED.fullmatch, listed))
        return sorted((match[0] for match in found if match[3] in suffixes), reverse=True)

    def _read(self, name: str) -> bytes | None:
        """Read a copy, None if it is not whole."""
        with suppress(FileNotFoundError):
            data = self.backend.read(self._key(name))
            if is_named_by(name, data):
                return data
        return None

    def copy(self, final: bool) -> None:
        """Copy the newest checkpoint, and what has changed beside it."""
        self._copy_newest()
        for path in sorted(self.work.rglob("*")):
            name = path.relative_to(self.work)
            if path.name.startswith(".") or name.parts[0] == CHECKPOINTS or not path.is_file():
                continue
            # While the run goes on, its metrics travel beside each checkpoint.
            if final or path.name not in (METRICS, CHECKSUM):
                self._copy_changed(str(name))
        self._remove_old_events()

    def _copy_newest(self) -> None:
        # A Drive that was mounted again may have lost what it had not uploaded.
        if self._late:
            self._whole = [key for key in self._whole if self.backend.size(key) is not None]
        newest = self._hold()
        if newest is None:
            return
        parts = [newest.with_name(shard.name) for shard in shards.belonging_to(newest)]
        # Metrics first: a checkpoint that is there must find its metrics there.
        lines = read_bytes(self.work / METRICS)
        self.backend.write(self._key(file_name(step_of(newest.name), lines, suffix=LINES)), lines)
        for part in parts:
            self._put(part)
        key = self._key(newest.name)
        leases.fence(self.backend, self.key)
        self._put(newest)
        self._keep_only_own(key)
        self._whole.insert(0, key)
        for path in [newest, *parts]:
            remove(path)

    def _put(self, path: Path) -> None:
        """Copy a file that is named by its content; OSError where the copy is another one."""
        if not is_named_by_digest(path.name, self.backend.put(self._key(path.name), path)):
            raise OSError(errno.EIO, f"{path} was changed while it was copied")

    def _keep_only_own(self, key: str) -> None:
        """Remove what was written while another process took over, which may have begun anew."""
        try:
            leases.fence(self.backend, self.key)
        except leases.Lost:
            self.backend.delete(key)
            raise

    def _hold(self) -> Path | None:
        """Hold the newest whole checkpoint by a name that nothing else removes; None if copied.

        A storage may be so slow that training makes and removes several of them meanwhile.
        """
        held = self.work / CHECKPOINTS / HELD
        held.mkdir(parents=True, exist_ok=True)
        for path in candidates(held, *ENTRIES, SHARD):
            remove(path)  # of a copy that failed: there is a newer one by now, or the same
        for path in candidates(self.work / CHECKPOINTS):
            if self._key(path.name) in self._whole:
                return None
            with suppress(FileNotFoundError):  # removed at this moment, for there are newer ones
                _link(path, held / path.name)
                for shard in shards.belonging_to(path):
                    _link(path.with_name(shard.name), held / shard.name)
                if is_complete(held / path.name):
                    return held / path.name
                remove(held / path.name)
        return None

    def _copy_changed(self, name: str) -> None:
        state = (self.work / name).stat()
        version = (state.st_mtime_ns, state.st_size)
        lost = self._late and self.backend.size(f"{self.key}/{name}") is None
        if self._copied.get(name) != version or lost:
            self.backend.write(f"{self.key}/{name}", read_bytes(self.work / name))
            self._copied[name] = version

    def _remove_old_events(self) -> None:
        """Remove the events of a session whose last steps were lost: they are recorded anew."""
        current = names(self.work / EVENTS)
        for name in self.backend.list(f"{self.key}/{EVENTS}") if current else ():
            if name not in current:
                self.backend.delete(f"{self.key}/{EVENTS}/{name}")

    def entries(self) -> list[str]:
        """Give the checkpoints that are known to be whole, the newest first."""
        return self._whole

    def newest(self) -> int:
        """Give the step of the newest checkpoint that is known to be whole, 0 if there is none."""
        return step_of(self._whole[0].rpartition("/")[2]) if self._whole else 0

    def parts_of(self, entry: str) -> set[str]:
        """Give the metrics that travel beside a checkpoint, and its shards."""
        name = entry.rpartition("/")[2]
        parts = [line for line in self._found(LINES) if step_of(line) == step_of(name)]
        if name.endswith(f".{MANIFEST}") and (data := self._read(name)) is not None:
            parts += [shard.name for shard in shards.named_in(data)]
        return {self._key(part) for part in parts}

    def everything(self) -> Iterator[str]:
        """Give all checkpoints, then all metrics and shards."""
        yield from map(self._key, [*self._found(*ENTRIES), *self._found(LINES, SHARD)])


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        copy_file(source, target)
