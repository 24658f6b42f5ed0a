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
from pathlib import Path
from typing import Any, TypeVar

from ..base import files
from ..base.errors import note
from . import copies, sealed

State = TypeVar("State")


@dataclass(frozen=True)
class Records:
    """The records of one thing; `says` stands in the message about a damaged one."""

    folder: Path
    prefix: str
    says: str = "a record"
    kept: int = 2

    def load(self, read: Callable[[dict[str, Any]], State]) -> State | None:
        """Give what `read` makes of the newest record that is whole, None if there is none.

        `read` raises sealed.Damaged for what is no such record. Raises OSError.
        """
        for path in self.paths():
            try:
                return read(sealed.load(path))
            except FileNotFoundError:
                continue
            except sealed.Unfinished:  # of a writer that was killed
                continue
            except sealed.Damaged as error:
                note(f"! {path}, {self.says}, is damaged ({error}): passed over")
        return None

    def put(self, data: dict[str, Any]) -> None:
        """Write a new record, and remove outdated ones; raises OSError where that isn't written."""
        records = self.paths()
        number = self._number(records[0]) + 1 if records else 1
        newest = self.folder / f"{self.prefix}{number:08}.json"
        files.write_in_place(newest, sealed.to_text(data))
        if len(records) >= self.kept:
            with suppress(OSError):  # what was written counts
                self._prune(newest, records)

    def paths(self) -> list[Path]:
        """List the records, the newest first, whole or not."""
        pattern = re.compile(rf"{re.escape(self.prefix)}\d{{8}}\.json")
        found = [name for name in files.names(self.folder) if pattern.fullmatch(name)]
        return [self.folder / name for name in sorted(found, reverse=True)]

    def _number(self, path: Path) -> int:
        return int(path.stem.removeprefix(self.prefix))

    def _prune(self, newest: Path, records: list[Path]) -> None:
        whole = [newest, *filter(_is_whole, records)]
        gone = copies.outdated(whole, files.age, self.kept)
        kept = set(whole).difference(gone)
        for path in set(records) - kept:
            files.remove(path)


def _is_whole(path: Path) -> bool:
    try:
        return bool(sealed.load(path))
    except (FileNotFoundError, sealed.Damaged):
        return False
