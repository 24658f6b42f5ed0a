"""The process that follows a run for a tracker: what the library does can't hold up the training.

    python -m gradlab.train.trackers.follow TRACKER FOLDER PROJECT

Standard input says up to which step a checkpoint keeps the run, a number in each line, and in the
end "finished" or "stopped"; without that the run was killed. Standard output is for people.

Promises: a step is logged only once no kill can take it back. What fails is said once and tried
again from what the tracker then has; what is not sent when this ends, the next session sends.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

from ...base import processes
from ...base.errors import reason
from ...base.files import read_bytes, write_durably
from ...base.locks import Held, Lock
from .. import record
from ..places import METRICS
from .tracker import FOLDER, MARK, TITLES, Line, Rewound, Told, Tracker

LATER = 30.0  # seconds from a failure to the next try
SLOW = 60.0  # seconds after which people are told that there is no answer
LAST = 20.0  # seconds for the library to let go once the run was killed
END = ("finished", "stopped")
PEOPLE = 1  # the file that they read
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
CLASSES = {"mlflow": "MLflow", "trackio": "Trackio", "wandb": "Wandb"}


def say(text: str) -> None:
    """Tell the training, which tells people; without what may be a secret."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            text = text.replace(value, f"${name}")
    with suppress(OSError):  # the training is no more
        os.write(PEOPLE, LOGIN.sub("", " ".join(text.split())).encode() + b"\n")


class Follower:
    """Brings the tracker of a run up to the step that is known to be kept."""

    def __init__(self, name: str, folder: Path, project: str) -> None:
        self._name, self._folder, self._project = name, folder, project
        self._tracker: Tracker | None = None
        self._kept = 0  # by a checkpoint
        self._place, self._waiting = 0, list[Line]()  # read up to there, not logged yet
        self._sent = 0
        self._failed, self._next = False, 0.0
        self.end = ""

    def is_behind(self) -> bool:
        """Tell whether there is a step to log."""
        return self._sent < self._kept

    def hear(self, line: str) -> None:
        """Heed what the training says."""
        if line in END:
            self.end = line
        elif line.isdecimal():
            self._kept = int(line)

    def follow(self) -> None:
        """Log what is new, if a failure isn't too young."""
        if not self.is_behind() or (time.monotonic() < self._next and not self.end):
            return
        try:
            with self._said_if_slow():
                self._bring()
            self._failed = False
        except Rewound as error:
            self._anew(error)
        # A library may fail with anything.
        except Exception as error:
            self._tracker, self._next = None, time.monotonic() + LATER
            if not self._failed:
                say(f"! {self._title} has not all steps: {reason(error)}. Training goes on.")
            self._failed = True

    @property
    def _title(self) -> str:
        return TITLES[self._name]

    @contextmanager
    def _said_if_slow(self) -> Iterator[None]:
        timer = threading.Timer(
            SLOW, say, [f"! {self._title} has not answered for a minute. Training goes on."]
        )
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _bring(self) -> None:
        kept = self._kept
        if self._tracker is None:
            self._place, self._waiting = 0, []
            tracker = self._made()
            tracker.begin(lambda: self._lines(kept))
            self._tracker = tracker
        else:
            self._tracker.log(self._lines(kept))
        self._sent = kept

    def _made(self) -> Tracker:
        folder = self._folder / FOLDER
        settings = json.loads(read_bytes(self._folder / "config.json"))
        id = read_bytes(folder / "id").decode()
        told = Told(id, self._folder.name, self._project, settings, folder)
        made = getattr(import_module(f".{self._name}", __package__), CLASSES[self._name])
        tracker: Tracker = made(told)
        return tracker

    def _lines(self, kept: int) -> list[Line]:
        """Read the steps up to one that were not read before."""
        lines, self._place = record.read(self._folder / METRICS, self._place)
        found = [*self._waiting, *lines]
        self._waiting = [line for line in found if line["step"] > kept]
        return [line for line in found if line["step"] <= kept]

    def _anew(self, error: Rewound) -> None:
        """Log the run as another one, where the tracker has steps that were done otherwise."""
        self._tracker = None
        write_durably(self._folder / FOLDER / "id", uuid.uuid4().hex.encode())
        say(f"! {self._title} can't take back what was done again: {error}. It gets a new run.")

    def let_go(self) -> None:
        """Have the library write what it holds."""
        try:
            if self._tracker and (left := self._tracker.end(self.end == "finished")):
                say(left)
        except Exception as error:
            self._failed = True
            say(f"! {self._title} could not be told of the run's end: {reason(error)}.")


def main(name: str, folder: str, project: str) -> int:
    """Follow until the training says that it ends, or is killed."""
    follower, text = Follower(name, Path(folder), project), ""
    parent = os.getppid()
    lock = _alone(Path(folder) / FOLDER / ".lock", parent)
    # What a library had started for one that was killed may be sending still.
    processes.kill(folder, MARK)
    while lock and not follower.end and os.getppid() == parent:
        if select.select([0], [], [], 1.0)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, text = (text + data.decode()).split("\n")
            for line in lines:
                follower.hear(line)
        follower.follow()
    if not follower.end:
        _end_in(LAST)
    for _ in range(3 if follower.end else 0):  # after a Rewound, and after a failure, once more
        follower.follow()
    follower.let_go()
    return int(bool(follower.end) and follower.is_behind())


def _alone(path: Path, parent: int) -> Lock | None:
    """Wait until what followed the run before has ended; None where the run ends meanwhile."""
    lock = Lock(path)
    while os.getppid() == parent:
        try:
            lock.take()
            return lock
        except Held:
            time.sleep(0.1)
        except OSError:  # a file system without locks
            return lock
    return None


def _end_in(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, [1])
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    # What libraries print is no concern of the training, and may hold what is secret.
    PEOPLE = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.exit(main(*sys.argv[1:]))
