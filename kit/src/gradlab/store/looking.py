"""What lies below a URL, as its client sees it now."""

from __future__ import annotations

import hashlib
from typing import Any

from .remote import Remote

PART = 1 << 26  # bytes that are read at once


class Looking(Remote):
    """What lies below a URL, to be looked at and read."""

    def list(self, folder: str) -> list[str]:
        """Name what lies in a folder, in no order; nothing if it isn't there."""
        path = self._path(folder)
        try:
            found = self._do(folder, lambda: self._system.ls(path, detail=False, **self._fresh))
        except FileNotFoundError:
            return []
        below = (str(name).rstrip("/").removeprefix("/") for name in found)
        start = f"{path.strip('/')}/"
        return [name.removeprefix(start) for name in below if name.startswith(start)]

    def below(self, folder: str) -> dict[str, int]:
        """Give the size in bytes of each file below a folder, by its path there."""
        path = self._path(folder)
        try:
            found = self._do(folder, lambda: self._system.find(path, detail=True))
        except FileNotFoundError:
            return {}
        start = f"{path.strip('/')}/"
        sizes = {str(name).strip("/"): int(info["size"] or 0) for name, info in found.items()}
        return {n.removeprefix(start): size for n, size in sizes.items() if n.startswith(start)}

    def _info(self, key: str) -> dict[str, Any] | None:
        def ask() -> dict[str, Any]:
            return dict(self._system.info(self._path(key), **self._fresh))

        try:
            found = self._do(key, ask)
        except FileNotFoundError:
            return None
        return found if found["type"] == "file" else None

    def size(self, key: str) -> int | None:
        """Give a file's size in bytes, None if it isn't there."""
        found = self._info(key)
        return int(found["size"]) if found else None

    def stamp(self, key: str) -> str:
        """Give a text that is another once a file is; FileNotFoundError if it isn't there."""
        if not (found := self._info(key)):
            raise FileNotFoundError(self.where(key))
        facts = sorted((name, str(value)) for name, value in found.items())
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _written(self, key: str) -> float:
        return float(self._do(key, lambda: self._system.modified(self._path(key))).timestamp())

    def read(self, key: str) -> bytes:
        """Give what a file holds; raises FileNotFoundError."""
        return bytes(self._do(key, lambda: self._system.cat_file(self._path(key), **self._plain)))

    def part(self, key: str, start: int, end: int) -> bytes:
        """Give what a file holds from one place to another, as far as it goes, without patience."""
        return self._do(key, lambda: self._range(key, start, end), hurry=True)

    def sha256(self, key: str) -> str:
        """Give the SHA-256 of what a file holds; raises FileNotFoundError."""
        hashed, at = hashlib.sha256(), 0
        while True:
            end = at + PART
            piece = self._do(key, lambda at=at, end=end: self._range(key, at, end))  # type: ignore[misc]
            hashed.update(piece)
            at += len(piece)
            if len(piece) < PART:
                return hashed.hexdigest()

    def _range(self, key: str, start: int, end: int) -> bytes:
        return bytes(self._system.cat_file(self._path(key), start=start, end=end))
