"""The checkpoints of a run: what it says is saved can be loaded.

Promises, for a kill, a crash or a full disk at any moment:
- each is one file under a name of its own, `<step>-<digest>.safetensors`; the name holds the
  content's SHA-256, so a file proves by itself that it is whole;
- it is written beside its final name, synced, then renamed: what was there stays;
- older ones go only after the newest was read back and found whole;
- load gives the newest that is whole and says which ones were not; what can't be read is not
  taken for damaged, and never deleted for it;
- one in several files, a shard of each process, is whole with all of them only;
- a checkpoint that fails warns and is tried again later: training goes on;
- training waits for a copy of the state only: that is written in the background, one at a time;
- saving costs at most 2 % of a run's time, the last checkpoint and the results included.
Checkpoints hold arrays and plain values only, so they load in any later version.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError, note, only_observing
from ..base.files import Pieces, read_bytes, sweep, write_durably
from ..base.retries import SHORT, retry
from ..services import session
from ..store import shards
from ..store.copier import FULL
from ..store.copies import MANIFEST, OLDER, candidates, file_name, is_named_by, is_whole
from . import arrays, frameworks, values

SHARE = 0.02  # of a run's time that saving may take


@dataclass
class Checkpoints:
    """Checkpoints in one folder: at most every `seconds`, of which `keep` verified ones stay."""

    folder: Path
    seconds: float = 5.0
    keep: int = 2
    shards: list[shards.Shard] = field(default_factory=list)  # of the one that was loaded
    _cost: float = 0.0  # of the newest: the time that training waited, and the processor's
    _spent: float = 0.0  # on all of them
    _begun: float = field(default_factory=lambda: time.monotonic())
    _last: float = field(default_factory=lambda: time.monotonic())
    _whole: list[Path] = field(default_factory=list)
    _snapshots: values.Snapshots = field(default_factory=values.Snapshots)
    _writer: threading.Thread | None = None

    @property
    def due(self) -> bool:
        """Tell whether a checkpoint is due: never if saving would then take too much of the time.

        With `seconds` of 0 that is so from one checkpoint to the next, which is sooner at first.
        """
        now = time.monotonic()
        if self._writer and self._writer.is_alive():
            return False
        if not self.seconds:
            return SHARE * (now - self._last) >= self._cost
        # After the next checkpoint come the last one and the results, which cost about as much.
        paid = SHARE * (now - self._begun) >= self._spent + 3 * self._cost
        return paid and now - self._last >= self.seconds

    def save(
        self,
        step: int,
        state: Callable[[], dict[str, Any]],
        first: Callable[[], None],
        then: Callable[[], None],
    ) -> None:
        """Copy the state as of a step and write it in the background; a failure warns.

        In the background `first` comes before it, `then` after it, if it is whole. One under
        way is waited for. Raises GradlabError for a state that can't be kept.
        """
        begun = time.monotonic()
        self.wait()
        try:
            give = self._taken(state)

            def pieces() -> Pieces:
                first()
                return give()

            def work() -> None:
                self._commit(step, pieces)

            writer = threading.Thread(target=self._save, args=(step, work, then), name="checkpoint")
            # Before it starts, for from then on the thread counts.
            self._count(begun)
            writer.start()
            self._writer = writer
        except GradlabError:
            raise
        # Too little memory comes as RuntimeError, MemoryError and others.
        except Exception as error:
            self._count(begun)
            self._warn(step, error)

    def _taken(self, state: Callable[[], dict[str, Any]]) -> Callable[[], Pieces]:
        """Copy the state; give what gives the pieces of its file, once all of it has arrived."""
        plain, data, arrival = self._snapshots.take(state())

        def give() -> Pieces:
            arrival()
            return arrays.pieces(plain, data)

        return give

    def _commit(self, step: int, give: Callable[[], Pieces]) -> None:
        """Write a checkpoint whose pieces are given, or why not, so that it counts from then on."""
        pieces = give()
        self._mark_whole(self._put(file_name(step, *pieces), pieces))

    def _count(self, begun: float) -> None:
        """Count the time that training has waited since."""
        self._last = time.monotonic()
        self._cost = self._last - begun
        self._spent += self._cost

    def wait(self) -> None:
        """Wait for the checkpoint that is under way."""
        if self._writer:
            self._writer.join()
            self._writer = None

    def _save(self, step: int, work: Callable[[], None], then: Callable[[], None]) -> None:
        try:
            work()
            then()
        # A full disk or lost mount comes as OSError, RuntimeError and others, by the layer.
        except Exception as error:
            self._warn(step, error)
        else:
            with only_observing(f"Older checkpoints in {self.folder} could not be removed"):
                self._prune()
        finally:
            self._cost += time.thread_time()
            self._spent += time.thread_time()
            self._last = time.monotonic()

    def _warn(self, step: int, error: Exception) -> None:
        note(f"! Step {step} could not be saved in {self.folder}: {error}. Going on.")

    def _put(self, name: str, pieces: Pieces) -> Path:
        """Write a file that is named by its content, and read it back; give its path."""
        path = self.folder / name
        try:
            retry(lambda: write_durably(path, pieces), SHORT)
        except OSError as error:
            if error.errno not in FULL or not self._make_room():
                raise
            write_durably(path, pieces)
        if not is_whole(path):
            raise OSError(errno.EIO, f"{path.name} reads back otherwise than it was written")
        return path

    def _mark_whole(self, path: Path) -> None:
        # After a fallback to an older checkpoint, newer damaged ones must not outrank new ones.
        self._whole = [p for p in self._whole if p != path] + [path]

    def _make_room(self) -> bool:
        """Give up all checkpoints but the newest verified one; tell whether that freed anything."""
        if not self._whole:
            return False
        return self._remove_all_but(self._whole[-1:]) > 0

    def _prune(self) -> None:
        if len(self._whole) >= self.keep:
            self._remove_all_but(self._whole[-self.keep :])

    def _remove_all_but(self, kept: list[Path]) -> int:
        self._whole = kept
        return shards.remove_all_but(kept, self.folder)

    def load(self) -> dict[str, Any] | None:
        """Load the newest checkpoint that is whole, on the CPU; None where there is none.

        Raises OSError where the folder or one of them can't be read, and GradlabError where a whole
        one can't be loaded, as when a newer torch wrote it.
        """
        sweep(self.folder)
        found = candidates(self.folder)
        for path in found:
            data = read_bytes(path)
            if not is_named_by(path.name, data):
                note(f"! {path} is damaged: taking the one before it.")
                continue
            parts = shards.named_in(data) if path.suffix == f".{MANIFEST}" else []
            if wrong := shards.wrong(self.folder, parts):
                note(f"! {path} is not whole, for {wrong}: taking the one before it.")
                continue
            if parts:
                data = read_bytes(self.folder / parts[0].name)
            try:
                state = _older(data) if path.suffix == f".{OLDER}" else restored(data)
            except Exception as error:
                raise GradlabError(
                    f"{path} is whole, but {_version()} can't load it: {error}\n"
                    f"Go on with the version that wrote it, or {session.ways_to_start_over()}."
                ) from error
            self.shards = parts
            self._mark_whole(path)
            return dict(state)
        if found:
            note(f"! No checkpoint in {self.folder} is whole: starting from the beginning.")
        return None


def restored(data: bytes) -> Any:
    """Give the state that a file holds."""
    return values.restored(*arrays.parse(data))


def _older(data: bytes) -> Any:
    """Give a state as version 0.1 saved it, by torch.save."""
    read = frameworks.named("torch").unpickled
    assert read
    return read(data)


def _version() -> str:
    libraries = frameworks.versions()
    return f"this kit, on {libraries}," if libraries else "this kit"
