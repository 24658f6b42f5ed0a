"""The folder of a training run: where it lies, which of two copies is the newer, who has it.

Promises: one process at a time trains a run, where the file system has locks; a run that is
started over is moved aside, and its copy elsewhere is never taken for the newer one.
"""

from __future__ import annotations

import errno
import os
import re
from itertools import count
from pathlib import Path

from ..base.errors import GradlabError, note
from ..base.files import digest, exists, prepare
from ..base.folders import discard as clear
from ..base.locks import Held
from ..store import location
from ..store.backend import Backend
from ..store.copies import ENTRIES, NAMED, step_of
from ..store.location import Location
from ..store.shared import Keyed

METRICS = "metrics.jsonl"
CHECKSUM = "metrics.checksum"
CHECKPOINTS = "checkpoints"
EVENTS = "tensorboard"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# What file systems say that have no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
GENERATION = "generation"
MADE = "made"  # folder of what is made of runs, and kept elsewhere


def of(project: str, name: str) -> tuple[Location, str]:
    """Give the location of a project's things and a run's key in it; GradlabError for its name."""
    if not RUN_NAME.fullmatch(name):
        raise GradlabError(
            f"--name {name!r} can't name a folder on every service: use letters, digits, "
            "dots, dashes and underscores, such as 'wide-net-2'."
        )
    return location.of(project), f"runs/{name}"


def kept(project: str, name: str) -> Path:
    """Give the folder for what is made of a run; GradlabError for a name that can't be one.

    Where a URL names the storage it is a folder of this machine, from which `bring` copies.
    """
    place, key = of(project, name)
    return place.backend.folder / key if place.backend.folder else place.work / MADE / key


def bring(project: str, name: str) -> None:
    """Bring what was made of a run to the storage, if it isn't there; GradlabError if that fails.

    To be called once all of it is written to the folder that `kept` gave.
    """
    place, key = of(project, name)
    made = place.work / MADE / key
    paths = [] if place.backend.folder else [path for path in made.rglob("*") if path.is_file()]
    try:
        for path in paths:
            place.backend.put(f"{key}/{path.relative_to(made)}", path)
    except OSError as error:
        raise GradlabError(f"What lies in {made} could not be kept: {error}.", 1) from error
    if paths:
        note(f"Kept in {place.backend.where(key)}.")


def find(project: str, name: str, file: str, advice: str) -> Path:
    """Find a file of a run where it is newest; GradlabError with the advice if it isn't there."""
    place, key = of(project, name)
    kept = place.backend.where(key)
    try:
        # Another machine may have carried on what this one has begun.
        for side in sorted(place.sides, key=lambda side: _newest(side, key), reverse=True):
            if side.size(f"{key}/{file}") is not None:
                return _local(side, f"{key}/{file}", place.work)
    except OSError as error:
        raise GradlabError(
            f"The run in {kept} can't be read: {error}.\nGive the same command again when it can.",
            exit_code=1,
        ) from error
    raise GradlabError(f"There is no {file} in {kept}: {advice}")


def _newest(side: Backend, key: str) -> int:
    found = filter(None, map(NAMED.fullmatch, side.list(f"{key}/{CHECKPOINTS}")))
    return max((step_of(match[0]) for match in found if match[3] in ENTRIES), default=-1)


def _local(side: Backend, key: str, work: Path) -> Path:
    """Give a file as it can be read here, fetched unless that was done before."""
    if side.folder:
        return side.folder / key
    above, _, name = key.rpartition("/")
    place = work / "fetched" / above / side.stamp(key)[:16] / name
    if not exists(place):
        clear(place.parent.parent)  # another one is outdated
        beside = prepare(place.parent) / f".{name}.{os.getpid()}.tmp"
        side.get(key, beside)
        os.replace(beside, place)
    return place


def generation(side: Backend, key: str) -> int:
    """Tell how often a run had been started over when the one below a key began.

    Two copies of a run can be compared by their steps only within one generation.
    """
    try:
        text = side.read(f"{key}/{GENERATION}").decode()
        number, proof = text.split()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except ValueError:
        if not text:  # not uploaded
            return 0
        number = proof = ""
    if proof != digest(number.encode()):
        raise GradlabError(
            f"{side.where(f'{key}/{GENERATION}')} is damaged: it can't be told whether this run or "
            "its copy is the newer one.\nMove the folder of the older one away, and delete this "
            "file.",
            exit_code=1,
        )
    return int(number)


def note_generation(side: Backend, key: str, number: int) -> None:
    """Write down how often a run had been started over when the one below a key began."""
    text = f"{number} {digest(str(number).encode())}\n".encode()
    place = f"{key}/{GENERATION}"
    if side.size(place) is None or side.read(place) != text:
        side.write(place, text)


def lock(place: Location, key: str, name: str) -> None:
    """Lock a run for this process until it ends, however it ends."""
    path = prepare((place.work / key).parent) / f".{name}.lock"
    held = Keyed(place.backend, place.work, path, key).lock()
    try:
        held.take_after(f"The run '{name}' may still be trained by another machine")
    except Held as holder:
        raise GradlabError(
            f"The run '{name}' is being trained by {str(holder) or 'another process'}.\n"
            "Wait for it or stop it, or start another run with --name."
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS or held.lease:
            raise
        note(f"! {path.parent} can't lock files ({error.strerror}): start this run only once.")


def move_aside(side: Backend, key: str, replace: bool) -> None:
    """Keep the earlier run as <name>~, which no run can be called.

    `replace` puts it in the place of the one before it, which else is kept as <name>~2 and so on.
    """
    if not side.list(key):
        return
    aside = f"{key}~"
    try:
        if not replace and side.list(aside):
            others = (f"{aside}{number}" for number in count(2))
            side.move(aside, next(other for other in others if not side.list(other)))
        side.move(key, aside)
    except OSError as error:
        raise GradlabError(
            f"The earlier run in {side.where(key)} can't be moved aside: {error.strerror}.\n"
            "Move or delete it, or take another --name."
        ) from error
    note(f"The earlier run is kept in {side.where(aside)}{' until the next --fresh' * replace}.")


def adopt(side: Backend, key: str) -> None:
    """Give the checkpoints of a run that version 0.1 began their place."""
    found = side.list(key)
    if "saves" in found and CHECKPOINTS not in found:
        side.move(f"{key}/saves", f"{key}/{CHECKPOINTS}")
