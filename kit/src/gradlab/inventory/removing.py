"""`gradlab datasets remove`: versions of datasets that nobody needs any more.

Promises: what a run under way needs stays, and what a registered model was made from unless that
model is named; both are looked at again at the moment of each removal, while no run can begin. A
version is whole or none at any moment. Killed, and given again, it does the rest.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError
from ..base.units import human
from ..store import removal
from ..store.datasets import Datasets
from ..store.location import Location
from ..store.shelf import key_of
from ..store.versions import DamagedVersion, Reference, Version, folder_of
from . import asking, guards
from .guards import Guards


@dataclass(frozen=True)
class Going:
    """A version that is to go: its id, the SHA-256 of what it holds if it is whole, its size."""

    name: str
    id: str
    digest: str
    size: int
    what: str

    def __str__(self) -> str:
        return f"{self.name}:{self.id}"


def remove(place: Location, root: Path, text: str, given: Set[str], yes: bool) -> int:
    """Show what a reference means, ask, and remove it; give the exit code."""
    store, reference = Datasets(place), Reference.parse(text)
    with asking.alone(place):
        found, guarded = _meant(store, reference, ":" in text), guards.look(place)
        _refuse_unknown(given, guarded)
        going = [each for each in found if not guarded.why(str(each), each.digest, given)]
        for each in found:
            if each not in going:
                print(f"{each} stays: {guarded.why(str(each), each.digest, given)}")
        if not going:
            raise GradlabError(f"nothing of {text} can go now: {_ways(guarded, found)}")
        asking.show(
            place, [(each.what, store.backend.where(_key(each)), each.size) for each in going]
        )
        _tell_latest(store, reference.name, going)
        if not asking.confirmed(yes):
            return 1
        gone = [each for each in going if _gone(each, place, root, given)]
    print(f"Removed {len(gone)} of {len(going)}, {human(sum(each.size for each in gone))}.")
    return int(len(gone) < len(going))


def _meant(store: Datasets, reference: Reference, one: bool) -> list[Going]:
    """Give the versions that a reference means: all of a dataset, unless it names one."""
    name = reference.name
    left = [_left(store, name, id) for id in store.removed(name)]
    found = [_looked_at(store, each) for each in store.entries(name)]
    found += [each for each in left if each.size and each.id not in {f.id for f in found}]
    if one:
        ids = [each.id for each in found]
        wanted = reference.version
        wanted = wanted if wanted in ids else store.find(f"{name}:{wanted}", whole=False).id
        found = [each for each in found if each.id == wanted]
    if not found:
        raise GradlabError(
            f"there is no dataset {name!r} in {store.top}: gradlab datasets lists all"
        )
    return found


def _left(store: Datasets, name: str, id: str) -> Going:
    """Give what a removal that was cut off has left of a version."""
    size = sum(store.backend.below(key_of(name, id)).values())
    return Going(name, id, "", size, f"{name}:{id}, the rest of a removal")


def _looked_at(store: Datasets, entry: Version | DamagedVersion) -> Going:
    if isinstance(entry, DamagedVersion):
        name, id = str(entry).partition(" is damaged")[0].split(":")
        size = sum(store.backend.below(key_of(name, id)).values())
        return Going(name, id, "", size, f"{name}:{id}, damaged")
    tag = f", tag {entry.tag}" if entry.tag else ""
    what = f"{entry} of {entry.made}, by {entry.source}{tag}"
    return Going(entry.name, entry.id, entry.tree.digest, entry.tree.size, what)


def _refuse_unknown(given: Set[str], guarded: Guards) -> None:
    known = {id for ids in guarded.models.values() for id in ids}
    if unknown := sorted(given - known):
        raise GradlabError(
            f"--model {unknown[0]}: no registered model has that id, or it was made from no dataset"
        )


def _ways(guarded: Guards, found: list[Going]) -> str:
    """Say what would let it go."""
    if any(str(each) in guarded.under_way or each.digest in guarded.read for each in found):
        return "let that finish first"
    ids = sorted({id for each in found for id in guarded.models.get(str(each), ())})
    return "if it may go all the same, name the model: " + " ".join(f"--model {id}" for id in ids)


def _tell_latest(store: Datasets, name: str, going: list[Going]) -> None:
    whole = [version.id for version in store.versions(name)]
    stay = [id for id in whole if id not in {each.id for each in going}]
    if whole[:1] != stay[:1]:
        then = f"is {name}:{stay[0]}" if stay else "has no version"
        print(f"{name}:latest then {then}. The numbers that are gone are not given again.")


def _key(version: Going) -> str:
    return key_of(version.name, version.id)


def _gone(version: Going, place: Location, root: Path, given: Set[str]) -> bool:
    """Remove a version, unless it is needed by now; tell whether it is gone."""
    with guards.no_run_begins(place, root):
        if why := guards.look(place).why(str(version), version.digest, given):
            print(f"{version} stays: {why}")
            return False
        removal.remove_version(place.backend, version.name, version.id)
    if place.is_apart:  # the copy on this machine first: it may be brought back from there
        folders.discard(place.work / "datasets" / folder_of(version.name) / version.id)
    removal.discard(place.backend, _key(version))
    return True
