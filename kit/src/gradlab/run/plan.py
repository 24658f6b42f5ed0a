"""What a run needs, found and checked before anything runs.

Promises: an input without a value, a dataset without a version, a secret that isn't set and an
action that the engine can't do are errors here, each with the way out, and never after hours of
training. Names that can't be used are errors of `gradlab check`, which a run begins with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter

from ..base import names
from ..base.errors import GradlabError, note
from ..base.stop import Stop
from ..base.tables import listed, table
from ..engines.choose import choose
from ..engines.protocol import Engine
from ..services import session
from ..services.table import here
from ..spec import credentials
from ..spec.credentials import shown
from ..spec.spec import Job, Port, Spec
from ..store import location
from ..store.datasets import Store
from ..store.versions import NoVersion, Reference, Version
from . import actions
from .journal import Content, Journal, Run
from .outputs import Place
from .report import Console
from .repository import Repository
from .workshop import Workshop, own_dataset


def select(spec: Spec, name: str | None) -> list[Job]:
    """Give the jobs to run in an order that `needs` allows: all, or one with what it needs."""
    if name is not None and name not in spec.jobs:
        raise GradlabError(f"{spec.path} has no job {name!r}; its jobs are {', '.join(spec.jobs)}")
    order = list(TopologicalSorter({j.name: j.needs for j in spec.jobs.values()}).static_order())
    wanted = set(order) if name is None else {name}
    for job in reversed(order):
        if job in wanted:
            wanted.update(spec.jobs[job].needs)
    return [spec.jobs[job] for job in order if job in wanted]


def open_workshop(
    spec: Spec,
    selected: Sequence[Job],
    inputs: Sequence[str],
    engine_name: str,
    console: Console,
    stop: Stop,
) -> Workshop:
    """Find all that the jobs need, but the versions of datasets."""
    root = session.project_root()
    project = session.project_name(root)
    own = location.of(project)
    place = Place(names.WORKFLOW.require(spec.path.stem), own.backend, own.work)
    images = {str(job.parameters["image"]) for job in selected if "image" in job.parameters}
    engine, passed_over = choose(engine_name, sorted(images))
    for job in selected:
        if found := actions.problem(job, engine):
            raise GradlabError(f"{spec.path}:{job.mark.line}: job {job.name!r}: {found}")
    repository = Repository(root, own.kept)
    event = {"url": repository.url, "ref": repository.commit("HEAD"), **_event(spec)}
    _refuse_unlisted(spec, selected, event, repository)
    workshop = Workshop(
        spec=spec,
        place=place,
        run=Run(),
        journal=Journal(place.record),
        store=Store(own),
        engine=engine,
        repository=repository,
        given=_given(spec, selected, inputs),
        secrets=_secrets(spec, selected),
        event=event,
        console=console,
        stop=stop,
    )
    console.line(f"workflow {spec.path.stem} of {root}, storage {own.kept} ({own.why})")
    _say_engine(engine, passed_over, console)
    return workshop


def _say_engine(engine: Engine, passed_over: Sequence[str], console: Console) -> None:
    console.line(f"engine {engine.name}" + (f": {engine.caveat}" if engine.caveat else ""))
    for line in passed_over if engine.name == "paths" else ():
        console.line(f"  not {line}")


def _refuse_unlisted(
    spec: Spec, selected: Sequence[Job], event: Mapping[str, str], repository: Repository
) -> None:
    """Raise GradlabError, before anything runs, where a working tree can't be listed."""
    for job in selected:
        try:
            if actions.takes_working_tree(job, event, repository):
                repository.paths()
        except GradlabError as error:
            place = f"{spec.path}:{job.mark.line}: job {job.name!r}"
            raise GradlabError(f"{place}: {error}") from error


def _secrets(spec: Spec, selected: Sequence[Job]) -> dict[str, str]:
    places: dict[str, str] = {}
    for job in selected:
        for name in credentials.names_in(job.env, job.parameters):
            places.setdefault(name, f"{spec.path}:{job.mark.line}: job {job.name!r}")
    own = " or, in a notebook, put it into the service's secrets and allow it to be read"
    return credentials.values_of(places, own if here().has_secrets else "")


def _event(spec: Spec) -> dict[str, str]:
    """Give what the spec itself says about context.event.github."""
    event = spec.context.get("event")
    github = event.get("github") if isinstance(event, dict) else None
    said = github.items() if isinstance(github, dict) else ()
    return {str(key): str(value) for key, value in said}


def _given(spec: Spec, selected: Sequence[Job], arguments: Sequence[str]) -> dict[str, Content]:
    """Give the workflow's inputs that the jobs use; of datasets the reference."""
    values = {}
    for argument in arguments:
        name, equals, values[name] = argument.partition("=")
        if not equals:
            raise GradlabError(f"--input {argument}: write NAME=VALUE")
        if name not in spec.inputs:
            known = ", ".join(spec.inputs) or "none"
            raise GradlabError(f"{spec.path} has no input {name!r}; its inputs: {known}")
    sources = [port.source for job in selected for port in job.inputs.values() if port.source]
    given = {}
    for name in sorted({name for job, name in sources if job == "workflow"}):
        port = spec.inputs[name]
        value = values.get(name, port.ref if port.type == "dataset" else port.value)
        if value is None and not port.optional:
            raise GradlabError(
                f"{spec.path}:{port.mark.line}: the input {name!r} has no value: "
                f"gradlab run {spec.path.stem} --input {name}=VALUE"
            )
        given[name] = Content(port.type, value or "")
    return given


def look_up(workshop: Workshop, selected: Sequence[Job], fresh: bool = False) -> None:
    """Find the version of each dataset that comes from outside, once per run.

    Raises GradlabError for one that has none, unless the input is optional or the dataset is
    one that the job makes itself: then it finds an empty folder. With `fresh` a job finds its
    own dataset as it was before the job ever wrote to it.
    """
    run, store = workshop.run, workshop.store
    for job, reference, optional in _references(workshop, selected):
        key = own_dataset(job, reference)
        if fresh and _writes(job, reference):
            before = _before(workshop, job, reference)
            run.own[key], run.digests[key] = _recorded(before)
            workshop.console.line(_taken(reference, before, job))
            continue
        if key in run.own:
            found = _still(store, reference, run.own[key], run.digests.get(key))
            run.own[key] = str(found) if found else None
            workshop.console.line(_taken(reference, found, job))
            continue
        begun = reference in run.datasets
        if begun:
            found = _still(store, reference, run.datasets[reference], run.digests.get(reference))
        else:
            found = _find(store, job, reference, optional)
        run.datasets[reference], run.digests[reference] = _recorded(found)
        workshop.console.line(_taken(reference, found, job))
        newest = _newest(store, reference) if begun and found else None
        if newest and str(newest) != str(found):
            workshop.console.line(f"  as when this run began; {newest} has come since")


def _newest(store: Store, reference: str) -> Version | None:
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


def _references(workshop: Workshop, selected: Sequence[Job]) -> Iterator[tuple[Job, str, bool]]:
    """Give each reference to a dataset from outside with the first job that reads it, if optional.

    One that a job also writes to is given for that job by itself.
    """
    seen = {""}
    for job in selected:
        for port in job.inputs.values():
            reference = workshop.reference(port)
            if port.source and port.source[0] == "workflow":
                port = workshop.spec.inputs[port.source[1]]
            key = own_dataset(job, reference) if _writes(job, reference) else reference
            if reference and key not in seen:
                seen.add(key)
                yield job, reference, port.optional


def _writes(job: Job, reference: str) -> bool:
    """Tell whether a job makes the next version of a dataset of which it reads the newest."""
    if not reference or Reference.parse(reference).version != "latest":
        return False
    name = Reference.parse(reference).name
    return any(Reference.parse(p.ref).name == name for p in job.outputs.values() if p.ref)


def _before(workshop: Workshop, job: Job, reference: str) -> Version | None:
    """Give the newest version of a dataset that a job has not made itself."""
    maker = workshop.maker(job)
    for version in workshop.store.versions(Reference.parse(reference).name):
        if not version.source.startswith(f"{maker},") and workshop.store.exists(str(version)):
            return version
    return None


def _still(
    store: Store, reference: str, recorded: str | None, digest: str | None
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


def _find(store: Store, job: Job, reference: str, optional: bool) -> Version | None:
    try:
        return store.find(reference)
    except NoVersion as error:
        wanted = Reference.parse(reference)
        made = {Reference.parse(p.ref).name for p in job.outputs.values() if p.ref}
        if optional or (wanted.version == "latest" and wanted.name in made):
            return None
        raise GradlabError(f"job {job.name!r}: {error}") from None


def show(workshop: Workshop, selected: Sequence[Job]) -> None:
    """Print what would be done."""
    rows = [("job", "action", "inputs", "outputs", "would be")]
    reused: set[str] = set()
    for job in selected:
        if set(job.needs) <= reused and workshop.reusable(job):
            reused.add(job.name)
        inputs = [f"{name} ({_origin(workshop, port, job)})" for name, port in job.inputs.items()]
        outputs = [f"{name} ({port.ref or port.type})" for name, port in job.outputs.items()]
        verdict = "reused" if job.name in reused else "run"
        rows.append((job.name, job.uses, listed(inputs), listed(outputs), verdict))
    for line in table(rows):
        workshop.console.line(line)


def _origin(workshop: Workshop, port: Port, job: Job) -> str:
    if port.source and port.source[0] != "workflow":
        return f"of {port.source[0]}"
    return shown(workshop.input(port, job).value) or "empty"
