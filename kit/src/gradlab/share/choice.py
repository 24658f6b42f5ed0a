"""Which run is shared, and the files of it that are, laid out in a folder and proved whole."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..base import folders
from ..base.errors import GradlabError
from ..base.files import read_bytes
from ..inventory.trainings import Training, trainings
from ..store.location import Location
from ..train import record, weightfile
from ..train.places import CHECKSUM, METRICS

WEIGHTS = ("best.safetensors", "model.safetensors")
# What is shared of a run where it is there, and taken away there where it is not here any more.
SHOWN = (
    "config.json",
    METRICS,
    "curves.png",
    "evaluation.json",
    "confusion_matrix.png",
    "predicted_against_true.png",
    "model.onnx",
    "model.onnx.data",
)
LARGE = (".safetensors", ".onnx", ".data")
AGAIN = "Give the run's training command again, which writes it anew."


def chosen(place: Location, name: str | None) -> Training:
    """Give the finished run of a name, of several the one that came furthest; GradlabError."""
    found = [each for each in trainings(place) if name is None or each.name == name]
    names = sorted(
        {each.name for each in found if each.state == "finished" and "~" not in each.name}
    )
    if name is None:
        if len(names) != 1:
            which = f"which of {', '.join(names)}? --run NAME" if names else "no run has finished"
            raise GradlabError(f"{which} (gradlab runs lists all)")
        found = [each for each in found if each.name == names[0]]
    if not found:
        raise GradlabError(f"there is no run {name!r}: gradlab runs lists all")
    best = max(found, key=lambda each: (each.state == "finished", each.summary.step))
    if best.state != "finished":
        raise GradlabError(
            f"the run {best.name!r} is {best.state} at step {best.summary.step:,}: what is shared "
            "has to be finished. Give its training command again first"
        )
    return best


def lay(run: Training, folder: Path) -> list[str]:
    """Lay out the files of a run in a folder, proved to be whole; name them. GradlabError."""
    folders.empty(folder)
    missing = [name for name in WEIGHTS if name not in run.kept.files]
    if missing:
        raise GradlabError(f"{run.where} has no {missing[0]}. {AGAIN}", exit_code=1)
    names = [name for name in (*WEIGHTS, *SHOWN) if name in run.kept.files]
    for name in [*names, CHECKSUM] if CHECKSUM in run.kept.files else names:
        _take(run, name, folder / name)
    for name in WEIGHTS:
        weightfile.checked(read_bytes(folder / name), folder / name, AGAIN)
    if METRICS in names:
        record.read_checked(folder)
    (folder / CHECKSUM).unlink(missing_ok=True)
    return names


def _take(run: Training, name: str, target: Path) -> None:
    """Copy a file of a run, or give a large one a second name where that can be done."""
    side, key = run.kept.side, run.kept.files[name][0]
    if side.folder and name.endswith(LARGE):
        with suppress(OSError):
            os.link(side.folder / key, target)
            return
    side.get(key, target)
