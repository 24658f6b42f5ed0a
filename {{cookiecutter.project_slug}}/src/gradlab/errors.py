"""Errors that are the user's to mend: printed as one message, without a traceback."""

from __future__ import annotations

import sys


class GradlabError(Exception):
    """A mistake or a state that the user can mend; its text says what, where and what would do."""

    own = False  # of one process, where those that torchrun started fail alike otherwise

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def note(message: str) -> None:
    """Tell the user something on standard error, at once."""
    print(message, file=sys.stderr, flush=True)
