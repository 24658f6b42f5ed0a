"""The engine `bubblewrap`: Linux namespaces, this machine below a root of the job's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..base import processes
from . import own_root
from .environment import of_this_machine, offline
from .local import Launch, Local
from .own_root import OWN
from .protocol import Task, problem_of


class Bubblewrap(Local):
    """A view of this machine in which what is written is the job's own, and gone with it."""

    name, parallel, read_only = "bubblewrap", True, True
    caveat = "jobs run on this machine's system, not in their images, and leave it as it was"

    @classmethod
    def find(cls) -> Bubblewrap | str:
        """Give a working engine, or what is wrong."""
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed (apt-get install bubblewrap)"
        return problem_of([*_view(), "--", "/bin/sh", "-c", "exit 0"]) or cls()

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with own_root.made(task.folder, f"/{OWN}"):
            layers = own_root.layered(task.folder)
            command = [*_view(task.folder, layers), "--bind", str(task.folder / "tmp"), "/tmp"]
            for path in own_root.needed_below_tmp():
                command += ["--ro-bind", path, path]
            command += ["--bind", str(task.folder / "outputs"), "/outputs", "--tmpfs", "/inputs"]
            for name, source in task.inputs.items():
                command += ["--ro-bind", str(source), f"/inputs/{name}"]
            command += ["--remount-ro", "/inputs", "--chdir", "/tmp"]
            command += ["--", *processes.supervised(task.command(f"/{OWN}"))]
            env = of_this_machine(task, "/tmp", f"/{OWN}", began=time.time())
            yield Launch(own_root.with_layers(task.folder, layers, command), env)


def _view(folder: Path | None = None, layers: Sequence[str] = ()) -> list[str]:
    return [*own_root.system(folder, layers), *["--unshare-net"] * offline()]
