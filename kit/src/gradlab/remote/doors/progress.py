"""How far a run has come, as its storage tells: whether a hop was worth its while."""

from __future__ import annotations

from ...run.place import Place
from ...run.record import Record
from ...store.copies import NAMED, step_of


def measure(place: Place) -> str:
    """Give a text that changes with each job that succeeds and each later checkpoint.

    Raises OSError.
    """
    record = Record.load(place.backend, place.record)
    done = sorted(record.jobs) if record else []
    folders = (f"drafts/{place.workflow}", "runs")
    names = (path.rpartition("/")[2] for each in folders for path in place.backend.below(each))
    steps = [step_of(name) for name in names if NAMED.fullmatch(name)]
    run = record.run.id if record else ""
    return f"{run} {','.join(done)} {max(steps, default=0)}"


def finished(place: Place) -> str:
    """Give the id of the last run if it has finished, else nothing; raises OSError."""
    record = Record.load(place.backend, place.record)
    return record.run.id if record and record.run.finished else ""
