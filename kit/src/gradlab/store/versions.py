"""One version of a dataset: how it is referred to, and its manifest.

Promises: a manifest that is not whole is never taken for one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError
from ..base.names import DATASET
from ..base.retries import retry
from . import sealed
from .tree import Tree

VERSION = re.compile(r"v([1-9]\d*)-[a-z0-9]{6}", re.ASCII)
MANIFEST = "manifest.json"


class NoVersion(GradlabError):
    """A reference to a dataset or a version that isn't there."""


class DamagedVersion(GradlabError):
    """A version that is there and is not what it was."""


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
    token: int = 0  # of the lease under which it was committed, where there was one

    def __str__(self) -> str:
        return f"{self.name}:{self.id}"

    @property
    def made(self) -> str:
        """When it got its number, to the second."""
        return f"{self.created[:19]}Z"

    def to_text(self) -> str:
        """Give the manifest."""
        head = {"name": self.name, "version": self.id, "tag": self.tag, "created": self.created}
        token = {"token": self.token} if self.token else {}
        rest = {"source": self.source, "sha256": self.tree.digest, **self.tree.to_json()}
        return sealed.to_text(head | token | rest)

    @classmethod
    def load(cls, manifest: Path) -> Version:
        """Read a manifest; raises sealed.Damaged or .Unfinished where it isn't whole, OSError."""
        return cls.from_bytes(retry(manifest.read_bytes))

    @staticmethod
    def from_bytes(text: bytes) -> Version:
        """Read what a manifest holds; raises sealed.Damaged or .Unfinished where it isn't whole."""
        return _read(text)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Version:
        """Read a version from plain data; raises KeyError, TypeError or others for other data."""
        name, id, tag, created, source = (
            data[key] for key in ("name", "version", "tag", "created", "source")
        )
        return cls(name, id, tag, created, source, Tree.from_json(data), data.get("token", 0))


@lru_cache(maxsize=16)  # a run looks at a manifest four times, which may list many thousand files
def _read(text: bytes) -> Version:
    data = sealed.from_bytes(text)
    try:
        version = Version.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise sealed.Damaged(f"it is no manifest: {error!r}") from None
    if version.tree.digest != data["sha256"]:
        raise sealed.Damaged("its checksum differs")
    return version


def folder_of(name: str) -> str:
    """Name the folder of a dataset."""
    return name.replace("/", "@")


def now() -> str:
    """Give the time as it stands in manifests: UTC, to the microsecond."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def number_of(id: str) -> int:
    """Read the number from a version's id, 0 for anything else."""
    match = VERSION.fullmatch(id)
    return int(match[1]) if match else 0
