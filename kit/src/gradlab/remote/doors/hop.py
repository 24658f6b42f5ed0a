"""Runs a workflow as one hop, where a door has put it: `python -m gradlab.remote.doors.hop NAME`.

Promises: what the run prints goes to standard output and, with secrets hidden, to the storage;
how it ended is noted there, last. A mark in the storage, or a signal, has it save and end. What
only observes never stops the run.

    GRADLAB_HOP            the hop's name
    GRADLAB_HOP_ENDS       when the session ends, in seconds since 1970
    GRADLAB_HOP_SECONDS    between two looks at the storage (20)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from ...base.errors import note, only_observing
from ...base.retries import retry
from ...run.masking import Mask
from ...run.place import Place
from ...services import machine, session
from ...spec import credentials
from ...store import location, sealed
from .record import key, now

LARGEST = 4 << 20  # characters of a log that are kept: its end
SPARE = 180.0  # seconds of a long session that its own start may have taken
PROGRAM = (sys.executable, "-m", "gradlab", "run")


class Log:
    """What the run has printed, brought to the storage now and then."""

    def __init__(self, place: Place, name: str, mask: Mask) -> None:
        self.place, self.name, self.mask = place, name, mask
        self.text, self.kept = "", 0

    def add(self, line: str) -> None:
        """Take a line."""
        self.text = (self.text + line)[-LARGEST:]

    def keep(self) -> None:
        """Bring it to the storage, if there is more of it."""
        text = self.text
        if len(text) != self.kept:
            data = self.mask(text).encode()
            self.place.backend.write(key(self.place, self.name, ".log"), data)
            self.kept = len(text)


def main(workflow: str) -> int:
    """Run a workflow; give its exit code."""
    root, name = session.project_root(), os.environ["GRADLAB_HOP"]
    place = Place.of(workflow, location.of(session.project_name(root)))
    log = Log(place, name, Mask(credentials.passed_on(os.environ)))
    _limit()
    process = subprocess.Popen(
        [*PROGRAM, workflow],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    asked = _heed_signals(process)
    reader = threading.Thread(target=_read, args=(process, log), daemon=True)
    reader.start()
    code = _wait(process, log, asked)
    reader.join(10)
    _note_end(log, code, bool(asked))
    return code


def _limit() -> None:
    """Tell the run when the session ends, in minutes since this machine's start."""
    if ends := float(os.environ.get("GRADLAB_HOP_ENDS", "0")):
        left = ends - time.time()
        left -= min(SPARE, left / 20)
        minutes = (time.time() + left - machine.started()) / 60
        os.environ["GRADLAB_SESSION_MINUTES"] = f"{minutes:.3f}"


def _heed_signals(process: subprocess.Popen[str]) -> list[int]:
    """Pass signals on to the run; gives a list that is not empty once it was asked to end."""
    asked = list[int]()

    def stop(number: int, _: FrameType | None) -> None:
        asked.append(number)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    return asked


def _read(process: subprocess.Popen[str], log: Log) -> None:
    assert process.stdout
    for line in process.stdout:
        log.add(line)
        with suppress(OSError, ValueError):
            print(line, end="", flush=True)


def _wait(process: subprocess.Popen[str], log: Log, asked: list[int]) -> int:
    pause = float(os.environ.get("GRADLAB_HOP_SECONDS", "20"))
    while True:
        try:
            code = process.wait(pause)
            return 128 - code if code < 0 else code
        except subprocess.TimeoutExpired:
            pass
        with only_observing("the hop's log could not be kept"):
            log.keep()
            stop = key(log.place, log.name, ".stop")
            if not asked and log.place.backend.size(stop) is not None:
                note("asked to stop: saving")
                asked.append(0)
                process.send_signal(signal.SIGTERM)


def _note_end(log: Log, code: int, asked: bool) -> None:
    with only_observing("the hop's log could not be kept"):
        log.keep()
    text = sealed.to_text({"code": code, "asked": asked, "ended": now()}).encode()
    place = key(log.place, log.name, ".json")
    retry(lambda: log.place.backend.write(place, text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
