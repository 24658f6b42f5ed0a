"""What an engine is: it takes a task, gives it /inputs and /outputs, and runs it.

Promises of every engine: a job finds a /tmp, a HOME and a Python of its own, and folders of its
own where it makes them at the root; what it leaves or installs there is gone with it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..base import processes
from .own_root import OWN, ROOT

PLACES = ("inputs", "outputs")
DRAFTS = "drafts"  # part of the path of every task's folder


@dataclass(frozen=True)
class Task:
    """What to run: a script for bash, or a program with arguments (none: the image's own)."""

    folder: Path  # holds `inputs`, `outputs`, `tmp`, and the job's `root`
    inputs: Mapping[str, Path]
    env: Mapping[str, str]
    image: str
    script: str | None = None
    program: tuple[str, ...] = ()
    args: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """What the task's processes are known by."""
        return self.env[processes.MARK]

    def command(self, own: str) -> tuple[str, ...]:
        """Give the command line, with the script written to a file that is seen in `own`."""
        if self.script is None:
            return (*self.program, *self.args)
        (self.folder / ROOT / OWN).mkdir(parents=True, exist_ok=True)
        (self.folder / ROOT / OWN / "job.sh").write_text(self.script, "utf-8")
        return ("bash", f"{own}/job.sh")


Handle = Any  # what an engine knows a submitted task by


class Engine(Protocol):
    """One way to run a task."""

    name: str
    parallel: bool
    read_only: bool  # keeps jobs from writing to /inputs; elsewhere inputs have to be copies
    caveat: str

    def submit(self, task: Task) -> Handle:
        """Start a task and give what it is known by; may wait until there is room for it."""

    def poll(self, handle: Handle) -> int | None:
        """Give a task's exit status, negative for a signal; None while it goes on."""

    def cancel(self, handle: Handle, number: int = signal.SIGKILL) -> None:
        """Pass a signal on to a task; SIGKILL ends it and removes all that was made for it.

        The latter is due for each task, also for one that has ended.
        """

    def logs(self, handle: Handle, wait: float) -> bytes:
        """Give what a task has printed since, waiting for it some seconds."""


def problem_of(command: list[str]) -> str:
    """Run a command; give the last line of what went wrong, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"{command[0]} gave exit status {done.returncode}"]
    return lines[-1] if done.returncode else ""
