"""The versions of datasets that a run takes: found when it begins, and the same to its end.

Promises: a version that comes while the run is under way is told, and not taken, whoever does the
jobs. One that the run began with and that is gone is an error with the way out, unless another
has the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from ..base.errors import GradlabError, note
from ..spec.spec import Job
from ..store.datasets import Datasets
from ..store.versions import NoVersion, Reference, Version
from .logs import Console
from .record import Run
from .sources import Sources


def look_up(
    jobs: Sequence[Job],
    run: Run,
    sources: Sources,
    store: Datasets,
    console: Console,
    before: str | None = None,
) -> None:
    """Find the version of each dataset that comes from outside, once per run, and tell it.

    Raises GradlabError for one that has none, unless the input is optional or the dataset is
    one that the job makes itself: then it finds an empty folder. With `before`, the name of a
    workflow, its jobs find their own datasets as they were before they ever wrote to them.
    """
    for job, reference, optional in _references(jobs, sources):
        key = own_dataset(job, reference)
        if before is not None and writes(job, reference):
            first = _first(store, f"{before}/{job.name}", reference)
            run.own[key], run.digests[key] = _recorded(first)
            console.line(_taken(reference, first, job))
            continue
        if key in run.own:
            found = _still(store, reference, run.own[key], run.digests.get(key))
            run.own[key] = str(found) if found else None
            console.line(_taken(reference, found, job))
            continue
        begun = reference in run.datasets
        found = _find(job, reference, optional, run, store)
        run.datasets[reference], run.digests[reference] = _recorded(found)
        console.line(_taken(reference, found, job))
        newest = _newest(store, reference) if begun and found else None
        if newest and str(newest) != str(found):
            console.line(f"  as when this run began; {newest} has come since")


def look_up_others(
    jobs: Sequence[Job], run: Run, sources: Sources, store: Datasets, before: str | None = None
) -> None:
    """Find those of jobs whose turn comes later, by whomever, as far as they are there."""
    for job, reference, optional in _references(jobs, sources):
        key = own_dataset(job, reference)
        if key not in run.own and before is not None and writes(job, reference):
            first = _first(store, f"{before}/{job.name}", reference)
            run.own[key], run.digests[key] = _recorded(first)
        elif reference not in run.datasets and key not in run.own:
            with suppress(GradlabError):  # told once the job is asked for
                found = _find(job, reference, optional, run, store)
                run.datasets[reference], run.digests[reference] = _recorded(found)


def own_dataset(job: Job, reference: str) -> str:
    """Give the key of a job's own dataset, which it reads and writes, in the run's record."""
    return f"{job.name} {reference}"


def writes(job: Job, reference: str) -> bool:
    """Tell whether a job makes the next version of a dataset of which it reads the newest."""
    if not reference or Reference.parse(reference).version != "latest":
        return False
    name = Reference.parse(reference).name
    return any(Reference.parse(p.ref).name == name for p in job.outputs.values() if p.ref)


def _newest(store: Datasets, reference: str) -> Version | None:
    """Give the version that a run would take that began now, which is only told."""
    try:
        return store.find(reference)
    except GradlabError as error:  # damaged: no reason to end a run that reads another
        note(f"! {error}")
        return None


def _taken(reference: str, found: Version | None, job: Job) -> str:
    what = found or f"nothing yet: job {job.name!r} finds an empty folder"
    return f"dataset {reference} is {what}"


def _recorded(found: Version | None) -> tuple[str | None, str]:
    return (str(found), found.tree.digest) if found else (None, "")


def _references(jobs: Sequence[Job], sources: Sources) -> Iterator[tuple[Job, str, bool]]:
    """Give each reference to a dataset from outside with the first job that reads it, if optional.

    One that a job also writes to is given for that job by itself.
    """
    seen = {""}
    for job in jobs:
        for port in job.inputs.values():
            reference = sources.reference(port)
            if port.source and port.source[0] == "workflow":
                port = sources.spec.inputs[port.source[1]]
            key = own_dataset(job, reference) if writes(job, reference) else reference
            if reference and key not in seen:
                seen.add(key)
                yield job, reference, port.optional


def _first(store: Datasets, maker: str, reference: str) -> Version | None:
    """Give the newest version of a dataset that a job has not made itself."""
    for version in store.versions(Reference.parse(reference).name):
        if not version.source.startswith(f"{maker},") and store.exists(str(version)):
            return version
    return None


def _find(job: Job, reference: str, optional: bool, run: Run, store: Datasets) -> Version | None:
    if reference in run.datasets:
        return _still(store, reference, run.datasets[reference], run.digests.get(reference))
    try:
        return store.find(reference)
    except NoVersion as error:
        wanted = Reference.parse(reference)
        made = {Reference.parse(p.ref).name for p in job.outputs.values() if p.ref}
        if optional or (wanted.version == "latest" and wanted.name in made):
            return None
        raise GradlabError(f"job {job.name!r}: {error}") from None


def _still(
    store: Datasets, reference: str, recorded: str | None, digest: str | None
) -> Version | None:
    """Give the version that a run took when it began, or another one of the same files."""
    name = Reference.parse(reference).name
    if recorded is None:
        return None
    if store.exists(recorded):
        return store.find(recorded)
    for version in store.versions(name):
        if version.tree.digest == digest and store.exists(str(version)):
            return version
    raise GradlabError(
        f"the dataset {recorded}, which this run began with, is not in {store.top} any more, or "
        f"not whole.\nAdd the same files again (gradlab datasets add {name} FOLDER), or begin "
        "a new run with --fresh"
    )
