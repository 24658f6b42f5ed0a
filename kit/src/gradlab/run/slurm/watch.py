"""`gradlab status`, `gradlab logs` and `gradlab stop`: a run that goes on on other machines."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import tyro

from ...base.errors import GradlabError
from ...base.tables import table
from ...base.units import duration
from ...services import session
from ...spec import spec as specs
from ...store import location
from .. import holding, submission
from ..logs import Console
from ..place import Place
from ..record import Record
from ..submission import Submission
from . import client, follow, states
from .follow import Log

STOPPED_WITHIN = 60.0  # seconds that jobs have to save and end
PAUSE = 0.5


def status_command(name: tyro.conf.Positional[str] = "") -> int:
    """Show how the last run of a workflow stands, or of each workflow of this project.

    Exit code 0 where all jobs have succeeded, 75 while some go on or could, 1 where one failed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
    """
    root, console = session.project_root(), Console()
    paths = [specs.find(name, root)] if name else specs.workflow_files(root)
    codes = [_status(_place(path), console) for path in paths]
    known = [code for code in codes if code is not None]
    if not known:
        console.line(f"nothing has been run yet: gradlab run {name or 'NAME'}")
    return next((code for code in (1, 75) if code in known), 0)


def logs_command(
    name: Annotated[str, tyro.conf.Positional],
    job: Annotated[str, tyro.conf.Positional] = "",
    follow: bool = False,
) -> int:
    """Print what the jobs of a workflow's last run have printed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        job: Only of this one.
        follow: Go on until the jobs have ended.
    """
    place = _place(specs.find(name, session.project_root()))
    jobs = _logged(place)
    if job and job not in jobs:
        raise GradlabError(f"job {job!r} has no log in {place.log(job).parent}")
    chosen = {each: Log(place.log(each)) for each in ([job] if job else jobs)}
    if not chosen:
        raise GradlabError(f"there is no log in {place.log('x').parent}: gradlab run {name}")
    console = Console()
    while True:
        going_on = follow and _goes_on(place, [*chosen])
        for each, log in chosen.items():
            for line in log.lines(last=not going_on):
                console.line(line if job else f"[{each}] {line}")
        if not going_on:
            return 0
        time.sleep(PAUSE)


def stop_command(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Stop a workflow's run on a cluster: its jobs save, and the same command carries on.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
    """
    place, console = _place(specs.find(name, session.project_root())), Console()
    last = submission.current(place)
    if last is None:
        raise GradlabError(
            f"no run of {name!r} was submitted; one on this machine ends by Ctrl-C, or "
            "kill -TERM of its process"
        )
    known, folder, _ = last
    with holding.whole(place, console):  # nobody submits meanwhile
        # First, for what ends by itself now must not be put back into the queue.
        submission.stop(folder)
        left = _cancel(known)
        submission.close(known, folder, place)
    console.line(
        f"! Slurm has not ended {left} jobs yet" if left else f"stopped: the run {known.run}"
    )
    console.line("What was done is kept: the same gradlab run carries on from here.")
    return int(bool(left))


def _cancel(known: Submission) -> int:
    """Cancel all that lives, what waits before what runs; give how many do not end in time."""
    client.require()
    limit = time.monotonic() + STOPPED_WITHIN
    told = set[str]()
    while True:
        live = [each for each in client.queue(states.comment(known)) if each.lives]
        if not live or time.monotonic() > limit:
            return len(live)
        new = [each for each in live if each.id not in told]
        for waiting in (True, False):
            chosen = [each.id for each in new if (each.state == "PENDING") == waiting]
            client.cancel(chosen)
            told.update(chosen)
        time.sleep(PAUSE)


def _place(path: Path) -> Place:
    return Place.of(path.stem, location.of(session.project_name(session.project_root())))


def _logged(place: Place) -> list[str]:
    return sorted(path.stem for path in place.log("x").parent.glob("*.log"))


def _goes_on(place: Place, jobs: list[str]) -> bool:
    if last := submission.current(place):
        known, folder, is_open = last
        if is_open:
            _, now = follow.look(known, known.spec(folder), place)
            return any(not state.is_over for name, state in now.items() if name in jobs)
    return bool(holding.at_work(place, jobs))


def _status(place: Place, console: Console) -> int | None:
    """Show how a workflow's last run stands; give the exit code, None if there is none."""
    record = Record.load(place.backend, place.record)
    if record is None:
        return None
    state = "finished" if record.run.finished else "not finished"
    console.line(f"{place.workflow}: run {record.run.id} of {record.run.started}, {state}")
    last = submission.current(place)
    if last and last[0].run == record.run.id and last[2]:
        return _submitted(last[0], last[1], record, place, console)
    rows = [("job", "state", "time", "")]
    busy = set(holding.at_work(place, _logged(place)))
    for job in sorted({*record.jobs, *_logged(place)}):
        noted = record.jobs.get(job)
        done = noted and noted.state == "succeeded"
        word = "running" if job in busy else "succeeded" if done else "not done"
        rows.append((job, word, duration(noted.seconds) if noted else "", ""))
    for line in table(rows):
        console.line(line)
    return 0 if record.run.finished else 75


def _submitted(
    known: Submission, folder: Path, record: Record, place: Place, console: Console
) -> int:
    _, now = follow.look(known, known.spec(folder), place)
    rows = [("job", "state", "time", "")]
    for name, state in now.items():
        noted = record.jobs.get(name)
        rows.append((name, state.word, duration(noted.seconds) if noted else "", state.detail))
    for line in table(rows):
        console.line(line)
    if all(state.is_over for state in now.values()):
        submission.close(known, folder, place)
    if any(state.word == "failed" for state in now.values()):
        return 1
    return 0 if all(state.word == "succeeded" for state in now.values()) else 75
