"""What a run shows: the jobs' output live and in one log file per job, and a table at the end.

Promises: a secret's value is replaced by `***` before anything is printed or written, however
the output was cut into pieces; a progress bar (text that ends in a carriage return) is drawn in
place in a terminal, elsewhere at most once a second, and only its last state is in the log.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

LONGEST_LINE = 1 << 16
TAIL = 15  # lines shown of a job that failed
WIDEST = 60  # characters that a table's column is padded to: one long cell fills no others
MOST_LISTED = 20  # words of a list in a table


class Mask:
    """Replaces secrets in a text that comes in pieces."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            lines = [line.strip() for line in secret.splitlines()]
            for part in (secret, secret.strip(), *lines):
                forms |= {part, quote(part, safe=""), json.dumps(part)[1:-1]}
        # The longest first: one secret may be the beginning of another.
        self.forms = sorted(forms - {""}, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, self.forms)) or r"(?!)")
        self.held = ""

    def __call__(self, text: str) -> str:
        """Mask a text that is complete."""
        return self.pattern.sub("***", text)

    def feed(self, text: str, last: bool = False) -> str:
        """Mask the next piece; what may be the beginning of a secret is held back."""
        text = self.held + text
        cut = len(text) if last else min(self._begin(text, form) for form in (*self.forms, ""))
        for match in self.pattern.finditer(text):
            if match.start() < cut < match.end():
                cut = match.start()
        self.held = text[cut:]
        return self(text[:cut])

    @staticmethod
    def _begin(text: str, form: str) -> int:
        """Find where the text ends in a beginning of the form."""
        for start in range(max(0, len(text) - len(form) + 1), len(text)):
            if form.startswith(text[start:]):
                return start
        return len(text)


class Console:
    """The one place that prints, for jobs that run at once."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.lock = threading.Lock()

    def line(self, text: str) -> None:
        """Print a line, over a progress bar that may stand there."""
        self._write(("\r\x1b[K" if self.terminal else "") + text + "\n")

    def bar(self, text: str) -> None:
        """Draw a progress bar's new state."""
        self._write(f"\r\x1b[K{text}" if self.terminal else text + "\n")

    def _write(self, text: str) -> None:
        with self.lock:
            try:
                self.stream.write(text)
                self.stream.flush()
            except UnicodeEncodeError:
                self.stream.write(text.encode("ascii", "replace").decode())
            except OSError:  # nobody reads any more, or the terminal is gone; the jobs go on
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


class JobLog:
    """A job's output: masked, prefixed on the console, whole in its log file."""

    def __init__(
        self, job: str, path: Path, console: Console, secrets: Iterable[str], append: bool
    ) -> None:
        self.path, self.console, self.prefix = path, console, f"[{job}] "
        self.mask = Mask(secrets)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.rest = ""
        self.drawn = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a" if append else "w", encoding="utf-8", errors="replace")

    def write(self, data: bytes, last: bool = False) -> None:
        """Take the next bytes of the job's output."""
        text = self.mask.feed(self.decoder.decode(data, last), last)
        *lines, self.rest = (self.rest + text).split("\n")
        if len(self.rest) > LONGEST_LINE and "\r" not in self.rest:
            lines, self.rest = [*lines, self.rest], ""
        for line in lines:
            self._line(line)
        if last and self.rest:
            self._line(self.rest)
        elif "\r" in self.rest:
            self._draw()

    def note(self, text: str) -> None:
        """Add a line of the runner's own."""
        for line in self.mask(text).splitlines():
            self._line(line)

    def close(self) -> None:
        """Write what is left of the output."""
        self.write(b"", last=True)
        self.file.close()

    def _line(self, text: str) -> None:
        text = last_state(text)
        self.tail.append(text)
        self.file.write(text + "\n")
        self.file.flush()
        self.console.line(self.prefix + text)

    def _draw(self) -> None:
        self.rest = "\r" + last_state(self.rest) + "\r" * self.rest.endswith("\r")
        if time.monotonic() - self.drawn > (0.1 if self.console.terminal else 1.0):
            self.drawn = time.monotonic()
            self.console.bar(self.prefix + self.rest.strip("\r"))


def last_state(line: str) -> str:
    """Give what is to be seen of a line in which carriage returns went back to its beginning."""
    return next((state for state in reversed(line.split("\r")) if state.strip()), "")


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Set rows, the first of them the heading, in columns; what is wide stands out by itself."""
    widths = [min(max(len(row[i]) for row in rows), WIDEST) for i in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    line = "-" * min(max(map(len, lines)), sum(widths) + 2 * len(widths))
    return [lines[0], line, *lines[1:]]


def listed(words: Sequence[str]) -> str:
    """Give words as a list that stays readable: the first ones, and how many more there are."""
    if len(words) <= MOST_LISTED + 1:
        return ", ".join(words)
    return f"{', '.join(words[:MOST_LISTED])} and {len(words) - MOST_LISTED:,} more"


def duration(seconds: float) -> str:
    """Write a time as people read it: `7.3 s`, `2 min 05 s`, `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
