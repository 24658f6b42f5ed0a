"""The folder of a training run: where it lies, which of two copies is the newer, who has it.

Promises: one process at a time trains a run, where the file system has locks; a run that is
started over is moved aside, and its copy elsewhere is never taken for the newer one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from itertools import count
from pathlib import Path

from ..base.errors import GradlabError, note
from ..base.files import digest, exists, read_bytes, read_text, write_durably
from ..base.locks import Held, Lock
from ..base.retries import retry
from ..store import location
from ..store.copies import candidates, step_of
from ..store.location import Location

METRICS = "metrics.jsonl"
CHECKSUM = "metrics.checksum"
CHECKPOINTS = "checkpoints"
EVENTS = "tensorboard"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# What file systems say that have no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
GENERATION = "generation"


def of(project: str, name: str) -> tuple[Location, str]:
    """Give the location of a project's things and a run's key in it; GradlabError for its name."""
    if not RUN_NAME.fullmatch(name):
        raise GradlabError(
            f"--name {name!r} can't name a folder on every service: use letters, digits, "
            "dots, dashes and underscores, such as 'wide-net-2'."
        )
    return location.of(project), f"runs/{name}"


def kept(project: str, name: str) -> Path:
    """Give the folder that keeps a run; GradlabError for a name that can't be one."""
    place, key = of(project, name)
    return place.backend.path(key)


def find(project: str, name: str, file: str, advice: str) -> Path:
    """Find a file of a run where it is newest; GradlabError with the advice if it isn't there."""
    place, key = of(project, name)
    folders = place.work / key, place.backend.path(key)
    try:
        # Another machine may have carried on what this one has begun.
        for folder in sorted(folders, key=_newest, reverse=True):
            if exists(folder / file):
                return folder / file
    except OSError as error:
        raise GradlabError(
            f"The run in {folders[1]} can't be read: {error}.\n"
            "Give the same command again when it can.",
            exit_code=1,
        ) from error
    raise GradlabError(f"There is no {file} in {folders[1]}: {advice}")


def _newest(folder: Path) -> int:
    return max((step_of(path.name) for path in candidates(folder / CHECKPOINTS)), default=-1)


def generation(folder: Path) -> int:
    """Tell how often a run had been started over when the one in a folder began.

    Two copies of a run can be compared by their steps only within one generation.
    """
    try:
        text = read_text(folder / GENERATION)
        number, proof = text.split()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except ValueError:
        if not text:  # not uploaded
            return 0
        number = proof = ""
    if proof != digest(number.encode()):
        raise GradlabError(
            f"{folder / GENERATION} is damaged: it can't be told whether this run or its copy is "
            "the newer one.\nMove the folder of the older one away, and delete this file.",
            exit_code=1,
        )
    return int(number)


def note_generation(folder: Path, number: int) -> None:
    """Write down how often a run had been started over when the one in a folder began."""
    text = f"{number} {digest(str(number).encode())}\n".encode()
    if not exists(folder / GENERATION) or read_bytes(folder / GENERATION) != text:
        folder.mkdir(parents=True, exist_ok=True)
        # Not renamed: slow storage may do that later, or not.
        retry(lambda: write_durably(folder / GENERATION, text, renamed=False))


def lock(path: Path, name: str) -> None:
    """Lock a run for this process until it ends, however it ends."""
    held = Lock(path)
    try:
        held.take()
    except Held as holder:
        raise GradlabError(
            f"The run '{name}' is being trained by {str(holder) or 'another process'}.\n"
            "Wait for it or stop it, or start another run with --name."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        note(f"! {path.parent} can't lock files ({error.strerror}): start this run only once.")


def move_aside(folder: Path, replace: bool) -> None:
    """Keep the earlier run as <name>~, which no run can be called.

    `replace` puts it in the place of the one before it, which else is kept as <name>~2 and so on.
    """
    if not exists(folder):
        return
    aside = folder.with_name(f"{folder.name}~")
    if replace:
        shutil.rmtree(aside, ignore_errors=True)
    try:
        if exists(aside):
            others = (folder.with_name(f"{aside.name}{number}") for number in count(2))
            before = next(other for other in others if not exists(other))
            retry(lambda: os.replace(aside, before))
        retry(lambda: os.replace(folder, aside))
    except OSError as error:
        raise GradlabError(
            f"The earlier run in {folder} can't be moved aside: {error.strerror}.\n"
            "Move or delete it, or take another --name."
        ) from error
    note(f"The earlier run is kept in {aside}{' until the next --fresh' * replace}.")
