"""A training run that is opened, continued and finished under one name.

Promises: `<storage>/runs/<name>` is the same folder every time; the run that is opened goes
on from its newest whole checkpoint, or refuses: under other settings, or while another process
trains it. One that was finished by other code or data is not finished: it begins anew. Starting
over moves the earlier run aside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from ..base import unfinished
from ..base.errors import GradlabError, note, only_observing
from ..base.files import exists, prepare, read_bytes, write_durably
from ..base.retries import SHORT, retry
from ..services import notify, session
from ..store.copier import Copier
from ..store.location import Location
from . import endings, examples, places, telling
from .checkpoint import Checkpoints
from .curves import Curves, spelled
from .places import CHECKPOINTS, EVENTS
from .progress import Progress
from .provenance import Sources
from .record import Record
from .run_copies import RunCopies
from .trackers import following
from .trackers.tracker import Name, check

State = dict[str, Any]
Keep = Callable[[Path, float], Checkpoints]  # by the folder, and the seconds between them
TakenUp = tuple[int, State | None, State, list[str]]
NEW: TakenUp = (0, None, {}, [])
COPY_SECONDS = 60.0  # between two copies of a run at least
FRESH = "GRADLAB_FRESH"  # given to a job: the workflow's run for which its trainings start over


class Run:
    """An open run: what it has saved so far, its record, and what becomes of both."""

    def __init__(
        self, place: Location, key: str, sources: Sources, seconds: float, keep: Keep
    ) -> None:
        self.work, self.kept = place.work / key, place.backend.where(key)
        self.sources, self.settings = sources, dict[str, Any]()
        self.step = self.sessions = 0
        self.state: State | None = None
        self.fresh = os.environ.get(FRESH, "")
        self.later: dict[str, Callable[[], bytes]] = {}
        self.checkpoints = keep(self.work / CHECKPOINTS, seconds)
        self.following: following.Following | None = None
        self.project = ""
        self.copies = RunCopies(self.work, place.backend, key) if place.is_apart else None
        self.copier = Copier(place.backend, self.copies, COPY_SECONDS) if self.copies else None
        self._watched = (place.sides, key, lambda: self.step)

    def resume(self, options: Options) -> bool:
        """Take up the newest checkpoint that is whole; False where the run is to start over.

        Raises GradlabError where it can't be taken up with what is given now, or isn't to.
        """
        if self.copies:
            self.copies.restore()
        saved = self.checkpoints.load()
        if saved:
            # Versions before did not keep that: the last file of a run tells it.
            saved.setdefault("finished", exists(self.work / "model.safetensors"))
            if self._starts_over(saved) or not self.sources.go_on(saved, self.kept, options):
                return False
            self.step, self.state = saved["step"], saved["state"]
        self.opened_at = self.step
        self.sessions, shown = 1 + _sessions(saved), options.tracker != "none"
        self.record = Record(self.work, saved["record"] if saved else None, shown)
        self.curves = Curves(self.record.path, self.work / "curves.png")
        self.settings = self.sources.of_run(saved)
        self.write("config.json", json.dumps(self.settings, indent=2).encode() + b"\n")
        self.watch = endings.Watch(*self._watched)
        return True

    def _starts_over(self, saved: State) -> bool:
        """Tell whether the workflow's run began with --fresh and has not started it over yet."""
        then, self.fresh = saved.get("fresh", ""), self.fresh or saved.get("fresh", "")
        if then != self.fresh:
            note(f"Run '{self.work.name}': starting over, for the workflow's run is a fresh one.")
        return bool(then != self.fresh)

    @property
    def best(self) -> tuple[str, str]:
        """By which measure weights are the best, and whether its highest or lowest is."""
        name, way = self.settings["best"]
        return name, way

    def taken_up(self) -> TakenUp:
        """Give the step and the state to go on from, the settings, and what has changed since."""
        return self.step, self.state, self.settings, self.sources.changed

    def announce(self, total: int, where: str, workers: int) -> None:
        """Say where the run stands and on what it goes on, which may not be what it began on."""
        done = self.step >= total and not (self.state and self.state["unjudged"])
        what = "finished" if done else "carrying on" if self.step else "starting"
        note(f"Run '{self.work.name}': {what} at step {self.step:,} of {total:,}.")
        if undone := self.record.undone:
            note(f"{undone:,} steps after the last checkpoint were lost and are done again.")
        note(f"On {where}, {workers} loader worker(s); kept in {self.kept}.")
        if not done:
            telling.began(self.project, self.work.name, self.step, total)
        self.progress = Progress(self.step, total, session.deadline())
        if self.state and self.state["where"] != where:
            note(
                f"! Saved on {self.state['where']}; going on with {where}: the same examples in "
                "the same order, but the last bits may differ."
            )

    def save(self, step: int, state: State, last: bool) -> None:
        """Save the run as of a step, in the background, with what was to be written."""
        finished = last and not state["unjudged"]

        def saved() -> None:
            self.step = step
            if self.copier:
                self.copier.notify()
            if self.following:
                self.following.notify()

        def whole() -> State:
            return self._whole(step, state, finished)

        self.checkpoints.save(step, whole, self._write_later, saved)

    def _write_later(self) -> None:
        """Write what was to be written; what fails stays for the next checkpoint."""
        for name in list(self.later):
            data, done = self.later.pop(name), False
            try:
                done = self.write(name, data())
            finally:
                if not done:
                    self.later.setdefault(name, data)

    def _whole(self, step: int, state: State, finished: bool) -> State:
        run = {"step": step, "finished": finished, "settings": self.settings, "fresh": self.fresh}
        run["sessions"] = self.sessions
        return {**run, **self.sources.state(), "state": state, "record": self.record.state()}

    def safe_step(self) -> int:
        """Give the step up to which no kill can take the run back, nor the machine's loss."""
        return min(self.step, self.copies.newest()) if self.copies else self.step

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

    def leave(
        self, step: int, total: int, per_epoch: int, files: dict[str, bytes] | None, best: State
    ) -> None:
        """Part at a step: with the results, by their names, if the run is finished.

        `best` has the value of the best evaluation, and its step. Raises GradlabError unless all
        that is done is kept.
        """
        if files is None:
            self._stop(step, total)
        else:
            self._finish(step, files, best, per_epoch)

    def _finish(self, step: int, files: dict[str, bytes], best: State, per_epoch: int) -> None:
        self.progress.close()
        self.wait()  # it may be writing one of the results
        missing = [name for name, data in files.items() if not self._put(name, data)]
        self._draw()
        if self.step < step:
            missing.append(f"the checkpoint of step {step:,}")
        if not self._close(finished=True) or missing:
            raise GradlabError(
                f"The run is finished, but {self.kept} does not hold all of it: "
                f"{', '.join(missing) or 'the last copies failed'}.\n"
                "Make room or mount it again, then give the same command once more.",
                exit_code=1,
            )
        measure, epoch = spelled(self.best[0]), (best["step"] - 1) // per_epoch + 1
        found = f"Best {measure} {best['value']:.4g} in epoch {epoch}"
        telling.finished(self.project, self.work.name, found)
        note(f"Finished. {found}. In {self.kept}:")
        shown = " tensorboard/" * exists(self.work / EVENTS)
        note(f"  {' '.join(files)} metrics.jsonl curves.png{shown}")

    def _put(self, name: str, data: bytes) -> bool:
        """Write a result, and say so if another one was in its place; tell whether that worked."""
        with suppress(OSError):
            if self.step == self.opened_at and read_bytes(self.work / name) != data:
                note(f"! {self.work / name} was damaged: written anew.")
        return self.write(name, data)

    def _stop(self, step: int, total: int) -> None:
        self.progress.close()
        saved = self.wait()
        if not self._close(finished=False) or saved < step:
            raise GradlabError(
                f"Stopped at step {step:,}, but the last checkpoint in {self.kept} is of step "
                f"{self.step:,}: the steps after it will be done again.",
                exit_code=1,
            )
        unfinished.note(str(self.kept))
        telling.stopped(step, total)
        note(f"Stopped at step {step:,} of {total:,}, saved. The same command carries on.")

    def _close(self, finished: bool) -> bool:
        self.record.close()
        self.watch.close()
        kept = self.copier.flush() if self.copier else True
        if self.following:
            self.following.end(finished)
        return kept


def _sessions(saved: State | None) -> int:
    """Tell in how many sessions a run was trained so far; earlier versions did not count them."""
    return int(saved.get("sessions", 1)) if saved else 0


class Options(Protocol):
    """What was asked for on the command line of a training, beside the settings."""

    name: str
    fresh: bool
    strict: bool
    save_seconds: float
    seed: int
    accept_changes: bool
    tracker: Name

    def settings(self) -> dict[str, Any]:
        """Give the settings that decide the result, as plain values."""


def open_run(
    options: Options,
    told: State,
    package: Path,
    splits: examples.Splits = MappingProxyType({}),
    workers: int = 0,
    given: Mapping[str, Any] = MappingProxyType({}),
    keep: Keep = Checkpoints,
) -> Run:
    """Open a run under its name, alone, and take up what it has saved.

    `told` are plain values that decide its result beside the options' settings, `package` holds
    its code and names the project, `splits` are its data by name. `given` are settings as the
    options' are, from elsewhere: a run refuses others. `keep` gives its checkpoints. A run that was
    finished by other code or data begins anew, unless these changes are accepted. Raises
    GradlabError where the storage can't be read or written, another process trains the run, its
    settings are others, or, if `strict`, its code or data are.
    """
    check(options.tracker)
    notify.check()
    place, key = places.of(package.name, options.name)
    kept = place.backend.where(key)
    try:
        seen = examples.look(splits, options.seed, workers)
        sources = Sources.now(options, told, package, seen, given)
        run = _open(place, key, options, sources, keep)
    except OSError as error:
        raise GradlabError(
            f"The run in {kept} can't be opened: {error}.\nNothing of it was deleted. Give the "
            "same command again when that works; --name starts another run.\nIf a file can't be "
            "read for good, move it away: then the run goes on from what was kept before it.",
            exit_code=1,
        ) from error
    run.project = package.name
    run.following = following.start(options.tracker, place, key, package.name, run.safe_step)
    return run


def _open(place: Location, key: str, options: Options, sources: Sources, keep: Keep) -> Run:
    places.lock(place, key, options.name)
    unfinished.begin(place.backend.where(key))
    _lay(place, key, options.fresh)
    run = Run(place, key, sources, options.save_seconds, keep)
    if not run.resume(options):
        _lay(place, key, fresh=True, replace=bool(run.fresh))
        run = Run(place, key, sources, options.save_seconds, keep)
        run.resume(options)
    return run


def _lay(place: Location, key: str, fresh: bool, replace: bool = True) -> None:
    """Make the folders of a run; `fresh` puts an earlier one aside, `replace` for the last."""
    begun = [(side, places.generation(side, key)) for side in place.sides]
    newest = max(number for _, number in begun) + fresh
    for side, number in begun:
        if number < newest:  # started over here, or on another machine since
            places.move_aside(side, key, replace)
    for side in place.sides:
        places.adopt(side, key)
    prepare(place.work / key / CHECKPOINTS)
    for side in place.sides:
        if newest:
            places.note_generation(side, key, newest)
        for folder in (key, f"{key}/{EVENTS}", f"{key}/{CHECKPOINTS}"):
            side.sweep(folder)
