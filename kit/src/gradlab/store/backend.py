"""What keeps a project's things between sessions, whichever storage that is.

A key is a path relative to the backend's top, with slashes. Facts say what a backend can't do, so
that nothing but its own module has to know which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .tree import File
from .uploads import Upload

Data = bytes | Sequence[bytes | memoryview]


class Backend(Protocol):
    """Keeps files by keys; `str` gives its top as people know it, `where` a key's place.

    Promises: a write or put that returns can be read back as it was given; one that fails, or is
    cut off, may leave half a file under its key, unless `rename_is_atomic`. What can't be read is
    an OSError, never an absence. What passes is tried again, a few times.
    """

    rename_is_atomic: bool
    """A file, or a folder with all in it, gets into its place at once or not at all."""

    writes_arrive_later: bool
    """What was written may be lost with the machine, and arrive in another order."""

    list_is_current: bool
    """What one machine wrote another one sees at once, and so may be told who is at work."""

    folder: Path | None
    """Where it lies in this machine's file system, if it does."""

    parallel: int
    """How many files are best moved at once."""

    def where(self, key: str) -> str:
        """Name the place of a key's file, as people know it."""

    def list(self, folder: str) -> list[str]:
        """Name what lies in a folder, in no order; nothing if it isn't there."""

    def below(self, folder: str) -> dict[str, int]:
        """Give the size in bytes of each file below a folder, by its path there."""

    def size(self, key: str) -> int | None:
        """Give a file's size in bytes, None if it isn't there."""

    def age(self, key: str) -> float:
        """Give the seconds since a file was written; raises FileNotFoundError."""

    def clock(self) -> float:
        """Say by how many seconds its clock is ahead of this machine's, as it was measured once."""

    def idle(self, folder: str) -> float:
        """Give the seconds since something was last put into a folder, 0 if that can't be told."""

    def stamp(self, key: str) -> str:
        """Give a text that is another once a file is; FileNotFoundError if it isn't there."""

    def sha256(self, key: str) -> str:
        """Give the SHA-256 of what a file holds; raises FileNotFoundError."""

    def read(self, key: str) -> bytes:
        """Give what a file holds; raises FileNotFoundError."""

    def part(self, key: str, start: int, end: int) -> bytes:
        """Give what a file holds from one place to another, as far as it goes, without patience.

        Raises FileNotFoundError.
        """

    def write(self, key: str, data: Data, synced: bool = True) -> None:
        """Make a file that holds some bytes, in place of one that is there.

        Unless it is `synced`, a crash of the machine may leave a part of it, or nothing.
        """

    def create(self, key: str, data: bytes) -> bool:
        """Make a file unless one is there; tell whether it holds this data, which nobody else's is.

        Of several that try at once one succeeds, or none. Where `writes_arrive_later`, each may.
        """

    def put(self, key: str, source: Path) -> str:
        """Make a file that holds what a local one does; give its SHA-256."""

    def get(self, key: str, target: Path) -> str:
        """Make a local file that holds what a file does; give its SHA-256."""

    def bring(self, folder: str, target: Path) -> None:
        """Copy a folder with all in it into an empty local one, as far as it is kept as it was."""

    def fetch(self, key: str, target: str, file: File) -> None:
        """Copy a file to a local one, not synced; GradlabError where it is not what it was."""

    def delete(self, key: str) -> None:
        """Remove a file if it is there; that it can't be is said, and stops nothing."""

    def discard(self, folder: str) -> None:
        """Remove a folder and all in it, if it is there."""

    def move(self, folder: str, target: str) -> None:
        """Put a folder in the place of another, which goes; cut off, it can be given again."""

    def sweep(self, folder: str) -> None:
        """Remove what writers that died have left in a folder, as far as that works."""

    def uploads(self) -> Sequence[Upload]:
        """Give the uploads in parts that were begun, by whomever, and have not ended."""

    def abort(self, upload: Upload) -> None:
        """End an upload that has not ended, and remove its parts."""

    def check(self, patience: float = 0.0) -> None:
        """Raise OSError if it is gone as a whole, and not back within some seconds."""
