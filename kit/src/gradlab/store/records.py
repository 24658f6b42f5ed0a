"""Numbered records of a folder: each state of a thing is a file of its own, written once.

    <folder>/<prefix>00000001.json, <prefix>00000002.json ...

Promises: the newest that is whole counts, so a kill at any moment leaves the state before or the
one after. A damaged one is told, and never believed. Older ones stay for as long as later ones may
not be uploaded yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ..base.errors import note
from . import copies, sealed
from .backend import Backend

State = TypeVar("State")


@dataclass(frozen=True)
class Records:
    """The records of one thing; `says` stands in the message about a damaged one."""

    backend: Backend
    folder: str
    prefix: str
    says: str = "a record"
    kept: int = 2

    def load(self, read: Callable[[dict[str, Any]], State]) -> State | None:
        """Give what `read` makes of the newest record that is whole, None if there is none.

        `read` raises sealed.Damaged for what is no such record. Raises OSError.
        """
        for key in self.keys():
            try:
                return read(sealed.from_bytes(self.backend.read(key)))
            except FileNotFoundError:
                continue
            except sealed.Unfinished:  # of a writer that was killed
                continue
            except sealed.Damaged as error:
                place = self.backend.where(key)
                note(f"! {place}, {self.says}, is damaged ({error}): passed over")
        return None

    def put(self, data: dict[str, Any], synced: bool = True) -> None:
        """Write a new record, and remove outdated ones; raises OSError where that isn't written.

        Unless it is `synced`, the one before may be the newest after a crash of the machine.
        """
        records = self.keys()
        number = self._number(records[0]) + 1 if records else 1
        newest = f"{self.folder}/{self.prefix}{number:08}.json"
        self.backend.write(newest, sealed.to_text(data).encode(), synced)
        if len(records) >= self.kept:
            with suppress(OSError):  # what was written counts
                self._prune(newest, records)

    def keys(self) -> list[str]:
        """List the records, the newest first, whole or not."""
        pattern = re.compile(rf"{re.escape(self.prefix)}\d{{8}}\.json")
        found = filter(pattern.fullmatch, self.backend.list(self.folder))
        return [f"{self.folder}/{name}" for name in sorted(found, reverse=True)]

    def _number(self, key: str) -> int:
        return int(key[-13:-5])

    def _prune(self, newest: str, records: list[str]) -> None:
        whole = [newest, *filter(self._is_whole, records)]
        gone = copies.outdated(whole, self.backend, self.kept)
        kept = set(whole).difference(gone)
        for key in set(records) - kept:
            self.backend.delete(key)

    def _is_whole(self, key: str) -> bool:
        try:
            return bool(sealed.from_bytes(self.backend.read(key)))
        except (FileNotFoundError, sealed.Damaged):
            return False
