"""A training's own end of what follows it for a tracker, see follow.py.

Promises: nothing that the tracker does, or fails to do, stops or holds up the training: it runs in
a process of its own, is told what is new without waiting, and has some seconds at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...base.errors import note, only_observing
from ...base.files import exists, prepare, write_durably
from ...store.location import Location
from .tracker import FOLDER, MARK, TITLES, Name

PATIENCE = "GRADLAB_TRACKER_SECONDS"
SECONDS = 20.0  # that the end of a session waits


class Following:
    """What follows a run; `kept` gives the step of its newest checkpoint that nothing can take."""

    def __init__(self, name: Name, folder: Path, project: str, kept: Callable[[], int]) -> None:
        self._title, self._kept, self._text = TITLES[name], kept, b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.follow", name, str(folder), project],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, MARK: str(folder)},
            start_new_session=True,  # what a terminal sends is for the training
        )
        assert self._process.stdin and self._process.stdout
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self.notify()

    def notify(self) -> None:
        """Say how far the run is kept, and pass on what was said; returns at once."""
        self._say(str(self._kept()))
        self._pass_on()

    def _say(self, text: str) -> None:
        with suppress(OSError):  # it is busy, and hears the next one, or has ended
            os.write(self._to, f"{text}\n".encode())

    def _pass_on(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._from, 1 << 16):
                *lines, self._text = (self._text + data).split(b"\n")
                for line in lines:
                    note(line.decode("utf-8", "replace"))

    def end(self, finished: bool) -> None:
        """Have the last steps logged, and wait some seconds for it."""
        self.notify()
        self._say("finished" if finished else "stopped")
        failed = True
        with suppress(subprocess.TimeoutExpired):
            failed = bool(self._process.wait(float(os.environ.get(PATIENCE) or SECONDS)))
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pass_on()
        if failed:
            note(f"! {self._title} has not all steps yet: the same command sends the rest.")


def start(
    name: Name, place: Location, key: str, project: str, kept: Callable[[], int]
) -> Following | None:
    """Start what follows a run; a note and None where that fails or nothing is to follow."""
    if name not in TITLES:
        return None
    with only_observing(f"{TITLES[name]} is not told of this session"):
        folder = prepare(place.work / key / FOLDER)
        if not exists(folder / "id"):
            _restore(place, f"{key}/{FOLDER}", folder)
        if not exists(folder / "id"):
            write_durably(folder / "id", uuid.uuid4().hex.encode())
        return Following(name, folder.parent, project, kept)
    return None


def _restore(place: Location, key: str, folder: Path) -> None:
    """Bring what another machine has kept of the tracker, the run's id last."""
    if place.is_apart:
        for name in sorted(place.backend.below(key), key=lambda name: name == "id"):
            prepare((folder / name).parent)
            place.backend.get(f"{key}/{name}", folder / name)
