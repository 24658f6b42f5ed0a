"""What a run shows: the jobs' output live and in one log file per job, and a table at the end.

Promises: a secret's value is replaced by `***` before anything is printed or written, however
the output was cut into pieces; a progress bar (text that ends in a carriage return) is drawn in
place in a terminal, elsewhere at most once a second, and only its last state is in the log. Of
what a terminal obeys only colours pass, and no command of GitHub's runner does. A log or a
terminal that fails in any way stops no job: it is said once, and what can be kept is kept.
"""

from __future__ import annotations

import codecs
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TextIO

from ..base.errors import note
from ..base.terminal import printable, tame
from ..base.units import duration
from .masking import Mask

LONGEST_LINE = 1 << 16
BUSY_SECONDS = 5.0  # in silence, after which the runner says what it does
TAIL = 15  # lines shown of a job that failed


class Console:
    """The one place that prints, for jobs that run at once."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.terminal = self.stream.isatty()
        self.lock = threading.Lock()

    def line(self, text: str) -> None:
        """Print a line, over a progress bar that may stand there."""
        self._write(("\r\x1b[K" if self.terminal else "") + _inert(tame(text)) + "\n")

    def bar(self, text: str) -> None:
        """Draw a progress bar's new state."""
        text = _inert(tame(text))
        self._write(f"\r\x1b[K{text}" if self.terminal else text + "\n")

    def _write(self, text: str) -> None:
        with self.lock:
            try:
                _print(self.stream, text)
            except (OSError, ValueError) as error:  # the terminal is gone, or a disk is full
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Print nothing from now on, for the jobs go on; say so where nobody has chosen it."""
        if not isinstance(error, BrokenPipeError):
            note(f"! The output is incomplete ({error}); the jobs go on, and their logs are kept.")
        with suppress(OSError, ValueError):
            lost = self.stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, lost)
            os.close(nowhere)
            return
        self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _print(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode())
    try:
        stream.flush()
    except BlockingIOError:  # another program has set the terminal to that
        os.set_blocking(stream.fileno(), True)
        stream.flush()


def _inert(line: str) -> str:
    """Take from a line what GitHub's runner would obey: `::` at its beginning, `##[` anywhere."""
    line = line.replace("##[", "# #[")
    return f": {line.lstrip()}" if line.lstrip().startswith("::") else line


class LogFile:
    """A file of lines, in which lines are missing rather than that anything fails."""

    def __init__(self, path: Path, append: bool, tell: Callable[[str], None]) -> None:
        self.path, self.tell = path, tell
        self.mode = "ab" if append else "wb"
        self.file: FileIO | None = None
        self.missing = 0
        self.told = False

    def line(self, text: str) -> None:
        """Write a line; where that fails, say so once, and try it again with the next one."""
        gap = f"\n[{self.missing} lines are missing here]\n" if self.missing else ""
        try:
            self._write(f"{gap}{text}\n".encode("utf-8", "backslashreplace"))
            self.missing = 0
        except OSError as error:
            self.missing += 1
            self._tell(error)

    def close(self) -> None:
        """Say if the file has gone; never fail."""
        try:
            if self.file:
                self.file.close()
                self.path.stat()
        except OSError as error:
            self._tell(error)

    def _write(self, data: bytes) -> None:
        if self.file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: what could not be written must not come again later.
            self.file = FileIO(self.path, self.mode)
            self.mode = "ab"
        while data:
            data = data[self.file.write(data) or 0 :]

    def _tell(self, error: OSError) -> None:
        if not self.told:
            self.told = True
            self.tell(f"! the log {self.path} is incomplete: {error.strerror}; the job goes on")


class JobLog:
    """A job's output: masked, prefixed on the console, whole in its log file."""

    def __init__(self, job: str, path: Path, console: Console, mask: Mask, append: bool) -> None:
        self.console, self.prefix, self.mask = console, f"[{job}] ", mask
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.rest = ""
        self.drawn = 0.0
        self.change = threading.Condition()
        self.teller: threading.Thread | None = None
        self.work: tuple[str, float] | None = None  # the runner's own, and when it began
        self.over = False
        self.file = LogFile(path, append, lambda text: console.line(self.prefix + text))

    def write(self, data: bytes, last: bool = False) -> None:
        """Take the next bytes of the job's output."""
        text = self.mask.feed(self.decoder.decode(data, last), last)
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self._line(line)
        # Not all that came since a carriage return: a line may have megabytes.
        if len(self.rest) > LONGEST_LINE:
            self._line(self.rest)
            self.rest = ""
        if last and self.rest:
            self._line(self.rest)
        elif "\r" in self.rest:
            self._draw()

    def note(self, text: str) -> None:
        """Add a line of the runner's own."""
        for line in self.mask.words(text).splitlines():
            self._line(printable(line))

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say now and then that the runner itself is at work for the job, and with what."""
        if not self.teller:  # one for all that the runner does: a thread for each takes its time
            self.teller = threading.Thread(target=self._tell, daemon=True)
            self.teller.start()
        with self.change:
            self.work = (what, time.monotonic())
            self.change.notify()
        try:
            yield
        finally:
            with self.change:
                self.work = None

    def _tell(self) -> None:
        told = 0.0
        with self.change:
            while not self.over:
                if not self.work:
                    self.change.wait()
                    continue
                what, began = self.work
                due = max(began, told) + BUSY_SECONDS
                if (now := time.monotonic()) < due:
                    self.change.wait(due - now)
                    continue
                told = now
                self.note(f"{what}: {duration(now - began)} so far")

    def close(self) -> None:
        """Write what is left of the output."""
        with self.change:
            self.over = True
            self.change.notify()
        self.write(b"", last=True)
        self.file.close()

    def _line(self, text: str) -> None:
        text = tame(last_state(text))
        self.tail.append(text)
        self.file.line(text)
        self.console.line(self.prefix + text)

    def _draw(self) -> None:
        self.rest = "\r" + last_state(self.rest) + "\r" * self.rest.endswith("\r")
        if time.monotonic() - self.drawn > (0.1 if self.console.terminal else 1.0):
            self.drawn = time.monotonic()
            self.console.bar(self.prefix + self.rest.strip("\r"))


def last_state(line: str) -> str:
    """Give what is to be seen of a line in which carriage returns went back to its beginning."""
    return next((state for state in reversed(line.split("\r")) if state.strip()), "")
