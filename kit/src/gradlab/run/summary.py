"""What is known of a workflow's last run at a glance.

Promises: what is damaged or can't be read is a problem that the summary names, never an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ..base.errors import GradlabError, reason
from ..base.files import names
from ..engines.protocol import DRAFTS
from ..store import sealed
from ..store.location import Location
from ..store.records import Records
from . import failures, holding, submission
from .place import Place
from .record import JobState, Record

SHORT = 8  # digits of a digest that is shown


@dataclass
class Workflow:
    """A workflow's last run."""

    name: str
    where: str
    state: str = "unknown"  # else running, submitted, finished, failed or cut off
    id: str = ""
    started: str = ""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # job -> message
    data: list[str] = field(default_factory=list)  # NAME:VERSION
    code: str = ""  # a short digest of what was checked out
    size: int = 0  # bytes of its record, logs and drafts
    problems: list[str] = field(default_factory=list)


def workflows(place: Location) -> Iterator[Workflow]:
    """Give the last run of each workflow that has one; raises OSError where none can be listed."""
    for name in sorted(place.backend.list("workflows")):
        if _has_run(own := Place.of(name, place)):
            yield summarize(own, place)


def _has_run(place: Place) -> bool:
    """Tell whether a workflow has a run, not only locks, as far as that can be told."""
    try:
        return bool(Records(place.backend, place.record, "run-").keys())
    except OSError:
        return True


def summarize(place: Place, location: Location) -> Workflow:
    """Say what the record of a workflow's last run tells; what it doesn't is among the problems."""
    found = Workflow(place.workflow, place.backend.where(place.record))
    try:
        found.problems += _damaged(place)
        if record := Record.load(place.backend, place.record):
            _take(found, record, place)
        found.size = sum(_sizes(place, location))
    except (OSError, GradlabError) as error:
        found.problems.append(f"its record can't be read: {reason(error)}")
    return found


def _take(found: Workflow, record: Record, place: Place) -> None:
    run = record.run
    found.id, found.started = run.id, run.started
    found.done = [name for name, state in record.jobs.items() if state.state == "succeeded"]
    found.failed = failures.of(record)
    found.data = sorted(record.taken_and_made().difference(record.versions()))
    found.code = next(filter(None, map(_code, record.jobs.values())), "")
    last = None if run.finished else submission.current(place)
    if not run.finished and is_at_work(place, record.jobs):
        found.state = "running"
    elif last and last[2] and last[0].run == run.id:
        found.state = "submitted"
    else:
        found.state = "finished" if run.finished else "failed" if found.failed else "cut off"


def _code(state: JobState) -> str:
    volumes = [each.value for each in state.contents.values() if each.type == "volume"]
    return volumes[0][:SHORT] if volumes else ""


def is_at_work(place: Place, jobs: Collection[str]) -> bool:
    """Tell whether a process is at work on a run, as far as this machine can know."""
    key = f"workflows/{place.workflow}/jobs"
    locks = [*names(place.work / key), *place.backend.list(f"leases/{key}")]
    known = {name.removesuffix(".lock").partition("~")[0] for name in locks}.union(jobs)
    return holding.whole_at_work(place) or bool(holding.at_work(place, known))


def _damaged(place: Place) -> Iterator[str]:
    """Name the newest record of the run where it is damaged."""
    for key in Records(place.backend, place.record, "run-").keys()[:1]:
        try:
            sealed.from_bytes(place.backend.read(key))
        except (FileNotFoundError, sealed.Unfinished):
            pass
        except sealed.Damaged as error:
            yield f"{key.rpartition('/')[2]} is damaged: {error}"


def _sizes(place: Place, location: Location) -> Iterator[int]:
    for side in location.sides:
        for folder in (f"workflows/{place.workflow}", f"{DRAFTS}/{place.workflow}"):
            yield from side.below(folder).values()
