"""The engine `machine`: this machine itself, where it is thrown away and the user is root."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..base.locks import Lock
from ..services.table import here
from . import own_root
from .local import Launch, Local
from .own_root import OWN, ROOT
from .paths import mapped, plain
from .protocol import DRAFTS, PLACES, Task, problem_of


class Machine(Local):
    """This machine itself: /inputs and /outputs are made at its root, for one job at a time."""

    name, parallel, read_only = "machine", False, False
    caveat = "jobs run on this machine, not in their images, and can change it; /inputs are copies"
    LOCK = Path(tempfile.gettempdir(), "gradlab-machine.lock")

    @classmethod
    def find(cls, asked: bool) -> Machine | str:
        """Give a working engine, or what is wrong; unless asked, only on a throw-away machine."""
        if not asked and not here().is_thrown_away:
            return "this is not a machine to throw away"
        if os.getuid():
            return "it needs the user root"
        taken = [f"/{place}" for place in PLACES if not cls._is_free(Path("/", place))]
        return f"{taken[0]} exists and is not gradlab's" if taken else cls()

    @staticmethod
    def _is_free(place: Path) -> bool:
        ours = place.is_symlink() and DRAFTS in Path(os.readlink(place)).parts
        return ours or not os.path.lexists(place)

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with Lock(self.LOCK) as lock, plain(task.folder) as folder:
            lock.wait()
            try:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)
                    Path("/", place).symlink_to(task.folder / place)
                with own_root.made(task.folder, f"{folder}/{ROOT}/{OWN}"):
                    yield self._launch(task, folder)
            finally:
                for place in PLACES:
                    Path("/", place).unlink(missing_ok=True)

    def _launch(self, task: Task, folder: Path) -> Launch:
        """Give the job a /tmp of its own by a mount, or by its text where none can be made."""
        if not _mounts_work():
            return mapped(task, folder, ("tmp",))
        launch = mapped(task, folder, ())
        needed = own_root.needed_below_tmp(task.folder, folder)
        return replace(
            launch, command=own_root.own_tmp(task.folder / "tmp", needed, launch.command)
        )


@functools.cache
def _mounts_work() -> bool:
    return not problem_of([*own_root.private_mounts(), "mount", "-i", "--bind", "/tmp", "/tmp"])
