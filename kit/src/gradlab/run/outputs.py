"""What a job has written, checked, and put in its place.

    <work>/drafts/<workflow>/<job>/outputs/<name>    what the job writes, kept until it succeeds
                                   commit/<name>/    a dataset's next version, about to be moved
    <work>/volumes/<workflow>/<job>/<name>           volumes, for as long as the run lasts

Promises: outputs become visible only when the job has succeeded and all of them are sound.
`collect` leaves everything where it is and says what is to become of it; once that is written
down, `settle` does it, and may be killed and repeated at any moment with the same end.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError
from ..base.files import names, write_in_place
from ..base.retries import retry
from ..base.terminal import printable
from ..base.units import human
from ..engines.protocol import DRAFTS
from ..spec import credentials
from ..spec.spec import Job, Port
from ..store import sealing, tree
from ..store.belongings import Draft
from ..store.datasets import Store
from ..store.drafts import DraftCopies
from ..store.folder import Folder
from .journal import Content
from .masking import Mask

LONGEST_STRING = 1 << 16  # bytes


@dataclass(frozen=True)
class Place:
    """Where a workflow's things lie: in a backend, and in `work` on the local disk."""

    workflow: str
    backend: Folder
    work: Path

    @property
    def kept(self) -> Path:
        """The backend's folder."""
        return self.backend.top

    @property
    def record(self) -> Path:
        """The folder of the run's record."""
        return self.kept / "workflows" / self.workflow

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


def prepare(job: Job, place: Place) -> None:
    """Make a job's folder, with what an earlier run of it that died has written."""
    draft = place.draft(job.name)
    tidy(draft)
    if (draft / "outputs").is_symlink():
        (draft / "outputs").unlink()
    for name in ("inputs", "tmp/home", "commit", "outputs"):
        (draft / name).mkdir(parents=True, exist_ok=True)
    for name, port in job.outputs.items():
        folders.discard(place.volume(job.name, name))
        path = draft / "outputs" / name
        if path.is_symlink() or path.is_file():
            path.unlink()  # what an earlier run put in the place of a folder, or its string
        if port.type != "string":
            path.mkdir(exist_ok=True)


def reopen(draft: Path) -> None:
    """Put back into the outputs what was about to become a version, and did not."""
    for name in [] if (draft / "commit").is_symlink() else names(draft / "commit"):
        data, written = draft / "commit" / name / "data", draft / "outputs" / name
        if folders.exists(data) and not folders.exists(written):
            written.parent.mkdir(exist_ok=True)
            folders.move(data, written)


def tidy(draft: Path) -> None:
    """Remove all but the outputs from a job's folder."""
    for name in ("inputs", "tmp", "root", "layers", "commit", "mirror"):
        folders.discard(draft / name)


@dataclass(frozen=True)
class Inspection:
    """What is needed to look at a job's outputs; `tell` gets a remark."""

    store: Store
    secrets: Mapping[str, str]  # which a string may hold
    source: str  # what the versions' manifests say of where they come from
    tell: Callable[[str], None]


def collect(job: Job, place: Place, by: Inspection) -> dict[str, Content]:
    """Check what a job has written and say what each output is to become.

    Raises GradlabError for an output that was never written, leads out of itself, or is no
    small UTF-8 text where it has to be, OSError for what can't be read.
    """
    draft, contents = place.draft(job.name), {}
    if (draft / "outputs").is_symlink():
        raise GradlabError("/outputs is no longer a folder", exit_code=1)
    for name, port in job.outputs.items():
        try:
            contents[name] = _collect(name, port, draft, by)
        except GradlabError as error:
            raise GradlabError(f"output {name!r} ({port.type}): {error}", exit_code=1) from error
    return contents


def _collect(name: str, port: Port, draft: Path, by: Inspection) -> Content:
    path = draft / "outputs" / name
    if port.type == "string":
        return Content("string", credentials.seal(_text(name, path), by.secrets))
    if not folders.is_folder(path):
        raise GradlabError(f"/outputs/{name} is no longer a folder")
    for left_out in sealing.seal(path):
        by.tell(f"warning: not kept: /outputs/{name}/{left_out}")
    content = tree.scan(path)
    if port.type == "volume":
        return Content("volume", content.digest)
    if not content.files:
        raise GradlabError(f"nothing was written to /outputs/{name}")
    sealing.sync(path, content.files)
    version = by.store.plan(port.ref or "", content, by.source)
    write_in_place(draft / "commit" / name / "manifest.json", version.to_text())
    return Content("dataset", str(version))


def _text(name: str, path: Path) -> str:
    found = folders.status(path)
    if found is None:
        raise GradlabError(f"the file /outputs/{name} was not written")
    if not stat.S_ISREG(found.st_mode):  # nor a link to somewhere else
        raise GradlabError(f"/outputs/{name} is not a file; write the text to it")
    data = retry(lambda: _beginning(path))
    if len(data) > LONGEST_STRING:
        raise GradlabError(f"/outputs/{name} is larger than {human(LONGEST_STRING)}")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise GradlabError(f"/outputs/{name} is not text in UTF-8") from None
    return text


def _beginning(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(LONGEST_STRING + 1)


def secret_strings(
    contents: Mapping[str, Content], secrets: Mapping[str, str], mask: Mask
) -> Iterator[str]:
    """Name the strings that hold a secret, in whatever form."""
    for name, content in contents.items():
        text = credentials.unseal(content.value, secrets) if content.type == "string" else ""
        if mask(text) != text:
            yield name


def remarks(job: Job, place: Place, contents: dict[str, Content]) -> Iterator[str]:
    """Say what looks like a mistake in what a job that succeeded has written."""
    outputs = place.draft(job.name) / "outputs"
    for name in sorted(set(names(outputs)) - set(job.outputs)):
        yield f"warning: /outputs/{printable(name)} is not kept: the job declares no such output"
    for name, content in contents.items():
        if content.type == "volume" and content.value == tree.Tree().digest:
            yield f"warning: the volume /outputs/{name} is empty"
        if content.type == "string" and not content.value.strip():
            yield (
                f"warning: the string /outputs/{name} is empty; where a pipeline writes it, "
                "`set -o pipefail` lets a failure of its first part fail the job"
            )


def settle(
    job: str, contents: dict[str, Content], place: Place, store: Store
) -> dict[str, Content] | None:
    """Put a job's outputs in their places, and give them with the versions' final numbers.

    None where the draft is gone that held them.
    """
    settled, draft = dict(contents), place.draft(job)
    for name, content in contents.items():
        written, box = draft / "outputs" / name, draft / "commit" / name
        if content.type == "volume" and not _settle_volume(written, place.volume(job, name)):
            return None
        if content.type == "dataset":
            version = store.secure(content.value)
            if not version:
                if not folders.exists(box / "manifest.json"):
                    return None
                if not folders.exists(box / "data"):
                    folders.move(written, box / "data")
                version = store.commit(content.value, box)
            settled[name] = Content("dataset", version)
    return settled


def _settle_volume(written: Path, volume: Path) -> bool:
    if folders.exists(written):
        retry(lambda: volume.parent.mkdir(parents=True, exist_ok=True))
        folders.move(written, volume)
    return folders.exists(volume)
