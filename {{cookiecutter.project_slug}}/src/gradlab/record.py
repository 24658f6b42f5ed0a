"""What a run measured: metrics.jsonl, TensorBoard events and curves.png.

Promises: metrics.jsonl holds each step once, in order, and nothing that differs between two
runs with the same seed; TensorBoard shows the same steps. After an interruption both go on
from the step that was saved: what came after it is cut off, what could not be written yet
travels in the checkpoint. A write that fails warns and is made up for later.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

from .errors import note
from .files import remove

Values = dict[str, float]
State = dict[str, Any]
EVENTS = ("events", "events_offset")


class Appender:
    """A file that only grows, from an offset up to which it is known to be right."""

    def __init__(self, path: Path, offset: int = 0, tail: bytes = b"") -> None:
        self.path = path
        self.offset = offset
        self.pending = tail
        self._failing = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._handle, offset)

    def append(self, data: bytes) -> None:
        """Add data at the end, in memory until the next flush."""
        self.pending += data

    def flush(self) -> None:
        """Write what is pending; where that fails, keep it for the next time and warn."""
        try:
            while self.pending:
                # At an explicit place, so that half a write is overwritten the next time.
                written = os.pwrite(self._handle, self.pending, self.offset)
                self.offset += written
                self.pending = self.pending[written:]
            self._failing = False
        except OSError as error:
            # Once for each time that it fails, not at every try.
            if not self._failing:
                note(f"! {self.path} could not be written: {error}. Kept in memory until it can.")
            self._failing = True

    def sync(self) -> None:
        """Flush, and make what was written survive a crash of the machine."""
        self.flush()
        try:
            os.fsync(self._handle)
        except OSError as error:
            note(f"! {self.path} could not be synced: {error}.")

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        os.close(self._handle)


class Record:
    """The metrics of a run in its folder, begun or, from a saved state, continued."""

    def __init__(self, folder: Path, state: State | None = None) -> None:
        self.path = folder / "metrics.jsonl"
        offset, tail = _position(self.path, state)
        # Steps that are lost with the session that died, as far as they are known.
        self.undone = max(0, _lines_after(self.path, offset) - tail.count(b"\n"))
        self._events = Events(folder / "tensorboard", self.path, state)
        self._lines = Appender(self.path, offset, tail)
        self._step = state["step"] if state else 0

    def add(self, step: int, epoch: int, values: Values) -> None:
        """Record the values of a step (from 1), in memory until the next flush."""
        rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
        line = json.dumps({"step": step, "epoch": epoch, **rounded})
        self._lines.append(line.encode() + b"\n")
        self._events.add(step, rounded)
        self._step = step

    def flush(self) -> None:
        """Hand everything to the operating system, where it survives the process."""
        self._lines.flush()
        self._events.flush()

    def state(self) -> State:
        """Give what a checkpoint needs to go on from here: plain values."""
        self._lines.sync()
        self._events.flush()
        return {
            "step": self._step,
            "offset": self._lines.offset,
            "tail": self._lines.pending.decode(),
            **self._events.state(),
        }

    def close(self) -> None:
        """Flush and close the files."""
        self._lines.close()
        self._events.close()


def _position(path: Path, state: State | None) -> tuple[int, bytes]:
    """Find where to go on in metrics.jsonl, and what is still to be written there."""
    if state is None:
        return 0, b""
    size = path.stat().st_size if path.exists() else 0
    tail = state["tail"].encode()
    if size >= state["offset"]:
        return state["offset"], tail
    note(f"! {path} lost its last {state['offset'] - size} bytes, and the steps in them.")
    return (path.read_bytes().rfind(b"\n") + 1 if size else 0), tail


def _lines_after(path: Path, offset: int) -> int:
    """Count the lines, a step each, that a session recorded after its last save, and died."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def read(path: Path, start: int = 0, end: int | None = None) -> tuple[list[Values], int]:
    """Read the whole lines of metrics.jsonl between two offsets; give also where they end."""
    if not path.exists():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(-1 if end is None else end - start)
    data = data[: data.rfind(b"\n") + 1]
    return [json.loads(line) for line in data.splitlines()], start + len(data)


class Events:
    """TensorBoard's event files: a new one for each session, the earlier ones cut and kept."""

    def __init__(self, folder: Path, lines: Path, state: State | None) -> None:
        self._folder = folder
        self._file: Appender | None = None  # made with the first event
        self._step = state["step"] if state else 0
        self._saved = {name: state[name] for name in EVENTS} if state else {}
        if not self._cut(folder, state) and state:
            for known in read(lines, end=state["offset"])[0]:
                self.add(int(known.pop("step")), known)

    def _cut(self, folder: Path, state: State | None) -> bool:
        """Remove all events after the saved step; tell whether those before it are there."""
        known = sorted(folder.glob("events.out.tfevents.*"))
        last = folder / state["events"] if state else None
        offset = state["events_offset"] if state else -1
        whole = last is not None and last.exists() and 0 <= offset <= last.stat().st_size
        for path in known:
            if not whole or path.name > str(last and last.name):
                remove(path)
        if whole and last:
            os.truncate(last, offset)
        return whole

    def add(self, step: int, values: Values) -> None:
        """Record the values of a step as scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=v) for name, v in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        buffer = io.BytesIO()
        event = Event(wall_time=time.time(), **fields)
        RecordWriter(buffer).write(event.SerializeToString())
        (self._file or self._open()).append(buffer.getvalue())

    def _open(self) -> Appender:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        name = f"events.out.tfevents.{time.time_ns():020d}.{os.getpid()}"
        self._file = Appender(self._folder / name)
        self._write(file_version="brain.Event:2")
        if self._step:
            # Makes a TensorBoard that is open forget the steps that are done again.
            start = SessionLog(status=SessionLog.START)
            self._write(step=self._step + 1, session_log=start)
        return self._file

    def flush(self) -> None:
        """Hand the events to the operating system."""
        if self._file:
            self._file.flush()

    def state(self) -> State:
        """Give the last file and how far it is whole; events that failed are made anew."""
        if not self._file:
            return self._saved
        offset = -1 if self._file.pending else self._file.offset
        return dict(zip(EVENTS, (self._file.path.name, offset), strict=True))

    def close(self) -> None:
        """Flush and close the file."""
        if self._file:
            self._file.close()
