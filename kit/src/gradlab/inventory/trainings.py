"""All trainings of a project: those of `train`, and those in the jobs of workflows.

    <storage>/runs/<name>                                        of `train`
    <work>/drafts/<workflow>/<job>/outputs/<output>/runs/<name>  in a job that has not ended
    <storage>/datasets/<name>/<version>/data/runs/<name>         in the newest version of a dataset

Promises: what can't be listed or read hides nothing else: it is told in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..base.errors import GradlabError, reason
from ..engines.protocol import DRAFTS
from ..run.place import Place
from ..run.summary import is_at_work
from ..store import sealed, transfer
from ..store.backend import Backend
from ..store.drafts import LIST
from ..store.location import Location
from ..store.shelf import TOP
from ..store.tree import Tree
from ..store.versions import VERSION, number_of
from ..train import summary
from ..train.summary import Kept, Summary

RUNS = "runs"


@dataclass(frozen=True)
class Training:
    """A training run: its name, of what it is, where it lies, its files, and what those say."""

    name: str
    of: str  # `train`, `WORKFLOW/JOB`, or a dataset's NAME:VERSION
    where: str
    state: str  # running, finished, failed or cut off
    kept: Kept
    summary: Summary


@dataclass(frozen=True)
class Found:
    """Where a training run lies, before it is looked at."""

    name: str
    of: str
    where: str
    kept: Kept


def trainings(place: Location) -> list[Training]:
    """Give all trainings, those of `train` first; what can't be listed is one with a problem."""
    found = [*_direct(place), *_in_drafts(place), *_in_copies(place), *_in_datasets(place)]
    seen = dict[int, Training]()

    def look(number: int) -> None:
        seen[number] = _seen(found[number], place)

    transfer.each(look, range(len(found)), place.backend.parallel)
    return [seen[number] for number in range(len(found))]


def _seen(found: Found, place: Location) -> Training:
    told = summary.summarize(found.kept)
    state = "finished" if told.finished else "failed" if told.failed else "cut off"
    try:
        if not told.finished and _is_under_way(found, place):
            state = "running"
    except (OSError, GradlabError) as error:
        told.problems.append(f"whether it is under way can't be told: {reason(error)}")
    return Training(found.name, found.of, found.where, state, found.kept, told)


def _is_under_way(found: Found, place: Location) -> bool:
    if found.of == "train":
        return summary.is_under_way(place, found.name)
    workflow, _, job = found.of.partition("/")
    return ":" not in found.of and is_at_work(Place.of(workflow, place), [job])


def _direct(place: Location) -> Iterator[Found]:
    by_side = [_runs_below(side, RUNS) for side in place.sides]
    for name in sorted({name for runs in by_side for name in runs}):
        # Another machine may have carried on what this one has begun.
        kept = max((runs[name] for runs in by_side if name in runs), key=lambda each: each.step)
        yield Found(name, "train", kept.side.where(f"{RUNS}/{name}"), kept)


def _in_drafts(place: Location) -> Iterator[Found]:
    local = place.local
    for workflow, job in _drafts(local):
        top = f"{DRAFTS}/{workflow}/{job}/outputs"
        for output in sorted(_listed(local, top)):
            yield from _within(local, f"{top}/{output}/{RUNS}", _of(workflow, job))


def _of(workflow: str, job: str) -> str:
    return f"{workflow}/{job.partition('~')[0]}"


def _drafts(side: Backend) -> Iterator[tuple[str, str]]:
    for workflow in sorted(_listed(side, DRAFTS)):
        for job in sorted(_listed(side, f"{DRAFTS}/{workflow}")):
            yield workflow, job


def _in_copies(place: Location) -> Iterator[Found]:
    """Give those of drafts of which only a copy is left, for their machine has gone."""
    for workflow, job in _drafts(place.backend) if place.is_apart else ():
        key = f"{DRAFTS}/{workflow}/{job}"
        if place.local.list(f"{key}/outputs"):
            continue
        lists = sorted(filter(LIST.fullmatch, _listed(place.backend, key)), reverse=True)
        files = next(filter(None, (_files(place.backend, key, name) for name in lists)), {})
        where = place.backend.where(key)
        for name, kept in _by_name(place.backend, files).items():
            yield Found(name, _of(workflow, job), where, kept)


def _files(side: Backend, key: str, entry: str) -> dict[str, tuple[str, int]]:
    """Give the files of runs that a list of a draft's copy names; none where it is not whole."""
    try:
        content = Tree.from_json(sealed.from_bytes(side.read(f"{key}/{entry}")))
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    found = dict[str, tuple[str, int]]()
    for path, file in content.files.items():
        _, _, inside = path.partition(f"/{RUNS}/")
        if inside:
            found[inside] = f"{key}/files/{file.sha256[:2]}/{file.sha256}", file.size
    return found


def _in_datasets(place: Location) -> Iterator[Found]:
    side = place.backend
    for folder in sorted(_listed(side, TOP)):
        ids = sorted(filter(VERSION.fullmatch, _listed(side, f"{TOP}/{folder}")), key=number_of)
        for id in ids[-1:]:
            of = f"{folder.replace('@', '/')}:{id}"
            yield from _within(side, f"{TOP}/{folder}/{id}/data/{RUNS}", of)


def _within(side: Backend, top: str, of: str) -> Iterator[Found]:
    for name, kept in sorted(_runs_below(side, top).items()):
        yield Found(name, of, side.where(f"{top}/{name}"), kept)


def _runs_below(side: Backend, top: str) -> dict[str, Kept]:
    """Give the runs in a folder; one whose files can't be listed has none."""
    try:
        return _by_name(side, {path: (f"{top}/{path}", n) for path, n in side.below(top).items()})
    except OSError:  # of one of them, perhaps
        return {name: _alone(side, f"{top}/{name}") for name in _named(_listed(side, top))}


def _alone(side: Backend, key: str) -> Kept:
    try:
        return Kept(side, {path: (f"{key}/{path}", n) for path, n in side.below(key).items()})
    except OSError as error:
        return Kept(side, {}, reason(error))


def _by_name(side: Backend, files: dict[str, tuple[str, int]]) -> dict[str, Kept]:
    found = dict[str, dict[str, tuple[str, int]]]()
    for path, file in files.items():
        name, _, inside = path.partition("/")
        if inside:
            found.setdefault(name, {})[inside] = file
    return {name: Kept(side, found[name]) for name in _named(found)}


def _named(names: Iterable[str]) -> list[str]:
    """Give of some names those that runs have: locks and the like begin with a dot."""
    return [name for name in names if not name.startswith(".")]


def _listed(side: Backend, folder: str) -> list[str]:
    """Name what lies in a folder, nothing where that can't be told."""
    try:
        return side.list(folder)
    except OSError:
        return []
