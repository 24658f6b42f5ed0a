"""gradlab compare: several runs side by side, and the best of them.

Promises: works on the folders of runs alone, wherever they come from; the same runs give the
same table.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from .command import flat
from .curves import compare_curves
from .errors import GradlabError
from .files import prepare, write_durably
from .record import Values, read

SCORE = "val_accuracy"


@dataclass(frozen=True)
class Measured:
    """A run: its settings and its evaluations, in the order of the epochs."""

    name: str
    folder: Path
    settings: dict[str, Any]
    evaluations: list[Values]

    @property
    def best(self) -> Values:
        """The first of the evaluations with the best score."""
        return max(self.evaluations, key=lambda line: line[SCORE])


def compare_command(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], output: Path = Path("comparison")
) -> int:
    """Compare runs by their best validation accuracy and keep the best model.

    Args:
        runs: The folders of the runs, such as storage/runs/*.
        output: Folder for comparison.csv, comparison.png and best.safetensors.
    """
    measured = sorted(map(_load, runs), key=lambda run: (-run.best[SCORE], run.name))
    if not measured:
        raise GradlabError("Which runs? Give their folders: gradlab compare storage/runs/*")
    prepare(output)
    rows = _table(measured)
    write_durably(output / "comparison.csv", _csv(rows))
    points = {
        run.name: [(line["epoch"], line[SCORE]) for line in run.evaluations] for run in measured
    }
    compare_curves(points, output / "comparison.png")
    shutil.copyfile(measured[0].folder / "best.safetensors", output / "best.safetensors")
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)))
    print(f"The best is {measured[0].name}; its model is {output / 'best.safetensors'}")
    return 0


def _load(folder: Path) -> Measured:
    for name in ("config.json", "metrics.jsonl", "best.safetensors"):
        if not (folder / name).is_file():
            raise GradlabError(f"{folder} is not the folder of a run that has ended: no {name}.")
    settings = flat(json.loads((folder / "config.json").read_text("utf-8")))
    lines, _ = read(folder / "metrics.jsonl")
    evaluations = [line for line in lines if SCORE in line]
    if not evaluations:
        raise GradlabError(f"{folder} has not been evaluated yet: train it for longer.")
    return Measured(folder.name, folder, settings, evaluations)


def _table(measured: list[Measured]) -> list[list[Any]]:
    """Give a header and a row for each run, with the settings in which they differ."""
    names = sorted({name for run in measured for name in run.settings})
    differ = [n for n in names if len({str(run.settings.get(n)) for run in measured}) > 1]
    header = ["run", *differ, SCORE, "val_loss", "epoch"]
    rows = []
    for run in measured:
        settings = [run.settings.get(name) for name in differ]
        rows.append([run.name, *settings, *(run.best[n] for n in (SCORE, "val_loss", "epoch"))])
    return [header, *rows]


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
