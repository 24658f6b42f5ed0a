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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError, note
from ..base.files import names, sweep, sync_folder, write_durably, write_in_place
from ..base.locks import Lock
from ..base.retries import retry
from ..services import session
from . import leftovers, location, sealed, sealing, transfer, tree
from .location import Location
from .shelf import TOP, Shelf, key_of
from .tree import File, Tree
from .versions import (
    MANIFEST,
    VERSION,
    Reference,
    Version,
    folder_of,
    now,
    number_of,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Datasets(Shelf):
    """The versions in one storage, read and written.

    From a storage that is not worked on a version is copied to the local disk, and checked, before
    it is read.
    """

    def __init__(self, place: Location) -> None:
        super().__init__(place)
        self.sides, self.local = place.sides, place.work / TOP
        self._compared: set[str] = set()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

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

    def commit(self, version: str, box: Path, fence: Callable[[], int] = lambda: 0) -> str:
        """Make a box, a folder with `data` and `manifest.json`, the next version; give NAME:ID.

        `version` is the one that was planned. Its number is decided now, so that the newest is
        the one that came last. One that is there already is left as it is, so a commit can be
        repeated. `fence` gives the token under which the manifest may be written, or raises.
        """
        name, planned = version.split(":")
        with self._numbering(name):
            if done := self._made(version):
                return done
            final = self._finish(name, planned, box)
            local = self.local / folder_of(name) / final
            if not self.is_apart:
                self._put(box, local)
        if self.is_apart:
            self._upload(box, name, final, fence)
            self._put(box, local)
        self._compared.add(f"{name}:{final}")  # it has just been hashed
        for backend in self.sides:
            leftovers.sweep(backend, key_of(name))
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
        """Give a version its number; one that was not planned goes into its manifest."""
        data, suffix = sealed.load(box / MANIFEST), planned.partition("-")[2]
        number = self._next(name, suffix)
        while self.is_apart and not self._take(name, number, suffix):
            number += 1
        final = f"v{number}-{suffix}"
        if data["version"] != final:
            data |= {"version": final, "created": now()}
            # Killed here, the next runner has to find the manifest that the box was made with.
            sweep(box)
            retry(lambda: write_durably(box / MANIFEST, sealed.to_text(data).encode()))
        return final

    def _take(self, name: str, number: int, suffix: str) -> bool:
        """Take a number, where other machines may want it; tell whether it is this version's."""
        return self.backend.create(f"{key_of(name)}/.numbers/{number}", suffix.encode())

    def _next(self, name: str, suffix: str) -> int:
        """Give the number after all others, of half versions and removed ones too."""
        known = [*self.backend.list(key_of(name)), *self.removed(name)]
        taken = (id for id in known if not id.endswith(suffix))
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

    def _upload(self, box: Path, name: str, id: str, fence: Callable[[], int] = lambda: 0) -> None:
        """Bring a version to the backend, its manifest last."""
        version, key = Version.load(box / MANIFEST), key_of(name, id)
        content = version.tree

        def put(path: str) -> None:
            sha256 = self.backend.put(f"{key}/data/{path}", box / "data" / path)
            if sha256 != content.files[path].sha256:
                raise GradlabError(f"{path} of {version} was changed while it was kept", 1)
            count(content.files[path].size)

        with transfer.shown(f"{version} to {self.backend}", content.size) as count:
            transfer.each(put, content.files, self.backend.parallel)
        text = replace(version, token=fence()).to_text()
        self.backend.write(f"{key}/{MANIFEST}", text.encode())

    def secure(self, version: str, fence: Callable[[], int] = lambda: 0) -> str | None:
        """Give the version that a planned NAME:ID became, brought again where it was lost.

        None if it isn't there. A Drive that is mounted again has lost what it had not uploaded;
        this machine may have it. `fence` is that of `commit`.
        """
        self._arrived.discard(version)
        if not (found := self._made(version)) and self.is_apart:
            name, planned = version.split(":")
            own = [id for id in names(self.local / folder_of(name)) if VERSION.fullmatch(id)]
            for id in own:
                local = self.local / folder_of(name) / id
                same = id.partition("-")[2] == planned.partition("-")[2]
                if same and folders.exists(local / MANIFEST):
                    self._upload(local, name, id, fence)
            found = self._made(version)
        return found

    def lost(self, versions: Iterable[str]) -> list[str]:
        """Bring versions again that the storage has lost; list those that can't be brought."""
        late = self.backend.writes_arrive_later
        return [version for version in versions if not self.secure(version)] if late else []

    def open(self, version: Version) -> Path:
        """Give the folder on the local disk that holds a version's data, compared once per run.

        Raises DamagedVersion where it is not what its manifest says.
        """
        place = self._local(version)
        with self._locks[str(version)]:
            if str(version) not in self._compared:
                self._compare(version, place)
                self._compared.add(str(version))
        return place / "data"

    def _local(self, version: Version) -> Path:
        """Give the folder of a version on the local disk."""
        return self.local / folder_of(version.name) / version.id

    def _compare(self, version: Version, place: Path) -> None:
        found: list[str] = []
        if not self.is_apart or folders.exists(place / MANIFEST):
            found = tree.differences(place / "data", version.tree)
        if found and not self.is_apart:
            raise self._damaged(version.name, version.id, found)
        if found:
            note(f"! the copy of {version} in {place} is damaged ({found[0]}): copied again")
            folders.discard(place)
        if self.is_apart and not folders.exists(place / MANIFEST):
            folders.discard(place)
            folders.move(self._fetched(version), place)

    def lay(self, version: Version, target: Path) -> None:
        """Copy a version's data into a folder, to be thrown away, comparing it as it goes."""
        data = self.open(version) if self.is_apart else self._local(version) / "data"
        try:
            transfer.copy(version.tree, data, target)
        except GradlabError as error:
            raise self._damaged(version.name, version.id, [str(error)]) from None

    def _fetched(self, version: Version) -> Path:
        """Copy a version from the backend into a box beside its later place; give the box."""
        box, data = self.box(version), f"{key_of(version.name, version.id)}/data"

        here = self._here(version.name)

        def fetch(path: str, place: str, file: File) -> None:
            if not _copied(here.get(file.sha256), place, file):
                self.backend.fetch(f"{data}/{path}", place, file)
            count(file.size)

        with transfer.shown(f"{version} from {self.backend}", version.tree.size) as count:
            transfer.fill(version.tree, box / "data", fetch, self.backend.parallel)
        close(version, box)
        return box

    def _here(self, name: str) -> dict[str, Path]:
        """Give the files of a dataset's versions on the local disk by their SHA-256."""
        top, found = self.local / folder_of(name), dict[str, Path]()
        for id in filter(VERSION.fullmatch, names(top)):
            with suppress(OSError, sealed.Damaged):  # then they are fetched
                files = Version.load(top / id / MANIFEST).tree.files
                found |= {file.sha256: top / id / "data" / path for path, file in files.items()}
        return found

    def box(self, version: Version) -> Path:
        """Give an empty place for a version's data and manifest, beside its later one."""
        box = self._local(replace(version, id=f".{version.id}"))
        folders.discard(box)
        return box

    def add(self, text: str, folder: Path, source: str) -> Version:
        """Make a copy of a folder the next version of a dataset."""
        first = self.plan(text, Tree(), source)
        box = self.box(first)
        content = transfer.clone(folder, box / "data", sealing.is_left_out)
        if not content.files:
            folders.discard(box)
            raise GradlabError(f"{folder} has no files")
        version = replace(first, tree=content)
        close(version, box)
        return replace(version, id=self.commit(str(version), box).partition(":")[2])


def _copied(here: Path | None, place: str, file: File) -> bool:
    """Copy a file that is here already, and tell whether it is what it is to be."""
    if here is None:
        return False
    try:
        transfer.copy_checked(str(here), place, file)
        return True
    except (GradlabError, OSError):
        return False


def close(version: Version, box: Path) -> None:
    """Make durable what a box holds, and write its manifest, so that it can be committed."""
    sealing.sync(box / "data", version.tree.files)
    write_in_place(box / MANIFEST, version.to_text())


@contextmanager
def usable(storage: object) -> Iterator[None]:
    """Make a failure of the storage, such as a full disk, a message to the user."""
    try:
        yield
    except OSError as error:
        raise GradlabError(f"the storage {storage} failed: {error}", exit_code=1) from error


def open_store(root: Path) -> Datasets:
    """Give the datasets of the project in a folder."""
    return Datasets(location.of(session.project_name(root)))
