"""What a job has written, checked, and put in its place.

    <work>/drafts/<workflow>/<job>/outputs/<name>    what the job has written
                                   commit/<name>/    a dataset's next version, about to be moved

Promises: outputs become visible only when the job has succeeded and all of them are sound.
`collect` leaves everything where it is and says what is to become of it; once that is written
down, `settle` does it, and may be killed and repeated at any moment with the same end.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError
from ..base.files import names, write_in_place
from ..base.retries import retry
from ..base.terminal import printable
from ..base.units import human
from ..spec import credentials
from ..spec.spec import Job, Port
from ..store import sealing, tree
from ..store.datasets import Datasets
from .logs import Console, JobLog
from .masking import Mask
from .place import Place, clear
from .record import BEGUN, Content, JobState, Record

LONGEST_STRING = 1 << 16  # bytes


def commit(
    job: Job, state: JobState, record: Record, place: Place, log: JobLog
) -> dict[str, Content]:
    """Put the outputs that were collected in their places; give them with their final versions."""
    place.check_attempt()
    record.put(job.name, state)
    with log.busy("keeping its outputs"):
        settled = settle(job.name, state.contents, place) or state.contents
    _succeeded(job.name, replace(state, contents=settled), record, place, log.console)
    return settled


def recover(job: str, record: Record, place: Place, console: Console) -> None:
    """Finish what a runner that was killed had begun to put in place."""
    state = record.jobs.get(job)
    if state and state.state == "committing":
        settled = settle(job, state.contents, place)
        if settled is None:
            record.put(job, BEGUN)
        else:
            _succeeded(job, replace(state, contents=settled), record, place, console)
    elif state and folders.exists(place.draft(job)):
        # Killed between its success and the removal of its draft.
        clear(place.draft(job), console)


def _succeeded(job: str, state: JobState, record: Record, place: Place, console: Console) -> None:
    """Note that a job's outputs are in their places, and remove its draft."""
    place.check_attempt()
    # Where the machine's power fails, it is found to be committing, which is then repeated.
    record.put(job, replace(state, state="succeeded"), synced=False)
    # Not its copy on slow storage: what took its place may never be uploaded.
    clear(place.draft(job), console)
    with suppress(OSError):
        place.discard_earlier(job)


def collect(
    job: Job, place: Place, secrets: Mapping[str, str], source: str, log: JobLog
) -> dict[str, Content]:
    """Check what a job has written and say what each output is to become.

    `secrets` may be held by a string; `source` is what the versions' manifests say of their origin.
    Raises GradlabError for an output that was never written, leads out of itself, or is no
    small UTF-8 text where it has to be, OSError for what can't be read.
    """
    draft, contents = place.draft(job.name), {}
    if (draft / "outputs").is_symlink():
        raise GradlabError("/outputs is no longer a folder", exit_code=1)
    for name, port in job.outputs.items():
        try:
            if port.type == "string":
                text = _text(name, draft / "outputs" / name)
                contents[name] = Content("string", credentials.seal(text, secrets))
            else:
                contents[name] = _collect(name, port, draft, place.datasets, source, log)
        except GradlabError as error:
            raise GradlabError(f"output {name!r} ({port.type}): {error}", exit_code=1) from error
    return contents


def _collect(
    name: str, port: Port, draft: Path, store: Datasets, source: str, log: JobLog
) -> Content:
    path = draft / "outputs" / name
    if not folders.is_folder(path):
        raise GradlabError(f"/outputs/{name} is no longer a folder")
    for left_out in sealing.seal(path):
        log.note(f"warning: not kept: /outputs/{name}/{left_out}")
    content = tree.scan(path)
    if port.type == "volume":
        return Content("volume", content.digest)
    if not content.files:
        raise GradlabError(f"nothing was written to /outputs/{name}")
    sealing.sync(path, content.files)
    version = store.plan(port.ref or "", content, source)
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


def remark(
    job: Job, place: Place, contents: Mapping[str, Content], secrets: Mapping[str, str], log: JobLog
) -> None:
    """Say what looks like a mistake in what a job that succeeded has written."""
    with suppress(OSError):  # it only observes
        for line in _remarks(job, place, contents):
            log.note(line)
    for name in _secret_strings(contents, secrets, log.mask):
        log.note(
            f"warning: the string /outputs/{name} holds a secret: it is handed on, and hidden "
            "where it is shown"
        )


def _secret_strings(
    contents: Mapping[str, Content], secrets: Mapping[str, str], mask: Mask
) -> Iterator[str]:
    """Name the strings that hold a secret, in whatever form."""
    for name, content in contents.items():
        text = credentials.unseal(content.value, secrets) if content.type == "string" else ""
        if mask(text) != text:
            yield name


def _remarks(job: Job, place: Place, contents: Mapping[str, Content]) -> Iterator[str]:
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


def settle(job: str, contents: Mapping[str, Content], place: Place) -> dict[str, Content] | None:
    """Put a job's outputs in their places, and give them with the versions' final numbers.

    None where the draft is gone that held them.
    """
    settled, draft, store = dict(contents), place.draft(job), place.datasets
    for name, content in contents.items():
        place.check_attempt()
        written, box = draft / "outputs" / name, draft / "commit" / name
        if content.type == "volume" and not _settle_volume(written, place.volume(job, name)):
            return None
        if content.type == "dataset":
            version = store.secure(content.value, lambda: place.fence(job))
            if not version:
                if not folders.exists(box / "manifest.json"):
                    return None
                if not folders.exists(box / "data"):
                    folders.move(written, box / "data")
                version = store.commit(content.value, box, lambda: place.fence(job))
            settled[name] = Content("dataset", version)
    return settled


def _settle_volume(written: Path, volume: Path) -> bool:
    if folders.exists(written):
        retry(lambda: volume.parent.mkdir(parents=True, exist_ok=True))
        folders.move(written, volume)
    return folders.exists(volume)
