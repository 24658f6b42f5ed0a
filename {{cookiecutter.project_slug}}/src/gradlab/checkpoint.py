"""One durable store of checkpoints: what it says is saved can be loaded.

Promises, for a kill, a crash or a full disk at any moment:
- a save is one file under a name of its own, `<step>-<digest>.pt`; the name holds the
  content's SHA-256, so a file proves by itself that it is whole;
- it is written beside its final name, synced, then renamed: what was there stays;
- older ones go only after the newest was read back and found whole;
- load gives the newest that is whole and says which ones were not;
- a save that fails warns and is tried again later: training goes on;
- saving costs at most 2 % of a run's time.
Checkpoints hold tensors and plain values only, so they load in any later version of torch.
"""

from __future__ import annotations

import errno
import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .errors import GradlabError, note
from .files import candidates, file_name, is_whole, remove, sweep, write_durably

FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class Store:
    """Saves in one folder: at most every `seconds`, of which `keep` verified ones stay."""

    folder: Path
    seconds: float = 5.0
    keep: int = 2
    _cost: float = 0.0
    _last: float = field(default_factory=time.monotonic)
    _whole: list[Path] = field(default_factory=list)

    @property
    def due(self) -> bool:
        """Tell whether the next save is due: never for more than 2 % of the time."""
        return time.monotonic() - self._last >= max(self.seconds, 50 * self._cost)

    def save(self, step: int, state: dict[str, Any]) -> Path | None:
        """Save the state as of a step; None, with a warning, where that failed."""
        begun = time.monotonic()
        try:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            return self._write(step, buffer.getbuffer())
        # A full disk or lost mount comes as OSError, RuntimeError and others, by the layer.
        except Exception as error:
            note(f"! Step {step} could not be saved in {self.folder}: {error}. Going on.")
            return None
        finally:
            self._last = time.monotonic()
            self._cost = self._last - begun

    def _write(self, step: int, data: memoryview) -> Path:
        path = self.folder / file_name(step, data, "pt")
        try:
            write_durably(path, data)
        except OSError as error:
            if error.errno not in FULL or not self._make_room():
                raise
            write_durably(path, data)
        if not is_whole(path):
            raise OSError(errno.EIO, f"{path.name} reads back otherwise than it was written")
        self._mark_whole(path)
        self._prune()
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

        Raises GradlabError where a whole one can't be read, as when a newer torch wrote it.
        """
        sweep(self.folder)
        for path in candidates(self.folder):
            if not is_whole(path):
                note(f"! {path} is damaged: taking the one before it.")
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:
                raise GradlabError(
                    f"{path} is whole, but torch {torch.__version__} can't load it: {error}\n"
                    "Go on with the version that wrote it, or start over with --fresh."
                ) from error
            self._mark_whole(path)
            return dict(state)
        if candidates(self.folder):
            note(f"! No save in {self.folder} is whole: starting from the beginning.")
        return None
