"""What a job finds: its inputs, what it has left when it died, its folder.

    <work>/drafts/<workflow>/<job>/outputs/<name>    what the job writes, kept until it succeeds
                                   inputs/<name>     copies, where the engine needs some
                                   tmp/

Promises: a job that failed or was killed finds its outputs as it left them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base import folders, processes
from ..base.errors import GradlabError
from ..base.files import names
from ..base.stop import Stop
from ..spec import credentials
from ..spec.spec import Job
from ..store import belongings, transfer
from ..store.belongings import Draft, Key
from ..store.drafts import DraftCopies
from .logs import JobLog
from .place import Place
from .record import Content

MIRROR_MINUTES = 5.0
# How long to wait for a storage that is gone: the notebook mounts Google Drive again.
PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to run, with secrets filled in."""

    job: Job
    folder: Path
    contents: Mapping[str, Content]  # what the inputs hold
    inputs: Mapping[str, Path]
    parameters: Mapping[str, Any]
    env: Mapping[str, str]


def prepare(
    job: Job,
    contents: Mapping[str, Content],
    told: Mapping[str, str],
    secrets: Mapping[str, str],
    place: Place,
    read_only: bool,
    log: JobLog,
) -> Prepared:
    """Lay out a job's folder and its inputs, `read_only` where the job can't write to these.

    `told` is what its environment tells it.
    """
    folder = place.draft(job.name)
    make_folder(job, place)
    place.backend.check(PATIENCE)
    with log.busy("laying out its inputs"):
        inputs = {
            name: _lay(job, name, contents[name], secrets, place, read_only) for name in contents
        }
    env = {**credentials.fill(job.env, secrets), **told, processes.MARK: str(folder)}
    return Prepared(job, folder, contents, inputs, credentials.fill(job.parameters, secrets), env)


def make_folder(job: Job, place: Place) -> None:
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


def tidy(draft: Path) -> None:
    """Remove all but the outputs from a job's folder."""
    for name in ("inputs", "tmp", "root", "layers", "commit", "mirror"):
        folders.discard(draft / name)


def _lay(
    job: Job, name: str, content: Content, secrets: Mapping[str, str], place: Place, read_only: bool
) -> Path:
    """Give the file or folder that a job finds as /inputs/NAME."""
    copy = place.draft(job.name) / "inputs" / name
    if content.type == "string":
        copy.write_text(credentials.unseal(content.value, secrets), "utf-8")
        return copy
    if not content.value:  # optional, or the job's own dataset before its first version
        copy.mkdir()
        return copy
    if content.type == "dataset":
        version = place.datasets.find(content.value)
        if read_only:
            return place.datasets.open(version)
        place.datasets.lay(version, copy)
        return copy
    folder = place.volume(*(job.inputs[name].source or ("", "")))
    if read_only:
        return folder
    if transfer.clone(folder, copy).digest != content.value:
        raise GradlabError(f"the volume {folder} is not what its job has made", exit_code=1)
    return copy


@contextmanager
def kept(
    job: Job, key: Key, run: str, place: Place, accept: bool, log: JobLog, stop: Stop
) -> Iterator[None]:
    """Give a job what it has left, and keep what it writes now, and what is known of that."""
    folder = place.draft(job.name)
    draft, copies = _taken_up(job, key, run, place, accept, log)
    keeper = belongings.Keeper(folder, draft)
    draft.write(folder, synced=belongings.holds_anything(folder))
    keeper.start(_minutes())
    copier = copies.copier(_minutes())
    try:
        yield
    except BaseException:
        with stop.waits_for_copy():
            keeper.stop()
            if copier:
                copier.flush()
            with suppress(OSError):
                tidy(folder)
            # The job has ended, and all its processes: what differs later is damage.
            limit = belongings.SECONDS if stop.signal else float("inf")
            keeper.look(ended=True, seconds=limit)
        raise
    keeper.stop()
    if copier:
        copier.stop()


def _taken_up(
    job: Job, key: Key, run: str, place: Place, accept: bool, log: JobLog
) -> tuple[Draft, DraftCopies]:
    """Put what the job has left where it finds it; say what that is, and what copies it."""
    folder = place.draft(job.name)
    _reopen(folder)
    found, remark = belongings.choose(folder, key, accept)
    if remark:
        log.note(remark)
    if bad := belongings.damaged(folder / "outputs", found) if found else []:
        log.note(
            f"! damaged in what it had written: {', '.join(bad[:5])}"
            f"{f' and {len(bad) - 5} more' if len(bad) > 5 else ''}; set aside in "
            f"{belongings.set_aside(folder, damaged=True)}"
        )
        found = None
    draft = Draft(key, *((found.id, found.base) if found else ()))
    copies = place.copies(job.name, run, draft)
    # A fast storage may have been a slow one when the job was cut off.
    if number := copies.restore(None if accept else key, found):
        log.note("carries on with the copy of its outputs in the storage")
        draft.id, draft.base = belongings.new_id(), number
    elif found:
        draft.files, draft.links = found.files, found.links
    return draft, copies


def _reopen(draft: Path) -> None:
    """Put back into the outputs what was about to become a version, and did not."""
    for name in [] if (draft / "commit").is_symlink() else names(draft / "commit"):
        data, written = draft / "commit" / name / "data", draft / "outputs" / name
        if folders.exists(data) and not folders.exists(written):
            written.parent.mkdir(exist_ok=True)
            folders.move(data, written)


def _minutes() -> float:
    text = os.environ.get("GRADLAB_MIRROR_MINUTES", str(MIRROR_MINUTES))
    try:
        return float(text)
    except ValueError:
        raise GradlabError(f"GRADLAB_MIRROR_MINUTES is {text!r}: not a number") from None
