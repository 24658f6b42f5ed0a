"""What the jobs of one run share, and what decides whether a job has to run.

Promises: a job that succeeded earlier in this run is not run again while its own text, its
inputs and the code that it takes are the same and its outputs are still there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..base import folders
from ..base.stop import Stop
from ..engines.environment import passed_on
from ..engines.protocol import Engine
from ..spec import credentials
from ..spec.spec import Job, Port, Spec
from ..store import belongings, models, tree
from ..store.datasets import Store
from ..store.versions import NoVersion
from . import actions, outputs
from .journal import Content, JobState, Journal, Run
from .masking import Mask
from .outputs import Place
from .report import Console
from .repository import Repository


@dataclass
class Workshop:
    """What the jobs of one run share."""

    spec: Spec
    place: Place
    run: Run
    journal: Journal
    store: Store
    engine: Engine
    repository: Repository
    given: dict[str, Content]  # the workflow's own inputs
    secrets: Mapping[str, str]
    event: Mapping[str, str]
    console: Console
    stop: Stop
    resumed: bool = False
    accept: bool = False  # what other code, inputs or text have made

    def mask(self) -> Mask:
        """Give what hides the secrets of the jobs, and those in what they get of this machine."""
        found = credentials.passed_on(passed_on()) | {*credentials.logins(*self.event.values())}
        return Mask([*self.secrets.values(), *found])

    def inputs(self, job: Job) -> dict[str, Content]:
        """Say what a job's inputs hold; raises KeyError while a job before it hasn't succeeded."""
        return {name: self.input(port, job) for name, port in job.inputs.items()}

    def input(self, port: Port, job: Job) -> Content:
        """Say what one input holds."""
        if port.source and port.source[0] != "workflow":
            return self.run.jobs[port.source[0]].contents[port.source[1]]
        if reference := self.reference(port):
            own = own_dataset(job, reference)
            found = self.run.own[own] if own in self.run.own else self.run.datasets[reference]
            return Content("dataset", found or "")
        if port.source:
            return self.given[port.source[1]]
        return Content(port.type, port.value or "")

    def reference(self, port: Port) -> str:
        """Give the reference to a dataset from outside that an input takes, or nothing."""
        if port.source and port.source[0] == "workflow":
            given = self.given[port.source[1]]
            return given.value if given.type == "dataset" else ""
        return (port.ref or "") if port.type == "dataset" and not port.source else ""

    def maker(self, job: Job) -> str:
        """Name a job as the source of what it makes."""
        return f"{self.place.workflow}/{job.name}"

    def fingerprint(self, job: Job) -> str:
        """Give what two runs of a job share exactly if one can stand for the other."""
        declared = {name: [port.type, port.ref] for name, port in job.outputs.items()}
        inputs = {name: self._identity(content) for name, content in self.inputs(job).items()}
        code = actions.code(job, self.event, self.repository)
        parts = [job.uses, job.parameters, job.env, declared, inputs, code]
        filled = [credentials.fill(given, self.secrets) for given in (job.parameters, job.env)]
        if filled != [job.parameters, job.env]:
            parts.append(self._proof(filled))
        return _digest(parts)

    def _proof(self, filled: Any) -> str:
        """Give what tells two values of a secret apart, and takes long to guess one by."""
        text = json.dumps(filled, sort_keys=True, default=str).encode()
        return hashlib.pbkdf2_hmac("sha256", text, self.run.id.encode(), 100_000).hex()

    def key(self, job: Job) -> belongings.Key:
        """Give what two runs of a job share exactly if one can go on with what the other left.

        A secret says who asks, not for what: another value is no other job.
        """
        declared = {name: [port.type, port.ref] for name, port in job.outputs.items()}
        key = {"its text": _digest([job.uses, job.parameters, job.env, declared])}
        for name, content in self.inputs(job).items():
            maker = (job.inputs[name].source or ("", ""))[0]
            code = content.type == "volume" and self.spec.jobs[maker].uses == "git-checkout@v1"
            found = belongings.code_key(self.volume(job, name)) if code else self._identity(content)
            key[f"input {name!r}"] = _digest(found)
        return key

    def _identity(self, content: Content) -> str:
        # Not a version's name: one that was lost and made again may have another.
        if content.type == "dataset" and content.value:
            with suppress(NoVersion):  # told where it is opened
                return f"dataset {self.store.find(content.value, whole=False).tree.digest}"
        return str(content)

    def reusable(self, job: Job) -> JobState | None:
        """Give what a job did earlier in this run, if that still holds and is still there."""
        state = self.run.jobs.get(job.name)
        if not state or state.state != "succeeded" or state.fingerprint != self.fingerprint(job):
            return None
        there = all(self._is_there(job, *item) for item in state.contents.items())
        return state if there else None

    def _is_there(self, job: Job, name: str, content: Content) -> bool:
        if content.type == "dataset":
            return self.store.exists(content.value)
        volume = self.place.volume(job.name, name)
        if content.type == "volume":
            return folders.is_folder(volume) and tree.scan(volume).digest == content.value
        if job.uses == "create-model@v1":
            top, model = self.place.kept / "models", str(job.parameters["name"])
            return models.is_whole(top, model, content.value)
        return True

    def recover(self, job: str) -> None:
        """Finish what a runner that was killed had begun to put in place."""
        state = self.run.jobs.get(job)
        if state and state.state == "committing":
            settled = outputs.settle(job, state.contents, self.place, self.store)
            if settled is not None:
                self.succeeded(job, replace(state, contents=settled))
            else:
                self.journal.put(self.run, job, None)
        elif state and folders.exists(self.place.draft(job)):
            # Killed between its success and the removal of its draft.
            self.cleared(self.place.draft(job))

    def succeeded(self, job: str, state: JobState) -> None:
        """Note that a job's outputs are in their places, and remove its draft."""
        self.journal.put(self.run, job, replace(state, state="succeeded"))
        # Not its copy on slow storage: what took its place may never be uploaded.
        self.cleared(self.place.draft(job))

    def cleared(self, folder: Path) -> None:
        """Remove what is not needed any more; a failure is told, and stops nothing."""
        try:
            folders.discard(folder)
        except OSError as error:
            self.console.line(f"! {folder} could not be removed: {error}")

    def is_stored(self, state: JobState) -> bool:
        """Tell whether the storage holds all versions of datasets that a job has made."""
        return all(self.store.exists(version) for version in _versions(state))

    def versions(self) -> list[str]:
        """List the versions of datasets that this run has made."""
        return [version for state in self.run.jobs.values() for version in _versions(state)]

    def volume(self, job: Job, name: str) -> Path:
        """Give the folder of the volume that a job reads under a name."""
        return self.place.volume(*(job.inputs[name].source or ("", "")))


def own_dataset(job: Job, reference: str) -> str:
    """Give the key of a job's own dataset, which it reads and writes, in the run's record."""
    return f"{job.name} {reference}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _versions(state: JobState) -> list[str]:
    return [content.value for content in state.contents.values() if content.type == "dataset"]
