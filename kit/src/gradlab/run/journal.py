"""The record of a workflow's last run: what it took, how far it came.

    <storage>/workflows/<name>/run-<number>.json

Promises: each state is a file of its own, written once, with a checksum; the newest that is whole
counts, so a kill at any moment leaves the state before or the one after. A damaged one is told,
and never believed. Secrets are never in it.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..store import sealed
from ..store.records import Records

UTC = "%Y-%m-%dT%H:%M:%SZ"


@dataclass
class Content:
    """What an input or output holds."""

    type: str
    value: str  # a dataset's NAME:VERSION, a volume's SHA-256, a string itself

    def __str__(self) -> str:
        return f"{self.type} {self.value}"


@dataclass
class JobState:
    """How far a job came; `committing`: all its outputs are ready and are being put in place."""

    state: Literal["committing", "succeeded"]
    fingerprint: str
    contents: dict[str, Content]
    seconds: float


@dataclass
class Run:
    """One run of a workflow, with its resumptions."""

    id: str = field(default_factory=lambda: secrets.token_hex(4))
    started: str = field(default_factory=lambda: time.strftime(UTC, time.gmtime()))
    finished: bool = False
    datasets: dict[str, str | None] = field(default_factory=dict)  # reference -> NAME:VERSION
    digests: dict[str, str] = field(default_factory=dict)  # reference -> SHA-256 of its files
    # Of a run that began with --fresh, for jobs that go on with a dataset: "job reference" -> it
    own: dict[str, str | None] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)


class Journal:
    """Keeps the run's record in a folder."""

    def __init__(self, folder: Path) -> None:
        self.records = Records(folder, "run-", "which says how far the run came")
        self.lock = threading.Lock()

    def load(self) -> Run | None:
        """Read the newest record that is whole, None if there is none; raises OSError."""
        return self.records.load(_run)

    def put(self, run: Run, job: str, state: JobState | None) -> None:
        """Note how far a job came, None for nowhere, and write the record."""
        with self.lock:
            run.jobs.pop(job, None)
            if state:
                run.jobs[job] = state
            self.records.put(asdict(run))

    def save(self, run: Run) -> None:
        """Write a new record, and remove old ones."""
        with self.lock:
            self.records.put(asdict(run))


def _run(data: dict[str, Any]) -> Run:
    try:
        jobs = {name: _job(job) for name, job in data.pop("jobs").items()}
        return Run(**data, jobs=jobs)
    except (KeyError, TypeError, AttributeError) as error:
        raise sealed.Damaged(f"it is no record of a run: {error!r}") from None


def _job(data: dict[str, Any]) -> JobState:
    contents = {name: Content(**content) for name, content in data.pop("contents").items()}
    return JobState(**data, contents=contents)
