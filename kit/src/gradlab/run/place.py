"""Where a workflow's things lie.

<kept>/workflows/<workflow>/                run-<number>.json, jobs/: the run's record
<work>/workflows/<workflow>/logs/<job>.log
                            lock, begin.lock, jobs/<job>.lock
       drafts/<workflow>/<job>/             what a job writes until it has succeeded
       volumes/<workflow>/<job>/<name>      volumes, for as long as the run lasts
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base import folders
from ..engines.protocol import DRAFTS
from ..store.belongings import Draft
from ..store.datasets import Datasets
from ..store.drafts import DraftCopies
from ..store.folder import Folder
from .logs import Console


@dataclass(frozen=True)
class Place:
    """Where a workflow's things lie: in a backend, and in `work` on the local disk."""

    workflow: str
    backend: Folder
    work: Path
    datasets: Datasets

    @property
    def kept(self) -> Path:
        """The backend's folder."""
        return self.backend.top

    @property
    def record(self) -> str:
        """The key of the folder of the run's record."""
        return f"workflows/{self.workflow}"

    def lock(self, name: str) -> Path:
        """A file that is locked; other machines see only the storage, which may have no locks."""
        return self.work / "workflows" / self.workflow / name

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
        return self.work / DRAFTS / self.workflow / job

    def copies(self, job: str, run: str, draft: Draft | None = None) -> DraftCopies:
        """The copies of a job's draft, for a local disk that may vanish."""
        key = f"{DRAFTS}/{self.workflow}/{job}"
        return DraftCopies(self.draft(job) / "outputs", self.backend, key, run, draft)

    def discard_draft(self, job: str) -> None:
        """Forget what a job wrote and didn't finish."""
        folders.discard(self.draft(job))
        self.copies(job, "").discard()

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
