"""How what has stopped in time, with more to do, tells that to a supervisor that asks for it.

A supervisor asks by the environment variable GRADLAB_UNFINISHED, a folder. What stops in time, with
all that it has done saved, then ends with the exit code 75. It leaves a file in the folder too, for
a pipe or torchrun may hide its exit code. Where nobody asks, exit codes are as they are by hand.

Promises: only a command that stopped in time leaves a file, and the one that carries it on removes
it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from . import files

CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command does the rest
ASKS = "GRADLAB_UNFINISHED"
NAME = ".gradlab-unfinished"


def is_asked_for() -> bool:
    """Tell whether a supervisor wants to know."""
    return bool(os.environ.get(ASKS))


def code(otherwise: int) -> int:
    """Give the exit code of what has stopped in time: 75 where that is asked for."""
    return CODE if is_asked_for() else otherwise


def note(what: str) -> None:
    """Note that something, by its name, has more to do."""
    if folder := os.environ.get(ASKS):
        with suppress(OSError):  # the exit code says it too
            os.makedirs(folder, exist_ok=True)
            _place(folder, what).touch()


def begin(what: str) -> None:
    """Note that something is being done, as far as it is known to have been left unfinished."""
    if folder := os.environ.get(ASKS):
        with suppress(OSError):
            _place(folder, what).unlink()


def is_left(folder: Path) -> bool:
    """Tell whether anything in a supervisor's folder has more to do."""
    return bool(files.names(folder))


def _place(folder: str, what: str) -> Path:
    return Path(folder, files.digest(what.encode()))
