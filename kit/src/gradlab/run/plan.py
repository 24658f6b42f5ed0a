"""What is to be done, and by which engine, before anything is.

Promises: an action that the engine can't do is an error here, with the way out, and never after
hours of training. Names that can't be used are errors of `gradlab check`, which a run begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

from ..base import names
from ..base.errors import GradlabError
from ..base.tables import listed, table
from ..engines.choose import choose
from ..engines.protocol import Engine
from ..services import session
from ..spec.credentials import shown
from ..spec.spec import Job, Port, Spec
from ..store import location
from . import execute
from .decide import done as is_done
from .decide import input_of
from .logs import Console
from .place import Place
from .record import Record
from .sources import Sources


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


def alone(job: Job) -> Job:
    """Give a job that waits for no other."""
    return replace(job, needs=())


def place_of(spec: Spec, root: Path, console: Console) -> Place:
    """Find where the things of a project's workflow lie, and say so."""
    own = location.of(session.project_name(root))
    console.line(f"workflow {spec.path.stem} of {root}, storage {own.backend} ({own.why})")
    workflow = names.WORKFLOW.require(spec.path.stem)
    return Place.of(workflow, own)


def engine_for(spec: Spec, jobs: Sequence[Job], asked: str, console: Console) -> Engine:
    """Choose the engine for some jobs and say which; GradlabError for what it can't do."""
    images = {str(job.parameters["image"]) for job in jobs if "image" in job.parameters}
    engine, passed_over = choose(asked, sorted(images))
    for job in jobs:
        if found := execute.problem(job, engine):
            raise GradlabError(f"{spec.path}:{job.mark.line}: job {job.name!r}: {found}")
    console.line(f"engine {engine.name}" + (f": {engine.caveat}" if engine.caveat else ""))
    for line in passed_over if engine.name == "paths" else ():
        console.line(f"  not {line}")
    return engine


def show(
    selected: Sequence[Job], sources: Sources, record: Record, place: Place, console: Console
) -> None:
    """Print what would be done."""
    rows = [("job", "action", "inputs", "outputs", "would be")]
    done: set[str] = set()
    for job in selected:
        if set(job.needs) <= done and is_done(job, sources, record, place):
            done.add(job.name)
        inputs = [
            f"{name} ({_origin(port, job, sources, record)})" for name, port in job.inputs.items()
        ]
        outputs = [f"{name} ({port.ref or port.type})" for name, port in job.outputs.items()]
        verdict = "reused" if job.name in done else "run"
        rows.append((job.name, job.uses, listed(inputs), listed(outputs), verdict))
    for line in table(rows):
        console.line(line)


def _origin(port: Port, job: Job, sources: Sources, record: Record) -> str:
    if port.source and port.source[0] != "workflow":
        return f"of {port.source[0]}"
    return shown(input_of(port, job, sources, record).value) or "empty"
