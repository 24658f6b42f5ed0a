"""Following a submitted run to its end: each change of a job, and what the jobs print.

Promises: it only looks, so that it may be left at any moment: the jobs go on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...base.errors import GradlabError
from ...base.stop import Stop
from ...spec.spec import Spec
from .. import end, schedule, submission
from ..logs import Console
from ..masking import Mask
from ..place import Place
from ..record import Record
from ..submission import Submission
from . import client, states
from .states import State

PAUSE = 1.0  # seconds between two looks; more of them, as a part of the time that one takes
SHARE = 5
CHUNK = 1 << 16  # bytes of a log at once


class Log:
    """What is new in a job's log."""

    def __init__(self, path: Path, at: int = 0) -> None:
        self.path, self.at, self.rest = path, at, b""

    def lines(self, last: bool = False) -> Iterator[str]:
        """Give the lines that have come since."""
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, 2) < self.at:
                    self.at, self.rest = 0, b""  # begun anew
                file.seek(self.at)
                while data := file.read(CHUNK):
                    self.at += len(data)
                    *lines, self.rest = (self.rest + data).split(b"\n")
                    yield from (line.decode("utf-8", "replace") for line in lines)
        except FileNotFoundError:
            return
        if last and self.rest:
            yield self.rest.decode("utf-8", "replace")


def ways(workflow: str) -> str:
    """Say what can be done with a run that goes on by itself."""
    return (
        f"The jobs go on by themselves: gradlab status {workflow}, gradlab logs {workflow} [JOB] "
        f"[--follow], gradlab stop {workflow}. The same command follows them again."
    )


def to_the_end(known: Submission, folder: Path, place: Place, console: Console, stop: Stop) -> int:
    """Show what becomes of a run's jobs, until none goes on by itself; give the exit code."""
    spec = known.spec(folder)
    logs = {name: Log(place.log(name), _size(place.log(name))) for name in known.jobs}
    shown: dict[str, State] = {}
    while True:
        began = time.monotonic()
        record, now = look(known, spec, place)
        _show(shown, now, logs, console)
        shown = now
        if all(state.is_over for state in now.values()):
            return finish(known, folder, now, record, place, console, stop)
        time.sleep(PAUSE + SHARE * (time.monotonic() - began))


def look(known: Submission, spec: Spec, place: Place) -> tuple[Record, dict[str, State]]:
    """Give how a run stands; GradlabError where another has taken its place."""
    queue = client.queue(states.comment(known))  # before the record, or an end would be missed
    record = Record.load(place.backend, place.record)
    if record is None or record.run.id != known.run:
        raise GradlabError(f"the run {known.run} is not the newest one in {place.backend} any more")
    return record, states.of(known, spec, record, place, queue)


def finish(
    known: Submission,
    folder: Path,
    now: Mapping[str, State],
    record: Record,
    place: Place,
    console: Console,
    stop: Stop,
) -> int:
    """Finish a run of which nothing goes on by itself, and tell how it ended."""
    succeeded = all(state.word == "succeeded" for state in now.values())
    submission.close(known, folder, place)
    if succeeded and not record.run.finished:
        end.finish(known.jobs, False, record, place, console)
    results = states.results(now, record, place)
    end.tell(results, succeeded, place, Mask(()), console)
    return schedule.exit_code(results, succeeded, stop)


def _show(
    before: Mapping[str, State], now: Mapping[str, State], logs: Mapping[str, Log], console: Console
) -> None:
    for name, state in now.items():
        for line in logs[name].lines(last=state.is_over):
            console.line(f"[{name}] {line}")
        if before.get(name, State("waiting")).word != state.word:
            console.line(f"[{name}] {state.word} {state.detail}".rstrip())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
