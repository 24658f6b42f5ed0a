"""What is told of a workflow's run to whom GRADLAB_NOTIFY names.

A run of the whole workflow tells its beginning and its end. One job of a run that others carry on,
as a pod's, tells only that it failed. Trainings in jobs tell nothing themselves: they don't get the
addresses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base import unfinished
from ..services import session
from ..services.notify import teller
from ..spec.spec import Job
from .jobs import Result
from .masking import Mask
from .place import Place
from .record import Record


def began(record: Record, selected: Sequence[Job], place: Place) -> None:
    """Tell that a run begins or carries on."""
    jobs = ", ".join(job.name for job in selected)
    text = f"carries on, begun {record.run.started}" if record.resumed else f"starts: {jobs}"
    teller.began(_name(place), text, f"If it is cut off: gradlab run {place.workflow}")


def takes_on(job: Job, place: Place) -> None:
    """Note the one job that is done."""
    teller.takes_on(f"{_name(place)}, job {job.name!r},")


def _name(place: Place) -> str:
    project = session.project_name(session.project_root())
    return f"{project}: workflow {place.workflow!r}"


def ended(found: tuple[Mapping[str, Result], Mask] | None, alone: bool, code: int) -> None:
    """Tell how the run has ended, by its exit code, and what to do next."""
    if code != 1 and found and not alone:
        teller.lets_go()
    elif code > 128:
        teller.ended(f"was ended by signal {code - 128}", "The same command carries on.")
    elif code == unfinished.CODE:
        teller.ended("was stopped in time", "The same command carries on.")
    elif code == 0:
        teller.ended("has finished", "gradlab datasets lists what it made.")
    else:
        teller.ended(f"failed{_failures(found)}", "Mend that; the same command carries on.")


def _failures(found: tuple[Mapping[str, Result], Mask] | None) -> str:
    results, mask = found or ({}, None)
    failed = [f"{name}: {each.message}" for name, each in results.items() if each.state == "failed"]
    return "".join(f"\n{mask(text) if mask else text}" for text in failed)
