"""What the commands have in common: the project, its submission's record, who may change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...base import git
from ...base.errors import GradlabError, note
from ...base.locks import Held
from ...run.place import Place
from ...services import session
from ...spec import spec as specs
from ...spec.reader import read
from ...spec.spec import Spec, parse
from ...store import location
from ...store.datasets import usable
from ..gradient import push
from . import bag, record
from .doors import Doors
from .record import Submission
from .travel import Travel

LOCK = "doors.lock"


@dataclass(frozen=True)
class Desk:
    """A workflow of a project, and where its things are kept."""

    root: Path
    project: str
    spec: Spec
    place: Place

    @classmethod
    def of(cls, name: str) -> Desk:
        """Find a workflow; GradlabError where there is none."""
        root = session.project_root()
        path, project = specs.find(name, root), session.project_name(session.project_root())
        place = Place.of(path.stem, location.of(project))
        return cls(root, project, parse(read(path)), place)

    def submission(self) -> Submission | None:
        """Read the last submission, None if there is none."""
        with usable(self.place.backend):
            return record.load(self.place)

    def submitted(self) -> Submission:
        """Read the last submission; GradlabError where there is none."""
        if found := self.submission():
            return found
        name = self.place.workflow
        raise GradlabError(
            f"no run of {name!r} was handed to a door from {self.place.backend}: gradlab submit "
            f"{name} --to kaggle; or set GRADLAB_STORAGE as it was then"
        )

    @contextmanager
    def travel(self, submission: Submission) -> Iterator[Travel]:
        """Be the only one that brings a submission on; GradlabError where another does."""
        with usable(self.place.backend), self.place.shared(LOCK).lock() as lock:
            try:
                lock.take_after(f"another gradlab looks after {self.place.workflow!r}")
            except Held as held:
                raise GradlabError(
                    f"another gradlab looks after this run ({held}): wait for it, or end it"
                ) from None
            found = record.load(self.place)
            # One that no door has taken is begun anew.
            lives = found and found.state == "open" and found.hops
            current = found if found and lives else submission
            with Doors(self.root) as doors:
                yield Travel(
                    current,
                    self.place,
                    self.root,
                    self.below,
                    self.project,
                    doors,
                    lambda: self.secrets(current),
                    note,
                )

    @property
    def below(self) -> str:
        """Give the project's folder in its repository, nothing for its top."""
        return git.ask(self.root, "rev-parse", "--show-prefix").strip("/")

    def secrets(self, submission: Submission) -> str:
        """Give what the other side needs, as a text."""
        private = not push.is_public(submission.url)
        return bag.pack(self.spec, submission.storage, private)
