"""The end of a run: whether it has finished, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..base.tables import table
from ..base.units import duration
from ..spec.credentials import shown
from . import holding
from .jobs import Result
from .logs import Console
from .masking import Mask
from .place import Place, clear
from .prepare import PATIENCE
from .record import Record

SOON = 10.0  # seconds in which another process sees that its job is done already


def finish(
    jobs: Sequence[str], alone: bool, record: Record, place: Place, console: Console
) -> bool:
    """Finish a run in which some jobs have succeeded; tell whether what it made is there.

    It has not finished while other processes do jobs of it. Unless it was `alone`, doing all that
    was asked for, all `jobs` of the workflow have to have succeeded.
    """
    place.backend.check(PATIENCE)
    if not _is_secured(record, place, console):
        return False
    end = time.monotonic() + SOON
    while True:
        with holding.beginning(place):
            busy = holding.at_work(place, jobs)
            now = Record.load(place.backend, place.record)
            if not busy and now and now.run.id == record.run.id and not now.run.finished:
                _close(jobs, alone, now, place, console)
            # What another one is about to find done it leaves at once, and then nobody ends it.
            if not set(busy) & record.jobs.keys() or not alone or time.monotonic() > end:
                return True
        time.sleep(holding.PAUSE)


def _close(
    jobs: Sequence[str], alone: bool, record: Record, place: Place, console: Console
) -> None:
    states = [record.jobs.get(name) for name in jobs]
    done = all(state and state.state == "succeeded" for state in states)
    if alone or (done and not holding.whole_at_work(place)):
        record.run.finished = True
        record.save()
        clear(place.volumes, console)


def tell(
    results: Mapping[str, Result], succeeded: bool, place: Place, mask: Mask, console: Console
) -> None:
    """Print what became of each job."""
    rows = [("job", "state", "time", "result")]
    for name, result in results.items():
        rows.append((name, result.state, duration(result.seconds), _summary(result, mask)))
    for line in ("", *table(rows)):
        console.line(line)
    for name, result in results.items():
        if result.state == "failed":
            message = " ".join(result.message.splitlines())
            for line in ("", f"{name} failed: {message}. Its last lines:", *result.tail):
                console.line(line)
            console.line(f"all of them: {place.log(name)}")
    if not succeeded:
        console.line("What was done is kept: the same command carries on from here.")


def _is_secured(record: Record, place: Place, console: Console) -> bool:
    """Bring to slow storage what it has lost meanwhile; tell whether all is there."""
    lost = place.datasets.lost(record.versions())
    for version in lost:
        console.line(f"! {version} has been lost in {place.backend}")
    return not lost


def _summary(result: Result, mask: Mask) -> str:
    """Say in a few words what a job has made."""
    parts = result.message.splitlines()[:1]
    for name, content in result.contents.items():
        text = " ".join(mask(shown(content.value)).split())[:60]
        parts.append({"dataset": text, "string": f"{name}={text}"}.get(content.type, name))
    return ", ".join(parts)
