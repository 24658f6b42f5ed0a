"""`gradlab runs`: all runs, of `train` and of workflows, and how each of them stands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from json import dumps
from math import isfinite
from typing import Any

from ..base.errors import GradlabError, note, reason
from ..base.tables import table
from ..base.units import human
from ..run.summary import Workflow, workflows
from ..services import session
from ..store import location
from ..store.location import Location
from .trainings import Training, trainings

TITLES = ("run", "of", "state", "best", "last", "steps", "size", "data", "code", "where")
Row = dict[str, Any]


def runs_command(json: bool = False) -> int:
    """List all runs, of train and of workflows: how far each came, how well it did, from what.

    Args:
        json: Print a list in JSON, with all that is known.
    """
    place = location.of(session.project_name(session.project_root()))
    rows = [*map(_of_workflow, _workflows(place)), *map(_of_training, trainings(place))]
    if json:
        sys.stdout.write(dumps(rows, indent=1) + "\n")
        return 0
    if not rows:
        print(f"No runs in {place.backend}. Begin one: gradlab run train")
        return 0
    print(f"In {place.backend}:")
    print("\n".join(table([TITLES, *(_cells(row, place) for row in rows)])))
    for row in rows:
        for problem in row["problems"]:
            print(f"! {row['run']} ({row['where']}): {problem}")
    return 0


def _workflows(place: Location) -> Iterator[Workflow]:
    try:
        yield from workflows(place)
    except (OSError, GradlabError) as error:
        note(f"! the runs of workflows can't be listed: {reason(error)}")


def _of_workflow(found: Workflow) -> Row:
    return {
        "run": found.id or "-",
        "of": f"workflow {found.name}",
        "state": found.state,
        "started": found.started,
        "jobs_done": found.done,
        "jobs_failed": found.failed,
        "size": found.size,
        "data": found.data,
        "code": found.code,
        "where": found.where,
        "problems": found.problems,
    }


def _of_training(found: Training) -> Row:
    said = found.summary
    return {
        "run": found.name,
        "of": found.of,
        "state": found.state if found.kept.files else "unknown",
        "metric": said.metric,
        "best": _finite(said.best),
        "best_step": said.best_step,
        "last": _finite(said.last),
        "steps": said.step,
        "sessions": said.sessions,
        "size": found.kept.size,
        "data": said.data,
        "code": said.code,
        "where": found.where,
        "problems": said.problems,
    }


def _finite(value: float | None) -> float | None:
    return value if isinstance(value, float | int) and isfinite(value) else None


def _cells(row: Row, place: Location) -> list[str]:
    state = f"{row['state']} !" if row["problems"] else row["state"]
    steps = f"{row['steps']:,}" if "steps" in row else f"{len(row['jobs_done'])} jobs"
    metric = row.get("metric", "").removeprefix("val_")
    best, last = _number(row.get("best")), _number(row.get("last"))
    found = [f"{metric} {best}".strip() if best != "-" else "-", last, steps, human(row["size"])]
    where = row["where"].removeprefix(f"{place.backend}/")
    return [row["run"], row["of"], state, *found, _few(row["data"]), row["code"] or "-", where]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _few(data: Iterable[str]) -> str:
    first, *more = [*data] or ["-"]
    return f"{first} +{len(more)}" if more else first
