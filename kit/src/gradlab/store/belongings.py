"""Whose a draft is, and what it held: written beside it, so that neither is guessed.

    <work>/drafts/<workflow>/<job>/draft.json    the job it belongs to, its files with SHA-256
                                   aside/        a draft of another text, input or code

Promises: a job finds only what the same job has left: the same text, inputs and code, comments
aside. What is another's is set aside, never deleted before the job succeeds, and named. Of a job
that ended, every file is checked before it is used; of one whose runner was killed, those that
have not been written since they were last hashed. What a training run keeps proves itself and
knows by which code and data it was trained, so it is left to the training, which the job finds
also where only its inputs or code have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..base import files, folders
from ..base.errors import note
from . import copies, tree
from .source import digest
from .tree import Tree

FILE = "draft.json"
ASIDE = "aside"
FOLDERS = ("checkpoints", "saves")  # the latter in runs that version 0.1 began
TEXT = "its text"  # what decides, beside its inputs
SECONDS = 2.0  # to hash what is new when a signal has come
Key = dict[str, str]  # what decides, by what it is called: TEXT, "input NAME"


def new_id() -> str:
    """Name a draft so that its copies tell whose they are."""
    return secrets.token_hex(8)


@dataclass
class Draft:
    """What is known of a draft: to whom it belongs, and its files as they were last seen."""

    key: Key
    id: str = field(default_factory=new_id)
    base: int = 0  # the number of the newest copy that it came from or went into
    ended: bool = False  # the job was over when the files were seen
    files: dict[str, tuple[int, int, str]] = field(default_factory=dict)  # size, time, SHA-256
    links: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path, synced: bool = True) -> None:
        """Write it beside the draft in a folder."""
        text = json.dumps(asdict(self), sort_keys=True)
        proof = hashlib.sha256(text.encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        files.write_durably(folder / FILE, f"{proof}\n{text}\n".encode(), synced)


def read(folder: Path) -> Draft | None:
    """Read what is known of the draft in a folder; None where that is nothing, or damaged."""
    try:
        return parse(files.read_bytes(folder / FILE))
    except FileNotFoundError:
        return None


def parse(data: bytes) -> Draft | None:
    """Read what a file says of a draft; None where that is nothing, or damaged."""
    try:
        proof, text, _ = data.decode().split("\n")
        if hashlib.sha256(text.encode()).hexdigest() != proof:
            return None
        found = json.loads(text)
        seen = {path: tuple(state) for path, state in found.pop("files").items()}
        return Draft(**found, files=seen)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def holds_anything(folder: Path) -> bool:
    """Tell whether there is a file in the draft in a folder."""
    return any(True for _ in tree.walk(folder / "outputs"))


def choose(folder: Path, key: Key, accept: bool) -> tuple[Draft | None, str]:
    """Leave in a job's folder the draft that belongs to it, if any; give it and what to say.

    With `accept` one of other text, inputs or code is taken too.
    """
    here, aside = read(folder), read(folder / ASIDE)
    own, remark = here is not None and here.key == key, ""
    other = aside and (aside.key != key if accept else aside.key == key and not own)
    if other and holds_anything(folder / ASIDE):
        _swap(folder)
        here, aside, own = aside, here, True
        remark = "carries on with what had been set aside"
    if not own and holds_anything(folder):
        if accept:
            return here, "carries on with what it had written, whatever has changed since"
        why = _differences(here.key, key) if here else "whose job can't be told"
        set_aside(folder)
        here, aside = None, here
        remark = (
            f"begins anew: what it had written before ({why}) is set aside in {folder / ASIDE}; "
            "--accept-changes carries on with that"
        )
    # Also where the runner was killed between the two moves.
    if aside and aside.key.get(TEXT) == key.get(TEXT) and (runs := _trainings_aside(folder)):
        if not own:
            here, own = Draft(key, aside.id, aside.base), True
            here.write(folder)
        for run in runs:
            (folder / "outputs" / run).parent.mkdir(parents=True, exist_ok=True)
            folders.move(folder / ASIDE / "outputs" / run, folder / "outputs" / run)
        remark = (
            "carries on with its training runs, which tell what has changed; what else it had "
            f"written before is set aside in {folder / ASIDE}"
        )
    return (here if own else None), remark


def is_only_aside(folder: Path) -> bool:
    """Tell whether the job of a folder takes up nothing of what is set aside there by itself.

    It takes up trainings that its draft does not have; and where a runner was killed while it
    exchanged the two, which is which can't be told.
    """
    if folders.exists(folder / f"{ASIDE}.new"):
        return False
    return read(folder / ASIDE) is None or not _trainings_aside(folder)


def _trainings_aside(folder: Path) -> list[str]:
    """Name the training runs that are set aside, and that the draft doesn't have."""
    runs = _runs(dict(tree.walk(folder / ASIDE / "outputs")))
    return sorted(run for run in runs if not folders.exists(folder / "outputs" / run))


def _differences(then: Key, now: Key) -> str:
    names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    return f"{', '.join(names)} changed since"


def trainings(content: Tree) -> Tree:
    """Give of a draft what its training runs keep."""
    runs = _runs(content.files)
    files = {path: file for path, file in content.files.items() if _is_of_a_run(path, runs)}
    return Tree(files)


def set_aside(folder: Path, damaged: bool = False) -> Path:
    """Put the draft in a folder aside, in the place of an earlier one; give the place."""
    folders.discard(folder / ASIDE)
    (folder / ASIDE).mkdir()
    if damaged:  # nobody's from now on: it is there to be looked at
        (folder / FILE).unlink(missing_ok=True)
    _move(folder, folder / ASIDE)
    return folder / ASIDE


def _swap(folder: Path) -> None:
    between = folder / f"{ASIDE}.new"
    folders.discard(between)
    between.mkdir()
    _move(folder, between)
    _move(folder / ASIDE, folder)
    folders.discard(folder / ASIDE)
    between.rename(folder / ASIDE)


def _move(source: Path, target: Path) -> None:
    # The name first: a draft without one is nobody's.
    for name in (FILE, "outputs"):
        if os.path.lexists(source / name):
            (source / name).rename(target / name)


def damaged(outputs: Path, draft: Draft) -> list[str]:
    """Name the files of a draft that are not as they were left, of those that can be told."""
    there = dict(tree.walk(outputs))
    runs = _runs(there)
    found = [path for path, state in draft.files.items() if _differs(outputs, path, state, draft)]
    if draft.ended:
        found += [path for path, to in draft.links.items() if _link(outputs / path) != to]
        found += [path for path in there if path not in draft.files and path not in draft.links]
    return sorted(path for path in found if not _is_of_a_run(path, runs))


def _differs(outputs: Path, path: str, then: tuple[int, int, str], draft: Draft) -> bool:
    size, time_ns, sha256 = then
    try:
        status = os.lstat(outputs / path)
    except FileNotFoundError:
        return draft.ended
    if (status.st_size, status.st_mtime_ns) != (size, time_ns) and not draft.ended:
        return False  # the job has gone on since
    if not sha256:
        return (status.st_size, status.st_mtime_ns) != (size, time_ns)
    return status.st_size != size or files.sha256(outputs / path) != sha256


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _runs(paths: Mapping[str, Any]) -> set[str]:
    """Name the folders that are training runs: those with checkpoints that prove themselves."""
    found = [Path(path) for path in paths if copies.NAMED.fullmatch(Path(path).name)]
    return {str(path.parent.parent) for path in found if path.parent.name in FOLDERS}


def _is_of_a_run(path: str, runs: set[str]) -> bool:
    return bool(runs) and any(str(above) in runs for above in Path(path).parents)


class Keeper:
    """Keeps note of what a job writes, while it writes it and when it has ended."""

    def __init__(self, folder: Path, draft: Draft) -> None:
        self.folder, self.draft = folder, draft
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, minutes: float) -> None:
        """Look every so many minutes from now on."""
        self._thread = threading.Thread(target=self._serve, args=(60 * minutes,), daemon=True)
        self._thread.start()

    def _serve(self, seconds: float) -> None:
        while not self._end.wait(seconds):
            self.look()

    def stop(self) -> None:
        """Stop looking."""
        self._end.set()
        if self._thread:
            self._thread.join()

    def look(self, ended: bool = False, seconds: float = float("inf")) -> None:
        """Note the files as they are; once the job has ended all, else those that stand still."""
        end = time.monotonic() + seconds
        try:
            self.draft.files, self.draft.links = self._seen(ended, end)
            self.draft.ended = ended
            self.draft.write(self.folder)
        except OSError as error:  # the job goes on
            note(f"! what is in {self.folder} could not be noted: {error}")

    def _seen(
        self, ended: bool, end: float
    ) -> tuple[dict[str, tuple[int, int, str]], dict[str, str]]:
        outputs, before = self.folder / "outputs", self.draft.files
        there = dict(tree.walk(outputs))
        runs, seen, links = _runs(there), dict[str, tuple[int, int, str]](), dict[str, str]()
        for path, status in there.items():
            if self._end.is_set() and not ended:
                break
            if _is_of_a_run(path, runs):
                continue
            if os.path.islink(outputs / path):
                links[path] = _link(outputs / path)
                continue
            state = (status.st_size, status.st_mtime_ns)
            old = before.get(path)
            sha256 = old[2] if old and old[:2] == state else ""
            if not sha256 and time.monotonic() < end:
                sha256 = _still(outputs / path, state)
            if sha256 or ended:
                seen[path] = (*state, sha256)
        return seen, links


def _still(path: Path, state: tuple[int, int]) -> str:
    """Hash a file; nothing where it is written meanwhile, or gone."""
    with suppress(FileNotFoundError):
        sha256, status = files.sha256(path), os.lstat(path)
        if (status.st_size, status.st_mtime_ns) == state:
            return sha256
    return ""


def code_key(folder: Path, holds: Callable[[str], bool] | None = None) -> str:
    """Give a digest of checked-out code: without its comments, formatting, pages and git's own.

    `holds` tells of a path whether it counts.
    """
    lines = (line for path, line in _code_lines(folder) if holds is None or holds(path))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _code_lines(folder: Path) -> Iterator[tuple[str, str]]:
    for path, status in tree.walk(folder, without={".git", "__pycache__"}):
        if not path.endswith((".md", ".pyc")):
            where = _link(folder / path) if os.path.islink(folder / path) else ""
            yield path, f"{path} {status.st_mode & 0o100} {where or digest(folder / path)}"
