"""The end of a run by a signal: what is still waited for, and for how long.

Promises: the first signal, and all within 2 seconds of it, count as one, after which jobs have 10
seconds to save; a later one ends everything at once. Only a job's processes, and the copy of what
they have saved, are waited for. All other work is such that it may be cut off at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .supervisor import GRACE

ONE = 2.0  # seconds: a supervisor signals the runner and its group, a runner's parent forwards
KILLED = 8.0  # within which processes are gone that are being killed
MOMENT = 1.0  # for what follows at once: a message, the next thing to wait for


class Stopped(BaseException):
    """The run was ended by a signal while nothing was under way that has to be waited for."""


class Stop:
    """The signal that ends the run, once one has come; a later one ends it at once.

    `raises` is for as long as the main thread itself is at work: a signal cuts it off.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.deadline = float("inf")
        self.raises = True
        self._at_once = False
        self._began = self._last = 0.0
        self._lock = threading.Lock()
        self._processes = 0
        self._copies: list[float] = []

    def __call__(self, number: int) -> None:
        """Take a signal; raises Stopped where the main thread is at work."""
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._began, self.deadline = number, now, now + GRACE
        elif now - self._began > ONE:
            self._at_once, self.deadline = True, min(now, self.deadline)
        else:
            return
        if self.raises:
            raise Stopped

    @contextmanager
    def waits_for_processes(self) -> Iterator[None]:
        """Have the run wait for what goes on in here, until its processes are gone."""
        with self._lock:
            self._processes += 1
        try:
            yield
        finally:
            with self._lock:
                self._processes, self._last = self._processes - 1, time.monotonic()

    @contextmanager
    def waits_for_copy(self) -> Iterator[None]:
        """Have the run wait for what goes on in here, 10 seconds: a copy of what was saved."""
        began = time.monotonic()
        self._copies.append(began)
        try:
            yield
        finally:
            self._last = time.monotonic()
            self._copies.remove(began)

    @property
    def copying(self) -> bool:
        """Whether a copy of what was saved is under way."""
        return bool(self._copies)

    def is_due(self) -> bool:
        """Tell whether nothing is left that has to be waited for."""
        now = time.monotonic()
        if self.signal is None or now < max(self._began, self._last) + MOMENT:
            return False
        if self._processes:
            return now > self.deadline + KILLED
        copies = [max(began, self._began) + GRACE for began in list(self._copies)]
        return self._at_once or all(now > end for end in copies)
