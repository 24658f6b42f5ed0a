"""What every agent has in common; it runs where a vendor's client is installed.

A request is a line of JSON on standard input, its answer one on standard output, with a `result`
or a `failure`. The first line says what the client is.

Promises: whatever a client prints goes to standard error; an answer comes in time; nothing of the
kit is needed, nor another library.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

TIMEOUT = float(os.environ.get("GRADLAB_CLIENT_TIMEOUT", "60"))  # seconds without a byte
WHOLE = 4 * TIMEOUT  # seconds for a whole answer, however slowly it comes
LARGEST = 16 << 20  # bytes of an answer
LONGEST_WAIT = 20.0  # seconds; where the service asks for more, the user is told so
Answer = dict[str, Any]

answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


class Unusable(BaseException):
    """An answer that is none; nothing in between takes it for a reason to try again."""

    def __init__(self, failure: str, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.failure, self.words, self.status = failure, words, status

    def answer(self) -> Answer:
        """Give the answer that tells it."""
        return {"failure": self.failure, "words": self.words, "status": self.status}


def late(*_: Any) -> None:
    """Take the alarm of `limited`."""
    raise Unusable("timeout", f"no whole answer within {WHOLE:g} seconds")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Unusable if this takes longer than so many seconds, 0 for as long as it likes."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)


def version_of(package: str) -> str:
    """Give the version of a package that is installed here."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def tell(message: Answer) -> None:
    """Answer."""
    answers.write(json.dumps(message, default=str) + "\n")
    answers.flush()


def serve(greeting: Callable[[], Answer], answer: Callable[[Answer], Answer]) -> None:
    """Say what this is, then answer requests until there are no more."""
    signal.signal(signal.SIGALRM, late)
    tell(greeting())
    for line in sys.stdin:
        tell(answer(json.loads(line)))


def method(request: Answer, methods: dict[str, Callable[..., Any]]) -> Any:
    """Call what a request names, with its other values."""
    arguments = dict(request)
    return methods[arguments.pop("do")](**arguments)
