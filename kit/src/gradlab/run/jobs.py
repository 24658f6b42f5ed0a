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
from typing import Any

from ..base import folders, processes
from ..base.errors import GradlabError
from ..base.stop import Stop
from ..engines.environment import passed_on
from ..engines.protocol import Engine
from ..spec import credentials
from ..spec.spec import Job, Port, Spec
from ..store import belongings, copier, models, tree
from ..store.datasets import Store
from ..store.drafts import Mirror
from ..store.versions import NoVersion
from . import actions, outputs
from .journal import Content, JobState, Journal, Run
from .masking import Mask
from .outputs import Inspection, Place
from .report import Console, JobLog
from .repository import Repository

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
            found = (
                belongings.code_key(self._volume(job, name)) if code else self._identity(content)
            )
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
                self._succeeded(job, replace(state, contents=settled))
            else:
                self.journal.put(self.run, job, None)

    def _succeeded(self, job: str, state: JobState) -> None:
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

    def unsecured(self) -> list[str]:
        """List the versions of this run that the storage does not hold, nor this machine."""
        states = self.run.jobs.values()
        return [v for state in states for v in _versions(state) if not self.store.secure(v)]

    def do(self, job: Job) -> Result:
        """Run a job, or take what it did earlier in this run; what fails is this job alone."""
        if self.stop.signal:
            return Result("skipped", message="the run was ended")
        began = time.monotonic()
        try:
            self.recover(job.name)
            if state := self.reusable(job):
                self.console.line(f"[{job.name}] reused: neither it nor what it reads has changed")
                return Result("reused", state.seconds, state.contents)
            return self._logged(job, began)
        except Exception as error:
            return self._failed(error, began)

    def _logged(self, job: Job, began: float) -> Result:
        path = self.place.log(job.name)
        log = JobLog(job.name, path, self.console, self.mask(), append=self.resumed)
        try:
            contents = self._run(job, log)
            return Result("ran", time.monotonic() - began, contents)
        except Exception as error:
            result = self._failed(error, began)
            result.tail = tuple(log.tail)
            log.note(f"{result.state}: {result.message}")
            result.message = log.mask.words(result.message)
            return result
        finally:
            log.close()
            with suppress(OSError):  # a log is no reason to fail
                self._keep_log(path)

    def _failed(self, error: Exception, began: float) -> Result:
        known = isinstance(error, GradlabError | OSError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        ending = "stopped" if self.stop.signal else "failed"
        return Result(ending, time.monotonic() - began, message=message)

    def _run(self, job: Job, log: JobLog) -> dict[str, Content]:
        """Run a job and commit its outputs; raises GradlabError where either fails."""
        began, fingerprint = time.monotonic(), self.fingerprint(job)
        if left := processes.kill(str(self.place.draft(job.name))):
            log.note(f"ended {left} processes that a killed run of this job had left behind")
        if done := self.run.jobs.get(job.name):
            if done.fingerprint != fingerprint:
                self.place.discard_draft(job.name)
            # Else its outputs were lost, and the copy of its draft is as good. In either case it
            # has not succeeded from now on, for an interruption must not discard a draft.
            self.journal.put(self.run, job.name, None)
        with self._kept(job, log):
            outputs.prepare(job, self.place)
            self._perform(job, log)
            source = f"{self.maker(job)}, run {self.run.id}"
            self.place.mounted.check(PATIENCE)
            by = Inspection(self.store, self.secrets, source, log.note)
            with log.busy("reading its outputs"):
                contents = outputs.collect(job, self.place, by)
        with suppress(OSError):  # it only observes
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
    def _kept(self, job: Job, log: JobLog) -> Iterator[None]:
        """Give a job what it has left, and keep what it writes now, and what is known of that."""
        folder = self.place.draft(job.name)
        draft, mirror = self._taken_up(job, log)
        keeper = belongings.Keeper(folder, draft)
        draft.write(folder)
        keeper.start(_minutes())
        if self.place.slow:
            mirror.start(_minutes())
        try:
            yield
        except BaseException:
            with self.stop.waits_for_copy():
                keeper.stop()
                mirror.stop()
                if self.place.slow:
                    mirror.save()
                with suppress(OSError):
                    outputs.tidy(folder)
                # The job has ended, and all its processes: what differs later is damage.
                limit = belongings.SECONDS if self.stop.signal else float("inf")
                keeper.look(ended=True, seconds=limit)
            raise
        keeper.stop()
        mirror.stop()

    def _taken_up(self, job: Job, log: JobLog) -> tuple[belongings.Draft, Mirror]:
        """Put what the job has left where it finds it; say what that is, and what copies it."""
        folder, key = self.place.draft(job.name), self.key(job)
        outputs.reopen(folder)
        found, remark = belongings.choose(folder, key, self.accept)
        if remark:
            log.note(remark)
        if bad := belongings.damaged(folder, found) if found else []:
            log.note(
                f"! damaged in what it had written: {', '.join(bad[:5])}"
                f"{f' and {len(bad) - 5} more' if len(bad) > 5 else ''}; set aside in "
                f"{belongings.set_aside(folder, damaged=True)}"
            )
            found = None
        draft = belongings.Draft(key, *((found.id, found.base) if found else ()))
        mirror = self.place.mirror(job.name, self.run.id, draft)
        # A fast storage may have been a slow one when the job was cut off.
        if number := mirror.restore(None if self.accept else key, found):
            log.note("carries on with the copy of its outputs in the storage")
            draft.id, draft.base = belongings.new_id(), number
        elif found:
            draft.files, draft.links = found.files, found.links
        return draft, mirror

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
                processes.MARK: str(draft),
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
        folder = self._volume(job, name)
        if self.engine.read_only:
            return folder
        if copier.clone(folder, copy).digest != content.value:
            raise GradlabError(f"the volume {folder} is not what its job has made", exit_code=1)
        return copy

    def _volume(self, job: Job, name: str) -> Path:
        return self.place.volume(*(job.inputs[name].source or ("", "")))

    def _keep_log(self, path: Path) -> None:
        if self.place.slow:
            self.place.mounted.check()
            kept = self.place.kept / path.relative_to(self.place.work)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(path.read_bytes())


def own_dataset(job: Job, reference: str) -> str:
    """Give the key of a job's own dataset, which it reads and writes, in the run's record."""
    return f"{job.name} {reference}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _versions(state: JobState) -> list[str]:
    return [content.value for content in state.contents.values() if content.type == "dataset"]


def _minutes() -> float:
    text = os.environ.get("GRADLAB_MIRROR_MINUTES", str(MIRROR_MINUTES))
    try:
        return float(text)
    except ValueError:
        raise GradlabError(f"GRADLAB_MIRROR_MINUTES is {text!r}: not a number") from None
