"""The record of a run that was handed to doors: which, when, and what became of each hop.

    <storage>/workflows/<name>/door-<number>.json    the submission, with all of its hops
                               hops/<hop>.json       how a hop ended, as the other side says
                                    <hop>.log        what it printed, with secrets hidden
                                    <hop>.stop       there once it is to save and end

Promises: a hop is noted before the first request for it. No secret is in any of these.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ...run.place import Place
from ...run.record import UTC
from ...store import sealed
from ...store.records import Records
from .protocol import Task

State = Literal["asked", "running", "done", "failed", "stopped", "cut off", "refused"]
End = Literal["done", "failed", "stopped"]
SAYS = "which says to which doors a run was handed"
LONGEST_NAME = 46  # of a notebook at Kaggle 50, with room for an ending
PREFIX = "gradlab"


@dataclass(frozen=True)
class Hop:
    """One session's part of a run."""

    number: int
    door: str
    name: str
    state: State = "asked"
    began: str = ""
    ended: str = ""
    said: str = ""
    before: str = ""  # how far the run had come
    run_before: str = ""  # id of the last run that had finished

    @property
    def is_over(self) -> bool:
        """Whether it does not go on by itself."""
        return self.state not in ("asked", "running")


@dataclass(frozen=True)
class Submission:
    """A run that was handed to doors; `state` is open until it is done, failed or stopped."""

    id: str
    workflow: str
    url: str
    commit: str
    storage: str
    doors: list[str]
    machine: str
    hours: float  # of a hop at most, 0 for the door's own limit
    state: Literal["open", "done", "failed", "stopped"] = "open"
    said: str = ""
    hops: list[Hop] = field(default_factory=list)

    @property
    def last(self) -> Hop | None:
        """The last hop."""
        return self.hops[-1] if self.hops else None

    def next_name(self, project: str) -> str:
        """Name the hop after the last one."""
        tail = f"{self.id}-{len(self.hops) + 1}"
        room = LONGEST_NAME - len(PREFIX) - len(tail) - 3
        words = [_slug(project), _slug(self.workflow)[: room // 2]]
        words[0] = words[0][: room - len(words[1])]
        return "-".join([PREFIX, *(word.strip("-") for word in words), tail])

    def with_hop(self, hop: Hop) -> Submission:
        """Give the submission with a hop's new state, or a new hop."""
        kept = [each for each in self.hops if each.number != hop.number]
        return replace(self, hops=[*kept, hop])


def new_id() -> str:
    """Give an id for a submission."""
    return secrets.token_hex(4)


def now() -> str:
    """Give the time as it is noted."""
    return time.strftime(UTC, time.gmtime())


def load(place: Place) -> Submission | None:
    """Read the last submission of a workflow, None if there is none; raises OSError."""
    return _records(place).load(_submission)


def save(submission: Submission, place: Place) -> Submission:
    """Note how a submission stands; raises OSError."""
    _records(place).put(asdict(submission))
    return submission


def key(place: Place, name: str, suffix: str) -> str:
    """Give the key of a hop's file."""
    return f"{place.record}/hops/{name}{suffix}"


def outcome(place: Place, task: Task) -> dict[str, Any] | None:
    """Read how a hop ended, as the other side says; None where it has not; raises OSError."""
    try:
        return sealed.from_bytes(place.backend.read(key(place, task.name, ".json")))
    except (FileNotFoundError, sealed.Damaged):
        return None


def log(place: Place, name: str) -> str | None:
    """Read what a hop has printed, None where it has noted nothing; raises OSError."""
    try:
        return place.backend.read(key(place, name, ".log")).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def ask_to_stop(place: Place, name: str) -> None:
    """Have a hop save and end, at its next look."""
    place.backend.write(key(place, name, ".stop"), b"stop\n")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "run"


def _records(place: Place) -> Records:
    return Records(place.backend, place.record, "door-", SAYS)


def _submission(data: dict[str, Any]) -> Submission:
    try:
        return Submission(**{**data, "hops": [Hop(**hop) for hop in data["hops"]]})
    except (KeyError, TypeError) as error:
        raise sealed.Damaged(f"it is no record of a submission: {error!r}") from None
