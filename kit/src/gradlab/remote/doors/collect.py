"""`gradlab collect`: bring here what a run that was handed over has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ...base import folders
from ...base.errors import note
from ...run.record import Record
from ...store.datasets import usable
from .desk import Desk
from .submit import CODES


def collect_command(name: Annotated[str, tyro.conf.Positional], folder: Path | None = None) -> int:
    """Bring what the last run of a workflow has made, each dataset as a folder; look after it.

    What is whole there already is left as it is. Exit code 0 where the run has succeeded, 75 while
    it goes on, 1 where it has failed.

    Args:
        name: Of .gradient/workflows/NAME.yaml.
        folder: Where to, the folder collected/NAME unless given.
    """
    desk = Desk.of(name)
    submission = desk.submitted()
    if submission.state == "open":
        with desk.travel(submission) as travel:
            submission = travel.advance()
    target = folder or Path("collected", name)
    with usable(desk.place.backend):
        made = _made(desk)
        for version in made:
            _bring(desk, version, target)
    if not made:
        note(f"no job has made anything yet: gradlab status {name}")
    note(f"{name}: {submission.state}: {submission.said}".removesuffix(": "))
    return CODES[submission.state]


def _made(desk: Desk) -> list[str]:
    """Name the versions that the last run has made."""
    record = Record.load(desk.place.backend, desk.place.record)
    return record.versions() if record else []


def _bring(desk: Desk, reference: str, target: Path) -> None:
    """Copy a version into a folder of the dataset's name, whole or not at all."""
    datasets = desk.place.datasets
    version = datasets.find(reference)
    place = target / version.name.replace("/", "-")
    part = place.with_name(f".{place.name}.part")
    folders.discard(part)
    part.mkdir(parents=True)
    datasets.lay(version, part)
    folders.discard(place)
    part.rename(place)
    print(f"{version}  {place}", flush=True)
