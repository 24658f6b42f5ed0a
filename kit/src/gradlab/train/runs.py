"""A training run that is opened, continued and finished under one name.

Promises: `<storage>/runs/<name>` is the same folder every time; the run that is opened goes
on from its newest whole checkpoint, or refuses: under other settings, or while another process
trains it. Starting over moves the earlier run aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ..base import folders
from ..base.errors import GradlabError, note, only_observing
from ..base.files import exists, prepare, read_bytes, sweep, write_durably
from ..base.retries import SHORT, retry
from ..base.tables import flat, row
from ..services import session
from ..store import source
from ..store.copier import Copier
from ..store.location import Location
from . import examples, places
from .checkpoint import Checkpoints
from .curves import Curves, spelled
from .places import CHECKPOINTS, EVENTS
from .progress import Progress
from .record import Record
from .run_copies import RunCopies

TITLES = ("setting", "then", "now")
State = dict[str, Any]
COPY_SECONDS = 60.0  # between two copies of a run at least


class Run:
    """An open run: what it has saved so far, its record, and what becomes of both."""

    def __init__(
        self, place: Location, key: str, settings: State, seconds: float, data: examples.Seen
    ) -> None:
        self.work, self.kept = place.work / key, place.backend.path(key)
        self.settings = settings
        self.data = data
        self.step = 0
        self.state: State | None = None
        self.later: dict[str, Callable[[], bytes]] = {}
        self.checkpoints = Checkpoints(self.work / CHECKPOINTS, seconds)
        self.copies = RunCopies(self.work, place.backend, key) if place.is_apart else None
        self.copier = Copier(place.backend, self.copies, COPY_SECONDS) if self.copies else None

    def resume(self, accept: bool = False) -> None:
        """Take up the newest checkpoint that is whole.

        Raises GradlabError if it is of other settings, or of other code or data unless `accept`.
        """
        if self.copies:
            self.copies.restore()
        saved = self.checkpoints.load()
        if saved:
            self._compare(saved["settings"])
            self._compare_sources(saved, accept)
            self.step, self.state = saved["step"], saved["state"]
        self.opened_at = self.step
        self.record = Record(self.work, saved["record"] if saved else None)
        self.curves = Curves(self.record.path, self.work / "curves.png")
        self.write("config.json", json.dumps(self.settings, indent=2).encode() + b"\n")

    def _compare(self, then: State) -> None:
        old, new = ({**each, "code": {}} for each in (then, self.settings))
        old, new = flat(old), flat(new)
        names = [name for name in old | new if old.get(name) != new.get(name)]
        if names:
            rows = [(name, old.get(name, "-"), new.get(name, "-")) for name in names]
            widths = (max(len(name) for name in [*names, "setting"]), 14, 0)
            table = "\n".join(f"    {row(each, widths)}" for each in [TITLES, *rows])
            raise GradlabError(
                f"The run in {self.kept} was begun with other settings:\n{table}\n"
                f"Give them as then, or {session.ways_to_start_over()}."
            )

    def _compare_sources(self, saved: State, accept: bool) -> None:
        """Refuse to go on with what other code or data have trained."""
        then, now = saved["settings"].get("code"), self.settings.get("code", {})
        if then is None:
            note("! Saved by an earlier version, which did not note its code: taken as the same.")
            return
        data = saved.get("data", {})
        changed = source.changed(then, now) + examples.changed(data, self.data)
        if not changed:
            self.data = data
            return
        lines = "\n".join(f"    {line}" for line in changed)
        message = f"The run in {self.kept} was trained by other code or data:\n{lines}\n"
        if not accept:
            raise GradlabError(
                f"{message}Put them back as they were, or {session.ways_to_start_over()}.\n"
                f"Where that can't alter the result, {session.way_to_accept()} carries on."
            )
        note(f"! {message}! Going on all the same, as asked for.")

    def announce(self, total: int, where: str, workers: int) -> None:
        """Say where the run stands and on what it goes on, which may not be what it began on."""
        done = self.step >= total and not (self.state and self.state["unjudged"])
        what = "finished" if done else "carrying on" if self.step else "starting"
        note(f"Run '{self.work.name}': {what} at step {self.step:,} of {total:,}.")
        if undone := self.record.undone:
            note(f"{undone:,} steps after the last checkpoint were lost and are done again.")
        note(f"On {where}, {workers} loader worker(s); kept in {self.kept}.")
        self.progress = Progress(self.step, total, session.deadline())
        if self.state and self.state["where"] != where:
            note(
                f"! Saved on {self.state['where']}; going on with {where}: the same examples in "
                "the same order, but the last bits may differ."
            )

    def save(self, step: int, state: State) -> None:
        """Save the run as of a step, in the background, with what was to be written."""

        def saved() -> None:
            self.step = step
            if self.copier:
                self.copier.notify()

        self.checkpoints.save(step, lambda: self._whole(step, state), self._write_later, saved)

    def _write_later(self) -> None:
        """Write what was to be written; what fails stays for the next checkpoint."""
        for name in list(self.later):
            data, done = self.later.pop(name), False
            try:
                done = self.write(name, data())
            finally:
                if not done:
                    self.later.setdefault(name, data)

    def _whole(self, step: int, state: State) -> State:
        run = {"step": step, "settings": self.settings, "data": self.data}
        return {**run, "state": state, "record": self.record.state()}

    def wait(self) -> int:
        """Wait for a checkpoint under way, and give the step of the newest one that is whole."""
        self.checkpoints.wait()
        return self.step

    def write(self, name: str, data: bytes) -> bool:
        """Write a small file of the run; a failure warns and is told."""
        try:
            retry(lambda: write_durably(self.work / name, data), SHORT)
            return True
        except OSError as error:
            note(f"! {self.work / name} could not be written: {error}.")
            return False

    def write_later(self, name: str, data: Callable[[], bytes]) -> None:
        """Write a file with the next checkpoint, in whose share of the time it counts."""
        self.later[name] = data

    def draw(self) -> None:
        """Bring curves.png up to date, if that is due; a failure warns."""
        if self.curves.due:
            self._draw()

    def _draw(self) -> None:
        self.record.flush()
        with only_observing(f"{self.curves.picture} could not be drawn"):
            self.curves.draw()

    def finish(self, step: int, files: dict[str, bytes], best: str) -> None:
        """Leave the results beside the last step's checkpoint; GradlabError if one is missing.

        `best` says what the best model was measured to be.
        """
        self.progress.close()
        self.wait()  # it may be writing one of the results
        missing = [name for name, data in files.items() if not self._finish(name, data)]
        self._draw()
        if self.step < step:
            missing.append(f"the checkpoint of step {step:,}")
        if not self._close() or missing:
            raise GradlabError(
                f"The run is finished, but {self.kept} does not hold all of it: "
                f"{', '.join(missing) or 'the last copies failed'}.\n"
                "Make room or mount it again, then give the same command once more.",
                exit_code=1,
            )
        note(f"Finished. Best {spelled(best)}. In {self.kept}:")
        note(f"  {' '.join(files)} metrics.jsonl curves.png tensorboard/")

    def _finish(self, name: str, data: bytes) -> bool:
        """Write a result, and say so if another one was in its place; tell whether that worked."""
        with suppress(OSError):
            if self.step == self.opened_at and read_bytes(self.work / name) != data:
                note(f"! {self.work / name} was damaged: written anew.")
        return self.write(name, data)

    def stop(self, step: int, total: int) -> None:
        """Part before the end; GradlabError unless all that is done is saved."""
        self.progress.close()
        saved = self.wait()
        if not self._close() or saved < step:
            raise GradlabError(
                f"Stopped at step {step:,}, but the last checkpoint in {self.kept} is of step "
                f"{self.step:,}: the steps after it will be done again.",
                exit_code=1,
            )
        note(f"Stopped at step {step:,} of {total:,}, saved. The same command carries on.")

    def _close(self) -> bool:
        self.record.close()
        return self.copier.flush() if self.copier else True


def compare_code(settings: State, package: Path, model: Path, accept: bool) -> None:
    """Compare the code that trained a model with the package's code now.

    Raises GradlabError where the model itself computes otherwise, unless `accept`; says so where
    only its training would.
    """
    if "code" not in settings:
        return
    changed = source.changed(settings["code"], source.code(package))
    now = source.model_code(package)
    then = {name: digest for name, digest in settings["code"].items() if name in now}
    if lines := [f"    {line}" for line in source.changed(then, now)]:
        message = f"{model} was trained by other code of the model:\n" + "\n".join(lines)
        if not (accept or os.environ.get("GRADLAB_ACCEPT_CHANGES")):
            raise GradlabError(
                f"{message}\nPut it back as it was, or train anew. Where the model computes the "
                f"same all the same, {session.way_to_accept()} takes it."
            )
    if changed:
        note(f"! Since {model} was trained, {', '.join(changed)}.")


class Options(Protocol):
    """What was asked for on the command line of a training, beside the settings."""

    name: str
    fresh: bool
    save_seconds: float
    accept_changes: bool


def open_run(
    project: str, options: Options, settings: State, data: examples.Seen | None = None
) -> Run:
    """Open a run under its name, alone, and take up what it has saved.

    `settings` are the plain values that decide its result, with `code` the digests of the files
    that do, `data` what was seen of its data. Raises GradlabError where the storage can't be read
    or written, another process trains the run, or its settings are others; unless changes are
    accepted, also where the code or the data are.
    """
    place, key = places.of(project, options.name)
    kept = place.backend.path(key)
    try:
        return _open(place, key, options, settings, data or {})
    except OSError as error:
        raise GradlabError(
            f"The run in {kept} can't be opened: {error}.\nNothing of it was deleted. Give the "
            "same command again when that works; --name starts another run.\nIf a file can't be "
            "read for good, move it away: then the run goes on from what was kept before it.",
            exit_code=1,
        ) from error


def _open(place: Location, key: str, options: Options, settings: State, data: examples.Seen) -> Run:
    work, kept = place.work / key, place.backend.path(key)
    places.lock(prepare(work.parent) / f".{options.name}.lock", options.name)
    begun = {folder: places.generation(folder) for folder in {work, kept}}
    newest = max(begun.values()) + options.fresh
    for folder, number in begun.items():
        if number < newest:  # started over here, or on another machine since
            places.move_aside(folder)
    for folder in {work, kept}:
        _adopt(folder)
    prepare(work / CHECKPOINTS)
    for folder in {work, kept} if newest else ():
        places.note_generation(folder, newest)
    for folder in {work, work / EVENTS, kept, kept / CHECKPOINTS}:
        sweep(folder)
    run = Run(place, key, settings, options.save_seconds, data)
    run.resume(options.accept_changes or bool(os.environ.get("GRADLAB_ACCEPT_CHANGES")))
    return run


def _adopt(folder: Path) -> None:
    """Give the checkpoints of a run that version 0.1 began their place."""
    if exists(folder / "saves") and not exists(folder / CHECKPOINTS):
        folders.move(folder / "saves", folder / CHECKPOINTS)
