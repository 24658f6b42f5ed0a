"""`gradlab clean`: what a storage keeps that nobody needs any more, shown, asked about, removed.

Promises: only what was shown goes, and each thing only if at that moment it is still what was
shown, and nothing is at work on it. Versions of datasets, models and runs under their own names
stay. Killed at any moment, it has removed nothing else; given again, it does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..base.errors import GradlabError, note, reason
from ..base.units import human
from ..services import session
from ..store import location
from ..store.datasets import usable
from ..store.location import Location
from . import asking, finished, rests
from .things import Thing

DAYS = 30.0
KINDS = (
    finished.drafts,
    finished.earlier_runs,
    finished.held_copies,
    rests.of_versions,
    rests.of_writers,
    rests.of_uploads,
    rests.of_removals,
)


def clean_command(yes: bool = False, days: float = DAYS) -> int:
    """Remove what nobody needs any more: what would go is shown with its size, and asked about.

    That is what finished runs have left of their drafts, drafts that were set aside, trainings
    that were started over (NAME~), what killed writers have left, uploads that never ended, and
    old logs and submissions. Versions of datasets, models and runs stay.

    Args:
        yes: Don't ask.
        days: Logs and submissions go that were not written for so many days.
    """
    place = location.of(session.project_name(session.project_root()))
    with usable(place.backend), asking.alone(place):
        found = [*_found(place, days)]
        if not found:
            print(f"Nothing in {place.backend} can go.")
            return 0
        asking.show(place, [(thing.what, thing.where, thing.size) for thing in found])
        if not asking.confirmed(yes):
            return 1
        gone = [thing for thing in found if _gone(thing)]
    print(f"Removed {len(gone)} of {len(found)}, {human(sum(thing.size for thing in gone))}.")
    return int(len(gone) < len(found))


def _found(place: Location, days: float) -> Iterator[Thing]:
    """Give what can go; of a kind that can't be looked at nothing, which is told."""
    kinds = (*KINDS, partial(finished.logs, days=days), partial(finished.handed, days=days))
    for kind in kinds:
        try:
            yield from [*kind(place)]
        except (OSError, GradlabError) as error:
            note(f"! not all could be looked at: {reason(error)}")


def _gone(thing: Thing) -> bool:
    """Remove a thing; tell whether it is gone."""
    try:
        stays = thing.remove()
    except (OSError, GradlabError) as error:
        stays = reason(error)
    if stays:
        print(f"{thing.where} stays: {stays}")
    return not stays
