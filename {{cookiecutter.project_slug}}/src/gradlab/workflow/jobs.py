"""One job of a run: what it reads, whether it has to run, and how it ended.

Promises: a job that succeeded earlier in this run is not run again while its own text, its
inputs and the code that it takes are the same and its outputs are still there; one that failed
or was killed finds its outputs as it left them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import GradlabError
from . import actions, credentials, models, outputs, process, tree
from .datasets import NoVersion, Store
from .engines import Engine, passed_on
from .journal import Content, JobState, Journal, Run
from .masking import Mask
from .outputs import Inspection, Place
from .report import Console, JobLog
from .repository import Repository
from .spec import Job, Port, Spec
from .stop import Stop

MIRROR_MINUTES = 5.0
# How long to wait for a storage that is gone: the notebook mounts Google Drive again.
PATIENCE = 60.0  # seconds


@dataclass
class Result:
    """How a job ended."""

    state: str  # ran, reused, failed, stopped or skipped
    seconds: float = 0.0
    contents: dict[str, Content] = field(default_factory=dict)
    message: str = ""
    tail: tuple[str, ...] = ()


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
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

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
            return tree.is_folder(volume) and tree.scan(volume).digest == content.value
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
                self._succeeded(job, replace(state, contents=settled))
            else:
                self.journal.put(self.run, job, None)

    def _succeeded(self, job: str, state: JobState) -> None:
        self.journal.put(self.run, job, replace(state, state="succeeded"))
        # Not its copy on slow storage: what took its place may never be uploaded.
        tree.discard(self.place.draft(job))

    def is_stored(self, state: JobState) -> bool:
        """Tell whether the storage holds all versions of datasets that a job has made."""
        return all(self.store.exists(version) for version in _versions(state))

    def unsecured(self) -> list[str]:
        """List the versions of this run that the storage does not hold, nor this machine."""
        states = self.run.jobs.values()
        return [v for state in states for v in _versions(state) if not self.store.secure(v)]

    def do(self, job: Job) -> Result:
        """Run a job, or take what it did earlier in this run."""
        if self.stop.signal:
            return Result("skipped", message="the run was ended")
        if state := self.reusable(job):
            self.console.line(f"[{job.name}] reused: neither it nor what it reads has changed")
            return Result("reused", state.seconds, state.contents)
        began = time.monotonic()
        path = self.place.log(job.name)
        log = JobLog(job.name, path, self.console, self.mask(), append=self.resumed)
        try:
            contents = self._run(job, log)
            return Result("ran", time.monotonic() - began, contents)
        except (GradlabError, OSError) as error:
            ending, tail = "stopped" if self.stop.signal else "failed", tuple(log.tail)
            log.note(f"{ending}: {error}")
            seconds = time.monotonic() - began
            return Result(ending, seconds, message=log.mask.words(str(error)), tail=tail)
        finally:
            log.close()
            with suppress(OSError):  # a log is no reason to fail
                self._keep_log(path)

    def _run(self, job: Job, log: JobLog) -> dict[str, Content]:
        """Run a job and commit its outputs; raises GradlabError where either fails."""
        began, fingerprint = time.monotonic(), self.fingerprint(job)
        if left := process.kill(str(self.place.draft(job.name))):
            log.note(f"ended {left} processes that a killed run of this job had left behind")
        if done := self.run.jobs.get(job.name):
            if done.fingerprint != fingerprint:
                self.place.discard_draft(job.name)
            # Else its outputs were lost, and the copy of its draft is as good. In either case it
            # has not succeeded from now on, for an interruption must not discard a draft.
            self.journal.put(self.run, job.name, None)
        with self._mirrored(job.name, log):
            outputs.prepare(job, self.place)
            self._perform(job, log)
            source = f"{self.maker(job)}, run {self.run.id}"
            self.place.mounted.check(PATIENCE)
            by = Inspection(self.store, self.secrets, source, log.note)
            with log.busy("reading its outputs"):
                contents = outputs.collect(job, self.place, by)
        for remark in outputs.remarks(job, self.place, contents):
            log.note(remark)
        for name in outputs.secret_strings(contents, self.secrets, log.mask):
            log.note(
                f"warning: the string /outputs/{name} holds a secret: it is handed on, and hidden "
                "where it is shown"
            )
        state = JobState("committing", fingerprint, contents, time.monotonic() - began)
        self.journal.put(self.run, job.name, state)
        with log.busy("keeping its outputs"):
            settled = outputs.settle(job.name, contents, self.place, self.store) or contents
        self._succeeded(job.name, replace(state, contents=settled))
        return settled

    @contextmanager
    def _mirrored(self, job: str, log: JobLog) -> Iterator[None]:
        """Keep a copy of a job's draft on slow storage, up to date when the job fails."""
        outputs.reopen(self.place.draft(job))
        mirror = self.place.mirror(job, self.run.id)
        # A fast storage may have been a slow one when the job was cut off.
        if mirror.restore():
            log.note("carries on with the copy of its outputs in the storage")
        if self.place.slow:
            mirror.start(_mirror_minutes())
        try:
            yield
        except BaseException:
            with self.stop.waits_for_copy():
                mirror.stop()
                if self.place.slow:
                    mirror.save()
            outputs.tidy(self.place.draft(job))
            raise
        mirror.stop()

    def _perform(self, job: Job, log: JobLog) -> None:
        contents, draft = self.inputs(job), self.place.draft(job.name)
        self.place.mounted.check(PATIENCE)
        with log.busy("laying out its inputs"):
            inputs = {name: self._lay(job, name, contents[name], draft) for name in contents}
        context = actions.Context(
            job=job,
            run=self.run.id,
            folder=draft,
            inputs=inputs,
            contents={name: str(content) for name, content in contents.items()},
            parameters=credentials.fill(job.parameters, self.secrets),
            env={
                **credentials.fill(job.env, self.secrets),
                **self._told(),
                process.MARK: str(draft),
            },
            repository=self.repository,
            event=self.event,
            models=self.place.kept / "models",
            engine=self.engine,
            log=log,
            stop=self.stop,
        )
        status = actions.perform(context)
        if status < 0 or self.stop.signal:
            raise GradlabError(f"ended by signal {self.stop.signal or -status}")
        if status:
            raise GradlabError(f"its exit status is {status}")

    def _told(self) -> dict[str, str]:
        """Give the variables that tell a job's programs what was asked for, and where to ask."""
        accept = {"GRADLAB_ACCEPT_CHANGES": "1"} if self.accept else {}
        return {"GRADLAB_WORKFLOW": self.place.workflow, **accept}

    def _lay(self, job: Job, name: str, content: Content, draft: Path) -> Path:
        """Give the file or folder that a job finds as /inputs/NAME."""
        copy = draft / "inputs" / name
        if content.type == "string":
            copy.write_text(credentials.unseal(content.value, self.secrets), "utf-8")
            return copy
        if not content.value:  # optional, or the job's own dataset before its first version
            copy.mkdir()
            return copy
        if content.type == "dataset":
            version = self.store.find(content.value)
            if self.engine.read_only:
                return self.store.open(version)
            self.store.lay(version, copy)
            return copy
        folder = self.place.volume(*(job.inputs[name].source or ("", "")))
        if self.engine.read_only:
            return folder
        if tree.clone(folder, copy).digest != content.value:
            raise GradlabError(f"the volume {folder} is not what its job has made", exit_code=1)
        return copy

    def _keep_log(self, path: Path) -> None:
        if self.place.slow:
            self.place.mounted.check()
            kept = self.place.kept / path.relative_to(self.place.work)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())


def own_dataset(job: Job, reference: str) -> str:
    """Give the key of a job's own dataset, which it reads and writes, in the run's record."""
    return f"{job.name} {reference}"


def _versions(state: JobState) -> list[str]:
    return [content.value for content in state.contents.values() if content.type == "dataset"]


def _mirror_minutes() -> float:
    text = os.environ.get("GRADLAB_MIRROR_MINUTES", str(MIRROR_MINUTES))
    try:
        return float(text)
    except ValueError:
        raise GradlabError(f"GRADLAB_MIRROR_MINUTES is {text!r}: not a number") from None
