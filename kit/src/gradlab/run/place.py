"""Where a workflow's things lie.

<kept>/workflows/<workflow>/                run-<number>.json, jobs/: the run's record
<work>/workflows/<workflow>/logs/<job>.log
                            lock, begin.lock, jobs/<job>.lock
                            attempts/<job>/                 as attempts.py says
       drafts/<workflow>/<job>/             what a job writes until it has succeeded
                         <job>~<number>/    the same, where an earlier attempt may be alive
       volumes/<workflow>/<job>/<name>      volumes, for as long as the run lasts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base import files, folders
from ..engines.protocol import DRAFTS
from ..store import leases
from ..store.backend import Backend
from ..store.belongings import Draft
from ..store.datasets import Datasets
from ..store.drafts import DraftCopies
from ..store.location import Location
from ..store.shared import Keyed
from . import attempts
from .logs import Console


@dataclass(frozen=True)
class Place:
    """Where a workflow's things lie: in a backend, and in `work` on the local disk."""

    workflow: str
    backend: Backend
    work: Path
    datasets: Datasets
    attempt: attempts.Attempt | None = None  # this process's at a job, if it is numbered

    @classmethod
    def of(cls, workflow: str, own: Location) -> Place:
        """Give where the things of a workflow lie, in a project's location."""
        return cls(workflow, own.backend, own.work, Datasets(own))

    @property
    def is_apart(self) -> bool:
        """Whether things are worked on elsewhere than they are kept."""
        return self.work != self.backend.folder

    @property
    def folders(self) -> list[Path]:
        """The folders of this machine in which its things lie."""
        return [self.work, *filter(None, [self.backend.folder])]

    @property
    def record(self) -> str:
        """The key of the folder of the run's record."""
        return f"workflows/{self.workflow}"

    def shared(self, name: str) -> Keyed:
        """What one process at a time has, of other machines too where the storage can tell them."""
        key = f"workflows/{self.workflow}/{name.removesuffix('.lock')}"
        path = self.work / "workflows" / self.workflow / name
        return Keyed(self.backend, self.work, path, key)

    def fence(self, job: str) -> int:
        """Give the token under which this process does a job; OSError where another does it now."""
        return leases.fence(self.backend, f"workflows/{self.workflow}/jobs/{job}")

    def log(self, job: str) -> Path:
        """The job's log file."""
        return self.work / "workflows" / self.workflow / "logs" / f"{job}.log"

    @property
    def volumes(self) -> Path:
        """The volumes of this run."""
        return self.work / "volumes" / self.workflow

    def volume(self, job: str, name: str) -> Path:
        """One volume of this run."""
        return self.volumes / job / name

    def draft(self, job: str) -> Path:
        """The folder in which a job works."""
        return self.drafts / self.numbered(job)

    @property
    def drafts(self) -> Path:
        """The folders in which the jobs work."""
        return self.work / DRAFTS / self.workflow

    def attempts(self, job: str) -> Path:
        """The attempts at a job, where several machines may make some."""
        return self.work / "workflows" / self.workflow / "attempts" / job

    def numbered(self, job: str) -> str:
        """Name a job, with the number of its draft where that is not the first."""
        own = self.attempt and self.attempt.folder == self.attempts(job) and self.attempt
        return attempts.name(job, own.draft if own else attempts.draft_of(self.attempts(job)))

    def check_attempt(self) -> None:
        """Raise GradlabError where another attempt has begun at what this process does."""
        if self.attempt:
            self.attempt.check()

    def copies(self, job: str, run: str, draft: Draft | None = None) -> DraftCopies:
        """The copies of a job's draft, for a local disk that may vanish."""
        key = f"{DRAFTS}/{self.workflow}/{job}"
        folder = self.draft(job) / "outputs"
        return DraftCopies(folder, self.backend, key, run, draft, lambda: self.fence(job))

    def discard_draft(self, job: str) -> None:
        """Forget what a job wrote and didn't finish."""
        folders.discard(self.draft(job))
        self.discard_earlier(job)
        self.copies(job, "").discard()

    def discard_earlier(self, job: str) -> None:
        """Remove the drafts of attempts whose machines were taken for dead."""
        own = self.numbered(job)
        if own != job:
            for name in files.names(self.drafts):
                if name != own and (name == job or name.startswith(f"{job}~")):
                    folders.discard(self.drafts / name)

    def forget_copy(self, job: str, run: str) -> None:
        """Forget the copy of what a job wrote in a run, which has its result."""
        # On a fast storage too, which may have been a slow one then.
        self.copies(job, run).forget()


def clear(folder: Path, console: Console) -> None:
    """Remove what is not needed any more; a failure is told, and stops nothing."""
    try:
        folders.discard(folder)
    except OSError as error:
        console.line(f"! {folder} could not be removed: {error}")
