"""Where a project's things are kept, and where they are worked on.

Promises: on a storage that is slow, such as Google Drive, or that a URL names, nothing is worked
on: that is done in a folder on the local disk, and copied.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from ..services import session
from .backend import Backend
from .folder import Folder, SlowMount


@dataclass(frozen=True)
class Location:
    """The backend that keeps things, the folder in which they are worked on, and why it is there.

    Often that folder is the backend's own.
    """

    backend: Backend
    work: Path
    why: str = ""

    @property
    def is_apart(self) -> bool:
        """Whether things are worked on elsewhere than they are kept."""
        return self.work != self.backend.folder

    @cached_property
    def local(self) -> Backend:
        """The folder in which things are worked on."""
        return Folder(self.work) if self.is_apart else self.backend

    @property
    def sides(self) -> tuple[Backend, ...]:
        """Where things lie: where they are worked on, and where they are kept if that is apart."""
        return (self.local, self.backend) if self.is_apart else (self.backend,)


@lru_cache(maxsize=2)
def _opened(url: str, process: int) -> Backend:
    """Open a storage by URL, once in a process: its client takes some tenths of a second."""
    from .objects import ObjectStore  # and with it fsspec

    return ObjectStore(url)


def of(project: str) -> Location:
    """Give the location of a project's things; raises GradlabError as `session.storage` does."""
    storage = session.storage(project)
    if not storage.path:
        store = _opened(storage.url, os.getpid())  # a fork needs a client of its own
        return Location(store, session.scratch(project), storage.why)
    if storage.slow:
        return Location(SlowMount(storage.path), session.scratch(project), storage.why)
    return Location(Folder(storage.path), storage.path, storage.why)
