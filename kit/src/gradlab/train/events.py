"""TensorBoard, a Tracker: event files, a new one for each session, the earlier ones cut and kept.

Promises: read in the order of their names they hold each step once, whatever the clocks of the
machines say; what is damaged or not there is made anew from the recorded lines.
"""

from __future__ import annotations

import io
import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..base.appender import Appender
from ..base.errors import note, reason
from ..base.files import names, read_bytes, remove
from ..base.retries import retry
from .trackers.tracker import Line

EVENT_FILE = re.compile(r"events\.out\.tfevents\.(\d+)\..*")
Values = dict[str, float]
# Name, size and CRC-32 of each file, in order.
Files = list[tuple[str, int, int]]


class Events:
    """The event files in a folder, as they were at a saved step; OSError if they can't be read.

    Without `shown` it writes none, and they are made anew once it is.
    """

    def __init__(self, folder: Path, saved: Any, step: int, shown: bool = True) -> None:
        self._folder, self._shown = folder, shown
        # Before they had checksums, the saved state told a single name.
        self._files: Files = [] if isinstance(saved, str) else [(n, s, c) for n, s, c in saved]
        self._step = step
        self._file: Appender | None = None  # made with the first event
        self._failed = not shown
        self._found = [name for name in names(folder) if EVENT_FILE.fullmatch(name)]
        known = self._found + [name for name, _, _ in self._files]
        # Counted, not timed: the next machine's clock may be behind.
        self._number = 1 + max(map(_number, known), default=0)
        self._data = [self._read(*file) for file in self._files]

    def _read(self, name: str, size: int, checksum: int) -> bytes | None:
        """Read a file as it was at the saved step; None if it is not there, or damaged."""
        if name not in self._found:
            return None
        data = read_bytes(self._folder / name)[:size]
        if len(data) == size and zlib.crc32(data) == checksum:
            return data
        note(f"! {self._folder / name} is damaged: made anew from the recorded lines.")
        return None

    def recorded(self) -> Iterator[Values]:
        """Give the values of all steps up to the saved one; none if any file is damaged."""
        if None not in self._data:
            for data in self._data:
                yield from _steps(data or b"")

    def begin(self, recorded: Callable[[], list[Line]]) -> None:
        """Go on from the saved step: cut what came after it, make anew what is not whole.

        `recorded` gives the steps; it is not asked where the files are whole, for to read all
        steps takes longer the more there are.
        """
        whole = bool(self._files) and None not in self._data
        if not whole:
            self._files = []
        sizes = {name: size for name, size, _ in self._files}
        for name in self._found:
            if name in sizes:
                retry(partial(os.truncate, self._folder / name, sizes[name]))
            elif self._shown:
                remove(self._folder / name)
        self._data.clear()
        if not whole and self._step and self._shown:
            self._step = 0
            self.log(recorded())

    def log(self, lines: Sequence[Line]) -> None:
        """Record steps' values as scalars; where that fails, go on without TensorBoard."""
        if self._failed:
            return
        try:
            for line in lines:
                self._add(int(line["step"]), {k: v for k, v in line.items() if k != "step"})
        # Such as a TensorBoard that doesn't fit the protobuf that a service has installed.
        except Exception as error:
            self._failed = True
            note(f"! Nothing more is recorded for TensorBoard: {reason(error)}.")

    def _add(self, step: int, values: Values) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        event = Event(wall_time=time.time(), **fields)
        RecordWriter(buffer).write(event.SerializeToString())
        (self._file or self._begin()).append(buffer.getvalue())

    def _begin(self) -> Appender:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        name = f"events.out.tfevents.{self._number:020d}.{os.getpid()}"
        self._file = Appender(self._folder / name)
        self._write(file_version="brain.Event:2")
        # Makes a TensorBoard that is open forget the steps that are done again.
        self._write(step=self._step + 1, session_log=SessionLog(status=SessionLog.START))
        return self._file

    def flush(self) -> None:
        """Hand the events to the operating system."""
        if self._file:
            self._file.flush()

    def state(self) -> Files:
        """Give the files and how far they are whole; none if events failed: they are made anew."""
        if self._failed or (self._file and self._file.pending):
            return []
        if not self._file:
            return self._files
        file = self._file
        return [*self._files, (file.path.name, file.offset, file.checksum)]

    def end(self, finished: bool = False) -> str:
        """Flush and close the file."""
        if self._file:
            self._file.close()
        return ""


def _number(name: str) -> int:
    match = EVENT_FILE.fullmatch(name)
    return int(match[1]) if match else 0


def _steps(data: bytes) -> Iterator[Values]:
    """Read the scalars of each step from records: length, checksum, event, checksum."""
    from tensorboard.compat.proto.event_pb2 import Event

    place = 0
    while place < len(data):
        (size,) = struct.unpack_from("<Q", data, place)
        event = Event.FromString(data[place + 12 : place + 12 + size])
        place += 12 + size + 4
        if event.HasField("summary"):
            # Six digits are told exactly by the 32 bits that an event has for a value.
            values = {v.tag: float(f"{v.simple_value:.6g}") for v in event.summary.value}
            yield {"step": event.step, "epoch": int(values.pop("epoch", 0)), **values}
