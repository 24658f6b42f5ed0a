"""The versions of datasets that a storage keeps, as they are read.

Promises: a folder without a manifest is no version. Where an upload in the background brought the
manifest and not all of the data, the version is passed over. One that is damaged is named and
refused, and so is `latest` where that may mean it; another version can be asked for by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from ..base.errors import note
from ..base.names import DATASET
from . import sealed, transfer, tree
from .location import Location
from .tree import File, Tree
from .versions import (
    MANIFEST,
    VERSION,
    DamagedVersion,
    NoVersion,
    Reference,
    Version,
    folder_of,
    number_of,
)

TOP = "datasets"
REMOVED = ".removed"  # folder beside a dataset's versions that names those that were removed


def key_of(name: str, id: str = "") -> str:
    """Give the key of a version's folder on the backend, or of all those of a dataset."""
    return f"{TOP}/{folder_of(name)}{f'/{id}' if id else ''}"


class Shelf:
    """The versions in one storage."""

    def __init__(self, place: Location) -> None:
        self.backend, self.is_apart = place.backend, place.is_apart
        self.top = place.backend.where(TOP)
        self._arrived: set[str] = set()

    def names(self) -> list[str]:
        """List the datasets that have a version."""
        found = [folder.replace("@", "/") for folder in sorted(self.backend.list(TOP))]
        return [name for name in found if DATASET.takes(name) and self._ids(name)]

    def entries(self, name: str) -> list[Version | DamagedVersion]:
        """List a dataset's versions, the newest first, with those that are damaged."""
        found: list[Version | DamagedVersion] = []
        for id in self._ids(name):
            try:
                found += filter(None, [self._read(name, id)])
            except DamagedVersion as error:
                found.append(error)
        return found

    def versions(self, name: str) -> list[Version]:
        """List a dataset's versions that can be read, the newest first."""
        return [entry for entry in self.entries(name) if isinstance(entry, Version)]

    def find(self, text: str, whole: bool = True) -> Version:
        """Find the version that a reference means; raises NoVersion with the way to make one.

        `whole` passes over those of which files are missing. Raises DamagedVersion where the
        reference means, or may mean, one that is damaged.
        """
        reference = Reference.parse(text)
        ids = self._ids(reference.name)
        for id in [reference.version] if reference.version in ids else ids:
            version = self._read(reference.name, id)
            if version is None or reference.version in ("latest", version.id, version.tag):
                if version and (not whole or self._has_arrived(version)):
                    return version
                note(f"! {reference.name}:{id} in {self.top} was not uploaded whole: passed over")
        known = ", ".join(ids[:5]) or "none"
        raise NoVersion(
            f"the dataset {reference.name!r} has no version {reference.version!r} in {self.top} "
            f"(versions: {known}).\nMake one from a folder: gradlab datasets add {text} FOLDER"
        )

    def exists(self, version: str) -> bool:
        """Tell whether the version NAME:ID is there; raises DamagedVersion where it is damaged."""
        found = self._read(*version.split(":"))
        return found is not None and self._has_arrived(found)

    def is_missing(self, versions: Iterable[str]) -> bool:
        """Tell whether the storage has lost one of some versions, where that is ever in doubt."""
        return self.backend.writes_arrive_later and not all(map(self._is_there, versions))

    def _is_there(self, version: str) -> bool:
        """Tell whether a version is there, or was removed because somebody asked for that."""
        name, id = version.split(":")
        return self.exists(version) or id in self.removed(name)

    def removed(self, name: str) -> list[str]:
        """Name the versions of a dataset that were removed, or were about to be."""
        return list(filter(VERSION.fullmatch, self.backend.list(f"{key_of(name)}/{REMOVED}")))

    def is_replaced(self, version: Version) -> bool:
        """Tell whether a version did not arrive whole and one after it did."""
        if self._has_arrived(version):
            return False
        later = takewhile(lambda other: other.id != version.id, self.versions(version.name))
        return any(map(self._has_arrived, later))

    def problems(self, version: Version) -> list[str]:
        """Compare a version's files with its manifest, and say what differs."""
        data = f"{key_of(version.name, version.id)}/data"
        if self.backend.folder:
            place = self.backend.folder / data
            return tree.differences(place, version.tree, plain=self.is_apart)
        sizes, found = self.backend.below(data), dict[str, File]()

        def look(path: str) -> None:
            file = version.tree.files.get(path)
            same = file and file.size == sizes[path]
            sha256 = self.backend.sha256(f"{data}/{path}") if same else ""
            found[path] = File(sizes[path], sha256)

        transfer.each(look, sizes, self.backend.parallel)
        return tree.compared(Tree(found), version.tree, plain=True)

    def where(self, version: Version) -> str:
        """Name the folder of a version in the storage, as people know it."""
        return self.backend.where(key_of(version.name, version.id))

    def _has_arrived(self, version: Version) -> bool:
        """Tell whether a version's files are there, which may be uploaded after its manifest."""
        if not self.backend.writes_arrive_later or str(version) in self._arrived:
            return True
        data = f"{key_of(version.name, version.id)}/data"
        for path, file in version.tree.files.items():
            # Its size will do: a file is uploaded whole or not at all, or stays empty.
            if self.backend.size(f"{data}/{path}") != file.size:
                return False
        self._arrived.add(str(version))
        return True

    def _ids(self, name: str) -> list[str]:
        """List the versions that have a manifest, the newest first."""
        ids = [id for id in self.backend.list(key_of(name)) if VERSION.fullmatch(id)]
        whole = set[str]()

        def look(id: str) -> None:
            if self.backend.size(f"{key_of(name, id)}/{MANIFEST}") is not None:
                whole.add(id)

        transfer.each(look, ids, self.backend.parallel)
        twins = Counter(map(number_of, whole))

        def rank(id: str) -> tuple[int, str, str]:
            # Two machines can take the same number: then the time decides.
            return number_of(id), self._created(name, id) if twins[number_of(id)] > 1 else "", id

        return sorted(whole, key=rank, reverse=True)

    def _created(self, name: str, id: str) -> str:
        try:
            version = self._read(name, id)
        except DamagedVersion:
            return "~"  # may be the newest
        return version.created.replace("Z", "") if version else ""

    def _read(self, name: str, id: str) -> Version | None:
        """Read a manifest, None if it isn't there yet; raises DamagedVersion, OSError."""
        try:
            version = Version.from_bytes(self.backend.read(f"{key_of(name, id)}/{MANIFEST}"))
        # Not for any failure to read it: what is there must never be taken for not there.
        except FileNotFoundError:
            return None
        except sealed.Damaged as error:
            if self.backend.writes_arrive_later and isinstance(error, sealed.Unfinished):
                return None
            raise self._damaged(name, id, [f"{MANIFEST}: {error}"]) from None
        if (version.name, version.id) != (name, id):
            raise self._damaged(name, id, [f"{MANIFEST} is that of {version}"])
        return version

    def _damaged(self, name: str, id: str, found: list[str]) -> DamagedVersion:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        others = [other for other in self._numbered(name) if other != id]
        instead = f"name another version, such as {name}:{others[0]}, or " if others else ""
        return DamagedVersion(
            f"{name}:{id} is damaged: {', '.join(found[:3])}{more}.\n"
            f"What it held can't be trusted: {instead}delete its folder, and what made it makes "
            f"it again: {self.backend.where(key_of(name, id))}",
            exit_code=1,
        )

    def _numbered(self, name: str) -> list[str]:
        ids = [id for id in self.backend.list(key_of(name)) if VERSION.fullmatch(id)]
        return sorted(ids, key=number_of, reverse=True)
