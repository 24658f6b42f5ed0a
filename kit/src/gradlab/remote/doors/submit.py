"""`gradlab submit`: hand a run to a service that is open, or carry on one that was handed over."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

import tyro

from ...base.errors import GradlabError, note
from ...check import check
from ...services import session, urls
from ...spec import spec as specs
from ..gradient import push
from ..gradient import submit as gradient
from . import record
from .desk import Desk
from .doors import KINDS, parse
from .protocol import GPU
from .record import Submission
from .travel import Shut, Travel

PAUSE = 15.0  # seconds between two looks
PATIENCE = 300.0  # where no door has room
CODES = {"done": 0, "failed": 1, "stopped": 75, "open": 75}


def submit_command(
    name: Annotated[str, tyro.conf.Positional],
    to: str = "gradient",
    machine: str = GPU,
    hours: float = 0.0,
    follow: bool = False,
    ref: str | None = None,
    project: str | None = None,
) -> int:
    """Hand a run to a service, on the newest commit, which must be pushed.

    Given again it looks after the run that was handed over: adopts it, and carries it on. With
    --follow until it is done: exit code 0 if it has succeeded, 1 if it has failed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        to: gradient, kaggle, colab or huggingface, or several with commas between: the first with
            room is taken, and when its time is over the first that has room then.
        machine: gpu, cpu, or a machine by the service's own name for it.
        hours: That a session may take at most; 0 for as long as the service allows.
        follow: Stay until the run is done, and carry it on when a session ends.
        ref: Another commit, branch or tag.
        project: At Gradient: name or id of the project; the name is this project's unless given.
    """
    if to == "gradient":
        return gradient.submit(name, ref, project)
    doors = parse(to)
    desk = Desk.of(name)
    check.load(specs.find(name, session.project_root()))
    for door in doors:
        KINDS[door].refuse_machine(machine)
    wanted = _submission(desk, doors, machine, hours, ref)
    with desk.travel(wanted) as travel:
        _tell_adopted(travel, wanted)
        return go_on(travel, follow)


def go_on(travel: Travel, follow: bool) -> int:
    """Bring a submission on, and with `follow` until it is over; give the exit code."""
    while True:
        try:
            submission = travel.advance()
        except Shut as error:
            if not follow:
                raise
            note(f"{error}\nwaiting")
            time.sleep(PATIENCE)
            continue
        if submission.state != "open" or not follow:
            break
        time.sleep(PAUSE)
    return _tell(submission, follow)


def _tell(submission: Submission, follow: bool) -> int:
    name, hop = submission.workflow, submission.last
    if submission.state == "open" and hop:
        note(f"{hop.name} goes on at {hop.door}; close this machine if you like")
        note(f"follow it:            gradlab logs {name} --follow")
        note(f"take what it made:    gradlab collect {name}")
        return 0
    note(f"{name}: {submission.state}: {submission.said}")
    return CODES[submission.state]


def _tell_adopted(travel: Travel, wanted: Submission) -> None:
    found = travel.submission
    if found.id != wanted.id:
        note(f"the run that was handed over on commit {found.commit[:12]} goes on")
        if found.commit != wanted.commit:
            note(
                f"! {wanted.commit[:12]} is not what it runs; gradlab stop {found.workflow} ends it"
            )
        if found.doors != wanted.doors:
            travel.submission = replace(found, doors=wanted.doors)


def _submission(
    desk: Desk, doors: list[str], machine: str, hours: float, ref: str | None
) -> Submission:
    storage = str(desk.place.backend)
    if not urls.is_url(storage):
        raise GradlabError(
            f"the storage is {storage}, a folder of this machine, which another one can't reach: "
            "set GRADLAB_STORAGE to a URL such as s3://bucket/folder, here and each time"
        )
    pushed = push.read(desk.root, ref)
    for warning in pushed.warnings:
        note(f"! {warning}")
    name = desk.place.workflow
    place = (pushed.url, pushed.ref, storage)
    return Submission(record.new_id(), name, *place, doors, machine, hours)
