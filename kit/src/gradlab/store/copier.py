"""The one copier: brings the states of something to a backend, in the background.

Promises: work never waits for the backend. A state is there once its entry is, which is written
after all its parts. At least two states stay, and older ones in case those are not uploaded yet.
A copy that fails is tried again a few times, then at the next one; where the backend is full, all
but the newest state and the oldest go, which is uploaded if any is. Nothing is written once the
backend is gone.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from ..base.errors import note, reason
from .backend import Backend
from .copies import outdated

KEPT = 2
TRIES = (0.0, 1.0, 4.0)  # seconds to wait before each try
FULL = (errno.ENOSPC, errno.EDQUOT)


class Series(Protocol):
    """States that follow each other on a backend, each of an entry and the parts it needs."""

    def copy(self, final: bool) -> None:
        """Copy the newest state, the parts first, unless it is there; `final` for the last time."""

    def entries(self) -> list[str]:
        """Give the keys of the entries that are known to be whole, the newest first."""

    def parts_of(self, entry: str) -> set[str]:
        """Give the keys of the parts that an entry needs."""

    def everything(self) -> Iterator[str]:
        """Give the keys of all entries and parts, whole or not, the entries first."""


class Copier:
    """Copies a series when there is news, at most every `pause` seconds, or `every` so many."""

    def __init__(
        self, backend: Backend, series: Series, pause: float = 0.0, every: float | None = None
    ) -> None:
        self.backend, self.series = backend, series
        self._pause, self._every = pause, every
        self._news = threading.Event()
        self._end = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="copier")
        self._thread.start()

    def notify(self) -> None:
        """Say that there is something new to copy; returns at once."""
        self._news.set()

    def stop(self) -> None:
        """Stop copying; a copy under way is finished."""
        self._end.set()
        self._news.set()
        self._thread.join()

    def flush(self) -> bool:
        """Copy what is new now and stop copying; tell whether all of it arrived."""
        self._end.set()
        self._news.set()
        return self.sync()

    def _serve(self) -> None:
        while not self._end.is_set():
            self._news.wait(self._every)
            self._news.clear()
            if not self._end.is_set():
                self.sync()
            self._end.wait(self._pause)

    def sync(self) -> bool:
        """Copy what is new now; tell whether all of it arrived."""
        with self._busy:
            for wait in TRIES:
                time.sleep(wait)
                try:
                    self.backend.check()
                    self.series.copy(final=self._end.is_set())
                    self._prune()
                    return True
                # A copy may need more memory than there is; the next one may not.
                except Exception as error:
                    failure = reason(error)
                    if isinstance(error, OSError) and error.errno in FULL:
                        self._make_room()
        again = "" if self._end.is_set() else " It is tried again."
        note(f"! {self.backend} could not be brought up to date: {failure}.{again}")
        return False

    def _prune(self) -> None:
        entries = self.series.entries()
        if len(entries) >= KEPT:
            self._remove_all_but(entries, outdated(entries, self.backend, KEPT))

    def _make_room(self) -> None:
        with suppress(OSError):  # it is full still
            entries = self.series.entries()
            self._remove_all_but(entries, entries[1:-1])

    def _remove_all_but(self, entries: list[str], gone: list[str]) -> None:
        kept = {entry for entry in entries if entry not in gone}
        kept |= {part for entry in kept for part in self.series.parts_of(entry)}
        for key in list(self.series.everything()):
            if key not in kept:
                self.backend.delete(key)
