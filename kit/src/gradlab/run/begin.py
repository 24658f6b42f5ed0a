"""Beginning a run, or taking up one that was cut off, or that others are at work on.

All of it under the lock of `holding.beginning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from ..base.errors import GradlabError
from ..spec.spec import Job
from ..store.versions import NoVersion
from . import holding
from .commit import recover
from .decide import done, stands
from .logs import Console
from .pins import look_up, look_up_others, writes
from .place import Place, clear
from .record import Record, Run
from .sources import Sources


def whole(
    selected: Sequence[Job],
    sources: Sources,
    place: Place,
    fresh: bool,
    console: Console,
    dry: bool = False,
) -> Record:
    """Take up the last run if it was interrupted, else begin a new one; `dry` writes nothing."""
    last = _last(place, console, dry)
    if last and (fresh or _has_ended(last, place, console)):
        _refuse_while_others(sources, place, dry)
        record = Record(place.backend, place.record)
    else:
        record = _resumed(last, console) if last else Record(place.backend, place.record)
    record.run.fresh = record.run.fresh or fresh
    before = place.workflow if fresh else None
    look_up(selected, record.run, sources, place.datasets, console, before)
    if not dry:
        _note(record, last, selected if fresh else (), sources, place, console)
    return record


def join(
    job: Job,
    needed: Sequence[Job],
    sources: Sources,
    place: Place,
    fresh: bool,
    console: Console,
    dry: bool = False,
    known_as: str = "",
) -> Record | None:
    """Join the run that is under way to do one job of it, or begin one if there is none.

    None where the last run has finished and what the job did there still holds; with another
    engine's id for the run, where that very run has finished. Raises GradlabError where a job that
    it needs has not succeeded.
    """
    last = _last(place, console, dry)
    ended = last is None or fresh or _has_ended(last, place, console)
    if last and ended and not fresh and known_as and last.run.known_as == known_as:
        console.line(f"[{job.name}] is done, and so is the run {last.run.id}")
        return None
    looks = not fresh and not known_as
    if last and ended and looks and _stands([*needed, job], last, sources, place):
        console.line(
            f"[{job.name}] is done, in the run {last.run.id} of {last.run.started}: neither it "
            "nor what it reads has changed (--fresh begins a new run)"
        )
        return None
    if ended and needed:
        raise _missing(job, needed[0], sources, fresh)
    if last and ended:
        _refuse_while_others(sources, place, dry, whole=fresh)
    record = _resumed(last, console) if last and not ended else Record(place.backend, place.record)
    record.run.fresh = record.run.fresh or fresh
    record.run.known_as = known_as or record.run.known_as
    before = place.workflow if fresh else None
    look_up([*needed, job], record.run, sources, place.datasets, console, before)
    for other in needed:
        if not _has_succeeded(other, record, sources, place):
            raise _missing(job, other, sources, fresh, holding.at_work(place, [other.name]))
    if not dry:
        everything = [*sources.spec.jobs.values()]
        _note(record, last, everything if fresh else (), sources, place, console)
    return record


def _last(place: Place, console: Console, dry: bool) -> Record | None:
    """Read how far the last run came, with what runners that were killed had begun to commit."""
    last = Record.load(place.backend, place.record)
    if last and not dry:
        _recover_all(last, place, console)
    return last


def _note(
    record: Record,
    last: Record | None,
    fresh: Sequence[Job],
    sources: Sources,
    place: Place,
    console: Console,
) -> None:
    """Write down what a run goes on with, and forget what those jobs have left that begin anew."""
    before = place.workflow if fresh else None
    look_up_others([*sources.spec.jobs.values()], record.run, sources, place.datasets, before)
    if not record.resumed:
        clear(place.volumes, console)
        for name, state in last.jobs.items() if last else ():
            if last and all(map(place.datasets.exists, state.versions())):
                place.forget_copy(name, last.run.id)
    for job in fresh:
        place.discard_draft(job.name)
    record.save()


def _missing(
    job: Job, other: Job, sources: Sources, fresh: bool, at_work: Sequence[str] = ()
) -> GradlabError:
    needs = f"job {job.name!r} needs {other.name!r}, which"
    if at_work:
        return GradlabError(
            f"{needs} another process is doing: wait for its end, then give the same command again"
        )
    first = f"gradlab run {sources.spec.path.stem} --only {other.name}{' --fresh' * fresh}"
    return GradlabError(f"{needs} has not succeeded in this run.\nFirst: {first}")


def _has_succeeded(job: Job, record: Record, sources: Sources, place: Place) -> bool:
    try:
        return done(job, sources, record, place)
    except KeyError:  # nor has one that it needs
        return False


def _stands(jobs: Sequence[Job], last: Record, sources: Sources, place: Place) -> bool:
    """Tell whether jobs of a run that has finished would do now what they did in it."""
    own = {reference for job in jobs for reference in _own_references(job, sources)}
    run = Run(
        id=last.run.id,
        datasets={key: value for key, value in last.run.datasets.items() if key in own},
        digests=last.run.digests,
        own=last.run.own,
    )
    try:
        look_up_others(jobs, run, sources, place.datasets)
        return all(stands(job, sources, replace(last, run=run), place) for job in jobs)
    except (KeyError, NoVersion):
        return False


def _own_references(job: Job, sources: Sources) -> list[str]:
    found = (sources.reference(port) for port in job.inputs.values())
    return [reference for reference in found if writes(job, reference)]


def _recover_all(record: Record, place: Place, console: Console) -> None:
    """Finish what runners that were killed had begun to put in place."""
    for name in list(record.jobs):
        with ExitStack() as stack:
            if not holding.attempt(stack, place, name):
                continue
            try:
                record.reload(name)  # it may have come further a moment ago
                recover(name, record, place, console)
            except (GradlabError, OSError) as error:  # tried again when the job's turn has come
                console.line(f"! what job {name!r} has made could not be put in place: {error}")


def _has_ended(last: Record, place: Place, console: Console) -> bool:
    """Tell whether a run has finished, and what it has made came through."""
    if not last.run.finished:
        return False
    if not place.datasets.is_missing(last.versions()):
        return True
    console.line("the last run's end was not uploaded whole: what is missing is made again")
    return False


def _resumed(last: Record, console: Console) -> Record:
    done = ", ".join(last.jobs) or "none"
    console.line(f"carries on run {last.run.id} of {last.run.started}; done: {done}")
    last.resumed, last.run.finished = True, False
    return last


def _refuse_while_others(sources: Sources, place: Place, dry: bool, whole: bool = False) -> None:
    """Raise GradlabError while another process is at work on the run that a new one would end.

    `whole` asks for runs of the whole workflow too.
    """
    if dry:
        return
    busy = [f"job {name!r}" for name in holding.at_work(place, sources.spec.jobs)]
    if whole and holding.whole_at_work(place):
        busy.append(f"all jobs of {place.workflow!r}")
    if busy:
        raise GradlabError(
            f"another process is doing {busy[0]} of the run under way, which a new run would end: "
            "wait for it, or end it"
        )
