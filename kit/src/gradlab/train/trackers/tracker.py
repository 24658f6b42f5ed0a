"""What shows the metrics of runs, such as a server: one seam, whose library each part asks alone.

Promises of each: after a resume every step is there once, with the values of metrics.jsonl, however
often and whenever the run or the tracker was killed; a login comes from the environment only. What
can't take a step back is told of those alone that a checkpoint has kept (follow.py), and asks its
own library, each time that it begins, which of them are there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ...base.errors import GradlabError

Name = Literal["tensorboard", "wandb", "mlflow", "trackio", "none"]
TITLES = {"wandb": "W&B", "mlflow": "MLflow", "trackio": "trackio"}
FOLDER = "trackers"  # of a run
MARK = "GRADLAB_FOLLOWS"  # in the environment of what follows a run: its folder
ADDRESS = "MLFLOW_TRACKING_URI"
# The step of a line (from 1), its epoch, and what was measured.
Line = dict[str, float]
# By its name, the last step that has a value, and that value, None where it isn't known.
Reached = dict[str, tuple[int, float | None]]
NOWHERE: tuple[int, float | None] = (0, None)


@dataclass(frozen=True)
class Told:
    """What a tracker is told of a run."""

    id: str
    """Of this run alone: one that starts over has another."""
    name: str
    project: str
    settings: Mapping[str, Any]
    folder: Path
    """In the run's folder, for what the library keeps."""


class Tracker(Protocol):
    """Shows one run."""

    def begin(self, recorded: Callable[[], list[Line]]) -> None:
        """Take the run up where it was left, as far as it is `recorded`, or make it.

        Fails with any error of the library, after which another one can begin.
        """

    def log(self, lines: Sequence[Line]) -> None:
        """Show the next steps; Rewound where some were done otherwise before."""

    def end(self, finished: bool) -> str:
        """Let go of the run, which is finished or will carry on; say what is left to people."""


class Rewound(Exception):
    """The tracker has steps that the run did again, otherwise, and they can't be taken back."""


def missing(lines: Sequence[Line], reached: Reached) -> Iterator[Line]:
    """Give what is not there yet; Rewound where the last value that is there is another."""
    for line in lines:
        step = int(line["step"])
        last = {name: reached.get(name, NOWHERE) for name in line if name != "step"}
        for name, (there, value) in last.items():
            if there == step and value is not None and value != line[name]:
                raise Rewound(f"step {step} has {name} {value}, not {line[name]}")
        values = {name: line[name] for name, (there, _) in last.items() if there < step}
        if values:
            yield {"step": step, **values}


def reached_by(lines: Sequence[Line]) -> Reached:
    """Tell how far some steps, in any order, reach."""
    found: Reached = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and found.get(name, NOWHERE)[0] < line["step"]:
                found[name] = (int(line["step"]), value)
    return found


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Give settings by dotted names, such as model.width."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{above}{name}.") if nested else {f"{above}{name}": value}
    return found


def check(name: Name) -> None:
    """Raise GradlabError where a tracker can't work: its library or address is missing."""
    if name not in TITLES:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # a folder of its name is none
        raise GradlabError(
            f"--tracker {name} needs {TITLES[name]}'s library: "
            f"pip install --find-links vendor 'gradlab[{name}]'"
        )
    if name == "mlflow" and not os.environ.get(ADDRESS):
        raise GradlabError(
            f"--tracker mlflow needs the address of a server in {ADDRESS}, such as "
            "http://127.0.0.1:5000 of `mlflow server`."
        )
