"""When the processes of a run look up from their steps, and when they stop: all at one step."""

from __future__ import annotations

import math
import time

from ..base import unfinished
from ..base.signals import Interrupted, Stop
from .devices import World

CHECK_SECONDS = 1.0  # how often to look at the clock, record what was measured and show it


class Pace:
    """Agrees among the processes of a run; `ends` is when to stop, in seconds since 1970."""

    def __init__(self, world: World, stop: Stop, ends: float) -> None:
        self._world, self._stop, self._ends = world, stop, ends
        self._checked = -math.inf
        self.asked = 0  # the signal that all have agreed to stop for

    def is_due(self, evaluation: bool) -> bool:
        """Tell whether to look up: an evaluation is due, a second is over or a signal came."""
        due = evaluation or time.monotonic() - self._checked >= CHECK_SECONDS
        asked = self._stop.asked
        # One number for both, since to agree on it costs the processes a message.
        agreed = self._world.highest(1 + asked if asked else int(due))
        self.asked = max(0, agreed - 1)
        return bool(agreed)

    def is_over(self) -> bool:
        """Tell whether the time is over or a signal came, as the first process sees it."""
        self.asked = self.asked or self._stop.asked or 0
        return bool(self.asked) or time.time() >= self._ends

    def look(self) -> None:
        """Raise Interrupted in all processes once a signal has come to one: all have to call it."""
        if self._world.highest(self._stop.asked or 0):
            raise Interrupted

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Give all processes the first one's decision whether to stop, and whether to save."""
        stop, save, self.asked = self._world.share((stop, save, self.asked))
        self._checked = time.monotonic()
        return stop, save

    def exit_code(self, finished: bool = True) -> int:
        """Give the exit code, as a shell does: a caller can tell a signal from the time's end.

        Where a supervisor asks for it, that of a run that is not `finished` is 75 in either case,
        but for processes of torchrun, which takes any code but 0 for a crash.
        """
        asked, finished = self._world.share((self.asked or self._stop.asked, finished))
        usual = 128 + asked if asked else 0
        return unfinished.code(usual) if not finished and self._world.size == 1 else usual
