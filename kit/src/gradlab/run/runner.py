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

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ..base.errors import GradlabError
from ..base.stop import Stop, Stopped
from ..check import check
from ..engines.protocol import Engine
from ..services import notify, session
from ..services.notify import teller
from ..spec import spec as specs
from ..spec.spec import Job
from ..store.datasets import usable
from . import begin, end, holding, messages, plan, schedule, sources, submission
from .jobs import Result, do
from .logs import Console
from .place import Place
from .record import Record
from .repository import Repository
from .sources import Sources

EngineName = Literal["auto", "container", "bubblewrap", "machine", "paths", "slurm"]


def run_command(
    name: Annotated[str, tyro.conf.Positional],
    job: str | None = None,
    only: str | None = None,
    run_id: str = "",
    input: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    engine: EngineName = "auto",
    fresh: bool = False,
    accept_changes: bool = False,
    dry_run: bool = False,
    detach: bool = False,
) -> int:
    """Run a workflow of this project here; the same command carries on what was interrupted.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        job: Run this job only, with those that it needs.
        only: Do this one job of the run that is under way, beside those who do others of it.
        run_id: With --only: an id by which another engine knows the run. Jobs of one id are jobs of
            one run; the first of another id begins a new one, unless the last was interrupted.
        input: NAME=VALUE of an input of the workflow: a text, or a reference to a dataset.
        engine: Where jobs run; auto takes the first of the others that works here. slurm hands them
            to a cluster, as slurm.yaml says.
        fresh: Run all jobs from their beginning, whatever an earlier run has done: a job that goes
            on with its own dataset finds it as it was before the job first wrote to it.
        accept_changes: Carry on with what a job has left, or trained, although its text, inputs,
            code or data have changed since.
        dry_run: Show what would be done, and do nothing.
        detach: With slurm: submit the jobs, and don't follow them to their end.
    """
    if job and only:
        raise GradlabError("--job and --only exclude each other")
    stop, console = Stop(), Console()
    if run_id and not only:
        raise GradlabError("--run-id is for --only: it says of which run that job is")
    if engine == "slurm" and only:
        raise GradlabError("--only is for the other engines: Slurm gets each job by itself")
    if detach and engine != "slurm":
        raise GradlabError("--detach is for --engine slurm")
    asked = Asked(job or only, only is not None, run_id, fresh, accept_changes, dry_run, detach)
    try:
        with schedule.signals(stop):
            code = _run(name, asked, input, engine, console, stop)
    except Stopped:
        console.line(f"ended by signal {stop.signal}: the same command carries on from here")
        messages.ended(None, False, stop.signal or 0)
        code = 128 + (stop.signal or 0)
    teller.wait()
    return schedule.leave(code)


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line."""

    job: str | None  # with those that it needs
    only: bool  # without them
    run_id: str
    fresh: bool
    accept: bool
    dry: bool
    detach: bool


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
    slurm = engine_name == "slurm"
    engine = None if slurm else plan.engine_for(spec, to_do, engine_name, console)
    found = sources.find(spec, selected, inputs, Repository(root, place.folders))
    if engine is None:
        return _submit(selected, asked, found, place, console, stop)
    if asked.dry:
        _show(selected, to_do, asked, found, place, console)
        return 0
    notify.check()
    with usable(place.backend):
        _refuse_submitted(place)
        if asked.only:
            return _do_one(selected, asked, found, place, engine, console, stop)
        return _do_all(selected, asked, found, place, engine, console, stop)


def _submit(
    selected: Sequence[Job],
    asked: Asked,
    found: Sources,
    place: Place,
    console: Console,
    stop: Stop,
) -> int:
    from .slurm import submit  # who has no cluster need not load it

    with usable(place.backend):
        options = (asked.fresh, asked.accept, asked.dry, asked.detach)
        return submit.run(selected, found, place, *options, console, stop)


def _refuse_submitted(place: Place) -> None:
    """Raise GradlabError while machines of a cluster do the run's jobs."""
    last = submission.current(place)
    if last and last[2]:
        from .slurm import client, states

        if not client.is_here():
            raise GradlabError(
                f"the run {last[0].run} was submitted to a cluster, and this machine can't ask how "
                f"it stands: give the command there, or first  gradlab stop {place.workflow}"
            )
        if any(each.lives for each in client.queue(states.comment(last[0]))):
            raise GradlabError(
                f"the run {last[0].run} is under way on a cluster: follow it by gradlab run "
                f"{place.workflow} --engine slurm, or end it first: gradlab stop {place.workflow}"
            )
        submission.close(last[0], last[1], place)


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
        options = (asked.fresh, console, True, asked.run_id)
        record = begin.join(to_do[0], needed, found, place, *options)
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
        messages.began(record, selected, place)

        def work(job: Job) -> Result:
            turn = holding.turn(place, job.name, console, stop)
            return do(job, found, record, place, engine, asked.accept, console, stop, turn)

        results = schedule.run_all(selected, work, engine.parallel, lock, stop)
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
    id = asked.run_id
    with ExitStack() as stack:
        while True:
            with holding.beginning(place):
                record = begin.join(job, needed, found, place, fresh, console, known_as=id)
                if record is None:
                    return 0
                # Taken before anybody else may end the run.
                if holding.attempt(stack, place, job.name):
                    break
            fresh = False
            holding.wait(place, job.name, console, stop)
        messages.takes_on(job, place)

        def work(job: Job) -> Result:
            turn = nullcontext()  # it has it already
            return do(job, found, record, place, engine, asked.accept, console, stop, turn)

        results = schedule.run_all([plan.alone(job)], work, False, None, stop)
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
    code = schedule.exit_code(results, succeeded, stop)
    messages.ended((results, found.mask()), alone, code)
    return code
