"""A run in Weights & Biases: online where the environment has WANDB_API_KEY, offline elsewhere.

Offline, each session that has something to add leaves one part in the run's folder, a file that is
read to know what it holds: the library writes behind, and a kill loses what it had not written.
`wandb sync` sends all parts. Online, the server says how far it is when the run is resumed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ...base.folders import discard
from .tracker import Line, Reached, Told, missing, reached_by

# A log of LevelDB's form behind a head: blocks with pieces of records, each with its checksum.
MAGIC, HEAD = b":W&B", 7
BLOCK, PIECE = 1 << 15, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
ADDED = "_"  # begins the names that W&B adds itself
# What it would record of this process, which is not the training.
OWN = {"disable_stats": True, "disable_meta": True, "save_requirements": False}


class Wandb:
    """One run of a project, WANDB_PROJECT or this one's."""

    def __init__(self, told: Told) -> None:
        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        self._told, self._mode = told, os.environ.get("WANDB_MODE") or mode
        self._run: Any = None
        self._reached, self._floor = Reached(), 0

    def begin(self, recorded: Callable[[], list[Line]]) -> None:
        """Ask the server, or the parts that are there, what they have, and add what they have not.

        GradlabError where the run's steps lie partly with the one and partly in the other.
        """
        self._refuse_mixture()
        if self._mode == "online":
            self._open()
            # The first step of a run that is resumed is the one after its last.
            self._floor = self._run.starting_step - 1 if self._run.resumed else 0
        else:
            for path in self._parts("offline-run"):
                if next(_records(path.read_bytes()), None) is None:
                    discard(path.parent)  # of a kill; `wandb sync` would send none of the others
            parts = self._parts("offline-run")
            self._reached = reached_by([line for path in parts for line in read(path)])
        self.log(recorded())

    def _parts(self, kind: str) -> list[Path]:
        return sorted(self._told.folder.glob(f"wandb/{kind}-*-{self._told.id}/*.wandb"))

    def _refuse_mixture(self) -> None:
        """Refuse to send from here what lies in files that `wandb sync` would send too."""
        offline = [path for path in self._parts("offline-run") if not _is_sent(path)]
        if self._mode == "online" and offline:
            raise GradlabError(
                f"it has steps that were recorded offline; send them by: "
                f"wandb sync {self._told.folder}/wandb/offline-run-*"
            )
        if self._mode != "online" and self._parts("run"):
            raise GradlabError("this run is online: it goes on once WANDB_API_KEY is set again")

    def _open(self) -> None:
        import wandb

        quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True}
        self._run = wandb.init(
            id=self._told.id,
            name=self._told.name,
            project=os.environ.get("WANDB_PROJECT") or self._told.project,
            dir=self._told.folder,
            mode=self._mode,
            resume="allow",
            config=dict(self._told.settings),
            settings=wandb.Settings(**quiet, **{f"x_{name}": value for name, value in OWN.items()}),
        )

    def log(self, lines: Sequence[Line]) -> None:
        """Give steps that it has not to the library, which sends or writes them in its own time."""
        left = missing([line for line in lines if line["step"] > self._floor], self._reached)
        for line in left:
            if self._run is None:
                self._open()
            values = {name: value for name, value in line.items() if name != "step"}
            self._run.log(values, step=int(line["step"]), commit=True)
            self._reached |= {name: (int(line["step"]), value) for name, value in values.items()}

    def end(self, finished: bool) -> str:
        """Have the library bring all to the server, or to its file, which is to be sent."""
        if self._run:
            self._run.finish(exit_code=0)
            self._run = None
        if self._mode == "online" or not finished:
            return ""
        parts = f"{self._told.folder}/wandb/offline-run-*-{self._told.id}"
        return f"W&B's steps were recorded offline; send them by: wandb sync {parts}"


def _is_sent(path: Path) -> bool:
    return path.with_name(f"{path.name}.synced").exists()


def read(path: Path) -> Iterator[Line]:
    """Read the steps of a .wandb file, as far as it is whole; OSError if it can't be read."""
    from wandb.proto.wandb_internal_pb2 import Record

    for data in _records(path.read_bytes()):
        record = Record.FromString(data)
        if record.HasField("history"):
            items = [(item.key or ".".join(item.nested_key), item) for item in record.history.item]
            values = {n: json.loads(i.value_json) for n, i in items if not n.startswith(ADDED)}
            yield {"step": record.history.step.num, **values}


def _records(data: bytes) -> Iterator[bytes]:
    if data[: len(MAGIC)] != MAGIC:
        return  # nothing was written yet
    place, record = HEAD, b""
    while place + PIECE.size <= len(data):
        if (left := BLOCK - place % BLOCK) < PIECE.size:  # padding
            place += left
            continue
        checksum, size, kind = PIECE.unpack_from(data, place)
        begin = place + PIECE.size
        piece = data[begin : begin + size]
        if len(piece) < size or zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            return  # a kill, or a crash of the machine, cut it off here
        record = piece if kind in (FULL, FIRST) else record + piece
        place = begin + size
        if kind in (FULL, LAST):
            yield record
