"""A run that was handed to other machines: all that its jobs need of this one, in the storage.

    <work>/workflows/<workflow>/submissions/<id>/
        submission.json    the run, its jobs and inputs, and of which code it is
        .gradient/workflows/<name>.yaml, pyproject.toml    as they were
        spec.json          what the workflow says: thousands of jobs are read in a moment
        secrets.json       values of secrets, readable by its owner only, until the run ends
        stopped            there once nothing of it is to go on

Promises: what a job does is decided here, once: a machine that does one reads nothing of the
project's folder. The code is in the volumes of the run's checkouts, which are made before anything
is submitted. No value of a secret is in any other file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..base import files, folders
from ..base.errors import GradlabError
from ..engines.environment import passed_on
from ..services import session
from ..spec import credentials
from ..spec.spec import FOLDER, Job, Spec, from_json, to_json
from ..store import location, sealed
from ..store.records import Records
from . import attempts
from .actions import checkout
from .place import Place
from .record import Content, Record
from .repository import Repository
from .sources import Sources

FILE, SPEC = "submission.json", "spec.json"
SECRETS, STOPPED = "secrets.json", "stopped"
# Each machine has its own.
NOT_TAKEN_ALONG = re.compile(r"GRADLAB_SESSION_MINUTES|GRADLAB_JOB\w*|CUDA_\w+|NVIDIA_\w+")
SAYS = "which says what of a run was submitted"


@dataclass(frozen=True)
class Submission:
    """What was submitted of a run."""

    id: str
    run: str  # the record's
    project: str
    storage: str
    workflow: str  # the name of its file
    jobs: list[str]  # in an order that `needs` allows
    engines: dict[str, str]  # job -> in which it runs
    event: dict[str, str]
    url: str
    head: str
    tree: str  # SHA-256 of the working tree, where a job has checked it out
    accept: bool
    given: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The workflow's name."""
        return Path(self.workflow).stem

    def place(self) -> Place:
        """Give where the workflow's things lie."""
        os.environ["GRADLAB_STORAGE"] = self.storage
        return Place.of(self.name, location.of(self.project))

    def spec(self, folder: Path) -> Spec:
        """Read the workflow as it was, which was checked then."""
        return from_json(json.loads(files.read_text(folder / SPEC)), folder / FOLDER)

    def sources(self, spec: Spec, job: Job, folder: Path) -> Sources:
        """Give what a job takes; GradlabError where a secret is not at hand."""
        given = {name: Content(**content) for name, content in self.given.items()}
        repository = Submitted(folder, self)
        return Sources(spec, given, _secrets(job, spec, folder), self.event, repository)


class Submitted(Repository):
    """The project's repository as it was when a run was submitted: nothing of it is read."""

    def __init__(self, folder: Path, submission: Submission) -> None:
        self.root, self.storage, self.tracked = folder, [], False
        self.url, self._head, self._tree = submission.url, submission.head, submission.tree

    def commit(self, ref: str) -> str:
        """Give the commit that was checked out."""
        return self._head if ref == "HEAD" else ""

    def digest(self) -> str:
        """Give the SHA-256 of the working tree as it was."""
        return self._tree


def make(
    jobs: Sequence[Job],
    engines: Mapping[str, str],
    sources: Sources,
    record: Record,
    place: Place,
    accept: bool,
) -> tuple[Submission, Path]:
    """Write down all that jobs of a run need; give it with its folder."""
    repository, root = sources.repository, sources.repository.root
    trees = (checkout.code(job, sources.event, repository) for job in jobs)
    submission = Submission(
        id=secrets.token_hex(8),
        run=record.run.id,
        project=session.project_name(root),
        storage=str(place.backend),
        workflow=sources.spec.path.name,
        jobs=[job.name for job in jobs],
        engines=dict(engines),
        event=dict(sources.event),
        url=repository.url,
        head=repository.commit("HEAD"),
        tree=next(filter(None, trees), ""),
        accept=accept,
        given={name: asdict(content) for name, content in sources.given.items()},
    )
    folder = folder_of(place, submission.id)
    (folder / FOLDER).mkdir(parents=True, mode=0o700)
    shutil.copyfile(sources.spec.path, folder / FOLDER / submission.workflow)
    (folder / SPEC).write_text(json.dumps(to_json(sources.spec), default=str), "utf-8")
    with suppress(FileNotFoundError):
        shutil.copyfile(root / "pyproject.toml", folder / "pyproject.toml")
    _keep_secrets(folder / SECRETS, sources.secrets)
    files.write_durably(folder / FILE, sealed.to_text(asdict(submission)).encode())
    _pointers(place).put({"id": submission.id, "open": True})
    _sweep(place, submission.id)
    return submission, folder


def load(folder: Path) -> Submission:
    """Read what was submitted; GradlabError where that can't be had."""
    try:
        return Submission(**sealed.load(folder / FILE))
    except (OSError, ValueError, TypeError) as error:
        raise GradlabError(
            f"{folder / FILE}, {SAYS}, can't be read here: {error}.\nIs the storage mounted on "
            "this machine under the same path?"
        ) from error


def current(place: Place) -> tuple[Submission, Path, bool] | None:
    """Give the last submission of a workflow, its folder, and whether it has not been closed."""
    pointer = _pointers(place).load(lambda data: (str(data["id"]), bool(data["open"])))
    if pointer is None or not folders.exists(folder_of(place, pointer[0]) / FILE):
        return None
    folder = folder_of(place, pointer[0])
    return load(folder), folder, pointer[1]


def enter(folder: Path) -> None:
    """Let this process do a job of a submission, with the variables that jobs get."""
    os.chdir(folder)
    for name, value in _kept(folder).get("environment", {}).items():
        os.environ.setdefault(name, value)


def close(submission: Submission, folder: Path, place: Place) -> None:
    """Note that nothing of a submission goes on, and remove the secrets."""
    with suppress(FileNotFoundError):
        (folder / SECRETS).unlink()
    found = current(place)
    if found and found[0].id == submission.id and found[2]:
        _pointers(place).put({"id": submission.id, "open": False})


def is_over(submission: Submission, spec: Spec, record: Record, place: Place) -> bool:
    """Tell whether no job is left that could still run."""
    failed = set[str]()
    for name in submission.jobs:
        state = record.jobs.get(name)
        if state and state.state == "succeeded":
            continue
        if not failed.intersection(spec.jobs[name].needs) and not _has_failed(
            name, submission, place
        ):
            return False
        failed.add(name)
    return True


def stop(folder: Path) -> None:
    """Keep jobs of a submission from beginning anew."""
    (folder / STOPPED).touch()


def is_stopped(folder: Path) -> bool:
    """Tell whether jobs of a submission are not to begin anew."""
    return folders.exists(folder / STOPPED)


def folder_of(place: Place, id: str) -> Path:
    """Give the folder of a submission."""
    return place.work / "workflows" / place.workflow / "submissions" / id


def _has_failed(name: str, submission: Submission, place: Place) -> bool:
    last = attempts.last(place.attempts(name))
    return bool(last and last.submission == submission.id and last.ended == "failed")


def _pointers(place: Place) -> Records:
    return Records(place.backend, place.record, "submission-", SAYS)


def _keep_secrets(path: Path, values: Mapping[str, str]) -> None:
    """Write the values of secrets, and the variables that jobs get, for nobody else to read."""
    environment = {
        name: value for name, value in passed_on().items() if not NOT_TAKEN_ALONG.fullmatch(name)
    }
    text = json.dumps({"secrets": dict(values), "environment": environment})
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _kept(folder: Path) -> dict[str, Any]:
    try:
        kept: dict[str, Any] = json.loads(files.read_text(folder / SECRETS))
        return kept
    except FileNotFoundError:  # by another way, as on Kubernetes: in the environment
        return {}


def _secrets(job: Job, spec: Spec, folder: Path) -> dict[str, str]:
    kept = dict(_kept(folder).get("secrets", {}))
    wanted = credentials.names_in(job.env, job.parameters) - kept.keys()
    where = f"{spec.path}:{job.mark.line}: job {job.name!r}"
    return kept | credentials.values_of(dict.fromkeys(wanted, where))


def _sweep(place: Place, id: str) -> None:
    """Remove earlier submissions."""
    top = folder_of(place, id).parent
    with suppress(OSError):
        for name in files.names(top):
            if name != id:
                folders.discard(top / name)
