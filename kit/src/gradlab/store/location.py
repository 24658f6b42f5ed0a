"""Where a project's things are kept, and where they are worked on.

Promises: on a storage that is slow, such as Google Drive, nothing is worked on: that is done in a
folder on the local disk, and copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..services import session
from .folder import Folder, SlowMount


@dataclass(frozen=True)
class Location:
    """The backend that keeps things, the folder in which they are worked on, and why it is there.

    Often that folder is the backend's own.
    """

    backend: Folder
    work: Path
    why: str = ""

    @property
    def kept(self) -> Path:
        """The backend's folder."""
        return self.backend.top

    @property
    def is_apart(self) -> bool:
        """Whether things are worked on elsewhere than they are kept."""
        return self.work != self.kept


def of(project: str) -> Location:
    """Give the location of a project's things; raises GradlabError as `session.storage` does."""
    storage = session.storage(project)
    if storage.slow:
        return Location(SlowMount(storage.path), session.scratch(project), storage.why)
    return Location(Folder(storage.path), storage.path, storage.why)
