"""A file that only grows, for what is recorded step by step.

Promises: a write that fails warns, is kept in memory and made up for; half a write is overwritten.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from .errors import note, only_observing
from .retries import SHORT, retry


class Appender:
    """A file that only grows, from an offset up to which it is known to be right."""

    def __init__(self, path: Path, offset: int = 0, tail: bytes = b"", checksum: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.pending = tail
        self.checksum = checksum  # CRC-32 of all that was appended, written or not
        self._failing = False
        self._handle: int | None = None

    def open(self) -> None:
        """Open the file, cut at the offset; OSError if that fails."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(handle, self.offset)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def append(self, data: bytes) -> None:
        """Add data at the end, in memory until the next flush."""
        self.pending += data
        self.checksum = zlib.crc32(data, self.checksum)

    def flush(self) -> None:
        """Write what is pending; where that fails, keep it for the next time and warn."""
        try:
            retry(self._write, () if self._failing else SHORT, at=self.path)
            self._failing = False
        except OSError as error:
            # Once for each time that it fails, not at every try.
            if not self._failing:
                note(f"! {self.path} could not be written: {error}. Kept in memory until it can.")
            self._failing = True

    def _write(self) -> None:
        if self._handle is None:
            self.open()
        assert self._handle is not None
        while self.pending:
            # At an explicit place, so that half a write is overwritten the next time.
            written = os.pwrite(self._handle, self.pending, self.offset)
            self.offset += written
            self.pending = self.pending[written:]

    def sync(self) -> None:
        """Flush, and make what was written survive a crash of the machine."""
        self.flush()
        if self._handle is None:
            return
        try:
            retry(lambda: os.fsync(self._handle or 0), SHORT)
        except OSError as error:
            note(f"! {self.path} could not be synced: {error}.")

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        if self._handle is not None:
            with only_observing(f"{self.path} could not be closed"):
                os.close(self._handle)
            self._handle = None
