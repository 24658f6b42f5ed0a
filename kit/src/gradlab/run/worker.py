"""`gradlab job`: one job of a run that was submitted, on whatever machine this is started.

Promises: takes spec, code, inputs and engine from the submission, never from a working tree. Exit
codes: 0 the job is done, now or before, 1 it failed, 75 it has stopped in time and the same command
does the rest.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..base import unfinished
from ..base.errors import GradlabError, note
from ..base.stop import Stop, Stopped
from ..spec.spec import Job, Spec
from ..store.datasets import usable
from . import attempts, end, holding, plan, schedule, submission
from .attempts import Attempt, Ending
from .jobs import Result, do
from .logs import Console
from .place import Place
from .record import Record
from .submission import Submission

LOOK = 5.0  # seconds between two looks whether another attempt has begun
ENDINGS: dict[str, Ending] = {"ran": "succeeded", "reused": "succeeded", "failed": "failed"}


def job_command(folder: Path, job: str, /) -> int:
    """Do one job of a run that was submitted: what a cluster starts on its machines.

    Exit code 0: the job is done; 1: it failed; 75: it stopped in time, with more to do.

    Args:
        folder: Of the submission, in the storage.
        job: Its name.
    """
    stop = Stop()
    try:
        with schedule.signals(stop):
            code = _do(folder.absolute(), job, Console(), stop)
    except Stopped:
        code = unfinished.CODE
    except GradlabError as error:
        note(f"gradlab job {job}: {error}")
        code = 1
    return schedule.leave(code, cut_off=stop.signal is not None)


def _do(folder: Path, name: str, console: Console, stop: Stop) -> int:
    submitted = submission.load(folder)
    submission.enter(folder)
    spec, place = submitted.spec(folder), submitted.place()
    if name not in submitted.jobs:
        known = ", ".join(submitted.jobs)
        raise GradlabError(f"{folder} has no job {name!r}; its jobs are {known}")
    with usable(place.backend):
        job, record = spec.jobs[name], _record(submitted, place)
        if record.run.finished:
            console.line(f"[{name}] is done, and so is the run")
            return 0
        _refuse_missing(job, record)
        attempt = attempts.begin(place.attempts(name), place.drafts, name, submitted.id)
        with _watching(attempt):
            place = replace(place, attempt=attempt)
            result = _result(job, spec, submitted, folder, record, place, console, stop)
        code = _ended(result, name, attempt, record, place, submitted, console, stop)
        if code != unfinished.CODE:
            _close_if_over(submitted, spec, folder, place)
        return code


def _record(submitted: Submission, place: Place) -> Record:
    """Read how far the run came that was submitted; GradlabError where there is another by now."""
    record = Record.load(place.backend, place.record)
    if record is None or record.run.id != submitted.run:
        raise GradlabError(
            f"the run {submitted.run} of {place.workflow!r} is not the newest one any more in "
            f"{place.backend}: this job is of no use, and is not done"
        )
    record.resumed = True
    return record


def _refuse_missing(job: Job, record: Record) -> None:
    states = ((name, record.jobs.get(name)) for name in job.needs)
    missing = [name for name, state in states if not state or state.state != "succeeded"]
    if missing:
        raise GradlabError(f"it needs {', '.join(missing)}, which has not succeeded in this run")


def _result(
    job: Job,
    spec: Spec,
    submitted: Submission,
    folder: Path,
    record: Record,
    place: Place,
    console: Console,
    stop: Stop,
) -> Result:
    sources = submitted.sources(spec, job, folder)
    engine = plan.engine_for(spec, [job], submitted.engines[job.name], console)
    accept = submitted.accept

    def work(job: Job) -> Result:
        turn = holding.turn(place, job.name, console, stop)
        return do(job, sources, record, place, engine, accept, console, stop, turn)

    results = schedule.run_all([plan.alone(job)], work, False, None, stop)
    succeeded = results[job.name].succeeded
    if succeeded:
        end.finish(submitted.jobs, False, record, place, console)
    end.tell(results, True, place, sources.mask(), console)
    return results[job.name]


def _ended(
    result: Result,
    name: str,
    attempt: Attempt,
    record: Record,
    place: Place,
    submitted: Submission,
    console: Console,
    stop: Stop,
) -> int:
    """Note how an attempt ended; give the exit code."""
    how = ENDINGS.get(result.state, "stopped")
    made = attempts.of(place.draft(name) / "outputs") if how == "stopped" else ""
    goes_on = attempt.end(how, made, told=stop.signal is not None)
    if attempt.is_superseded():
        return 1
    if how == "stopped" and not goes_on:
        console.line(
            f"! [{name}] has made nothing in {attempts.IDLE} attempts in a row, no checkpoint and "
            "no file: another would be in vain. Is its time too short for its first checkpoint?"
        )
        attempt.end("failed", made, told=False)
        return 1
    return {"succeeded": 0, "failed": 1}.get(how, unfinished.CODE)


def _close_if_over(submitted: Submission, spec: Spec, folder: Path, place: Place) -> None:
    record = Record.load(place.backend, place.record)
    if record and submission.is_over(submitted, spec, record, place):
        submission.close(submitted, folder, place)


@contextmanager
def _watching(attempt: Attempt) -> Iterator[None]:
    """End this process's work, as by a signal, once another attempt at its job has begun."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            if attempt.is_superseded():
                note("! another attempt at this job has begun elsewhere: ending this one")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
