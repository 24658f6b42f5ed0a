"""Errors that are the user's to mend: printed as one message, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .terminal import lines


class GradlabError(Exception):
    """A mistake or a state that the user can mend; its text says what, where and what would do."""

    own = False  # of one process, where those that torchrun started fail alike otherwise

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def note(message: str) -> None:
    """Tell the user something on standard error, at once; where that fails, nothing else does."""
    with suppress(OSError, ValueError):
        print(lines(message), file=sys.stderr, flush=True)


@contextmanager
def only_observing(what: str) -> Iterator[None]:
    """Turn any error of what only observes the work, such as a picture, into a note."""
    try:
        yield
    # A library may fail with anything: too little memory, a font, a value that it can't draw.
    except Exception as error:
        note(f"! {what}: {reason(error)}. Going on without.")


def reason(error: BaseException) -> str:
    """Say why something failed, in a few words that name the file if there is one."""
    return str(error) or type(error).__name__
