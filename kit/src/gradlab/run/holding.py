"""Locks of a workflow's run: who may begin or finish it, and who does which job.

    begin.lock        held while a run is begun or finished
    lock              held by a run of the whole workflow, from its beginning to its end
    jobs/<job>.lock   held by whoever does a job

Promises: one process at a time does a job; a lock ends with the process that has it. Where the
file system has no locks, that is said.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from ..base.errors import GradlabError
from ..base.locks import Held
from ..base.stop import Stop
from ..base.supervisor import GRACE
from ..store.shared import SharedLock
from .logs import Console
from .place import Place

WHOLE, BEGIN = "lock", "begin.lock"
PAUSE = 0.1  # seconds between two tries
SELDOM = 2.0  # where each is a request to another machine


@contextmanager
def whole(place: Place, console: Console) -> Iterator[SharedLock]:
    """Keep a second run of the whole workflow away from the same storage.

    Waits for one that was told to end and is about to; GradlabError for any other.
    """
    with _opened(place, WHOLE) as lock:
        try:
            _take(lock, place, console)
        except OSError as error:
            if lock.lease:
                raise
            console.line(
                f"no lock on {lock.path.parent} ({error}): run only one of this workflow at a time"
            )
        yield lock


def _take(lock: SharedLock, place: Place, console: Console) -> None:
    end, first = None, ""
    while True:
        try:
            lock.take()
            return
        except Held as held:
            if end is None:
                console.line(f"another run of {place.workflow!r} is at work: waiting for its end")
                end, first = time.monotonic() + GRACE, held.beat
            # A lease without a sign of life ends by itself.
            alive = not held.beat or held.beat != first
            if time.monotonic() > end and alive and not held.is_ending:
                raise GradlabError(
                    f"another gradlab run of {place.workflow!r} is at work on {place.backend}; "
                    "wait for it, or end it"
                ) from None
        time.sleep(2 * PAUSE)


@contextmanager
def beginning(place: Place) -> Iterator[None]:
    """Be the only one that begins or finishes a run."""
    with _opened(place, BEGIN) as lock:
        with lock.as_far_as_there_are_locks():  # the run of a whole workflow says it
            lock.wait()
        yield


@contextmanager
def turn(place: Place, name: str, console: Console, stop: Stop) -> Iterator[None]:
    """Be the only one that does a job, after another process that does it now."""
    with ExitStack() as stack:
        while not attempt(stack, place, name):
            wait(place, name, console, stop)
        yield


def attempt(stack: ExitStack, place: Place, name: str) -> bool:
    """Take a job's lock and leave it to a stack; tell whether no other process has it.

    Not to be called while this process has it: closing a file takes all its locks away.
    """
    with ExitStack() as own:
        lock = own.enter_context(_opened(place, _of(place, name)))
        with lock.as_far_as_there_are_locks():
            if not _take_soon(lock):
                return False
        stack.push(own.pop_all())
    return True


def _take_soon(lock: SharedLock) -> bool:
    """Take a lock that another process may only be asking about, which takes a moment."""
    for _ in range(3):
        try:
            lock.take()
            return True
        except Held:
            time.sleep(PAUSE / 5)
    return False


def wait(place: Place, name: str, console: Console, stop: Stop) -> None:
    """Say that another process does a job, and wait for its end; GradlabError after a signal."""
    console.line(f"[{name}] another process is doing this job: waiting for it")
    while at_work(place, [name]):
        if stop.signal:
            raise GradlabError(f"ended by signal {stop.signal}")
        time.sleep(PAUSE if place.backend.folder else SELDOM)


def at_work(place: Place, jobs: Iterable[str]) -> list[str]:
    """Name the jobs that other processes do; not to be asked about one's own."""
    return [name for name in jobs if _is_held(place, _of(place, name))]


def whole_at_work(place: Place) -> bool:
    """Tell whether another process runs the whole workflow."""
    return _is_held(place, WHOLE)


def _is_held(place: Place, name: str) -> bool:
    return place.shared(name).is_held()


def _of(place: Place, job: str) -> str:
    # Of its draft: a machine that was taken for dead may hold that of an earlier one.
    return f"jobs/{place.numbered(job)}.lock"


def _opened(place: Place, name: str) -> SharedLock:
    return place.shared(name).lock()
