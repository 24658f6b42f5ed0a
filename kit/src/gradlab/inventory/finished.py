"""What runs have left that have finished, or that went another way.

Promises: of a run that has not finished stays whatever its next session may take up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..base import folders
from ..base.locks import Held
from ..engines.protocol import DRAFTS
from ..run import holding, submission
from ..run.place import Place
from ..run.record import Record
from ..run.summary import is_at_work
from ..store import belongings, removal
from ..store.backend import Backend
from ..store.copies import UPLOADED
from ..store.location import Location
from ..store.shelf import key_of
from ..store.versions import MANIFEST
from ..train.places import CHECKPOINTS
from ..train.run_copies import HELD
from .things import IN_USE, Thing, aged, job_of, mark, size_of, taken, training

DAY = 24 * 3600.0  # seconds
SCRAPS = ("inputs", "tmp", "root", "layers", "mirror", "brought")  # made anew for each attempt
Remove = Callable[[], str]


def drafts(place: Location) -> Iterator[Thing]:
    """Give the drafts of finished runs, their copies, and of others what was set aside."""
    sides = {name for side in place.sides for name in side.list(DRAFTS)}
    for workflow in sorted(sides.union(place.local.list("volumes"))):
        own = Place.of(workflow, place)
        record = Record.load(place.backend, own.record)
        if record is None or is_at_work(own, record.jobs):
            continue
        if record.run.finished:
            yield from _of_finished(own, record, place)
        elif not _is_submitted(own):
            for job in place.local.list(f"{DRAFTS}/{workflow}"):
                yield from _beside(own, job, record, place.local)


def _is_submitted(place: Place) -> bool:
    last = submission.current(place)
    return bool(last and last[2])


def _of_finished(place: Place, record: Record, location: Location) -> Iterator[Thing]:
    sides = [location.local]
    if location.is_apart and _is_uploaded(place, record):
        sides.append(location.backend)
    for side in sides:
        for job in sorted(side.list(f"{DRAFTS}/{place.workflow}")):
            key = f"{DRAFTS}/{place.workflow}/{job}"
            what = f"what {job!r} had written, whose run has finished"
            remove = _with_job(place, job, record, lambda s=side, k=key: _draft(s, k))  # type: ignore[misc]
            yield Thing(what, side.where(key), size_of(side, key), remove)
    key = f"volumes/{place.workflow}"
    if folders.exists(place.volumes):
        size = size_of(location.local, key)
        remove = _between_runs(place, record, lambda: _draft(location.local, key))
        yield Thing("volumes of a finished run", str(place.volumes), size, remove)


def _is_uploaded(place: Place, record: Record) -> bool:
    """Tell whether the copies of a run's drafts are not needed to make its versions again."""
    if not place.backend.writes_arrive_later:
        return True
    there = all(map(place.datasets.exists, record.versions()))
    manifests = [f"{key_of(*each.split(':'))}/{MANIFEST}" for each in record.versions()]
    return there and all(place.backend.age(manifest) > UPLOADED for manifest in manifests)


def _draft(side: Backend, key: str) -> str:
    removal.discard(side, key, [name for name in side.list(key) if name.endswith(".json")])
    return ""


def _with_job(place: Place, job: str, record: Record, remove: Remove) -> Remove:
    """Have a job's lock while something of it goes, if its run is what it was."""
    then = mark(record)

    def locked() -> str:
        with job_of(place, job.partition("~")[0], then) as why:
            return why or remove()

    return locked


def _between_runs(place: Place, record: Record, remove: Remove) -> Remove:
    """Let no run begin while something goes, if the last one is what it was."""

    def locked() -> str:
        with holding.beginning(place):
            now = Record.load(place.backend, place.record)
            if now is None or mark(now) != mark(record) or is_at_work(place, now.jobs):
                return IN_USE
            return remove()

    return locked


def _beside(place: Place, job: str, record: Record, side: Backend) -> Iterator[Thing]:
    """Give what lies beside the draft of a job that was cut off, and that it does not take up."""
    top = f"{DRAFTS}/{place.workflow}/{job}"
    aside = f"{top}/{belongings.ASIDE}"
    if side.list(aside) and belongings.is_only_aside(place.drafts / job):

        def remove() -> str:
            return taken(side, aside)() if belongings.is_only_aside(place.drafts / job) else IN_USE

        what = f"a draft of {job!r} that was set aside"
        locked = _with_job(place, job, record, remove)
        yield Thing(what, side.where(aside), size_of(side, aside), locked)
    for name in SCRAPS:
        key = f"{top}/{name}"
        if size := size_of(side, key):
            remove_it = _with_job(place, job, record, lambda key=key: _draft(side, key))  # type: ignore[misc]
            yield Thing(f"what a killed runner left of {job!r}", side.where(key), size, remove_it)


def earlier_runs(place: Location) -> Iterator[Thing]:
    """Give the trainings that were started over, which are kept as NAME~."""
    for side in place.sides:
        for name in sorted(each for each in side.list("runs") if "~" in each[1:]):
            if not name.startswith("."):
                base, key = name.partition("~")[0], f"runs/{name}"
                what = f"the training {base!r} before it was started over"
                remove = _with_training(place, base, taken(side, key))
                yield Thing(what, side.where(key), size_of(side, key), remove)


def held_copies(place: Location) -> Iterator[Thing]:
    """Give the checkpoints that killed trainings held while they were copied."""
    for name in sorted(place.local.list("runs")):
        key = f"runs/{name}/{CHECKPOINTS}/{HELD}"
        if size := size_of(place.local, key):
            remove = _with_training(place, name.partition("~")[0], taken(place.local, key))
            what = f"a checkpoint that {name!r} held for a copy"
            yield Thing(what, place.local.where(key), size, remove)


def _with_training(place: Location, name: str, remove: Remove) -> Remove:
    def locked() -> str:
        with training(place, name) as why:
            return why or remove()

    return locked


def logs(place: Location, days: float) -> Iterator[Thing]:
    """Give the logs of finished runs that were not written for so many days."""
    for side in place.sides:
        for workflow in sorted(side.list("workflows")):
            own = Place.of(workflow, place)
            record = Record.load(place.backend, own.record)
            if record is None or not record.run.finished or is_at_work(own, record.jobs):
                continue
            for name in sorted(side.list(f"workflows/{workflow}/logs")):
                key = f"workflows/{workflow}/logs/{name}"
                if side.age(key) > days * DAY:
                    remove = aged(side, key, days * DAY)
                    yield Thing("an old log", side.where(key), side.size(key) or 0, remove)


def handed(place: Location, days: float) -> Iterator[Thing]:
    """Give the submissions to a cluster that are closed, the last one after so many days."""
    for workflow in sorted(place.local.list("workflows")):
        own = Place.of(workflow, place)
        for id in sorted(place.local.list(f"workflows/{workflow}/submissions")):
            key = f"workflows/{workflow}/submissions/{id}"
            if _is_closed(own, id, place.local.idle(key), days):
                remove = _while_none_submits(own, id, days, taken(place.local, key))
                size = size_of(place.local, key)
                yield Thing("an old submission", place.local.where(key), size, remove)


def _is_closed(place: Place, id: str, idle: float, days: float) -> bool:
    last = submission.current(place)
    if last is None or last[0].id != id:
        return idle > DAY
    return not last[2] and idle > days * DAY


def _while_none_submits(place: Place, id: str, days: float, remove: Remove) -> Remove:
    def locked() -> str:
        with place.shared(holding.WHOLE).lock() as lock:
            try:
                with lock.as_far_as_there_are_locks():
                    lock.take()
            except Held:
                return IN_USE
            return remove() if _is_closed(place, id, float("inf"), days) else IN_USE

    return locked
