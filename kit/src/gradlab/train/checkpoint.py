"""One durable store of checkpoints: what it says is saved can be loaded.

Promises, for a kill, a crash or a full disk at any moment:
- a save is one file under a name of its own, `<step>-<digest>.pt`; the name holds the
  content's SHA-256, so a file proves by itself that it is whole;
- it is written beside its final name, synced, then renamed: what was there stays;
- older ones go only after the newest was read back and found whole;
- load gives the newest that is whole and says which ones were not; what can't be read is not
  taken for damaged, and never deleted for it;
- a save that fails warns and is tried again later: training goes on;
- saving costs at most 2 % of a run's time, the last save and the results included.
Checkpoints hold tensors and plain values only, so they load in any later version of torch.
"""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..base.errors import GradlabError, note, only_observing
from ..base.files import read_bytes, remove, sweep, write_durably
from ..base.retries import SHORT, retry
from ..services import session
from ..store.copies import candidates, file_name, is_whole, step_of

FULL = (errno.ENOSPC, errno.EDQUOT)
SHARE = 0.02  # of a run's time that saving may take


@dataclass
class Store:
    """Saves in one folder: at most every `seconds`, of which `keep` verified ones stay."""

    folder: Path
    seconds: float = 5.0
    keep: int = 2
    _cost: float = 0.0  # of the newest save alone
    _spent: float = 0.0  # on all, and what was written with them
    _begun: float = field(default_factory=lambda: time.monotonic())
    _last: float = field(default_factory=lambda: time.monotonic())
    _whole: list[Path] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Tell whether a save is due: never if saving would then take too much of the time.

        With `seconds` of 0 that is so from one save to the next, which is sooner at first.
        """
        now = time.monotonic()
        if not self.seconds:
            return SHARE * (now - self._last) >= self._cost
        # After the next save come the last one and the results, which cost about as much.
        paid = SHARE * (now - self._begun) >= self._spent + 3 * self._cost
        return paid and now - self._last >= self.seconds

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time of all that is done to save, such as to write the best model."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._spent += self._last - begun

    def save(self, step: int, state: dict[str, Any]) -> Path | None:
        """Save the state as of a step; None, with a warning, where that failed."""
        begun = time.monotonic()
        try:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            path = self._write(step, buffer.getbuffer())
        # A full disk or lost mount comes as OSError, RuntimeError and others, by the layer.
        except Exception as error:
            note(f"! Step {step} could not be saved in {self.folder}: {error}. Going on.")
            return None
        finally:
            self._last = time.monotonic()
            self._cost = self._last - begun
        with only_observing(f"Older saves in {self.folder} could not be removed"):
            self._prune()
        return path

    def _write(self, step: int, data: memoryview) -> Path:
        path = self.folder / file_name(step, data, "pt")
        try:
            retry(lambda: write_durably(path, data), SHORT)
        except OSError as error:
            if error.errno not in FULL or not self._make_room():
                raise
            write_durably(path, data)
        if not is_whole(path):
            raise OSError(errno.EIO, f"{path.name} reads back otherwise than it was written")
        self._mark_whole(path)
        return path

    def _mark_whole(self, path: Path) -> None:
        # After a fallback to an older save, newer damaged ones must not outrank new ones.
        self._whole = [p for p in self._whole if p != path] + [path]

    def _make_room(self) -> bool:
        """Give up all saves but the newest verified one; tell whether that freed anything."""
        if not self._whole:
            return False
        return self._remove_all_but(self._whole[-1:]) > 0

    def _prune(self) -> None:
        if len(self._whole) >= self.keep:
            self._remove_all_but(self._whole[-self.keep :])

    def _remove_all_but(self, kept: list[Path]) -> int:
        stale = [path for path in candidates(self.folder) if path not in kept]
        for path in stale:
            remove(path)
        self._whole = kept
        return len(stale)

    def load(self) -> dict[str, Any] | None:
        """Load the newest save that is whole, on the CPU; None where there is none.

        Raises OSError where the folder or a save can't be read, and GradlabError where a whole
        save can't be loaded, as when a newer torch wrote it.
        """
        sweep(self.folder)
        found = candidates(self.folder)
        for path in found:
            data = read_bytes(path)
            if file_name(step_of(path), data, "pt") != path.name:
                note(f"! {path} is damaged: taking the one before it.")
                continue
            try:
                state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            except Exception as error:
                raise GradlabError(
                    f"{path} is whole, but torch {torch.__version__} can't load it: {error}\n"
                    f"Go on with the version that wrote it, or {session.ways_to_start_over()}."
                ) from error
            self._mark_whole(path)
            return dict(state)
        if found:
            note(f"! No save in {self.folder} is whole: starting from the beginning.")
        return None
