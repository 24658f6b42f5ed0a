"""gradlab compare: several runs side by side, and the best of them.

Promises: works on the folders of runs alone, wherever they come from; the same runs give the
same table. A damaged file is refused, by its name; the picture may fail, the table does not.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..base.errors import GradlabError, only_observing
from ..base.files import digest, exists, prepare, read_bytes, write_result
from ..base.tables import columns, flat
from . import learned, weightfile
from .curves import compare_curves, spelled
from .places import METRICS
from .record import Values, read_checked

SCORE = ("val_accuracy", "highest")  # of runs that don't tell by what they are compared
BEST = "best.safetensors"
AGAIN = "Give the run's training command again, which writes it anew, or take a copy."


@dataclass(frozen=True)
class Measured:
    """A run: its settings and its evaluations, in the order of the epochs."""

    name: str
    settings: dict[str, Any]
    evaluations: list[Values]
    model: Path
    score: tuple[str, str]  # by what it is compared, and whether the highest or lowest is best

    @property
    def best(self) -> Values:
        """The first of the evaluations with the best score."""
        return min(self.evaluations, key=self.rank)

    def rank(self, line: Values) -> float:
        """Give what is lower for a better evaluation."""
        return line[self.score[0]] * (-1 if self.score[1] == "highest" else 1)


def compare_command(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], output: Path = Path("comparison")
) -> int:
    """Compare runs by their best evaluation and keep the best model.

    Args:
        runs: The folders of the runs, such as storage/runs/*.
        output: Folder for comparison.csv, comparison.png and best.safetensors.
    """
    try:
        measured = sorted(map(_load, runs), key=lambda run: (run.rank(run.best), run.name))
        if not measured:
            raise GradlabError("Which runs? Give their folders: gradlab compare storage/runs/*")
        _refuse_mixed(measured)
        rows = _table(measured)
        _write(prepare(output), measured, rows)
    except OSError as error:
        raise GradlabError(
            f"The runs can't be compared: {error}.\nGive the same command again when that works.",
            exit_code=1,
        ) from error
    print("\n".join(columns(rows)))
    print(f"The best is {measured[0].name}; its model is {output / BEST}")
    return 0


def _write(output: Path, measured: list[Measured], rows: list[list[Any]]) -> None:
    model = read_bytes(measured[0].model)
    weightfile.checked(model, measured[0].model, AGAIN)
    for name, data in (("comparison.csv", _csv(rows)), (BEST, model)):
        write_result(output / name, data)
    score, _ = measured[0].score
    points = {
        run.name: [(line["epoch"], line[score]) for line in run.evaluations] for run in measured
    }
    with only_observing(f"{output / 'comparison.png'} could not be drawn"):
        compare_curves(points, spelled(score).capitalize(), output / "comparison.png")


def _refuse_mixed(measured: list[Measured]) -> None:
    scores = {run.score: run.name for run in measured}
    if len(scores) > 1:
        said = "; ".join(f"{name} by the {way} {score}" for (score, way), name in scores.items())
        raise GradlabError(f"These runs can't be compared, for they differ in what is best: {said}")


def _load(folder: Path) -> Measured:
    for name in ("config.json", METRICS, BEST):
        if not exists(folder / name):
            raise GradlabError(f"{folder} is not the folder of a run that has ended: no {name}.")
    metadata = weightfile.checked(read_bytes(folder / BEST), folder / BEST, AGAIN)
    lines = read_checked(folder)
    settings = json.loads(metadata["settings"])
    score = tuple(settings.pop("best", SCORE))
    evaluations = [line for line in lines if score[0] in line]
    if not evaluations:
        raise _not_evaluated(folder, score[0], lines)
    # One column, where the runs have learned from different code or data; not one for each file.
    for name in ("code", learned.RECORD):
        if found := settings.pop(name, None):
            settings["code"] = digest(json.dumps(found, sort_keys=True).encode())[:8]
    return Measured(folder.name, flat(settings), evaluations, folder / BEST, score)


def _not_evaluated(folder: Path, score: str, lines: list[Values]) -> GradlabError:
    metrics = dict.fromkeys(name for line in lines for name in line)
    measured = [name for name in metrics if name.startswith("val_")]
    if not measured:
        return GradlabError(f"{folder} has not been evaluated yet: train it for longer.")
    return GradlabError(
        f"{folder} has no {score}, by which it is to be compared; its evaluations have "
        f"{', '.join(measured)}.\nCompare it by hand ({folder / METRICS}), or name one of these as "
        "BEST in its task.py and train anew."
    )


def _table(measured: list[Measured]) -> list[list[Any]]:
    """Give a header and a row for each run, with the settings in which they differ."""
    names = sorted({name for run in measured for name in run.settings})
    differ = [n for n in names if len({str(run.settings.get(n)) for run in measured}) > 1]
    known = {name for run in measured for name in run.best}
    shown = [n for n in dict.fromkeys([measured[0].score[0], "val_loss", "epoch"]) if n in known]
    header = ["run", *differ, *shown]
    rows = []
    for run in measured:
        settings = [run.settings.get(name) for name in differ]
        best = [run.best.get(name, "") for name in shown]
        rows.append([run.name, *settings, *best])
    return [header, *rows]


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
