"""The versions of datasets that a storage keeps, as they are read.

Promises: a folder without a manifest is no version. Where an upload in the background brought the
manifest and not all of the data, the version is passed over. One that is damaged is named and
refused, and so is `latest` where that may mean it; another version can be asked for by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from ..base import folders
from ..base.errors import note
from ..base.files import names
from ..base.names import DATASET
from . import sealed, tree
from .location import Location
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


def key_of(name: str, id: str) -> str:
    """Give the key of a version's folder on the backend."""
    return f"datasets/{folder_of(name)}/{id}"


class Shelf:
    """The versions in one storage."""

    def __init__(self, place: Location) -> None:
        self.backend, self.is_apart = place.backend, place.is_apart
        self.top = place.kept / "datasets"
        self._arrived: set[str] = set()

    def names(self) -> list[str]:
        """List the datasets that have a version."""
        found = [folder.replace("@", "/") for folder in sorted(names(self.top))]
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
        return self.backend.writes_arrive_later and not all(map(self.exists, versions))

    def is_replaced(self, version: Version) -> bool:
        """Tell whether a version did not arrive whole and one after it did."""
        if self._has_arrived(version):
            return False
        later = takewhile(lambda other: other.id != version.id, self.versions(version.name))
        return any(map(self._has_arrived, later))

    def problems(self, version: Version) -> list[str]:
        """Compare a version's files with its manifest, and say what differs."""
        return tree.differences(self.place(version) / "data", version.tree, plain=self.is_apart)

    def place(self, version: Version, top: Path | None = None) -> Path:
        """Give the folder of a version in the storage, or below another top."""
        return (top or self.top) / folder_of(version.name) / version.id

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
        folder = self.top / folder_of(name)
        ids = [id for id in names(folder) if VERSION.fullmatch(id)]
        whole = [id for id in ids if folders.exists(folder / id / MANIFEST)]
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
            version = Version.load(self.top / folder_of(name) / id / MANIFEST)
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
            f"it again: {self.top / folder_of(name) / id}",
            exit_code=1,
        )

    def _numbered(self, name: str) -> list[str]:
        ids = [id for id in names(self.top / folder_of(name)) if VERSION.fullmatch(id)]
        return sorted(ids, key=number_of, reverse=True)
