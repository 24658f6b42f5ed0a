"""The engine `paths`, which works anywhere: real folders in the place of those at the root."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..base import processes
from ..services import machine, session
from . import mapping, own_root
from .environment import of_this_machine
from .local import Launch, Local
from .own_root import OWN, ROOT
from .protocol import PLACES, Task

PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
LONGEST = 60  # characters of a job's folder


class Paths(Local):
    """Real folders in the place of those at the root, in the script and its environment."""

    name, parallel, read_only = "paths", True, False
    caveat = (
        "jobs run on this machine, not in their images, and can change it; /inputs (copies) and "
        "/outputs are replaced by real folders in scripts, not in the programs that they call"
    )

    @contextmanager
    def launch(self, task: Task) -> Iterator[Launch]:
        with plain(task.folder) as folder, own_root.made(task.folder, f"{folder}/{ROOT}/{OWN}"):
            launch = mapped(task, folder, (*PLACES, "tmp"))
            own = {"GRADLAB_INPUTS": f"{folder}/inputs", "GRADLAB_OUTPUTS": f"{folder}/outputs"}
            yield replace(launch, env={**launch.env, **own})


def mapped(task: Task, folder: Path, names: Sequence[str]) -> Launch:
    """Give a task's command with its own folders in the place of some at the root.

    These are `names`, and those that its script makes there.
    """
    kept = (str(session.project_root()), str(task.folder), sys.prefix, sys.base_prefix)
    places = {name: f"{folder}/{name}" for name in names}
    root = task.folder / ROOT
    for name in mapping.made_at_root(task.script or "", task.env, kept):
        places[name] = f"{folder}/{ROOT}/{name}"
    below = own_root.needed_below_tmp(task.folder, folder)
    tops = {Path(path).parts[2] for path in below if len(Path(path).parts) > 2}
    real = mapping.replacer(places, f"{folder}/{ROOT}", tops)
    real_task = replace(
        task,
        env={key: real(value) for key, value in task.env.items()} | {processes.MARK: task.mark},
        script=task.script and real(task.script),
        program=tuple(map(real, task.program)),
        args=tuple(map(real, task.args)),
    )
    texts = (*real_task.env.values(), real_task.script or "", *real_task.program, *real_task.args)
    if f"{folder}/{ROOT}/" in "\n".join(texts):  # else no job looks there for what is at the root
        for name in set(os.listdir("/")) - {*places, OWN}:
            (root / name).symlink_to(f"/{name}")
        for name in names:
            (root / name).symlink_to(task.folder / name)
    own = f"{folder}/{ROOT}/{OWN}"
    env = of_this_machine(real_task, f"{folder}/tmp", own, began=machine.started())
    return Launch(processes.supervised(real_task.command(own)), env)


@contextmanager
def plain(folder: Path) -> Iterator[Path]:
    """Give a short path to a folder without a space or quote, for it lands in scripts.

    A socket's path has at most 107 bytes, and programs make theirs in folders of their TMPDIR.
    """
    if PLAIN.fullmatch(str(folder)) and len(str(folder)) <= LONGEST:
        yield folder
        return
    temporary = tempfile.gettempdir() if PLAIN.fullmatch(tempfile.gettempdir()) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="gradlab-", dir=temporary) as top:
        link = Path(top, "job")
        link.symlink_to(folder)
        yield link
