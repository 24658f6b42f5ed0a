"""Runs a Gradient Workflow spec on this machine, with the meaning that it has at the service.

Promises: jobs run in the order of `needs`, independent ones at once where the engine allows it;
one that fails stops only those that need it. What has succeeded is not done again after an
interruption; a run that completed starts anew the next time. A signal is passed on to the jobs,
and what they have written stays for the next run. A job's `timeout` is not enforced, for its
unit is not documented.

Exit codes: 0 all that was asked for succeeded, 1 a job failed, 2 a mistake in what was asked
for, 128 + N ended by signal N.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from types import FrameType
from typing import Annotated, Literal

import tyro

from ..base import processes
from ..base.errors import GradlabError
from ..base.locks import Held, Lock
from ..base.stop import Stop, Stopped
from ..base.supervisor import GRACE
from ..base.tables import table
from ..base.units import duration
from ..check import check
from ..services import machine, session
from ..spec import spec as specs
from ..spec.credentials import shown
from ..spec.spec import Job
from ..store.datasets import usable
from . import plan
from .jobs import PATIENCE, Result, do
from .journal import Run
from .masking import Mask
from .outputs import Place
from .report import Console
from .workshop import Workshop

EngineName = Literal["auto", "container", "bubblewrap", "machine", "paths"]


def run_command(
    name: Annotated[str, tyro.conf.Positional],
    job: str | None = None,
    input: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    engine: EngineName = "auto",
    fresh: bool = False,
    accept_changes: bool = False,
    dry_run: bool = False,
) -> int:
    """Run a workflow of this project here; the same command carries on what was interrupted.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        job: Run this job only, with those that it needs.
        input: NAME=VALUE of an input of the workflow: a text, or a reference to a dataset.
        engine: Where jobs run; auto takes the first of the others that works here.
        fresh: Run all jobs from their beginning, whatever an earlier run has done: a job that goes
            on with its own dataset finds it as it was before the job first wrote to it.
        accept_changes: Carry on with what a job has left, or trained, although its text, inputs,
            code or data have changed since.
        dry_run: Show what would be done, and do nothing.
    """
    stop, console = Stop(), Console()
    try:
        with _signals(stop):
            code = _run(name, job, input, engine, fresh, accept_changes, dry_run, stop, console)
    except Stopped:
        console.line(f"ended by signal {stop.signal}: the same command carries on from here")
        code = 128 + (stop.signal or 0)
    return _leave(code)


def _run(
    name: str,
    job: str | None,
    inputs: tuple[str, ...],
    engine: EngineName,
    fresh: bool,
    accept_changes: bool,
    dry_run: bool,
    stop: Stop,
    console: Console,
) -> int:
    spec = check.load(specs.find(name, session.project_root()))
    selected = plan.select(spec, job)
    workshop = plan.open_workshop(spec, selected, inputs, engine, console, stop)
    workshop.accept = accept_changes
    if dry_run:
        _begin(workshop, selected, fresh, dry=True)
        plan.show(workshop, selected)
        return 0
    with usable(workshop.place.kept), _locked(workshop.place, console) as lock:
        _begin(workshop, selected, fresh)
        results = _run_all(workshop, selected, lock)
        return _finish(workshop, results)


@contextmanager
def _locked(place: Place, console: Console) -> Iterator[Lock]:
    """Keep a second runner of the same workflow away from the same storage."""
    # Other machines see only the storage; but network storage may have no locks.
    folder = place.work / "workflows" / place.workflow
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder / "lock") as lock:
        try:
            _take(lock, place, console)
        except OSError as error:
            console.line(f"no lock on {folder} ({error}): run only one of this workflow at a time")
        yield lock


def _take(lock: Lock, place: Place, console: Console) -> None:
    """Take a lock, waiting for a runner that was told to end and is about to."""
    end = None
    while True:
        try:
            lock.take()
            return
        except Held as held:
            if end is None:
                console.line(f"another run of {place.workflow!r} is at work: waiting for its end")
                end = time.monotonic() + GRACE
            if time.monotonic() > end and not held.is_ending:
                raise GradlabError(
                    f"another gradlab run of {place.workflow!r} is at work on {place.kept}; "
                    "wait for it, or end it"
                ) from None
        time.sleep(0.2)


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """Take the signals that end a run, but those that are ignored from the start."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop(number)

    before = {number: signal.signal(number, handle) for number in processes.heeded()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(workshop: Workshop, selected: Sequence[Job], fresh: bool, dry: bool = False) -> None:
    """Take up the last run if it was interrupted, else begin a new one."""
    last, console = workshop.journal.load(), workshop.console
    workshop.run = before = last or Run()
    for name in () if dry else list(before.jobs):
        try:
            workshop.recover(name)
        except (GradlabError, OSError) as error:  # tried again when the job's turn has come
            console.line(f"! what job {name!r} has made could not be put in place: {error}")
    ended = last is not None and last.finished and _is_stored(workshop)
    workshop.resumed = last is not None and not ended and not fresh
    if workshop.resumed:
        before.finished = False
        done = ", ".join(before.jobs) or "none"
        console.line(f"carries on run {before.id} of {before.started}; done: {done}")
    else:
        workshop.run = Run()
    plan.look_up(workshop, selected, fresh)
    if dry:
        return
    if not workshop.resumed:
        workshop.cleared(workshop.place.volumes)
        for name, state in before.jobs.items():
            if workshop.is_stored(state):
                workshop.place.forget_copy(name, before.id)
    for job in selected if fresh else ():
        workshop.place.discard_draft(job.name)
    workshop.journal.save(workshop.run)


def _is_stored(workshop: Workshop) -> bool:
    """Tell whether what a run that ended has made came through."""
    if not workshop.store.is_missing(workshop.versions()):
        return True
    workshop.console.line(
        "the last run's end was not uploaded whole: what is missing is made again"
    )
    return False


def _run_all(workshop: Workshop, selected: Sequence[Job], lock: Lock) -> dict[str, Result]:
    """Run the jobs, each as soon as those that it needs have succeeded.

    After a signal those are left that work on something that may be cut off, as by a kill.
    """
    sorter = TopologicalSorter({job.name: job.needs for job in selected})
    sorter.prepare()
    jobs, results = {job.name: job for job in selected}, dict[str, Result]()
    running: dict[Future[Result], str] = {}
    with _pool(workshop) as pool:
        while sorter.is_active() and not workshop.stop.is_due():
            for name in sorter.get_ready():
                if reason := _reason_to_skip(jobs[name], results):
                    results[name] = Result("skipped", message=reason)
                    sorter.done(name)
                else:
                    running[pool.submit(do, workshop, jobs[name])] = name
            if workshop.stop.signal:
                lock.say_ending()
            for future in wait(running, 0.2, FIRST_COMPLETED).done:
                name = running.pop(future)
                results[name] = future.result()
                sorter.done(name)
    message = f"ended by signal {workshop.stop.signal}"
    if running and workshop.stop.copying:
        message += "; this machine has more of its outputs than the storage"
    results |= {name: Result("stopped", message=message) for name in running.values()}
    left = [name for name in jobs if name not in results]
    return results | {name: Result("skipped", message="the run was ended") for name in left}


@contextmanager
def _pool(workshop: Workshop) -> Iterator[ThreadPoolExecutor]:
    """Give the threads in which jobs run; the main one waits meanwhile, also after a signal."""
    pool = ThreadPoolExecutor(machine.cpus() if workshop.engine.parallel else 1)
    workshop.stop.raises = False
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        workshop.stop.raises = True


def _leave(code: int) -> int:
    """Give the exit code, or end with it at once where a thread is at work that was cut off."""
    threads = set(threading.enumerate()) - {threading.main_thread()}
    if code > 128 and not all(thread.daemon for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    return code


def _reason_to_skip(job: Job, results: Mapping[str, Result]) -> str:
    broken = [name for name in job.needs if results[name].state not in ("ran", "reused")]
    return f"it needs {', '.join(broken)}" if broken else ""


def _finish(workshop: Workshop, results: Mapping[str, Result]) -> int:
    """Print what became of each job and give the exit code."""
    succeeded = all(result.state in ("ran", "reused") for result in results.values())
    if succeeded:
        workshop.place.backend.check(PATIENCE)
        succeeded = _is_secured(workshop)
    if succeeded:
        workshop.run.finished = True
        workshop.journal.save(workshop.run)
        workshop.cleared(workshop.place.volumes)
    rows, mask = [("job", "state", "time", "result")], workshop.mask()
    for name, result in results.items():
        rows.append((name, result.state, duration(result.seconds), _summary(result, mask)))
    console = workshop.console
    for line in ("", *table(rows)):
        console.line(line)
    for name, result in results.items():
        if result.state == "failed":
            for line in (
                "",
                f"{name} failed: {_line(result.message)}. Its last lines:",
                *result.tail,
            ):
                console.line(line)
            console.line(f"all of them: {workshop.place.log(name)}")
    if not succeeded:
        console.line("What was done is kept: the same command carries on from here.")
    if workshop.stop.signal:
        return 128 + workshop.stop.signal
    return 0 if succeeded else 1


def _line(message: str) -> str:
    return " ".join(message.splitlines())


def _is_secured(workshop: Workshop) -> bool:
    """Bring to slow storage what it has lost meanwhile; tell whether all is there."""
    lost = workshop.store.lost(workshop.versions())
    for version in lost:
        workshop.console.line(f"! {version} has been lost in {workshop.place.kept}")
    return not lost


def _summary(result: Result, mask: Mask) -> str:
    """Say in a few words what a job has made."""
    parts = result.message.splitlines()[:1]
    for name, content in result.contents.items():
        text = " ".join(mask(shown(content.value)).split())[:60]
        parts.append({"dataset": text, "string": f"{name}={text}"}.get(content.type, name))
    return ", ".join(parts)
