"""Runs a Gradient Workflow spec on this machine, with the meaning that it has at the service.

Promises: jobs run in the order of `needs`, independent ones at once where the engine allows it;
one that fails stops only those that need it. What has succeeded is not done again after an
interruption; a run that completed starts anew the next time. A signal is passed on to the jobs,
and what they have written stays for the next run. A job's `timeout` is not enforced, for its
unit is not documented.

Exit codes: 0 all that was asked for succeeded, 1 a job failed, 2 a mistake in what was asked
for, 75 a job has stopped in time and none failed: the same command carries on, 128 + N ended by
signal N.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from types import FrameType
from typing import Annotated, Literal

import tyro

from ..base import processes, unfinished
from ..base.errors import GradlabError
from ..base.locks import Lock
from ..base.stop import Stop, Stopped
from ..check import check
from ..engines.protocol import Engine
from ..services import machine, session
from ..spec import spec as specs
from ..spec.spec import Job
from ..store.datasets import usable
from . import begin, end, holding, plan, sources
from .jobs import Result, do
from .logs import Console
from .place import Place
from .record import Record
from .repository import Repository
from .sources import Sources

EngineName = Literal["auto", "container", "bubblewrap", "machine", "paths"]


def run_command(
    name: Annotated[str, tyro.conf.Positional],
    job: str | None = None,
    only: str | None = None,
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
        only: Do this one job of the run that is under way, beside those who do others of it.
        input: NAME=VALUE of an input of the workflow: a text, or a reference to a dataset.
        engine: Where jobs run; auto takes the first of the others that works here.
        fresh: Run all jobs from their beginning, whatever an earlier run has done: a job that goes
            on with its own dataset finds it as it was before the job first wrote to it.
        accept_changes: Carry on with what a job has left, or trained, although its text, inputs,
            code or data have changed since.
        dry_run: Show what would be done, and do nothing.
    """
    if job and only:
        raise GradlabError("--job and --only exclude each other")
    stop, console = Stop(), Console()
    asked = Asked(job or only, only is not None, fresh, accept_changes, dry_run)
    try:
        with _signals(stop):
            code = _run(name, asked, input, engine, console, stop)
    except Stopped:
        console.line(f"ended by signal {stop.signal}: the same command carries on from here")
        code = 128 + (stop.signal or 0)
    return _leave(code)


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    job: str | None  # with those that it needs
    only: bool  # without them
    fresh: bool
    accept: bool
    dry: bool


def _run(
    name: str,
    asked: Asked,
    inputs: tuple[str, ...],
    engine_name: EngineName,
    console: Console,
    stop: Stop,
) -> int:
    root = session.project_root()
    spec = check.load(specs.find(name, root))
    selected = plan.select(spec, asked.job)
    to_do = [job for job in selected if not asked.only or job.name == asked.job]
    place = plan.place_of(spec, root, console)
    engine = plan.engine_for(spec, to_do, engine_name, console)
    found = sources.find(spec, selected, inputs, Repository(root, place.kept))
    if asked.dry:
        _show(selected, to_do, asked, found, place, console)
        return 0
    with usable(place.kept):
        if asked.only:
            return _do_one(selected, asked, found, place, engine, console, stop)
        return _do_all(selected, asked, found, place, engine, console, stop)


def _show(
    selected: Sequence[Job],
    to_do: Sequence[Job],
    asked: Asked,
    found: Sources,
    place: Place,
    console: Console,
) -> None:
    record: Record | None
    if asked.only:
        needed = [job for job in selected if job not in to_do]
        record = begin.join(to_do[0], needed, found, place, asked.fresh, console, dry=True)
    else:
        record = begin.whole(selected, found, place, asked.fresh, console, dry=True)
    if record:
        plan.show(selected, found, record, place, console)


def _do_all(
    selected: Sequence[Job],
    asked: Asked,
    found: Sources,
    place: Place,
    engine: Engine,
    console: Console,
    stop: Stop,
) -> int:
    with holding.whole(place, console) as lock:
        with holding.beginning(place):
            record = begin.whole(selected, found, place, asked.fresh, console)

        def work(job: Job) -> Result:
            turn = holding.turn(place, job.name, console, stop)
            return do(job, found, record, place, engine, asked.accept, console, stop, turn)

        results = _run_all(selected, work, engine.parallel, lock, stop)
        return _finish(results, True, found, record, place, console, stop)


def _do_one(
    selected: Sequence[Job],
    asked: Asked,
    found: Sources,
    place: Place,
    engine: Engine,
    console: Console,
    stop: Stop,
) -> int:
    (job,) = (job for job in selected if job.name == asked.job)
    needed, fresh = [other for other in selected if other is not job], asked.fresh
    with ExitStack() as stack:
        while True:
            with holding.beginning(place):
                record = begin.join(job, needed, found, place, fresh, console)
                if record is None:
                    return 0
                # Taken before anybody else may end the run.
                if holding.attempt(stack, place, job.name):
                    break
            fresh = False
            holding.wait(place, job.name, console, stop)

        def work(job: Job) -> Result:
            turn = nullcontext()  # it has it already
            return do(job, found, record, place, engine, asked.accept, console, stop, turn)

        results = _run_all([replace(job, needs=())], work, False, None, stop)
    return _finish(results, False, found, record, place, console, stop)


def _finish(
    results: Mapping[str, Result],
    alone: bool,
    found: Sources,
    record: Record,
    place: Place,
    console: Console,
    stop: Stop,
) -> int:
    """Finish the run if all has succeeded, print what became of each job, give the exit code."""
    succeeded = all(result.succeeded for result in results.values())
    succeeded = succeeded and end.finish([*found.spec.jobs], alone, record, place, console)
    end.tell(results, succeeded, place, found.mask(), console)
    return exit_code(results, succeeded, stop)


def exit_code(results: Mapping[str, Result], succeeded: bool, stop: Stop) -> int:
    """Give the exit code of a run whose jobs have come that far."""
    if stop.signal:
        return 128 + stop.signal
    if any(result.state == "stopped" for result in results.values()):
        failed = any(result.state == "failed" for result in results.values())
        return 1 if failed else unfinished.CODE
    return 0 if succeeded else 1


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


def _run_all(
    selected: Sequence[Job],
    work: Callable[[Job], Result],
    parallel: bool,
    lock: Lock | None,
    stop: Stop,
) -> dict[str, Result]:
    """Do the jobs, each as soon as those that it needs have succeeded.

    After a signal those are left that work on something that may be cut off, as by a kill.
    """
    sorter = TopologicalSorter({job.name: job.needs for job in selected})
    sorter.prepare()
    jobs, results = {job.name: job for job in selected}, dict[str, Result]()
    running: dict[Future[Result], str] = {}
    with _pool(machine.cpus() if parallel else 1, stop) as pool:
        while sorter.is_active() and not stop.is_due():
            for name in sorter.get_ready():
                if reason := _reason_to_skip(jobs[name], results):
                    results[name] = Result("skipped", message=reason)
                    sorter.done(name)
                else:
                    running[pool.submit(work, jobs[name])] = name
            if stop.signal and lock:
                lock.say_ending()
            for future in wait(running, 0.2, FIRST_COMPLETED).done:
                name = running.pop(future)
                results[name] = future.result()
                sorter.done(name)
    message = f"ended by signal {stop.signal}"
    if running and stop.copying:
        message += "; this machine has more of its outputs than the storage"
    results |= {name: Result("stopped", message=message) for name in running.values()}
    left = [name for name in jobs if name not in results]
    return results | {name: Result("skipped", message="the run was ended") for name in left}


@contextmanager
def _pool(workers: int, stop: Stop) -> Iterator[ThreadPoolExecutor]:
    """Give the threads in which jobs run; the main one waits meanwhile, also after a signal."""
    pool = ThreadPoolExecutor(workers)
    stop.raises = False
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stop.raises = True


def _reason_to_skip(job: Job, results: Mapping[str, Result]) -> str:
    broken = [name for name in job.needs if not results[name].succeeded]
    return f"it needs {', '.join(broken)}" if broken else ""


def _leave(code: int) -> int:
    """Give the exit code, or end with it at once where a thread is at work that was cut off."""
    threads = set(threading.enumerate()) - {threading.main_thread()}
    if code > 128 and not all(thread.daemon for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    return code
