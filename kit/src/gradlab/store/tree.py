"""A folder as a value: what lies in it, hashed, compared and copied.

Promises: never follows a symbolic link, never carries one that leads out of its folder, and
knows a file that changed by its SHA-256. A tree holds files (content, whether the owner may
execute them, the time of the last change), symbolic links and empty folders, and nothing else.
A folder that can't be listed is an error, never an empty one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..base.errors import GradlabError
from ..base.files import names, sha256
from ..base.folders import is_folder, status
from ..base.retries import retry
from ..base.terminal import printable


@dataclass(frozen=True)
class File:
    """What a file holds."""

    size: int
    sha256: str
    executable: bool = False
    mtime: int | None = field(default=None, compare=False)  # nanoseconds since 1970

    def to_json(self) -> dict[str, Any]:
        """Give the file as plain data, without what is not known."""
        data = {"size": self.size, "sha256": self.sha256, "executable": self.executable}
        return data if self.mtime is None else {**data, "mtime": self.mtime}


@dataclass(frozen=True)
class Tree:
    """Files, symbolic links and empty folders below a folder, by their paths relative to it."""

    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over names, contents and modes, not times: equal exactly for equal trees."""
        data = self.to_json()
        for entry in data["files"].values():
            entry.pop("mtime", None)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Give the tree as plain data, as it stands in manifests."""
        files = {path: file.to_json() for path, file in self.files.items()}
        data: dict[str, Any] = {"files": files, "links": self.links}
        return {**data, "folders": list(self.folders)} if self.folders else data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tree:
        """Read a tree from plain data; raises KeyError, TypeError or ValueError for others."""
        files = {str(path): File(**entry) for path, entry in data["files"].items()}
        links = {str(path): str(target) for path, target in data["links"].items()}
        folders = tuple(map(str, data.get("folders", ())))
        for path in (*files, *links, *folders):
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} leads out of the folder")
        return cls(files, links, folders)


def walk(folder: Path, without: Set[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every regular file and symbolic link below a folder, with its lstat.

    `without` are names of files and folders to leave out. Raises OSError where a folder can't be
    listed: what is in it must not be taken for not there.
    """
    for path, found in below(folder, without):
        if not stat.S_ISDIR(found.st_mode):
            yield path, found


def below(folder: Path, without: Set[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield files, symbolic links and empty folders."""
    waiting: list[tuple[str, os.stat_result | None]] = [("", None)]
    while waiting:
        inside, itself = waiting.pop()
        files, folders = [], []
        for name in sorted(set(names(folder / inside)) - without):
            path = f"{inside}/{name}" if inside else name
            found = status(f"{folder}/{path}")
            if found is None:  # a job that is at work has removed it
                continue
            if stat.S_ISDIR(found.st_mode):
                folders.append((path, found))
            elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                files.append((path, found))
        yield from files
        waiting += reversed(folders)
        if itself and not files and not folders:
            yield inside, itself


def scan(folder: Path, paths: list[str] | None = None) -> Tree:
    """Hash what lies below a folder, or only the given paths of it.

    Raises GradlabError for a symbolic link that leads out of the folder, OSError for what can't
    be read.
    """
    found = below(folder) if paths is None else _named(folder, paths)
    top = str(folder)
    return collect(folder, found, lambda path, _: sha256(f"{top}/{path}"))


def _named(folder: Path, paths: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    for path in sorted(paths):
        if found := status(folder / path):
            yield path, found


def collect(
    folder: Path,
    found: Iterator[tuple[str, os.stat_result]],
    take: Callable[[str, os.stat_result], str],
) -> Tree:
    """Make a tree of what was found; `take` gives the SHA-256 of a file."""
    files, links, folders = {}, {}, []
    for path, state in found:
        if stat.S_ISLNK(state.st_mode):
            links[path] = _target(folder, path)
        elif stat.S_ISDIR(state.st_mode):
            folders.append(path)
        else:
            executable = bool(state.st_mode & stat.S_IXUSR)
            files[path] = File(state.st_size, take(path, state), executable, state.st_mtime_ns)
    return Tree(files, links, tuple(folders))


def _target(folder: Path, path: str) -> str:
    target = retry(lambda: os.readlink(folder / path))
    if leads_out(folder, path):
        raise GradlabError(
            f"{printable(path)} is a symbolic link to {printable(target)}, which leads out of its "
            "folder; copy the file there, or make the link relative (ln -sr)"
        )
    return target


def leads_out(folder: Path, path: str) -> bool:
    """Tell whether the symbolic link at `path` is absolute or ends outside the folder."""
    real = os.path.realpath(folder / path)
    top = os.path.realpath(folder)
    return os.path.isabs(os.readlink(folder / path)) or os.path.commonpath([real, top]) != top


def differences(folder: Path, expected: Tree, plain: bool = False) -> list[str]:
    """Say what differs between a folder and a tree, a line for each path; `plain` as in `copy`."""
    try:
        found = scan(folder)
    except GradlabError as error:
        return [str(error)]
    lines = compared(found, expected, plain)
    if not plain:  # not those that are there too many: earlier versions did not list them
        empty = (path for path in expected.folders if not is_folder(folder / path))
        lines += [f"{path}/ is missing" for path in empty]
    return sorted(lines)


def compared(found: Tree, expected: Tree, plain: bool = False) -> list[str]:
    """Say which files and links of two trees differ; `plain` looks at what files hold alone."""
    wanted, there = (_flat(tree, plain) for tree in (expected, found))
    lines = [f"{path} is missing" for path in wanted.keys() - there.keys()]
    lines += [f"{path} is not in the manifest" for path in there.keys() - wanted.keys()]
    both = wanted.keys() & there.keys()
    return sorted(lines + [f"{path} has changed" for path in both if wanted[path] != there[path]])


def _flat(tree: Tree, plain: bool) -> dict[str, File | str]:
    files = {path: replace(file, executable=False) for path, file in tree.files.items()}
    return {**files} if plain else {**tree.files, **tree.links}
