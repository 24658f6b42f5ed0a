"""How the jobs of a submitted run stand: as their records say, and as Slurm does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...spec.spec import Spec
from .. import attempts
from ..jobs import Result
from ..logs import TAIL
from ..place import Place
from ..record import Record
from ..submission import Submission
from .client import Queued

RESULTS = {"succeeded": "ran", "failed": "failed", "stopped": "stopped", "gone": "stopped"}


@dataclass(frozen=True)
class State:
    """How one job stands: waiting, running, succeeded, failed, stopped, skipped or gone."""

    word: str
    detail: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it does not go on by itself."""
        return self.word not in ("waiting", "running")


def comment(submission: Submission, job: str = "") -> str:
    """Give the comment by which a job is found in the queue; without one what all begin with."""
    return f"gradlab:{submission.id}:{job}"


def by_job(queue: Sequence[Queued]) -> dict[str, Queued]:
    """Give what Slurm says of each job: of those under one name that which lives, or the last."""
    found: dict[str, Queued] = {}
    for each in sorted(queue, key=lambda each: (each.lives, len(each.id), each.id)):
        found[each.comment.rpartition(":")[2]] = each
    return found


def of(
    submission: Submission, spec: Spec, record: Record, place: Place, queue: Sequence[Queued]
) -> dict[str, State]:
    """Say how each job of a submission stands."""
    known, states = by_job(queue), dict[str, State]()
    for name in submission.jobs:
        broken = [need for need in spec.jobs[name].needs if _is_broken(states.get(need))]
        states[name] = _of(name, broken, submission, record, place, known.get(name))
    return states


def _is_broken(state: State | None) -> bool:
    return state is not None and state.word not in ("succeeded", "waiting", "running")


def _of(
    name: str,
    broken: Sequence[str],
    submission: Submission,
    record: Record,
    place: Place,
    queued: Queued | None,
) -> State:
    noted = record.jobs.get(name)
    if queued and queued.lives:
        if queued.state in ("RUNNING", "COMPLETING"):
            return State("running", f"on {queued.node}, job {queued.id}")
        why = {"Dependency": "for what it needs", "None": ""}.get(queued.reason, queued.reason)
        return State("waiting", f"{why}, job {queued.id}".removeprefix(", "))
    if noted and noted.state == "succeeded":
        return State("succeeded")
    if broken:
        return State("skipped", f"it needs {', '.join(broken)}")
    last = attempts.last(place.attempts(name))
    if last and last.submission == submission.id and last.ended in ("failed", "stopped"):
        return State(last.ended, "with more to do" * (last.ended == "stopped"))
    if queued:
        return State("failed", f"Slurm says {queued.state}, job {queued.id}")
    return State("gone", "Slurm has forgotten it: the same command submits it again")


def results(states: Mapping[str, State], record: Record, place: Place) -> dict[str, Result]:
    """Give how jobs ended, as the end of a run is told."""
    found = {}
    for name, state in states.items():
        noted = record.jobs.get(name)
        result = Result(RESULTS.get(state.word, "skipped"), message=state.detail)
        if state.word == "succeeded" and noted:
            result.seconds, result.contents = noted.seconds, noted.contents
        if state.word == "failed":
            result.tail = tail(place, name)
            result.message = state.detail or "see its log"
        found[name] = result
    return found


def tail(place: Place, name: str) -> tuple[str, ...]:
    """Give the last lines of a job's log."""
    try:
        text = place.log(name).read_text("utf-8", "replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-TAIL:])
