"""A copy of a run on storage that is slow or uploads in the background, such as Google Drive.

Promises: training never waits for the slow side. Saves are copied under their own names,
which hold their digests, so that half a copy is known for what it is; metrics travel beside
each save; files are written whole, never appended to or renamed; at least two saves stay, and
older ones in case those are not uploaded yet; a failing copy is retried a bounded number of
times, then again at the next save. Nothing is written once the storage's file system is gone
from its mountpoint.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from ..base.errors import GradlabError, note, reason
from ..base.files import exists, names, read_bytes, remove, write_durably
from ..services import mounts
from .copies import LINES, candidates, file_name, is_named_by, is_whole, outdated, step_of

METRICS = "metrics.jsonl"
CHECKSUM = "metrics.checksum"
SAVES = "saves"
HELD = ".held"  # of the folder of saves: what is being copied
EVENTS = "tensorboard"
TRIES = (0.0, 1.0, 4.0)  # seconds to wait before each try


class Mirror:
    """Copies the run in `work`, on a fast disk, to `kept`, at most every `seconds`."""

    def __init__(self, work: Path, kept: Path, seconds: float = 60.0) -> None:
        self.work = work
        self.kept = kept
        self.seconds = seconds
        self._mounted = mounts.Mounted(kept)
        self._copied: dict[str, tuple[int, int]] = {}
        self._whole: list[Path] = []
        self._news = threading.Event()
        self._end = threading.Event()
        self._busy = threading.Lock()
        threading.Thread(target=self._serve, daemon=True, name="mirror").start()

    def restore(self) -> None:
        """Bring the newest whole save and its metrics to the fast disk, if it is newer there.

        Raises GradlabError where they can't be read, which is no reason to start over.
        """
        try:
            self._restore()
        except OSError as error:
            raise GradlabError(
                f"The run in {self.kept} can't be read: {error}.\nGive the same command again "
                "when it can; --name starts another run.",
                exit_code=1,
            ) from error

    def _restore(self) -> None:
        local = next((step_of(p) for p in candidates(self.work / SAVES) if is_whole(p)), -1)
        folder = self.kept / SAVES
        found, metrics = candidates(folder), candidates(folder, LINES)
        recorded = next((step_of(path) for path in metrics if is_whole(path)), -1)
        # One without its metrics, which were not uploaded, is the last choice.
        for path in sorted(found, key=lambda p: (step_of(p) <= recorded, p.name), reverse=True):
            newer = step_of(path) > local
            if newer:
                # Metrics first: cut off between the two, the next restore would take a save that
                # is there for all of it.
                self._restore_metrics(step_of(path))
            if _copy(path, self.work / SAVES / path.name) if newer else is_whole(path):
                # The newest of these is known to be whole.
                self._whole = [other for other in found if other.name <= path.name]
                return
            note(f"! {path} is damaged or not uploaded whole: passed over.")

    def _restore_metrics(self, step: int) -> None:
        # A later copy will do as well: it begins with the same lines. An earlier one lacks some.
        found = candidates(self.kept / SAVES, LINES)
        for path in sorted(found, key=lambda p: (step_of(p) >= step, p.name), reverse=True):
            if is_whole(path):
                write_durably(self.work / METRICS, read_bytes(path))
                return

    def notify(self) -> None:
        """Say that there is something new to copy; returns at once."""
        self._news.set()

    def flush(self) -> bool:
        """Copy what is new now and stop copying; tell whether all of it arrived."""
        self._end.set()
        self._news.set()
        return self._sync()

    def _serve(self) -> None:
        while not self._end.is_set():
            self._news.wait()
            self._news.clear()
            if not self._end.is_set():
                self._sync()
            self._end.wait(self.seconds)

    def _sync(self) -> bool:
        with self._busy:
            for wait in TRIES:
                time.sleep(wait)
                try:
                    self._copy_all(final=self._end.is_set())
                    return True
                # A copy may need more memory than there is; the next one may not.
                except Exception as error:
                    failure = reason(error)
        note(f"! {self.kept} could not be brought up to date: {failure}. Training goes on.")
        return False

    def _copy_all(self, final: bool) -> None:
        self._mounted.check()
        (self.kept / SAVES).mkdir(parents=True, exist_ok=True)
        self._copy_newest_save()
        for path in sorted(self.work.rglob("*")):
            name = path.relative_to(self.work)
            if path.name.startswith(".") or name.parts[0] == SAVES or not path.is_file():
                continue
            # While the run goes on, its metrics travel beside each save.
            if final or path.name not in (METRICS, CHECKSUM):
                self._copy_changed(str(name))
        self._remove_old_events()

    def _copy_newest_save(self) -> None:
        # A Drive that was mounted again may have lost what it had not uploaded.
        self._whole = [path for path in self._whole if exists(path)]
        newest = self._hold()
        if newest is None:
            return
        # Metrics first: a save that is there must find its metrics there.
        lines = read_bytes(self.work / METRICS)
        metrics = self.kept / SAVES / file_name(step_of(newest), lines, suffix=LINES)
        _write(metrics, lines)
        data = read_bytes(newest)
        if not is_named_by(newest, data):
            raise OSError(errno.EIO, f"{newest} was removed while it was copied")
        _write(self.kept / SAVES / newest.name, data)
        self._whole.insert(0, self.kept / SAVES / newest.name)
        remove(newest)
        self._prune()

    def _hold(self) -> Path | None:
        """Hold the newest whole save by a name that nothing else removes; None if it was copied.

        A storage may be so slow that training makes and removes several saves meanwhile.
        """
        held = self.work / SAVES / HELD
        held.mkdir(parents=True, exist_ok=True)
        for path in candidates(held):
            remove(path)  # of a copy that failed: there is a newer one by now, or the same
        for path in candidates(self.work / SAVES):
            if self.kept / SAVES / path.name in self._whole:
                return None
            with suppress(FileNotFoundError):  # removed at this moment, for there are newer ones
                _link(path, held / path.name)
                if is_whole(held / path.name):
                    return held / path.name
                remove(held / path.name)
        return None

    def _remove_old_events(self) -> None:
        """Remove the events of a session whose last steps were lost: they are recorded anew."""
        if exists(self.kept / EVENTS):
            current = names(self.work / EVENTS)
            for name in names(self.kept / EVENTS):
                if current and name not in current:
                    remove(self.kept / EVENTS / name)

    def _prune(self) -> None:
        if len(self._whole) < 2:
            return
        gone = outdated(self._whole)
        self._whole = [path for path in self._whole if path not in gone]
        steps = {step_of(path) for path in self._whole}
        for path in candidates(self.kept / SAVES):
            if path not in self._whole:
                remove(path)
        for path in candidates(self.kept / SAVES, LINES):
            if step_of(path) not in steps:
                remove(path)

    def _copy_changed(self, name: str) -> None:
        source = self.work / name
        state = source.stat()
        version = (state.st_mtime_ns, state.st_size)
        if self._copied.get(name) == version and exists(self.kept / name):
            return
        data = read_bytes(source)
        (self.kept / name).parent.mkdir(parents=True, exist_ok=True)
        _write(self.kept / name, data)
        self._copied[name] = version


def _copy(source: Path, target: Path) -> bool:
    """Copy a save to the fast disk; tell whether it was whole."""
    write_durably(target, read_bytes(source))
    if is_whole(target):
        return True
    target.unlink()
    return False


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        write_durably(target, read_bytes(source))


def _write(path: Path, data: bytes) -> None:
    """Write a file under its final name, since renames may fail there, and read it back."""
    write_durably(path, data, renamed=False)
    if path.read_bytes() != data:
        raise OSError(errno.EIO, f"{path} reads back otherwise than it was written")
