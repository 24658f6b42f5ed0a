"""A folder as a value: what lies in it, hashed, compared and copied.

Promises: never follows a symbolic link, never carries one that leads out of its folder, and
knows a file that changed by its SHA-256. Empty folders, sockets and pipes are no part of a tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import GradlabError
from ..files import retry

CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """What a file holds."""

    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True)
class Tree:
    """The files and symbolic links below a folder, by their paths relative to it."""

    files: dict[str, File] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256 over names, contents and modes: equal exactly for equal trees."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Give the tree as plain data, as it stands in manifests."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Tree:
        """Read a tree from plain data; raises KeyError, TypeError or ValueError for others."""
        files = {str(path): File(**entry) for path, entry in data["files"].items()}
        links = {str(path): str(target) for path, target in data["links"].items()}
        for path in (*files, *links):
            if path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path!r} leads out of the folder")
        return cls(files, links)


def walk(folder: Path, without: Set[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every regular file and symbolic link below a folder, with its lstat.

    `without` are names of files and folders to leave out.
    """
    for top, folders, files in os.walk(folder):
        linked = [name for name in folders if os.path.islink(os.path.join(top, name))]
        folders[:] = sorted(set(folders) - set(linked) - without)
        for name in sorted({*files, *linked} - without):
            path = os.path.join(top, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:  # a job that is at work has removed it
                continue
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield os.path.relpath(path, folder), status


def scan(folder: Path, paths: list[str] | None = None) -> Tree:
    """Hash what lies below a folder, or only the given paths of it.

    Raises GradlabError for a symbolic link that leads out of the folder.
    """
    found = walk(folder) if paths is None else ((p, os.lstat(folder / p)) for p in sorted(paths))
    files, links = {}, {}
    for path, status in found:
        if stat.S_ISLNK(status.st_mode):
            links[path] = os.readlink(folder / path)
            if leads_out(folder, path):
                raise GradlabError(
                    f"{path} is a symbolic link to {links[path]}, which leads out of its folder; "
                    "copy the file there, or make the link relative (ln -sr)"
                )
        else:
            with open(folder / path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            files[path] = File(status.st_size, sha256, bool(status.st_mode & stat.S_IXUSR))
    return Tree(files, links)


def leads_out(folder: Path, path: str) -> bool:
    """Tell whether the symbolic link at `path` is absolute or ends outside the folder."""
    real = os.path.realpath(folder / path)
    top = os.path.realpath(folder)
    return os.path.isabs(os.readlink(folder / path)) or os.path.commonpath([real, top]) != top


def copy(tree: Tree, source: Path, target: Path, plain: bool = False) -> None:
    """Copy a tree's files into a folder, each checked against its hash, and flush them to disk.

    `plain` is for file systems that have neither symbolic links nor modes.
    Raises GradlabError naming a file that is no longer what the tree says.
    """
    target.mkdir(parents=True, exist_ok=True)
    for path, file in tree.files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        copy_file(source / path, target / path, file.sha256)
        if file.executable and not plain:
            (target / path).chmod((target / path).stat().st_mode | 0o111)
    for path, leads_to in ({} if plain else tree.links).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).unlink(missing_ok=True)
        (target / path).symlink_to(leads_to)


def copy_file(source: Path, target: Path, sha256: str) -> None:
    """Copy one file and check its hash, trying again where the file system fails."""
    try:
        found = retry(lambda: _copy_hashed(source, target))
    except FileNotFoundError:
        raise GradlabError(f"{source} is missing", exit_code=1) from None
    if found != sha256:
        target.unlink()
        raise GradlabError(f"{source} is damaged or was changed: its SHA-256 differs", exit_code=1)


def _copy_hashed(source: Path, target: Path) -> str:
    hashed = hashlib.sha256()
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(CHUNK):
            hashed.update(chunk)
            writer.write(chunk)
        flush(writer)
    return hashed.hexdigest()


def flush(file: BinaryIO) -> None:
    """Bring a file's content to the disk."""
    file.flush()
    os.fsync(file.fileno())


def flush_all(tree: Tree, folder: Path) -> None:
    """Bring a tree that another process has written to the disk."""
    for path in tree.files:
        with open(folder / path, "rb") as file:
            os.fsync(file.fileno())


def differences(folder: Path, expected: Tree, plain: bool = False) -> list[str]:
    """Say what differs between a folder and a tree, a line for each path; `plain` as in `copy`."""
    try:
        wanted, there = (_flat(tree, plain) for tree in (expected, scan(folder)))
    except GradlabError as error:
        return [str(error)]
    lines = [f"{path} is missing" for path in wanted.keys() - there.keys()]
    lines += [f"{path} is not in the manifest" for path in there.keys() - wanted.keys()]
    both = wanted.keys() & there.keys()
    lines += [f"{path} has changed" for path in both if wanted[path] != there[path]]
    return sorted(lines)


def _flat(tree: Tree, plain: bool) -> dict[str, File | str]:
    files = {path: replace(file, executable=False) for path, file in tree.files.items()}
    return {**files} if plain else {**tree.files, **tree.links}


def human(size: float) -> str:
    """Write a number of bytes as people read it: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def write(path: Path, text: str) -> None:
    """Write a small file under a name of its own and flush it; readers check that it is whole.

    Without a rename, for network file systems don't promise that one is atomic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    retry(lambda: _write(path, text.encode()))


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        flush(file)


def discard(folder: Path) -> None:
    """Remove a folder, if there is one, and all in it, what is write-protected too."""
    for top, folders, _ in os.walk(folder):
        for name in (".", *folders):
            path = os.path.join(top, name)
            if not os.path.islink(path) and not os.access(path, os.W_OK | os.X_OK):
                os.chmod(path, stat.S_IRWXU)
    if folder.exists():
        shutil.rmtree(folder)


def empty(folder: Path) -> None:
    """Make a folder that has nothing in it."""
    discard(folder)
    folder.mkdir(parents=True)
