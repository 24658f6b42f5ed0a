"""A run in MLflow, at the server that MLFLOW_TRACKING_URI names.

The run is found by the tag gradlab.run, not by an id that a kill could lose. A batch that is sent
again has the same times, by which a server with a database knows values that it has.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ...base.files import write_durably
from .tracker import Line, Reached, Told, flat, missing

TAG = "gradlab.run"
MOST = 1000  # values in a batch, by MLflow's API
MOST_PARAMETERS = 100
LONGEST = 500  # of a parameter's text, which older servers refuse beyond
# A call that fails is tried again by whoever follows the run.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}


class MLflow:
    """One run of an experiment, which is MLFLOW_EXPERIMENT_NAME or the project."""

    def __init__(self, told: Told) -> None:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._told, self._client, self._reached = told, MlflowClient(), Reached()
        self._under_way = told.folder / ".mlflow"  # the last step of a batch, and its time

    def begin(self, recorded: Callable[[], list[Line]]) -> None:
        """Find the run or make it, and send what it has not."""
        run = self._found() or self._made()
        self._id = run.info.run_id
        for metric in run.data.to_proto().metrics:
            self._reached[metric.key] = (metric.step, metric.value)
        if run.info.status != "RUNNING":
            self._client.update_run(self._id, status="RUNNING")
        self._tell_settings(run.data.params)
        self.log(recorded())

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._told.project
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _found(self) -> Any:
        self._place = self._experiment()
        wanted = f"tags.`{TAG}` = '{self._told.id}'"
        return next(iter(self._client.search_runs([self._place], wanted)), None)

    def _made(self) -> Any:
        tags = {TAG: self._told.id}
        return self._client.create_run(self._place, tags=tags, run_name=self._told.name)

    def _tell_settings(self, known: dict[str, str]) -> None:
        from mlflow.entities import Param

        settings = flat(self._told.settings).items()
        left = [Param(n, str(value)[:LONGEST]) for n, value in settings if n not in known]
        for at in range(0, len(left), MOST_PARAMETERS):
            self._client.log_batch(self._id, params=left[at : at + MOST_PARAMETERS])

    def log(self, lines: Sequence[Line]) -> None:
        """Send steps that it has not, some hundred at once."""
        from mlflow.entities import Metric

        for batch in self._batches(list(missing(lines, self._reached))):
            until = int(batch[-1]["step"])
            at = self._begin_batch(until)
            values = [(line, name) for line in batch for name in line if name != "step"]
            metrics = [Metric(name, line[name], at, int(line["step"])) for line, name in values]
            self._client.log_batch(self._id, metrics=metrics)
            self._reached |= {name: (int(line["step"]), line[name]) for line, name in values}

    def _batches(self, lines: list[Line]) -> Iterator[list[Line]]:
        """Divide steps into batches, the first as it was when it may not have arrived."""
        until, _ = self._last_batch()
        batch, size = list[Line](), 0
        for line in lines:
            if batch and (size + len(line) > MOST or batch[-1]["step"] == until):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            yield batch

    def _last_batch(self) -> tuple[int, int]:
        with suppress(OSError, ValueError):
            until, at = json.loads(self._under_way.read_bytes())
            return int(until), int(at)
        return 0, 0

    def _begin_batch(self, until: int) -> int:
        """Give a batch its time in milliseconds: the one that it had, if it was sent before."""
        last, at = self._last_batch()
        if last != until:
            at = time.time_ns() // 1_000_000
            write_durably(self._under_way, json.dumps([until, at]).encode())
        return at

    def end(self, finished: bool) -> str:
        """Say that the run is finished, or was ended in between."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")
        return ""
