"""`gradlab run NAME --engine slurm`: hands the jobs of a run to Slurm, one for one.

Promises: the command can be given again at any moment, also where it was killed between two jobs:
what is queued or runs is adopted, what is missing is submitted, what is done is not. A job's id is
noted before the next one is submitted. Jobs that check code out are done here, before anything
else, so that what is submitted is the code of this moment. No secret reaches Slurm.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from ...base.errors import GradlabError
from ...base.stop import Stop, Stopped
from ...engines.paths import Paths
from ...spec.spec import FOLDER, Job, Spec
from .. import begin, decide, end, holding, kinds, plan, schedule, submission
from ..actions import checkout
from ..jobs import Result, do
from ..logs import Console
from ..place import Place
from ..record import Record
from ..sources import Sources
from ..submission import Submission
from . import client, follow, states, table
from .states import comment
from .table import Row

IDS, SCRIPT = "submitted.jsonl", "batch.sh"
# Only this: what runs in it reads all else from the submission.
BATCH = """\
#!/bin/bash
# One job of a workflow's run, as `gradlab run {name} --engine slurm` has submitted it.
trap '' TERM
cd -- "$1" || {{ echo "the storage is not on this machine: $1" >&2; exit 1; }}
exec {python} -m gradlab.run.slurm.node "$1" "$2"
"""


def run(
    selected: Sequence[Job],
    found: Sources,
    place: Place,
    fresh: bool,
    accept: bool,
    dry: bool,
    detach: bool,
    console: Console,
    stop: Stop,
) -> int:
    """Submit the jobs of a run that have to run, and follow them; give the exit code."""
    _refuse_slow(place)
    submitted = [job for job in selected if job.uses != checkout.NAME]
    rows = table.rows(found.repository.root, found.spec, submitted)
    console.line("engine slurm: each job as one of Slurm's")
    if dry:
        record = begin.whole(selected, found, place, fresh, console, dry=True)
        plan.show(selected, found, record, place, console)
        return 0
    client.require()
    with holding.whole(place, console):
        handed = _adopted(found, place, fresh, console) or _begun(
            selected, rows, found, place, fresh, accept, console, stop
        )
        if isinstance(handed, int):
            return handed
        known, folder = handed
        _submit_missing(known, folder, rows, place, console)
    if detach:
        console.line(follow.ways(place.workflow))
        return 0
    try:
        return follow.to_the_end(known, folder, place, console, stop)
    except Stopped:
        console.line(follow.ways(place.workflow))
        raise


def _refuse_slow(place: Place) -> None:
    if place.is_apart:
        raise GradlabError(
            f"in the storage {place.backend} nothing is worked on in place, so each machine of the "
            "cluster would have a disk of its own: set GRADLAB_STORAGE to a folder that all of "
            "them share"
        )


def _adopted(
    found: Sources, place: Place, fresh: bool, console: Console
) -> tuple[Submission, Path] | None:
    """Give the submission of which something lives; None where there is none."""
    last = submission.current(place)
    if last is None or submission.is_stopped(last[1]):
        return None
    known, folder, _ = last
    if not any(each.lives for each in client.queue(comment(known))):
        return None
    if fresh:
        raise GradlabError(
            f"the run {known.run} is under way, which --fresh would end: first  gradlab stop "
            f"{place.workflow}"
        )
    console.line(f"adopts the run {known.run}, of which jobs are queued or run")
    if changed := _changed(known, folder, found):
        console.line(
            f"! {changed} has changed since: the jobs do what was submitted. To submit it anew: "
            f"gradlab stop {place.workflow}, then the same command"
        )
    return known, folder


def _changed(known: Submission, folder: Path, found: Sources) -> str:
    with suppress(OSError):
        own = (folder / FOLDER / known.workflow).read_bytes()
        if own != found.spec.path.read_bytes():
            return f"{found.spec.path}"
    if known.tree and found.repository.digest() != known.tree:
        return "the working tree"
    return ""


def _begun(
    selected: Sequence[Job],
    rows: Mapping[str, Row],
    found: Sources,
    place: Place,
    fresh: bool,
    accept: bool,
    console: Console,
    stop: Stop,
) -> tuple[Submission, Path] | int:
    """Begin a run, or carry on the last one: check its code out, and write down what jobs need."""
    with holding.beginning(place):
        record = begin.whole(selected, found, place, fresh, console)
    if not record.resumed:
        for job in selected:  # on its machine a job goes on with its log, whichever attempt it is
            place.log(job.name).unlink(missing_ok=True)
    checkouts = [job for job in selected if job.uses == checkout.NAME]
    results = _check_out(checkouts, found, record, place, accept, console, stop)
    if not all(result.succeeded for result in results.values()):
        end.tell(results, False, place, found.mask(), console)
        return schedule.exit_code(results, False, stop)
    if done := _all_done(selected, found, record, place):
        finished = end.finish([job.name for job in selected], True, record, place, console)
        end.tell(done, finished, place, found.mask(), console)
        return int(not finished)
    engines = {name: row.engine for name, row in rows.items()}
    jobs = [job for job in selected if job.name in rows]
    return submission.make(jobs, engines, found, record, place, accept)


def _check_out(
    jobs: Sequence[Job],
    found: Sources,
    record: Record,
    place: Place,
    accept: bool,
    console: Console,
    stop: Stop,
) -> dict[str, Result]:
    """Do the jobs that check code out, which wait for no others: they read nothing of theirs."""

    def work(job: Job) -> Result:
        return do(job, found, record, place, Paths(), accept, console, stop, nullcontext())

    alone = [plan.alone(job) for job in jobs]
    return schedule.run_all(alone, work, True, None, stop) if jobs else {}


def _all_done(
    selected: Sequence[Job], found: Sources, record: Record, place: Place
) -> dict[str, Result]:
    """Give the results of all jobs, nothing where one has to run."""
    done = _done(selected, lambda job: found, record, place)
    if len(done) < len(selected):
        return {}
    states = {job.name: record.jobs[job.name] for job in selected}
    return {name: Result("reused", state.seconds, state.contents) for name, state in states.items()}


def _done(
    jobs: Sequence[Job], sources_of: Callable[[Job], Sources], record: Record, place: Place
) -> set[str]:
    """Name the jobs whose work is done, and still holds."""
    done = set[str]()
    for job in jobs:
        possible = job.name in record.jobs and set(job.needs) <= done | _others(job, jobs)
        if possible and decide.done(job, sources_of(job), record, place):
            done.add(job.name)
    return done


def _others(job: Job, jobs: Sequence[Job]) -> set[str]:
    """Name what a job needs that is not submitted: the code that was checked out."""
    return set(job.needs) - {each.name for each in jobs}


def _submit_missing(
    known: Submission, folder: Path, rows: Mapping[str, Row], place: Place, console: Console
) -> None:
    """Submit the jobs that are neither done nor queued, each after those that it needs."""
    spec = known.spec(folder)
    record = Record.load(place.backend, place.record)
    jobs = [spec.jobs[name] for name in known.jobs]
    done = (
        _done(jobs, lambda job: known.sources(spec, job, folder), record, place)
        if record
        else set()
    )
    queued = states.by_job(client.queue(comment(known)))
    ids = {name: each.id for name, each in queued.items() if each.lives}
    script, adopted = _script(folder, known), len(ids)
    with open(folder / IDS, "a", encoding="utf-8") as noted:
        for job in jobs:
            if job.name in done or job.name in ids:
                continue
            after = [ids[need] for need in job.needs if need in ids]
            options = _options(job.name, known, folder, after, rows[job.name])
            ids[job.name] = _submitted(job, known, folder, options, script, spec)
            noted.write(json.dumps({"job": job.name, "id": ids[job.name]}) + "\n")
            noted.flush()
            os.fsync(noted.fileno())
    console.line(
        f"run {known.run}: {len(ids) - adopted} jobs submitted, {adopted} adopted, {len(done)} done"
    )


def _submitted(
    job: Job, known: Submission, folder: Path, options: list[str], script: Path, spec: Spec
) -> str:
    try:
        return client.submit(options, comment(known, job.name), script, str(folder), job.name)
    except GradlabError as error:
        where = f"{spec.path.name}:{job.mark.line}: job {job.name!r}"
        raise GradlabError(
            f"{where}, row {kinds.named(job)!r} of {table.FILE}: {error}",
            error.exit_code,
        ) from error


def _options(
    name: str, known: Submission, folder: Path, after: Sequence[str], row: Row
) -> list[str]:
    options = [f"--job-name=gradlab-{known.name}-{name}", f"--output={folder}/{name}.out"]
    options += ["--open-mode=append", "--requeue", "--kill-on-invalid-dep=yes"]
    options += [f"--chdir={folder}", *row.options()]
    return [*options, f"--dependency=afterok:{':'.join(after)}"] if after else options


def _script(folder: Path, known: Submission) -> Path:
    path = folder / SCRIPT
    path.write_text(BATCH.format(name=known.name, python=shlex.quote(sys.executable)), "utf-8")
    return path
