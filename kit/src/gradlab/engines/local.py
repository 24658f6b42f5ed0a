"""What the engines of this machine have in common: a task is a process that the runner started."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from ..base.processes import Running
from .protocol import Task


@dataclass(frozen=True)
class Launch:
    """A command that is ready to start, and how a signal reaches it, if not by its process."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    tell: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Handle:
    """A task that was started, with what is to be undone at its end."""

    process: Running
    tell: Callable[[int], None] | None
    stack: ExitStack


class Local(ABC):
    """An engine that has only to say how a task is started."""

    @abstractmethod
    def launch(self, task: Task) -> AbstractContextManager[Launch]:
        """Make what the task needs for as long as it runs."""

    def submit(self, task: Task) -> Handle:
        """Start a task."""
        with ExitStack() as stack:
            launch = stack.enter_context(self.launch(task))
            process = Running(launch.command, launch.env, task.folder / "tmp")
            return Handle(process, launch.tell, stack.pop_all())

    def poll(self, handle: Handle) -> int | None:
        """Give a task's exit status, None while it goes on."""
        return handle.process.poll()

    def cancel(self, handle: Handle, number: int = signal.SIGKILL) -> None:
        """Pass a signal on; by SIGKILL end all of a task."""
        if number != signal.SIGKILL:
            (handle.tell or handle.process.tell)(number)
            return
        with handle.stack:
            handle.process.end(at_once=handle.tell is not None)

    def logs(self, handle: Handle, wait: float) -> bytes:
        """Give what a task has printed since."""
        return handle.process.read(wait)
