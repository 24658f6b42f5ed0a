"""Where a project's things are kept, and where they are worked on.

Promises: on a storage that is slow, such as Google Drive, nothing is worked on: that is done in a
folder on the local disk, and copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..services import session


@dataclass(frozen=True)
class Location:
    """The folder that keeps things, and the one in which they are worked on, often the same.

    Where writes arrive later, what was written may be lost until then. `why` it is this folder.
    """

    kept: Path
    work: Path
    writes_arrive_later: bool = False
    why: str = ""


def of(project: str) -> Location:
    """Give the location of a project's things; raises GradlabError as `session.storage` does."""
    storage = session.storage(project)
    work = session.scratch(project) if storage.slow else storage.path
    return Location(storage.path, work, storage.slow, storage.why)
