"""`gradlab status`, `gradlab logs` and `gradlab stop`: a run that goes on elsewhere."""

from __future__ import annotations

import time
from typing import Annotated

import tyro

from ...base.errors import note
from ...base.tables import table
from ...run.logs import Console
from ...run.slurm import watch as cluster
from ...services import session
from ...spec import spec as specs
from ...store.datasets import usable
from ..clients.talk import Failure
from . import record
from .desk import Desk
from .record import Hop, Submission
from .submit import CODES
from .travel import Shut, Travel

PAUSE = 5.0  # seconds between two looks
OVER = "\0"  # after a log of which there comes no more
SAVED_WITHIN = 120.0  # seconds that a hop has to save and end


def status_command(name: tyro.conf.Positional[str] = "") -> int:
    """Show how the last run of a workflow stands, or of each workflow of this project.

    Exit code 0 where all jobs have succeeded, 75 while some go on or could, 1 where one failed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
    """
    root = session.project_root()
    names = [name] if name else [path.stem for path in specs.workflow_files(root)]
    codes = [code for each in names if (code := _status(Desk.of(each))) is not None]
    if codes and name:
        return codes[0]
    return max([cluster.status_command(name), *codes], key=lambda code: (code == 1, code))


def logs_command(
    name: Annotated[str, tyro.conf.Positional],
    job: Annotated[str, tyro.conf.Positional] = "",
    follow: bool = False,
) -> int:
    """Print what the jobs of a workflow's last run have printed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        job: Only of this one; at a door the whole run has one log.
        follow: Go on until the jobs have ended. A run that was handed to doors is carried on when
            a session ends.
    """
    desk = Desk.of(name)
    submission = desk.submission()
    if submission is None:
        return cluster.logs_command(name, job, follow)
    with desk.travel(submission) as travel:
        return _logs(travel, follow)


def stop_command(name: Annotated[str, tyro.conf.Positional]) -> int:
    """Stop a workflow's run elsewhere: its jobs save, and the same command carries on.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
    """
    desk = Desk.of(name)
    submission = desk.submission()
    if submission is None or submission.state != "open":
        return cluster.stop_command(name)
    hop = submission.last
    if hop and not hop.is_over:
        with usable(desk.place.backend):
            record.ask_to_stop(desk.place, hop.name)
        note(f"{hop.name} was asked to save and end")
    with desk.travel(submission) as travel:
        if hop:
            _wait_for_end(travel)
        submission = travel.submission
        if submission.state == "open":
            submission = travel.stop()
    note(f"{name}: {submission.state}: {submission.said}")
    note(f"What was saved is kept: gradlab submit {name} carries on from there.")
    return 0


def _status(desk: Desk) -> int | None:
    """Show how a submission stands; give the exit code, None if there is none."""
    submission = desk.submission()
    if submission is None:
        return None
    console = Console()
    console.line(f"{submission.workflow} on commit {submission.commit[:12]}: {submission.state}")
    rows = [("hop", "door", "state", "began", "")]
    rows += [(str(h.number), h.door, h.state, h.began, h.said) for h in submission.hops]
    for line in table(rows):
        console.line(line)
    hop = submission.last
    if submission.state != "open" or hop is None:
        console.line(submission.said or "nothing has begun yet")
        return CODES[submission.state]
    with desk.travel(submission) as travel:
        _tell_now(travel, hop, console)
    return CODES["open"]


def _tell_now(travel: Travel, hop: Hop, console: Console) -> None:
    """Say how the last hop stands at its service."""
    again = f"gradlab submit {travel.submission.workflow}"
    if hop.is_over:
        console.line(f"its session is over, and there is more to do: {again}")
        return
    seen = travel.doors[hop.door].find(travel.task(hop))
    console.line(f"{hop.name} at {hop.door}: {seen.word} {seen.said}".rstrip())
    if (verdict := travel.judge(hop)) is not None and hop.state == "running":
        console.line(f"{verdict.state}: {verdict.said}; to carry on: {again}")


def _logs(travel: Travel, follow: bool) -> int:
    """Print what the hops have printed; with `follow` carry the run on to its end."""
    console, printed = Console(), dict[str, str]()
    while True:
        submission = _advanced(travel) if follow else travel.submission
        for hop in submission.hops:
            _print(travel, hop, printed, console)
        if not follow:
            return 0
        if submission.state != "open":
            note(f"{submission.workflow}: {submission.state}: {submission.said}")
            return CODES[submission.state]
        time.sleep(PAUSE)


def _advanced(travel: Travel) -> Submission:
    try:
        return travel.advance()
    except Failure as error:
        if error.fatal and not isinstance(error, Shut):
            raise
        note(f"! {error}")
        return travel.submission


def _print(travel: Travel, hop: Hop, printed: dict[str, str], console: Console) -> None:
    """Print what is new of a hop's log: as the storage has it, or else the service."""
    before = printed.get(hop.name, "")
    if hop.state == "refused" or before.endswith(OVER):
        return
    text = record.log(travel.place, hop.name)
    if text is None:
        text = travel.doors[hop.door].logs(travel.task(hop))
    new = text.removeprefix(before) if text.startswith(before) else text
    for line in new.splitlines():
        console.line(f"[{hop.number} {hop.door}] {line}")
    printed[hop.name] = text + OVER * hop.is_over


def _wait_for_end(travel: Travel) -> None:
    """Give the last hop time to save and end by itself."""
    end = time.monotonic() + SAVED_WITHIN
    hop = travel.submission.last
    while hop and hop.state == "running" and time.monotonic() < end:
        if travel.judge(hop) is not None:
            travel.advance()
            return
        time.sleep(PAUSE / 2)
