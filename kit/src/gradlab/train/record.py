"""What a run measured: metrics.jsonl, TensorBoard events and curves.png.

Promises: metrics.jsonl holds each step once, in order, and nothing that differs between two
runs with the same seed; TensorBoard shows the same steps, whatever the machines' clocks say.
After an interruption both go on from the step that was saved: what came after it is cut off, what
could not be written yet travels in the checkpoint, with the checksums of both. Where one of them
is damaged it is made anew from the other. A write that fails warns and is made up for later.
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base.appender import Appender
from ..base.errors import GradlabError, note, only_observing
from ..base.files import exists, read_bytes, write_durably
from ..base.retries import SHORT, retry
from .events import Events
from .places import CHECKSUM, METRICS

Values = dict[str, float]
State = dict[str, Any]


class Record:
    """The metrics of a run in its folder, begun or, from a saved state, continued.

    Where `shown`, TensorBoard shows them. Raises OSError where what was recorded before can't be
    read or cut.
    """

    def __init__(self, folder: Path, state: State | None = None, shown: bool = True) -> None:
        self.path = folder / METRICS
        self._step = state["step"] if state else 0
        saved = (state or {}).get("events", [])
        self._events = Events(folder / "tensorboard", saved, self._step, shown)
        data = read_bytes(self.path) if state and exists(self.path) else b""
        offset, tail, checksum = 0, b"", 0
        if state:
            offset, tail = state["offset"], state["tail"].encode()
            checksum = state.get("checksum", zlib.crc32(tail, zlib.crc32(data[:offset])))
        # Steps that are lost with the session that died, as far as they are known.
        self.undone = max(0, data[offset:].count(b"\n") - tail.count(b"\n"))
        data = data[:offset]
        if len(data) < offset or zlib.crc32(tail, zlib.crc32(data)) != checksum:
            data, tail = self._mend(data, tail, checksum)
        self._events.begin(lambda: parse(data + tail))
        self._lines = Appender(self.path, len(data), tail, checksum)
        retry(self._lines.open, at=self.path)
        self._seal()

    def _mend(self, data: bytes, tail: bytes, checksum: int) -> tuple[bytes, bytes]:
        """Make lines that are damaged or lost anew from TensorBoard's files, if those are whole."""
        made = b""
        with only_observing("The files of TensorBoard could not be read"):
            made = b"".join(map(_line, self._events.recorded()))
        if zlib.crc32(made) == checksum:
            retry(lambda: write_durably(self.path, made))
            note(f"! {self.path} was damaged: made anew from the files of TensorBoard.")
            return made, b""
        note(
            f"! {self.path} is damaged or lost its last lines, and TensorBoard's files can't mend "
            "it. Training goes on and ends with the same model; its curves may lack or misstate "
            "steps."
        )
        return data[: data.rfind(b"\n") + 1], tail

    def add(self, step: int, epoch: int, values: Values) -> None:
        """Record the values of a step (from 1), in memory until the next flush."""
        with only_observing(f"Step {step} could not be recorded"):
            rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
            line = {"step": step, "epoch": epoch, **rounded}
            self._lines.append(_line(line))
            self._events.log([line])
        self._step = step

    def flush(self) -> None:
        """Hand everything to the operating system, where it survives the process."""
        self._lines.flush()
        self._events.flush()

    def state(self) -> State:
        """Give what a checkpoint needs to go on from here: plain values."""
        self._lines.sync()
        self._events.flush()
        self._seal()
        return {
            "step": self._step,
            "offset": self._lines.offset,
            "tail": self._lines.pending.decode(),
            "checksum": self._lines.checksum,
            "events": self._events.state(),
        }

    def _seal(self) -> None:
        """Write the checksum beside the lines, for whoever reads them later."""
        if self._lines.pending:
            return
        text = f"{self._lines.offset} {self._lines.checksum:08x}\n"
        path = self.path.with_name(CHECKSUM)
        with only_observing(f"{path} could not be written"):
            # Without a sync: where the machine crashes, the next session writes it anew.
            retry(lambda: write_durably(path, text.encode(), synced=False), SHORT)

    def close(self) -> None:
        """Flush and close the files."""
        self._lines.close()
        self._events.end()
        self._seal()


def _line(values: Values) -> bytes:
    return json.dumps(values).encode() + b"\n"


def parse(data: bytes) -> list[Values]:
    """Read lines of metrics.jsonl; what is none, because it was damaged, is left out."""
    found = []
    for line in data.splitlines():
        with suppress(ValueError):
            values = json.loads(line)
            if isinstance(values, dict) and {"step", "epoch"} <= values.keys():
                found.append(values)
    return found


def read(path: Path, start: int = 0) -> tuple[list[Values], int]:
    """Read the whole lines of metrics.jsonl from an offset on; give also where they end."""
    if not exists(path):
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    data = data[: data.rfind(b"\n") + 1]
    return parse(data), start + len(data)


def read_checked(folder: Path) -> list[Values]:
    """Read the metrics of a run as of its last checkpoint.

    Raises GradlabError where they are not what was recorded, and OSError if they can't be read.
    """
    path, beside = folder / METRICS, folder / CHECKSUM
    data = read_bytes(path)
    if not exists(beside):
        note(f"! There is no {CHECKSUM} beside {path}: read unchecked.")
        return parse(data)
    size, _, checksum = read_bytes(beside).decode("utf-8", "replace").strip().partition(" ")
    if size.isdecimal():
        data = data[: int(size)]
    if f"{len(data)} {zlib.crc32(data):08x}" != f"{size} {checksum}":
        raise GradlabError(
            f"{path} is damaged: it is not what was recorded, by {beside}.\n"
            "Give the run's training command again, which mends it if it can, or take a copy.",
            exit_code=1,
        )
    return parse(data)
