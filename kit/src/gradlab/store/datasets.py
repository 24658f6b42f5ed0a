"""Versioned, immutable datasets in the project's storage.

    <storage>/datasets/<name>/<version>/manifest.json    sizes, SHA-256, where it came from
                                        data/...

Promises: a folder without a manifest is no version, and the manifest arrives together with the
data (one rename) or after it (on slow storage, where a rename can't be trusted), so a half version
is never seen. Where an upload in the background brought the manifest and not all of the data, the
version is passed over. One that is damaged is named and refused, and so is `latest` where that
may mean it; another version can be asked for by its name. What a job reads was compared with its
manifest, once per run. A version is never written again, and gets its number when it is committed.
`name`, `name:latest`, `name:VERSION`, `name:TAG` and `namespace/name` are references as at the
service; a tag is set by naming it in the reference that is written to.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError, note
from ..base.files import names, sweep, sync_folder, write_durably, write_in_place
from ..base.locks import Lock
from ..base.names import DATASET
from ..base.retries import retry
from ..services import session
from . import copier, location, sealed, sealing, tree
from .location import Location
from .tree import Tree
from .versions import (
    MANIFEST,
    VERSION,
    DamagedVersion,
    NoVersion,
    Reference,
    Version,
    folder_of,
    now,
    number_of,
)

ABANDONED_AFTER = 24 * 3600.0  # seconds: no copy to a slow storage takes that long
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Store:
    """The datasets of one storage.

    From a storage that is not worked on a version is copied to the local disk, and checked, before
    it is read.
    """

    def __init__(self, place: Location) -> None:
        self.slow = place.writes_arrive_later
        self.top = place.kept / "datasets"
        self.local = place.work / "datasets"
        self._arrived: set[str] = set()
        self._compared: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

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

    def plan(self, text: str, content: Tree, source: str) -> Version:
        """Give the next version of a dataset; nothing is written yet, and its number not final."""
        reference = Reference.parse(text)
        if reference.version in self._ids(reference.name) or VERSION.fullmatch(reference.version):
            raise GradlabError(
                f"{text} names a version, and versions don't change: write to {reference.name}"
            )
        suffix = "".join(secrets.choice(ALPHABET) for _ in range(6))
        id = f"v{self._next(reference.name, suffix)}-{suffix}"
        tag = None if reference.version == "latest" else reference.version
        return Version(reference.name, id, tag, now(), source, content)

    def commit(self, version: str, box: Path) -> str:
        """Make a box, a folder with `data` and `manifest.json`, the next version; give NAME:ID.

        `version` is the one that was planned. Its number is decided now, so that the newest is
        the one that came last. One that is there already is left as it is, so a commit can be
        repeated.
        """
        name, planned = version.split(":")
        with self._numbering(name):
            if done := self._made(version):
                return done
            final = self._finish(name, planned, box)
            place, local = (top / folder_of(name) / final for top in (self.top, self.local))
            if self.slow:
                retry(lambda: place.mkdir(parents=True, exist_ok=True))  # the number is taken
            else:
                self._put(box, place)
        if self.slow:
            self._upload(box, place)
            self._put(box, local)
        self._compared.add(f"{name}:{final}")  # it has just been hashed
        for top in {place.parent, local.parent}:
            self._sweep(top)
        return f"{name}:{final}"

    @contextmanager
    def _numbering(self, name: str) -> Iterator[None]:
        """Let one commit at a time take its number, where the local file system has locks."""
        retry(lambda: (self.local / folder_of(name)).mkdir(parents=True, exist_ok=True))
        # Beside the folder, for in it a file would be taken for a version by what lists them.
        path = self.local / f".{folder_of(name)}.lock"
        with self._locks["numbering"], Lock(path) as lock:
            with suppress(OSError):  # without locks the time of the commit decides
                lock.wait()
            yield

    def _finish(self, name: str, planned: str, box: Path) -> str:
        """Write the version's number and time into its manifest, both as they are now."""
        data, suffix = sealed.load(box / MANIFEST), planned.partition("-")[2]
        data |= {"version": f"v{self._next(name, suffix)}-{suffix}", "created": now()}
        # Killed here, the next runner has to find the manifest that the box was made with.
        sweep(box)
        retry(lambda: write_durably(box / MANIFEST, sealed.to_text(data).encode()))
        return str(data["version"])

    def _next(self, name: str, suffix: str) -> int:
        """Give the number after all others, of half versions too."""
        taken = (id for id in names(self.top / folder_of(name)) if not id.endswith(suffix))
        return 1 + max(map(number_of, taken), default=0)

    def _made(self, version: str) -> str | None:
        """Give the version that a planned one became, as NAME:ID; none if it isn't there."""
        name, planned = version.split(":")
        for id in self._ids(name):
            if id.partition("-")[2] == planned.partition("-")[2] and self.exists(f"{name}:{id}"):
                return f"{name}:{id}"
        return None

    @staticmethod
    def _put(box: Path, place: Path) -> None:
        if not folders.exists(place):
            retry(lambda: place.parent.mkdir(parents=True, exist_ok=True))
            folders.move(box, place)
            sync_folder(place.parent)

    @staticmethod
    def _upload(box: Path, place: Path) -> None:
        version = Version.load(box / MANIFEST)
        copier.copy(version.tree, box / "data", place / "data", plain=True)
        if found := tree.differences(place / "data", version.tree, plain=True):
            raise GradlabError(f"copying {version} to {place} failed: {found[0]}", exit_code=1)
        write_in_place(place / MANIFEST, version.to_text())

    def exists(self, version: str) -> bool:
        """Tell whether the version NAME:ID is there; raises DamagedVersion where it is damaged."""
        found = self._read(*version.split(":"))
        return found is not None and self._has_arrived(found)

    def secure(self, version: str) -> str | None:
        """Give the version that a planned NAME:ID became, brought again where it was lost.

        None if it isn't there. A Drive that is mounted again has lost what it had not uploaded;
        this machine may have it.
        """
        self._arrived.discard(version)
        if not (found := self._made(version)) and self.slow:
            name, planned = version.split(":")
            own = [id for id in names(self.local / folder_of(name)) if VERSION.fullmatch(id)]
            for id in own:
                local = self.local / folder_of(name) / id
                same = id.partition("-")[2] == planned.partition("-")[2]
                if same and folders.exists(local / MANIFEST):
                    self._upload(local, self.top / folder_of(name) / id)
            found = self._made(version)
        return found

    def lost(self, versions: Iterable[str]) -> list[str]:
        """Bring versions again that the storage has lost; list those that can't be brought."""
        return [version for version in versions if not self.secure(version)] if self.slow else []

    def is_missing(self, versions: Iterable[str]) -> bool:
        """Tell whether the storage has lost one of some versions, where that is ever in doubt."""
        return self.slow and not all(map(self.exists, versions))

    def _has_arrived(self, version: Version) -> bool:
        """Tell whether a version's files are there, which may be uploaded after its manifest."""
        if not self.slow or str(version) in self._arrived:
            return True
        data = self.place(version) / "data"
        for path, file in version.tree.files.items():
            try:
                # Its size will do: a file is uploaded whole or not at all, or stays empty.
                if retry((data / path).stat).st_size != file.size:
                    return False
            except FileNotFoundError:
                return False
        self._arrived.add(str(version))
        return True

    def is_replaced(self, version: Version) -> bool:
        """Tell whether a version did not arrive whole and one after it did."""
        if self._has_arrived(version):
            return False
        later = takewhile(lambda other: other.id != version.id, self.versions(version.name))
        return any(map(self._has_arrived, later))

    def open(self, version: Version) -> Path:
        """Give the folder on the local disk that holds a version's data, compared once per run.

        Raises DamagedVersion where it is not what its manifest says.
        """
        place = self.place(version, self.local)
        with self._locks[str(version)]:
            if str(version) not in self._compared:
                self._compare(version, place)
                self._compared.add(str(version))
        return place / "data"

    def _compare(self, version: Version, place: Path) -> None:
        found: list[str] = []
        if not self.slow or folders.exists(place / MANIFEST):
            found = tree.differences(place / "data", version.tree)
        if found and not self.slow:
            raise self._damaged(version.name, version.id, found)
        if found:
            note(f"! the copy of {version} in {place} is damaged ({found[0]}): copied again")
            folders.discard(place)
        if self.slow and not folders.exists(place / MANIFEST):
            folders.discard(place)
            folders.move(self.pack(version, self.place(version) / "data"), place)

    def lay(self, version: Version, target: Path) -> None:
        """Copy a version's data into a folder, to be thrown away, comparing it as it goes."""
        data = self.open(version) if self.slow else self.place(version) / "data"
        try:
            copier.copy(version.tree, data, target)
        except GradlabError as error:
            raise self._damaged(version.name, version.id, [str(error)]) from None

    def pack(self, version: Version, source: Path) -> Path:
        """Copy a version's files from a folder into a box beside its later place; give the box."""
        box = self.place(replace(version, id=f".{version.id}"), self.local)
        folders.discard(box)
        copier.copy(version.tree, source, box / "data")
        sealing.sync(box / "data", version.tree.files)
        write_in_place(box / MANIFEST, version.to_text())
        return box

    def add(self, text: str, folder: Path, source: str) -> Version:
        """Make a copy of a folder the next version of a dataset."""
        first = self.plan(text, Tree(), source)
        box = self.place(replace(first, id=f".{first.id}"), self.local)
        folders.discard(box)
        content = copier.clone(folder, box / "data", sealing.is_left_out)
        if not content.files:
            folders.discard(box)
            raise GradlabError(f"{folder} has no files")
        sealing.sync(box / "data", content.files)
        version = replace(first, tree=content)
        write_in_place(box / MANIFEST, version.to_text())
        return replace(version, id=self.commit(str(version), box).partition(":")[2])

    def problems(self, version: Version) -> list[str]:
        """Compare a version's files with its manifest, and say what differs."""
        return tree.differences(self.place(version) / "data", version.tree, plain=self.slow)

    def place(self, version: Version, top: Path | None = None) -> Path:
        """Give the folder of a version in the storage, or below another top."""
        return (top or self.top) / folder_of(version.name) / version.id

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
            if self.slow and isinstance(error, sealed.Unfinished):
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

    @staticmethod
    def _sweep(folder: Path) -> None:
        """Remove what commits that were cut off long ago have left; no reason to fail."""
        try:
            for place in (folder / name for name in names(folder)):
                found = folders.status(place)
                old = found and time.time() - found.st_mtime > ABANDONED_AFTER
                whole = VERSION.fullmatch(place.name) and folders.exists(place / MANIFEST)
                if old and not whole:
                    folders.discard(place)
        except OSError as error:
            note(f"! what is left over in {folder} could not be removed: {error}")


@contextmanager
def usable(storage: Path) -> Iterator[None]:
    """Make a failure of the storage, such as a full disk, a message to the user."""
    try:
        yield
    except OSError as error:
        raise GradlabError(f"the storage {storage} failed: {error}", exit_code=1) from error


def open_store(root: Path) -> Store:
    """Give the datasets of the project in a folder."""
    return Store(location.of(session.project_name(root)))
