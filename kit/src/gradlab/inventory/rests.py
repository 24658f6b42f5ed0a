"""What was begun and never ended: half versions, half files, half uploads, half removals.

Promises: what may still be under way on any machine stays: it was touched within the last day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..store import leftovers, removal
from ..store.backend import Backend
from ..store.datasets import Datasets
from ..store.location import Location
from ..store.shelf import REMOVED, TOP, key_of
from ..store.uploads import Upload
from ..store.versions import MANIFEST
from .things import CHANGED, Thing, aged, size_of, taken

ABANDONED = leftovers.ABANDONED_AFTER
# As writers name what they have not finished; what two tries at one file ask; what is asked once.
UNFINISHED = re.compile(r"(.*/)?(\..+\.tmp|.+\.[0-9a-f]{8}\.tmp|[^/]+\.claims/[0-9a-f]{16})")
ASKED = (".probe", ".clock")
WRITTEN = ("runs", "workflows", "models", "leases")


def of_versions(place: Location) -> Iterator[Thing]:
    """Give half versions of datasets, and the rest of those that are removed."""
    store = Datasets(place)
    for folder in sorted({name for side in place.sides for name in side.list(TOP)}):
        name = folder.replace("@", "/")
        removed = store.removed(name)
        for side in place.sides:
            for key in leftovers.abandoned(side, f"{TOP}/{folder}"):
                yield _half(side, key, "a version that was never finished")
            for id in removed:
                if side.list(key_of(name, id)) and not _is_whole(side, key_of(name, id)):
                    yield _half(side, key_of(name, id), "the rest of a version that was removed")


def _is_whole(side: Backend, key: str) -> bool:
    return side.size(f"{key}/{MANIFEST}") is not None


def _half(side: Backend, key: str, what: str) -> Thing:
    def remove() -> str:
        if _is_whole(side, key) and not key.rpartition("/")[2].startswith("."):
            return CHANGED
        return taken_now()

    taken_now = taken(side, key)
    return Thing(what, side.where(key), size_of(side, key), remove)


def of_writers(place: Location) -> Iterator[Thing]:
    """Give the files that writers which were killed have not finished."""
    for side in place.sides:
        for top in (*WRITTEN, *ASKED):
            for path, size in sorted(side.below(top).items()):
                key = f"{top}/{path}"
                if (top in ASKED or UNFINISHED.fullmatch(path)) and _is_old(side, key):
                    yield _file(side, key, size)
        for name in side.list(TOP):
            for folder in (f"{TOP}/{name}", f"{TOP}/{name}/{REMOVED}"):
                for key in (f"{folder}/{each}" for each in side.list(folder)):
                    if UNFINISHED.fullmatch(key) and _is_old(side, key):
                        yield _file(side, key, side.size(key) or 0)


def _is_old(side: Backend, key: str) -> bool:
    try:
        return side.age(key) > ABANDONED
    except FileNotFoundError:
        return False


def _file(side: Backend, key: str, size: int) -> Thing:
    return Thing("what a killed writer left", side.where(key), size, aged(side, key, ABANDONED))


def of_uploads(place: Location) -> Iterator[Thing]:
    """Give the uploads in parts that never ended."""

    def abort(upload: Upload) -> str:
        place.backend.abort(upload)
        return ""

    for upload in place.backend.uploads():
        if upload.age > ABANDONED:
            where = place.backend.where(upload.key)
            what = "an upload that never ended"
            yield Thing(what, where, upload.size, lambda upload=upload: abort(upload))  # type: ignore[misc]


def of_removals(place: Location) -> Iterator[Thing]:
    """Give what a removal that was killed had already taken out of its place."""
    for side in place.sides:
        for name in sorted(side.list(removal.TRASH)):
            key = f"{removal.TRASH}/{name}"

            def remove(side: Backend = side, key: str = key) -> str:
                side.discard(key)
                return ""

            what = "the rest of a removal"
            yield Thing(what, side.where(key), size_of(side, key), remove)
