"""Copies of folders, each file compared with its SHA-256 as it is copied.

Promises: what is no longer as it was is named and not copied; a copy has the modes, times and
holes that are kept.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ..base.errors import GradlabError
from ..base.files import CHUNK, chunk_size, sha256
from ..base.retries import retry
from ..base.terminal import printable
from .tree import File, Tree, below, collect

ZEROS = bytes(CHUNK)


def clone(
    source: Path,
    target: Path,
    without: Callable[[str], object] = lambda path: False,
) -> Tree:
    """Copy what lies below a folder, but paths that are to be left out; give what it was."""
    top, made = str(source), set[str]()
    target.mkdir(parents=True, exist_ok=True)

    def take(path: str, state: os.stat_result) -> str:
        place = _with_folder(f"{target}/{path}", made)
        return _copy_file(f"{top}/{path}", place, _mode(state), state.st_mtime_ns)

    found = ((path, state) for path, state in below(source) if not without(path))
    content = collect(source, found, take)
    _finish(content, target)
    return content


def _mode(state: os.stat_result) -> int:
    return 0o755 if state.st_mode & stat.S_IXUSR else 0o644


Fetch = Callable[[str, str, File], None]  # of a path in a tree, to a file, what it holds
Item = TypeVar("Item")
SHOWN_AFTER = 3.0  # seconds


def each(work: Callable[[Item], object], items: Collection[Item], at_once: int = 1) -> None:
    """Do something with each of some items, several at once; the first failure ends it."""
    if at_once == 1 or len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        try:
            for done in as_completed([pool.submit(work, item) for item in items]):
                done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def beside(work: Callable[[], Item], other: Callable[[], object], apart: bool = True) -> Item:
    """Do two things, at once where that is worth a thread; give what the first one gives."""
    if not apart:
        found = work()
        other()
        return found
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(work)
        other()
        return waits.result()


@contextmanager
def shown(what: str, size: int) -> Iterator[Callable[[int], object]]:
    """Show on a terminal how much of `size` bytes is done, where that takes some seconds.

    Gives what counts bytes that are done.
    """
    from tqdm import tqdm  # takes a tenth of what starting a job does

    with tqdm(
        total=size,
        desc=what,
        unit="B",
        unit_scale=True,
        delay=SHOWN_AFTER,
        leave=False,
        disable=None,  # where no terminal is
    ) as bar:
        yield bar.update


def copy(tree: Tree, source: Path, target: Path) -> None:
    """Copy a tree's files from a folder into another, as `fill` does."""

    def fetch(path: str, place: str, file: File) -> None:
        copy_checked(f"{source}/{path}", place, file)

    fill(tree, target, fetch)


def fill(tree: Tree, target: Path, fetch: Fetch, at_once: int = 1) -> None:
    """Make a tree in a folder, of files that `fetch` brings, `at_once` so many, and checks.

    Files and folders get the tree's modes and times, and holes where they are zeros. Raises
    GradlabError naming a file that is no longer what the tree says.
    """
    made = set[str]()
    target.mkdir(parents=True, exist_ok=True)
    places = {path: _with_folder(f"{target}/{path}", made) for path in tree.files}
    each(lambda path: fetch(path, places[path], tree.files[path]), tree.files, at_once)
    _finish(tree, target)


def check_fetched(target: str, file: File, source: str) -> None:
    """Give a file that was fetched its mode and time; GradlabError, without it, if it is another.

    `source` names it for people.
    """
    if sha256(target) != file.sha256:
        os.unlink(target)
        raise _differs(source)
    os.chmod(target, 0o755 if file.executable else 0o644)
    if file.mtime is not None:
        os.utime(target, ns=(file.mtime, file.mtime))


def _differs(source: str) -> GradlabError:
    text = f"{printable(source)} is damaged or was changed: its SHA-256 differs"
    return GradlabError(text, exit_code=1)


def copy_file(source: Path, target: Path) -> str:
    """Copy one file, flushed, trying again where the file system fails; give its SHA-256."""
    return _copy_file(str(source), str(target), None, None)


def copy_checked(source: str, target: str, file: File) -> None:
    """Copy one file; raises GradlabError where it is missing or not what it was."""
    try:
        found = _copy_file(source, target, 0o755 if file.executable else 0o644, file.mtime)
    except FileNotFoundError:
        raise GradlabError(f"{printable(source)} is missing", exit_code=1) from None
    if found != file.sha256:
        os.unlink(target)
        raise _differs(source)


def _copy_file(source: str, target: str, mode: int | None, mtime: int | None) -> str:
    """Copy one file, trying again where the file system fails, and give its SHA-256.

    Without a mode it is flushed, and has neither a time (nanoseconds) nor holes.
    """

    def once() -> str:
        hashed, hole = hashlib.sha256(), False
        with open(source, "rb", buffering=0) as reader, open(target, "wb") as writer:
            size = chunk_size(reader)
            while chunk := reader.read(size):
                hashed.update(chunk)
                hole = mode is not None and chunk == ZEROS[: len(chunk)]
                writer.seek(len(chunk), os.SEEK_CUR) if hole else writer.write(chunk)
            if hole:
                writer.truncate()
            writer.flush()
            if mode is None:
                os.fsync(writer.fileno())
            else:
                os.fchmod(writer.fileno(), mode)
                if mtime is not None:
                    os.utime(writer.fileno(), ns=(mtime, mtime))
        return hashed.hexdigest()

    return retry(once)


def copy_as_it_is(source: str, target: str) -> str:
    """Copy one file on the local disk with its mode and time; give its SHA-256."""
    found = os.stat(source)
    return _copy_file(source, target, _mode(found), found.st_mtime_ns)


def _with_folder(path: str, made: set[str]) -> str:
    """Make the folder of a file that is about to be written, if it isn't among those made."""
    folder = os.path.dirname(path)
    if folder not in made:
        retry(lambda: os.makedirs(folder, exist_ok=True))
        made.add(folder)
    return path


def _finish(tree: Tree, target: Path) -> None:
    """Make a tree's links and empty folders, and give all folders their mode."""
    made = set[str]()
    for path, leads_to in tree.links.items():
        place = _with_folder(f"{target}/{path}", made)
        Path(place).unlink(missing_ok=True)
        os.symlink(leads_to, place)
    for path in tree.folders:
        (target / path).mkdir(parents=True, exist_ok=True)
    paths = (*tree.files, *tree.links, *tree.folders)
    above = {folder for path in paths for folder in _above(path)}
    for folder in {"", *tree.folders, *above}:
        os.chmod(target / folder, 0o755)


def _above(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path
