"""A run in trackio: its database on this machine, a server of one's own, or a Space.

Each step has an id of its own, made of the run's and its number, which a database takes once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from .tracker import Line, Reached, Told, missing, reached_by

SPACE, SERVER, WRITING = "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WRITE_TOKEN"
MOST = 500  # steps at once


class Trackio:
    """One run of a project of trackio's."""

    def __init__(self, told: Told) -> None:
        self._told, self._reached = told, Reached()
        self._run = {"project": told.project, "run": told.name, "run_id": told.id}
        self._remote = _remote(told)

    def begin(self, recorded: Callable[[], list[Line]]) -> None:
        """Look how far the database is, and add what it has not."""
        self._reached = reached_by(self._logs())
        self.log(recorded())

    def _logs(self) -> list[Line]:
        from trackio.sqlite_storage import SQLiteStorage

        if self._remote:
            rows = self._remote.predict(api_name="/get_logs", **self._run)
        else:
            project, name, id = self._run.values()
            rows = SQLiteStorage.get_logs(project, name, run_id=id)
        return [_line(row) for row in rows or ()]

    def log(self, lines: Sequence[Line]) -> None:
        """Add steps that it has not, each at once with all its values."""
        left = list(missing(lines, self._reached))
        for at in range(0, len(left), MOST):
            self._add(left[at : at + MOST])
            self._reached |= reached_by(left[at : at + MOST])

    def _add(self, lines: list[Line]) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        steps = [int(line["step"]) for line in lines]
        values = [{name: line[name] for name in line if name != "step"} for line in lines]
        ids = [f"{self._told.id}-{step}" for step in steps]
        settings = dict(self._told.settings)
        if not self._remote:
            given = {"log_ids": ids, "config": settings}
            SQLiteStorage.bulk_log(metrics_list=values, steps=steps, **self._run, **given)
            return
        entries = [
            {**self._run, "metrics": each, "step": step, "log_id": id, "config": settings}
            for each, step, id in zip(values, steps, ids, strict=True)
        ]
        self._remote.predict(
            api_name="/bulk_log", logs=entries, hf_token=os.environ.get("HF_TOKEN")
        )

    def end(self, finished: bool) -> str:
        """Do nothing: what was added is there."""
        return ""


def _line(row: dict[str, Any]) -> Line:
    numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
    return {**numbers, "step": int(row["step"])}


def _remote(told: Told) -> Any:
    """Give the client of the server or Space that the environment names; None if it does none."""
    space, server = os.environ.get(SPACE), os.environ.get(SERVER)
    if not space and not server:
        return None
    from trackio.remote_client import RemoteClient

    if space:
        import trackio

        # Makes the Space, unless it is there.
        trackio.init(told.project, told.name, resume="allow", embed=False).finish()
        return RemoteClient(space, hf_token=os.environ.get("HF_TOKEN"), verbose=False)
    from trackio.utils import parse_trackio_server_url

    url, token = parse_trackio_server_url(str(server))
    return RemoteClient(url, write_token=token or os.environ.get(WRITING), verbose=False)
