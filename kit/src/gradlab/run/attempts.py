"""Attempts at one job, by machines that may not know of each other's end.

    <work>/workflows/<workflow>/attempts/<job>/<number>-<draft>.json

Promises: each attempt has a number that no other has, whatever machine it is on, whether the file
system has locks or not. The highest counts: an earlier one that still lives, on a machine that was
taken for dead, puts nothing in its place any more. Where it may be alive, the next one works in a
draft of its own, which begins as a copy, so that neither sees what the other writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ..base import files, folders
from ..base.errors import GradlabError
from ..store import belongings, tree

NAME = re.compile(r"(\d{8})-(\d+)\.json")
KEPT = 3  # attempts whose files stay
TAKEN_ALONG = ("outputs", "commit", "aside")  # of a draft
LISTINGS = 3  # of a draft that is being written while it is copied
SHORT = 60.0  # seconds; an attempt that was told to end before has had no time to make anything
IDLE = 2  # attempts in a row that made nothing, after which there is no other
KILLED = 10  # the same of those that were killed without a word

Ending = Literal["", "succeeded", "failed", "stopped"]


@dataclass
class Attempt:
    """One attempt; `before` identifies what the job had made when it began."""

    folder: Path
    number: int
    draft: int  # the number of the draft that it works in
    submission: str
    node: str
    began: float  # seconds since 1970
    before: str
    ended: Ending = ""
    idle: int = 0  # attempts in a row, up to this one, that have made nothing
    killed: int = 0

    def note(self) -> None:
        """Write down how it stands."""
        data = {name: value for name, value in asdict(self).items() if name != "folder"}
        path = self.folder / f"{self.number:08}-{self.draft}.json"
        files.write_durably(path, json.dumps(data).encode())

    def is_superseded(self) -> bool:
        """Tell whether a later attempt at the job has begun."""
        return _newest(self.folder)[0] > self.number

    def check(self) -> None:
        """Raise GradlabError once a later attempt has begun: what this one made does not count."""
        if self.is_superseded():
            raise GradlabError(
                "another attempt at this job has begun, for this one's machine was taken for "
                "dead: what this one has made is left where it is, and not used",
                exit_code=1,
            )

    def end(self, how: Ending, made: str, told: bool) -> bool:
        """Note how it ended; `told` is that a signal came. False where another would be in vain."""
        self.ended = how
        short = told and time.time() - self.began < SHORT
        if made != self.before:
            self.idle = 0
        elif how == "stopped" and not short:
            self.idle += 1
        if not self.is_superseded():
            self.note()
        return self.idle < IDLE


def draft_of(folder: Path) -> int:
    """Give the number of the draft that a job's newest attempt works in; 0 without attempts."""
    return _newest(folder)[1]


def last(folder: Path) -> Attempt | None:
    """Give a job's newest attempt, None if there is none or nothing was noted of it."""
    number, draft = _newest(folder)
    with suppress(FileNotFoundError, ValueError, TypeError):
        data = json.loads(files.read_text(folder / f"{number:08}-{draft}.json"))
        return Attempt(folder, **data)
    return None


def begin(folder: Path, drafts: Path, job: str, submission: str) -> Attempt:
    """Begin an attempt, with a draft of its own where the one before may be alive elsewhere.

    GradlabError where those before it have made nothing again and again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        number, draft = _newest(folder)
        before, here = last(folder), node()
        elsewhere = before is None or (before.node != here and not before.ended)
        number, old = number + 1, draft
        draft += bool(number > 1 and elsewhere)
        made = of(drafts / name(job, old) / "outputs")
        attempt = Attempt(folder, number, draft, submission, here, time.time(), made)
        if before and before.submission == submission and before.before == made:
            attempt.idle, attempt.killed = before.idle, before.killed + (not before.ended)
        if not _is_taken(folder, number) and _take(folder / f"{number:08}-{draft}.json"):
            break
    if draft != old:
        _copy(drafts / name(job, old), drafts / name(job, draft))
    attempt.note()
    _sweep(folder, number)
    if attempt.killed >= KILLED:
        raise GradlabError(
            f"{attempt.killed} attempts in a row were killed before they made anything: is there "
            "too little memory, or time, for it?",
            exit_code=1,
        )
    return attempt


def node() -> str:
    """Name the machine that this process is on."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def name(job: str, draft: int) -> str:
    """Name the folder of a job's draft."""
    return f"{job}~{draft}" if draft else job


def of(outputs: Path) -> str:
    """Identify what a job has made: its checkpoints, or where it has none all of its files."""
    found = list(tree.walk(outputs))
    checkpoints = [
        path
        for path, _ in found
        if path.split("/")[-2:-1] in [[each] for each in belongings.FOLDERS]
        and path.endswith((".safetensors", ".manifest"))
    ]
    states = [f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in found]
    return files.digest("\n".join(sorted(checkpoints or states)).encode())


def _newest(folder: Path) -> tuple[int, int]:
    found = map(NAME.fullmatch, files.names(folder))
    return max(((int(match[1]), int(match[2])) for match in found if match), default=(0, 0))


def _is_taken(folder: Path, number: int) -> bool:
    return _newest(folder)[0] >= number


def _take(path: Path) -> bool:
    """Make a file unless it is there, which only one machine can."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a draft in which another machine may still be writing, as far as its files stay."""
    folders.discard(target)
    target.mkdir(parents=True)
    for part in TAKEN_ALONG:
        for _ in range(LISTINGS):
            if _copied(source / part, target / part):
                break
    with suppress(FileNotFoundError):
        shutil.copy2(source / belongings.FILE, target / belongings.FILE)


def _copied(source: Path, target: Path) -> bool:
    """Copy what is not there yet; tell whether all that was listed was still there."""
    whole = True
    for path, _ in tree.walk(source):
        place = target / path
        if folders.exists(place):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.copied")
        try:
            shutil.copy2(source / path, beside, follow_symlinks=False)
        except FileNotFoundError:
            whole = False
            continue
        os.replace(beside, place)
    return whole


def _sweep(folder: Path, number: int) -> None:
    with suppress(OSError):
        for each in files.names(folder):
            match = NAME.fullmatch(each)
            if match and int(match[1]) <= number - KEPT:
                (folder / each).unlink()
