"""What is known of a training run at a glance: how far it came, how well it did, from what.

Promises: reads the ends of a few files only, and no framework; what is damaged or can't be read
is a problem that the summary names, never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..base.errors import reason
from ..base.files import digest
from ..store.backend import Backend
from ..store.location import Location
from ..store.shared import Keyed
from . import endings, heads
from .learned import of
from .places import CHECKPOINTS, METRICS

# A checkpoint, or the manifest of one in several files, or what version 0.1 saved.
ENTRY = re.compile(rf"{CHECKPOINTS}/(\d{{10}})-[0-9a-f]{{16}}\.(safetensors|manifest|pt)")
LINES = re.compile(rf"{CHECKPOINTS}/(\d{{10}})-[0-9a-f]{{16}}\.jsonl")
TAIL = 1 << 16  # bytes of the metrics that are read at first, and the most
MOST = 1 << 24
SHORT = 8  # digits of a digest that is shown


@dataclass(frozen=True)
class Kept:
    """A run's files on a backend: the key and the size of each, by its path in the run's folder."""

    side: Backend
    files: Mapping[str, tuple[str, int]]
    problem: str = ""  # why they could not be listed

    def part(self, name: str, start: int, end: int) -> bytes:
        """Give a part of a file."""
        return self.side.part(self.files[name][0], start, end)

    def entries(self) -> list[str]:
        """Name the checkpoints, the newest first."""
        return sorted(filter(ENTRY.fullmatch, self.files), reverse=True)

    @property
    def step(self) -> int:
        """The step of the newest checkpoint by its name, -1 if there is none."""
        return max(map(_step, self.entries()), default=-1)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files.values())


@dataclass
class Summary:
    """What a run's files say of it."""

    step: int = 0
    finished: bool = False
    failed: bool = False  # the last session, by itself
    sessions: int = 0  # that have saved something, 0 where that is not known
    metric: str = ""  # which decides what is best
    best: float | None = None
    best_step: int = 0
    last: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        """A short digest of the code that made the last steps."""
        record = of(self.settings)
        return _short(record[-1]["code"]) if record else ""

    @property
    def data(self) -> list[str]:
        """Short digests of the datasets that the last steps have learned from."""
        record = of(self.settings)
        return [str(each)[:SHORT] for each in record[-1].get("data", ())] if record else []


def summarize(kept: Kept) -> Summary:
    """Say what a run's files tell; what they don't is among the problems."""
    found = Summary(failed=endings.FILE in kept.files)
    found.problems += [f"it can't be read: {kept.problem}"] * bool(kept.problem)
    for name in kept.entries():
        with _told(found, name):
            _take(found, kept, name)
            break
    found.step = found.step or max(0, kept.step)
    if not found.settings and "config.json" in kept.files:
        with _told(found, "config.json"):
            found.settings = json.loads(kept.part("config.json", 0, kept.files["config.json"][1]))
    with _told(found, "config.json"):
        found.metric = found.metric or str(next(iter(found.settings.get("best", [""]))))
        _ = found.code, found.data
    with _told(found, METRICS):
        found.last = _last(kept, found.metric)
    return found


def _take(found: Summary, kept: Kept, name: str) -> None:
    """Take what a checkpoint says; ValueError where it is damaged."""
    if name.endswith(".pt"):  # of version 0.1, which only torch reads
        found.finished = "model.safetensors" in kept.files
        return
    if name.endswith(".manifest"):
        shards = json.loads(kept.part(name, 0, kept.files[name][1]))["shards"]
        return _take(found, kept, f"{CHECKPOINTS}/{shards[0]['name']}")
    saved = heads.read(lambda start, end: kept.part(name, start, end))
    found.step = int(saved["step"])
    found.finished = bool(saved.get("finished", "model.safetensors" in kept.files))
    found.settings = heads.plain(saved["settings"])
    events = heads.plain(heads.at(saved["record"], "events") or [])
    found.sessions = int(saved.get("sessions") or len(events))
    best = saved["state"]
    found.best, found.best_step = heads.at(best, "best", "value"), heads.at(best, "best", "step")


def _last(kept: Kept, metric: str) -> float | None:
    """Give the last value of a metric that was recorded, None if there is none."""
    name = max(filter(LINES.fullmatch, kept.files), default=METRICS)
    end, size, wanted = kept.files.get(name, ("", 0))[1], TAIL, json.dumps(metric).encode()
    while metric and end:
        lines = kept.part(name, max(0, end - size), end).splitlines()
        for line in reversed(lines if size >= end else lines[1:]):
            if wanted in line:
                return float(json.loads(line)[metric])
        if size >= min(end, MOST):
            return None
        size *= 16
    return None


def is_under_way(place: Location, name: str) -> bool:
    """Tell whether a process trains a run now, as far as this machine can know; raises OSError."""
    path = place.work / "runs" / f".{name}.lock"
    return Keyed(place.backend, place.work, path, f"runs/{name}").is_held()


@contextmanager
def _told(found: Summary, name: str) -> Iterator[None]:
    """Turn what keeps a file from being understood into a problem."""
    try:
        yield
    except OSError as error:
        found.problems.append(f"{name} can't be read: {reason(error)}")
    # What damaged bytes are taken for is for chance to say.
    except Exception:
        found.problems.append(f"{name} is damaged")


def _step(name: str) -> int:
    return int(name.rpartition("/")[2][:10])


def _short(value: Any) -> str:
    return digest(json.dumps(value, sort_keys=True).encode())[:SHORT]
