"""Versioned, immutable datasets in the project's storage.

    <storage>/datasets/<name>/<version>/manifest.json    sizes, SHA-256, where it came from
                                        data/...

Promises: a folder without a manifest that is whole is no version, and the manifest arrives
together with the data (one rename) or after it (on slow storage, where a rename can't be
trusted), so a half version is never seen. Where an upload in the background brought the manifest
and not all of the data, the version is passed over. A version is never written again. `name`,
`name:latest`, `name:VERSION`, `name:TAG` and `namespace/name` are references as at the service;
a tag is set by naming it in the reference that is written to.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from .. import session
from ..errors import GradlabError, note
from ..files import names, read_text, retry, sync_folder
from . import tree
from .names import DATASET
from .tree import Tree

VERSION = re.compile(r"v([1-9]\d*)-[a-z0-9]{6}", re.ASCII)
ABANDONED_AFTER = 24 * 3600.0  # seconds: no copy to a slow storage takes that long
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class NoVersion(GradlabError):
    """A reference to a dataset or a version that isn't there."""


@dataclass(frozen=True)
class Reference:
    """A dataset's name, and the version or tag that was asked for."""

    name: str
    version: str = "latest"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `[namespace/]id[:version]`; raises GradlabError for anything else."""
        if not (match := DATASET.pattern.fullmatch(text)):
            raise GradlabError(f"{text!r} can't be {DATASET.what}: {DATASET.advice}")
        name = "/".join(part for part in match.group("namespace", "id") if part)
        return cls(name, match["version"] or "latest")


@dataclass(frozen=True)
class Version:
    """One version of a dataset, complete or about to be."""

    name: str
    id: str
    tag: str | None
    created: str
    source: str
    tree: Tree

    def __str__(self) -> str:
        return f"{self.name}:{self.id}"

    def to_text(self) -> str:
        """Give the manifest."""
        head = {"name": self.name, "version": self.id, "tag": self.tag, "created": self.created}
        rest = {"source": self.source, "sha256": self.tree.digest, **self.tree.to_json()}
        return json.dumps(head | rest, indent=1) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Version:
        """Read a manifest; raises ValueError, KeyError or TypeError where it isn't whole."""
        data = json.loads(text)
        version = cls(
            data["name"],
            data["version"],
            data["tag"],
            data["created"],
            data["source"],
            Tree.from_json(data),
        )
        if version.tree.digest != data["sha256"]:
            raise ValueError("the manifest is damaged")
        return version


class Store:
    """The datasets of one storage.

    `work` is a folder on the local disk: the storage itself where that is fast. From a slow
    storage a version is copied there, and checked, before it is read.
    """

    def __init__(self, storage: session.Storage, work: Path) -> None:
        self.slow = storage.slow
        self.top = storage.path / "datasets"
        self.local = work / "datasets"
        self._arrived: set[str] = set()

    def names(self) -> list[str]:
        """List the datasets that have a version."""
        found = [folder.replace("@", "/") for folder in sorted(names(self.top))]
        return [name for name in found if DATASET.takes(name) and self._ids(name)]

    def versions(self, name: str) -> list[Version]:
        """List a dataset's versions, the newest first."""
        found = [self._read(self.top, name, id) for id in self._ids(name)]
        return [version for version in found if version]

    def find(self, text: str, whole: bool = True) -> Version:
        """Find the version that a reference means; raises NoVersion with the way to make one.

        `whole` passes over those of which files are missing.
        """
        reference = Reference.parse(text)
        ids = self._ids(reference.name)
        for id in [reference.version] if reference.version in ids else ids:
            version = self._read(self.top, reference.name, id)
            if version and reference.version in ("latest", version.id, version.tag):
                if not whole or self._has_arrived(version):
                    return version
                note(f"! {version} in {self.top} was not uploaded whole: passed over")
        known = ", ".join(ids[:5]) or "none"
        raise NoVersion(
            f"the dataset {reference.name!r} has no version {reference.version!r} in {self.top} "
            f"(versions: {known}).\nMake one from a folder: gradlab datasets add {text} FOLDER"
        )

    def plan(self, text: str, content: Tree, source: str) -> Version:
        """Give the next version of a dataset, with an id of its own; nothing is written yet."""
        reference = Reference.parse(text)
        ids = self._ids(reference.name)
        if reference.version in ids or VERSION.fullmatch(reference.version):
            raise GradlabError(
                f"{text} names a version, and versions don't change: write to {reference.name}"
            )
        number = 1 + max((_number(id) for id in ids), default=0)
        id = f"v{number}-" + "".join(secrets.choice(ALPHABET) for _ in range(6))
        tag = None if reference.version == "latest" else reference.version
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Version(reference.name, id, tag, created, source, content)

    def commit(self, version: str, box: Path) -> None:
        """Make a box, a folder with `data` and `manifest.json`, the version NAME:ID.

        A version that is there already is left as it is, so a commit can be repeated.
        """
        name, id = version.split(":")
        place = self._place(self.top, name, id)
        if self.slow and not self.exists(version):
            self._upload(box, place)
        local = self._place(self.local, name, id)
        if not local.exists():
            local.parent.mkdir(parents=True, exist_ok=True)
            box.rename(local)
            sync_folder(local.parent)
        for top in {place.parent, local.parent}:
            self._sweep(top)

    @staticmethod
    def _upload(box: Path, place: Path) -> None:
        version = Version.from_text((box / "manifest.json").read_text("utf-8"))
        tree.copy(version.tree, box / "data", place / "data", plain=True)
        if found := tree.differences(place / "data", version.tree, plain=True):
            raise GradlabError(f"copying {version} to {place} failed: {found[0]}", exit_code=1)
        tree.write(place / "manifest.json", version.to_text())

    def exists(self, version: str) -> bool:
        """Tell whether the version NAME:ID is there."""
        name, id = version.split(":")
        found = self._read(self.top, name, id)
        return found is not None and self._has_arrived(found)

    def secure(self, version: str) -> bool:
        """Tell whether the version NAME:ID is there, brought again where it was lost meanwhile.

        A Drive that is mounted again has lost what it had not uploaded; this machine may have it.
        """
        self._arrived.discard(version)
        local = self._place(self.local, *version.split(":"))
        if self.slow and not self.exists(version) and (local / "manifest.json").exists():
            self._upload(local, self._place(self.top, *version.split(":")))
        return self.exists(version)

    def _has_arrived(self, version: Version) -> bool:
        """Tell whether a version's files are there, which may be uploaded after its manifest."""
        if not self.slow or str(version) in self._arrived:
            return True
        data = self._place(self.top, version.name, version.id) / "data"
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
        """Give the folder on the local disk that holds a version's data."""
        place = self._place(self.local, version.name, version.id)
        if self.slow and not (place / "manifest.json").exists():
            source = self._place(self.top, version.name, version.id) / "data"
            self.pack(version, source).rename(place)
        return place / "data"

    def pack(self, version: Version, source: Path) -> Path:
        """Copy a version's files from a folder into a box beside its later place; give the box."""
        box = self._place(self.local, version.name, f".{version.id}")
        tree.discard(box)
        tree.copy(version.tree, source, box / "data")
        tree.write(box / "manifest.json", version.to_text())
        return box

    def problems(self, version: Version) -> list[str]:
        """Compare a version's files with its manifest, and say what differs."""
        data = self._place(self.top, version.name, version.id) / "data"
        return tree.differences(data, version.tree, plain=self.slow)

    def _ids(self, name: str) -> list[str]:
        folder = self.top / name.replace("/", "@")
        ids = [id for id in names(folder) if VERSION.fullmatch(id)]
        whole = [id for id in ids if retry((folder / id / "manifest.json").is_file)]
        return sorted(whole, key=lambda id: (_number(id), id), reverse=True)

    @staticmethod
    def _place(top: Path, name: str, id: str) -> Path:
        return top / name.replace("/", "@") / id

    def _read(self, top: Path, name: str, id: str) -> Version | None:
        try:
            manifest = self._place(top, name, id) / "manifest.json"
            version = Version.from_text(read_text(manifest))
        # Not for any failure to read it: what is there must never be taken for not there.
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return version if (version.name, version.id) == (name, id) else None

    @staticmethod
    def _sweep(folder: Path) -> None:
        for place in folder.iterdir():
            whole = VERSION.fullmatch(place.name) and (place / "manifest.json").exists()
            if not whole and time.time() - place.stat().st_mtime > ABANDONED_AFTER:
                tree.discard(place)


def _number(id: str) -> int:
    match = VERSION.fullmatch(id)
    return int(match[1]) if match else 0


@contextmanager
def usable(storage: Path) -> Iterator[None]:
    """Make a failure of the storage, such as a full disk, a message to the user."""
    try:
        yield
    except OSError as error:
        raise GradlabError(f"the storage {storage} failed: {error}", exit_code=1) from error


def open_store(root: Path) -> Store:
    """Give the datasets of the project in a folder."""
    project = session.project_name(root)
    storage = session.storage(project)
    return Store(storage, session.scratch(project) if storage.slow else storage.path)
