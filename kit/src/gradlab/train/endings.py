"""How the last session of a run ended, where that is no kill and no end that was planned.

    <run>/failed    there after a session that ended by an error, until the next one begins

Promises: only observes; nothing of it stops a training.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..store.backend import Backend

FILE = "failed"


class Watch:
    """Notes, where this process ends before `close` was called, that the run has failed."""

    def __init__(self, sides: Sequence[Backend], key: str, step: Callable[[], int]) -> None:
        self.sides, self.key, self.step, self.process = sides, key, step, os.getpid()
        for side in sides:
            with suppress(OSError):
                if side.size(self._file) is not None:
                    side.delete(self._file)
        atexit.register(self._note)

    @property
    def _file(self) -> str:
        return f"{self.key}/{FILE}"

    def close(self) -> None:
        """Say that the session has come to an end that was planned."""
        atexit.unregister(self._note)

    def _note(self) -> None:
        if os.getpid() != self.process:  # of a loader's worker
            return
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps({"after_step": self.step(), "when": when})
        for side in self.sides:
            with suppress(OSError):
                side.write(self._file, text.encode(), synced=False)
