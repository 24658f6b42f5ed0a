"""A command whose output is seen in a notebook as it is written, with its progress bar.

Promises: the command runs in a terminal of its own; when the notebook's kernel dies, that
terminal hangs up, which tells the command to save and end. A stop in the notebook is passed on
to it as SIGINT.
"""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect

from ..run.logs import last_state

COLUMNS = 110
SECONDS = 1.0  # between two states of a progress bar: a notebook keeps all that is printed
# A terminal's way back to the beginning of a line, and what clears or colours it.
BACK = "\r"
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """Prints what a terminal would show, to a notebook, which knows only carriage returns."""

    def __init__(self) -> None:
        self.rest = b""
        self.bar = ""
        self.drawn = 0.0

    def feed(self, data: bytes, last: bool = False) -> None:
        """Take the next output: whole lines are printed, a line that is redrawn now and then."""
        *lines, self.rest = (self.rest + data.replace(b"\r\n", b"\n")).split(b"\n")
        if last and self.rest:
            lines, self.rest = [*lines, self.rest], b""
        for line in lines:
            self._clear()
            print(_visible(line))
        if BACK.encode() in self.rest and time.monotonic() - self.drawn >= SECONDS:
            self.rest = self.rest[self.rest.rstrip(b"\r").rfind(b"\r") :]
            self._draw(_visible(self.rest)[: COLUMNS - 1])
        sys.stdout.flush()

    def _draw(self, bar: str) -> None:
        if bar != self.bar:
            self._clear()
            print(bar, end="")
        self.bar, self.drawn = bar, time.monotonic()

    def _clear(self) -> None:
        if self.bar:
            print(BACK + " " * len(self.bar) + BACK, end="")
        self.bar = ""


def _visible(line: bytes) -> str:
    """Give what is to be seen of a line that was redrawn."""
    return last_state(CODES.sub("", line.decode("utf-8", "replace")))


def show(
    command: Sequence[str], folder: Path, env: Mapping[str, str], meanwhile: Callable[[], None]
) -> int:
    """Run a command, print what it prints, and give its exit status: 128 + N for signal N.

    `meanwhile` is called about every second.
    """
    child = pexpect.spawn(
        command[0],
        list(command[1:]),
        cwd=str(folder),
        env=dict(env),
        dimensions=(24, COLUMNS),
        echo=False,
    )
    screen = Screen()
    while True:
        # A stop may come at any moment, and must neither leave the command alone nor be lost.
        try:
            data: Any = _next(child)
            screen.feed(data)
            meanwhile()
        except pexpect.EOF:
            break
        except KeyboardInterrupt:
            child.kill(signal.SIGINT)
    screen.feed(b"", last=True)
    child.close()
    return 128 + child.signalstatus if child.signalstatus else child.exitstatus or 0


def _next(child: Any) -> Any:
    """Read what a terminal shows next; nothing if it shows nothing for a while."""
    try:
        return child.read_nonblocking(1 << 16, timeout=SECONDS)
    except pexpect.TIMEOUT:
        return b""
