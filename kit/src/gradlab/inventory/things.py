"""A thing in a storage that can go, and the moments in which it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from ..base.locks import Held
from ..run import holding
from ..run.place import Place
from ..run.record import Record
from ..store import removal
from ..store.backend import Backend
from ..store.location import Location
from ..store.shared import Keyed

IN_USE = "a process is at work on it"
CHANGED = "it is not what was shown any more"


@dataclass(frozen=True)
class Thing:
    """What it is, where it lies, its bytes, and how it goes: gives why it stays, or nothing."""

    what: str
    where: str
    size: int
    remove: Callable[[], str]


def size_of(side: Backend, key: str) -> int:
    """Add up the bytes of all files in a folder."""
    return sum(side.below(key).values())


def taken(side: Backend, key: str) -> Callable[[], str]:
    """Give what removes a folder if it is still what it is now."""
    before = side.below(key)

    def remove() -> str:
        if side.below(key) != before:
            return CHANGED
        removal.discard(side, key)
        return ""

    return remove


def aged(side: Backend, key: str, seconds: float) -> Callable[[], str]:
    """Give what removes a file if it is still older than so many seconds."""

    def remove() -> str:
        if side.size(key) is not None and side.age(key) <= seconds:
            return IN_USE
        removal.drop(side, key)
        return ""

    return remove


def mark(record: Record) -> str:
    """Give a text that changes when a run ends or another begins."""
    return f"{record.run.id} {record.run.finished}"


@contextmanager
def job_of(place: Place, name: str, run: str) -> Iterator[str]:
    """Have a job's lock; give why it can't be had, or why the run is another by now."""
    with ExitStack() as stack:
        if not holding.attempt(stack, place, name):
            yield IN_USE
            return
        record = Record.load(place.backend, place.record)
        same = record is not None and mark(record) == run
        yield "" if same else CHANGED


@contextmanager
def training(place: Location, name: str) -> Iterator[str]:
    """Have a training run's lock; give why it can't be had."""
    path = place.work / "runs" / f".{name}.lock"
    with Keyed(place.backend, place.work, path, f"runs/{name}").lock() as lock:
        try:
            with lock.as_far_as_there_are_locks():
                lock.take()
        except Held:
            yield IN_USE
            return
        yield ""
