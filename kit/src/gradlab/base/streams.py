"""What a command prints to: it may be closed, full, cut off or unable to show a letter.

Promises: no traceback of such a thing; a command whose reader has gone, as after `| head -1`, ends
as other programs of Unix do, with exit code 141; texts and names of files are UTF-8 in any locale.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

from .errors import note

EPIPE_CODE = 128 + signal.SIGPIPE


def prepare() -> None:
    """Make standard streams that can be used of what there is; may start the program anew."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # one that was closed: the next file that is opened must not become the output
    os.close(handle)
    # The names of a dataset's files would depend on the locale, and so would what can be shown.
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with suppress(AttributeError, OSError):  # not a text file, or one that can't be flushed
            getattr(sys, name).reconfigure(errors="backslashreplace")


def guarded(program: str, work: Callable[[], int]) -> int:
    """Do the work of a command and give its exit code, also where its output can't be written."""
    try:
        try:
            return work()
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Errors of files name them.
        if error.filename is not None or not any([_is_broken("stdout"), _is_broken("stderr")]):
            raise
        if isinstance(error, BrokenPipeError):
            return EPIPE_CODE
        note(f"{program}: the output could not be written: {error.strerror}")
        return 1


def _is_broken(name: str) -> bool:
    """Tell whether a stream can't be written; it takes everything from then on."""
    stream = getattr(sys, name)
    try:
        stream.flush()
        # A long text, or one that is not buffered, is dropped by the failure: nothing to flush.
        if name == "stdout":
            os.write(stream.fileno(), b"\n")
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return True
    return False
