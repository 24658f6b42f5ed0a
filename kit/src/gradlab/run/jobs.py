"""One job of a run: deciding, preparing, executing, committing, and how it ended.

Promises: what fails is this job alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace

from ..base import folders, processes, unfinished
from ..base.errors import GradlabError
from ..base.stop import Stop
from ..engines.protocol import Engine
from ..spec.spec import FOLDER, Job
from . import failures
from .commit import collect, commit, recover, remark
from .decide import data_of, fingerprint, identities_of, inputs_of, key, reusable
from .execute import Unfinished, execute
from .logs import Console, JobLog
from .place import Place
from .prepare import PATIENCE, kept, prepare
from .reads import code
from .record import BEGUN, Content, JobState, Record
from .sources import Sources


@dataclass
class Result:
    """How a job ended."""

    state: str  # ran, reused, failed, stopped or skipped
    seconds: float = 0.0
    contents: dict[str, Content] = field(default_factory=dict)
    message: str = ""
    tail: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether what the job makes is there."""
        return self.state in ("ran", "reused")


def do(
    job: Job,
    sources: Sources,
    record: Record,
    place: Place,
    engine: Engine,
    accept: bool,  # what other code, inputs or text have made
    console: Console,
    stop: Stop,
    turn: AbstractContextManager[object],  # in which no other process does the job
) -> Result:
    """Run a job, or take what it did earlier in this run; what fails is this job alone."""
    if stop.signal:
        return Result("skipped", message="the run was ended")
    began, secrets = time.monotonic(), sources.secrets
    try:
        with turn, _logged(job, sources, place, record.resumed, console, stop) as log:
            began = time.monotonic()  # not while it waited
            record.reload(job.name)  # another process may have done it
            recover(job.name, record, place, console)
            run, inputs = record.run.id, inputs_of(job, sources, record)
            identities = identities_of(job, inputs, sources, record, place)
            mark = fingerprint(job, identities, sources, run)
            parts = {inputs[name].value: identities[name] for name in code(job, sources.spec)}
            if state := reusable(job, mark, record, place):
                if state.reads != parts:  # of another checkout it reads the same
                    record.put(job.name, replace(state, reads=parts))
                console.line(f"[{job.name}] reused: neither it nor what it reads has changed")
                return Result("reused", state.seconds, state.contents)
            _forget(job.name, mark, record, place, log)
            whose = key(job, identities, sources, place)
            told = _told(job, inputs, sources, record, place, accept)
            with kept(job, whose, run, place, accept, log, stop):
                prepared = prepare(job, inputs, told, secrets, place, engine.read_only, log)
                execute(prepared, sources, run, place, engine, log, stop)
                contents = _collected(job, secrets, run, place, log)
            state = JobState("committing", mark, contents, time.monotonic() - began, parts)
            settled = commit(job, state, record, place, log)
            return Result("ran", time.monotonic() - began, settled)
    except Failed as failed:
        failures.note(job.name, failed.result.state, failed.result.message, record)
        return replace(failed.result, seconds=time.monotonic() - began)
    except Exception as error:
        return Result(_ending(stop, error), time.monotonic() - began, message=_said(error))


def _told(
    job: Job,
    inputs: Mapping[str, Content],
    sources: Sources,
    record: Record,
    place: Place,
    accept: bool,
) -> dict[str, str]:
    """Give what a job's environment tells it of the run."""
    data = data_of(job, inputs, sources, place.datasets)
    told = {
        "GRADLAB_WORKFLOW": place.workflow,
        "GRADLAB_JOB_AT": f"{FOLDER / sources.spec.path.name}:{job.mark.line} (job {job.name})",
        "GRADLAB_DATA": json.dumps(data),
        unfinished.ASKS: f"/tmp/{unfinished.NAME}",
    }
    if accept:
        told["GRADLAB_ACCEPT_CHANGES"] = "1"
    if record.run.fresh:
        told["GRADLAB_FRESH"] = record.run.id
    return told


class Failed(Exception):
    """A job has failed, as its log says."""

    def __init__(self, result: Result) -> None:
        self.result = result


@contextmanager
def _logged(
    job: Job, sources: Sources, place: Place, append: bool, console: Console, stop: Stop
) -> Iterator[JobLog]:
    """Give a job's log, which has the last word of it; raises Failed for any error."""
    log = JobLog(job.name, place.log(job.name), console, sources.mask(), append)
    try:
        yield log
    except Exception as error:
        ending, message, tail = _ending(stop, error), _said(error), tuple(log.tail)
        log.note(f"{ending}: {message}")
        raise Failed(Result(ending, message=log.mask.words(message), tail=tail)) from error
    finally:
        log.close()
        with suppress(OSError):  # a log is no reason to fail
            if log.tail:
                _keep_log(job.name, place)


def _ending(stop: Stop, error: Exception) -> str:
    return "stopped" if stop.signal or isinstance(error, Unfinished) else "failed"


def _said(error: Exception) -> str:
    known = isinstance(error, GradlabError | OSError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def _forget(job: str, mark: str, record: Record, place: Place, log: JobLog) -> None:
    """End what a killed run of a job has left behind, and what it did if that was another job's."""
    draft = place.draft(job)
    if left := processes.kill(str(draft)) if folders.exists(draft) else 0:
        log.note(f"ended {left} processes that a killed run of this job had left behind")
    if done := record.jobs.get(job):
        if done.fingerprint != mark:
            place.discard_draft(job)
        # Else its outputs were lost, and the copy of its draft is as good. In either case it
        # has not succeeded from now on, for an interruption must not discard a draft.
        record.put(job, BEGUN)


def _collected(
    job: Job, secrets: Mapping[str, str], run: str, place: Place, log: JobLog
) -> dict[str, Content]:
    place.backend.check(PATIENCE)
    with log.busy("reading its outputs"):
        contents = collect(job, place, secrets, f"{place.workflow}/{job.name}, run {run}", log)
    remark(job, place, contents, secrets, log)
    return contents


def _keep_log(job: str, place: Place) -> None:
    path = place.log(job)
    if place.is_apart:
        place.backend.check()
        place.backend.put(str(path.relative_to(place.work)), path)
