"""The record of a workflow's last run: what it took, how far each of its jobs came.

    <storage>/workflows/<name>/run-<number>.json           the run, and what it began with
                               jobs/<job>-<number>.json    one job, and of which run that was

Promises: each state is a file of its own, as in store/records.py, so a kill at any moment leaves
the state before or the one after. What one process notes of a job touches no other job. Secrets
are never in it.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..store import leases, sealed
from ..store.backend import Backend
from ..store.records import Records

UTC = "%Y-%m-%dT%H:%M:%SZ"
JOB = re.compile(r"(.+)-\d{8}\.json", re.DOTALL)
SAYS = "which says how far the run came"


@dataclass(frozen=True)
class Content:
    """What an input or output holds."""

    type: str
    value: str  # a dataset's NAME:VERSION, a volume's SHA-256, a string itself

    def __str__(self) -> str:
        return f"{self.type} {self.value}"


@dataclass(frozen=True)
class JobState:
    """How far a job came; `committing`: all its outputs are ready and are being put in place."""

    state: Literal["begun", "committing", "succeeded"]
    fingerprint: str = ""
    contents: dict[str, Content] = field(default_factory=dict)
    seconds: float = 0.0
    reads: dict[str, str] = field(default_factory=dict)  # of each checkout what the job reads of it

    def versions(self) -> list[str]:
        """List the versions of datasets that the job has made."""
        return [each.value for each in self.contents.values() if each.type == "dataset"]


BEGUN = JobState("begun")


@dataclass
class Run:
    """One run of a workflow, with its resumptions."""

    id: str = field(default_factory=lambda: secrets.token_hex(4))
    started: str = field(default_factory=lambda: time.strftime(UTC, time.gmtime()))
    finished: bool = False
    known_as: str = ""  # the id that another engine, such as Argo, knows it by
    fresh: bool = False  # its trainings start over, too
    datasets: dict[str, str | None] = field(default_factory=dict)  # reference -> NAME:VERSION
    digests: dict[str, str] = field(default_factory=dict)  # reference -> SHA-256 of its files
    # Of a run that began with --fresh, for jobs that go on with a dataset: "job reference" -> it
    own: dict[str, str | None] = field(default_factory=dict)
    # As version 0.1 noted them, in one file with the run; a job's own record counts before it.
    jobs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Record:
    """A run and how far its jobs came, as they are noted on a backend."""

    backend: Backend
    folder: str
    run: Run = field(default_factory=Run)
    jobs: dict[str, JobState] = field(default_factory=dict)
    resumed: bool = False

    @classmethod
    def load(cls, backend: Backend, folder: str) -> Record | None:
        """Read the newest record that is whole, None if there is none; raises OSError."""
        run = Records(backend, folder, "run-", SAYS).load(_run)
        if run is None:
            return None
        record = cls(backend, folder, run)
        found = map(JOB.fullmatch, backend.list(f"{folder}/jobs"))
        for name in sorted({match[1] for match in found if match} | run.jobs.keys()):
            record.reload(name)
        return record

    def reload(self, job: str) -> None:
        """Read how far a job came by now, whoever has done it; raises OSError."""
        found = self._records(job).load(_job_of_run)
        if found and found[0] == self.run.id:
            state = found[1]
        else:
            state = _job(self.run.jobs[job]) if job in self.run.jobs else BEGUN
        self.jobs.pop(job, None)
        if state.state != "begun":
            self.jobs[job] = state

    def put(self, job: str, state: JobState, synced: bool = True) -> None:
        """Note how far a job came; OSError where another process does it now."""
        leases.fence(self.backend, f"{self.folder}/jobs/{job}")
        self._records(job).put({"run": self.run.id, **asdict(state)}, synced)
        self.jobs.pop(job, None)
        if state.state != "begun":
            self.jobs[job] = state

    def save(self) -> None:
        """Note the run itself."""
        leases.fence(self.backend, f"{self.folder}/begin")
        Records(self.backend, self.folder, "run-", SAYS).put(asdict(self.run))

    def versions(self) -> list[str]:
        """List the versions of datasets that this run has made."""
        return [version for state in self.jobs.values() for version in state.versions()]

    def taken_and_made(self) -> set[str]:
        """Give the versions of datasets that this run began with, and those that it has made."""
        taken = [*self.run.datasets.values(), *self.run.own.values()]
        return {*filter(None, taken), *self.versions()}

    def _records(self, job: str) -> Records:
        return Records(self.backend, f"{self.folder}/jobs", f"{job}-", SAYS)


def _run(data: dict[str, Any]) -> Run:
    try:
        run = Run(**data)
        for job in run.jobs.values():
            _job(job)
        return run
    except (KeyError, TypeError, AttributeError) as error:
        raise sealed.Damaged(f"it is no record of a run: {error!r}") from None


def _job_of_run(data: dict[str, Any]) -> tuple[str, JobState]:
    try:
        rest = dict(data)
        return rest.pop("run"), _job(rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise sealed.Damaged(f"it is no record of a job: {error!r}") from None


def _job(data: dict[str, Any]) -> JobState:
    contents = {name: Content(**content) for name, content in data["contents"].items()}
    return JobState(**{**data, "contents": contents})
