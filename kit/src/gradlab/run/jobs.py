"""One job of a run: what it finds, running it, and how it ended.

Promises: a job that failed or was killed finds its outputs as it left them; what fails is this
job alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import processes
from ..base.errors import GradlabError
from ..spec import credentials
from ..spec.spec import Job
from ..store import belongings, transfer
from ..store.drafts import DraftCopies
from . import actions, outputs
from .journal import Content, JobState
from .outputs import Inspection
from .report import JobLog
from .workshop import Workshop

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


def do(workshop: Workshop, job: Job) -> Result:
    """Run a job, or take what it did earlier in this run; what fails is this job alone."""
    if workshop.stop.signal:
        return Result("skipped", message="the run was ended")
    began = time.monotonic()
    try:
        workshop.recover(job.name)
        if state := workshop.reusable(job):
            workshop.console.line(f"[{job.name}] reused: neither it nor what it reads has changed")
            return Result("reused", state.seconds, state.contents)
        return _logged(workshop, job, began)
    except Exception as error:
        return _failed(workshop, error, began)


def _logged(workshop: Workshop, job: Job, began: float) -> Result:
    path = workshop.place.log(job.name)
    log = JobLog(job.name, path, workshop.console, workshop.mask(), append=workshop.resumed)
    try:
        contents = _run(workshop, job, log)
        return Result("ran", time.monotonic() - began, contents)
    except Exception as error:
        result = _failed(workshop, error, began)
        result.tail = tuple(log.tail)
        log.note(f"{result.state}: {result.message}")
        result.message = log.mask.words(result.message)
        return result
    finally:
        log.close()
        with suppress(OSError):  # a log is no reason to fail
            _keep_log(workshop, path)


def _failed(workshop: Workshop, error: Exception, began: float) -> Result:
    known = isinstance(error, GradlabError | OSError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    ending = "stopped" if workshop.stop.signal else "failed"
    return Result(ending, time.monotonic() - began, message=message)


def _run(workshop: Workshop, job: Job, log: JobLog) -> dict[str, Content]:
    """Run a job and commit its outputs; raises GradlabError where either fails."""
    began, fingerprint = time.monotonic(), workshop.fingerprint(job)
    if left := processes.kill(str(workshop.place.draft(job.name))):
        log.note(f"ended {left} processes that a killed run of this job had left behind")
    if done := workshop.run.jobs.get(job.name):
        if done.fingerprint != fingerprint:
            workshop.place.discard_draft(job.name)
        # Else its outputs were lost, and the copy of its draft is as good. In either case it
        # has not succeeded from now on, for an interruption must not discard a draft.
        workshop.journal.put(workshop.run, job.name, None)
    with _kept(workshop, job, log):
        outputs.prepare(job, workshop.place)
        _perform(workshop, job, log)
        source = f"{workshop.maker(job)}, run {workshop.run.id}"
        workshop.place.backend.check(PATIENCE)
        by = Inspection(workshop.store, workshop.secrets, source, log.note)
        with log.busy("reading its outputs"):
            contents = outputs.collect(job, workshop.place, by)
    with suppress(OSError):  # it only observes
        for remark in outputs.remarks(job, workshop.place, contents):
            log.note(remark)
    for name in outputs.secret_strings(contents, workshop.secrets, log.mask):
        log.note(
            f"warning: the string /outputs/{name} holds a secret: it is handed on, and hidden "
            "where it is shown"
        )
    state = JobState("committing", fingerprint, contents, time.monotonic() - began)
    workshop.journal.put(workshop.run, job.name, state)
    with log.busy("keeping its outputs"):
        settled = outputs.settle(job.name, contents, workshop.place, workshop.store) or contents
    workshop.succeeded(job.name, replace(state, contents=settled))
    return settled


@contextmanager
def _kept(workshop: Workshop, job: Job, log: JobLog) -> Iterator[None]:
    """Give a job what it has left, and keep what it writes now, and what is known of that."""
    folder = workshop.place.draft(job.name)
    draft, copies = _taken_up(workshop, job, log)
    keeper = belongings.Keeper(folder, draft)
    draft.write(folder)
    keeper.start(_minutes())
    copier = copies.copier(_minutes())
    try:
        yield
    except BaseException:
        with workshop.stop.waits_for_copy():
            keeper.stop()
            if copier:
                copier.flush()
            with suppress(OSError):
                outputs.tidy(folder)
            # The job has ended, and all its processes: what differs later is damage.
            limit = belongings.SECONDS if workshop.stop.signal else float("inf")
            keeper.look(ended=True, seconds=limit)
        raise
    keeper.stop()
    if copier:
        copier.stop()


def _taken_up(workshop: Workshop, job: Job, log: JobLog) -> tuple[belongings.Draft, DraftCopies]:
    """Put what the job has left where it finds it; say what that is, and what copies it."""
    folder, key = workshop.place.draft(job.name), workshop.key(job)
    outputs.reopen(folder)
    found, remark = belongings.choose(folder, key, workshop.accept)
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
    copies = workshop.place.copies(job.name, workshop.run.id, draft)
    # A fast storage may have been a slow one when the job was cut off.
    if number := copies.restore(None if workshop.accept else key, found):
        log.note("carries on with the copy of its outputs in the storage")
        draft.id, draft.base = belongings.new_id(), number
    elif found:
        draft.files, draft.links = found.files, found.links
    return draft, copies


def _perform(workshop: Workshop, job: Job, log: JobLog) -> None:
    contents, draft = workshop.inputs(job), workshop.place.draft(job.name)
    workshop.place.backend.check(PATIENCE)
    with log.busy("laying out its inputs"):
        inputs = {name: _lay(workshop, job, name, contents[name], draft) for name in contents}
    context = actions.Context(
        job=job,
        run=workshop.run.id,
        folder=draft,
        inputs=inputs,
        contents={name: str(content) for name, content in contents.items()},
        parameters=credentials.fill(job.parameters, workshop.secrets),
        env={
            **credentials.fill(job.env, workshop.secrets),
            **_told(workshop),
            processes.MARK: str(draft),
        },
        repository=workshop.repository,
        event=workshop.event,
        models=workshop.place.kept / "models",
        engine=workshop.engine,
        log=log,
        stop=workshop.stop,
    )
    status = actions.perform(context)
    if status < 0 or workshop.stop.signal:
        raise GradlabError(f"ended by signal {workshop.stop.signal or -status}")
    if status:
        raise GradlabError(f"its exit status is {status}")


def _told(workshop: Workshop) -> dict[str, str]:
    """Give the variables that tell a job's programs what was asked for, and where to ask."""
    accept = {"GRADLAB_ACCEPT_CHANGES": "1"} if workshop.accept else {}
    return {"GRADLAB_WORKFLOW": workshop.place.workflow, **accept}


def _lay(workshop: Workshop, job: Job, name: str, content: Content, draft: Path) -> Path:
    """Give the file or folder that a job finds as /inputs/NAME."""
    copy = draft / "inputs" / name
    if content.type == "string":
        copy.write_text(credentials.unseal(content.value, workshop.secrets), "utf-8")
        return copy
    if not content.value:  # optional, or the job's own dataset before its first version
        copy.mkdir()
        return copy
    if content.type == "dataset":
        version = workshop.store.find(content.value)
        if workshop.engine.read_only:
            return workshop.store.open(version)
        workshop.store.lay(version, copy)
        return copy
    folder = workshop.volume(job, name)
    if workshop.engine.read_only:
        return folder
    if transfer.clone(folder, copy).digest != content.value:
        raise GradlabError(f"the volume {folder} is not what its job has made", exit_code=1)
    return copy


def _keep_log(workshop: Workshop, path: Path) -> None:
    kept = workshop.place.kept / path.relative_to(workshop.place.work)
    if kept != path:
        workshop.place.backend.check()
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(path.read_bytes())


def _minutes() -> float:
    text = os.environ.get("GRADLAB_MIRROR_MINUTES", str(MIRROR_MINUTES))
    try:
        return float(text)
    except ValueError:
        raise GradlabError(f"GRADLAB_MIRROR_MINUTES is {text!r}: not a number") from None
