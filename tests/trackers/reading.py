"""Prints what a tracker has of a project, read by its own client, as JSON: each run's lines."""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

Lines = list[dict[str, Any]]


def mlflow(_: Path) -> dict[str, Lines]:
    from mlflow import MlflowClient

    client, found = MlflowClient(), {}
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    assert experiment
    for run in client.search_runs([experiment.experiment_id]):
        assert run.data.params["model.width"] == "8"
        rows: dict[int, Any] = defaultdict(lambda: defaultdict(list))
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                rows[metric.step][name].append(metric.value)
        found[run.info.run_id] = _once(rows)
    return found


def trackio(_: Path) -> dict[str, Lines]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for run in trackio.Api().runs("tracked"):
        rows = SQLiteStorage.get_logs("tracked", run.name, run_id=run.id)
        found[run.id] = [{n: v for n, v in row.items() if n != "timestamp"} for row in rows]
    return found


def _once(rows: dict[int, Any]) -> Lines:
    """Give the lines, with as many of a step as it has values of a name."""
    lines = []
    for step in sorted(rows):
        for number in range(max(map(len, rows[step].values()))):
            named = {n: values[number] for n, values in rows[step].items() if number < len(values)}
            lines.append({"step": step, **named})
    return lines


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
