"""A command with all the processes that it starts, from the first to the last.

Promises: output arrives as it is written; when the command has ended, been stopped, or been left
behind by a runner that was killed, no process of it goes on. A supervisor beside it sees to that;
what a supervisor that was killed has left is known by the environment variable GRADLAB_JOB.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import supervisor
from .stop import Stop

MARK = "GRADLAB_JOB"
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
KILLED_WITHIN = 6.0  # seconds that a supervisor has to end all, before it is ended itself
SUPERVISOR = Path(supervisor.__file__)
# Imported, not run as a file: that would be compiled anew for each job.
START = "import sys; sys.path.append(sys.argv[1]); import supervisor as s; s.main(sys.argv[2:])"


def heeded() -> list[signal.Signals]:
    """List the signals that end a run: not those that are ignored from the start (nohup)."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def supervised(command: Sequence[str]) -> tuple[str, ...]:
    """Give the command line that runs a command under a supervisor."""
    numbers = ",".join(str(int(number)) for number in heeded())
    return (sys.executable, "-I", "-S", "-c", START, str(SUPERVISOR.parent), numbers, *command)


def shell(script: str, *arguments: str) -> tuple[str, ...]:
    """Give the command line of a script that ignores, with all it starts, what ends a run.

    For what launches a supervisor, and would take the job with it before it could save.
    """
    return ("/bin/sh", "-c", f"trap '' HUP INT TERM; {script}", "sh", *arguments)


class Running:
    """A command that was started, with all the processes that it starts.

    `env` has to hold GRADLAB_JOB.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.mark = env[MARK]
        self._process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )

    def poll(self) -> int | None:
        """Give the exit status, negative for a signal; None while the command goes on."""
        return self._process.poll()

    def read(self, wait: float) -> bytes:
        """Give what was printed, waiting for it some seconds; nothing where nothing came."""
        output = self._process.stdout
        if not output or output.closed or not select.select([output], [], [], wait)[0]:
            return b""
        data = os.read(output.fileno(), 1 << 16)
        if not data and self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)  # closed its output and goes on, or is just ending
        return data

    def tell(self, number: int) -> None:
        """Have the supervisor pass a signal on."""
        assert self._process.stdin
        with contextlib.suppress(OSError):  # it has ended meanwhile
            self._process.stdin.write(bytes([number]))

    def end(self, at_once: bool = False) -> None:
        """End the command and all that it has started, `at_once` where there is no supervisor."""
        assert self._process.stdin
        self._process.stdin.close()  # tells the supervisor
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if at_once else KILLED_WITHIN)
        if self._process.poll() is None:
            supervisor.end(self._process.pid)
            self._process.kill()
            self._process.wait()
        if self._process.returncode:  # a supervisor that was killed leaves what it had started
            kill(self.mark)


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    take: Callable[[bytes], None],
    stop: Stop,
) -> int:
    """Run a supervised command, hand its output to `take` and give its exit status."""
    if stop.signal:
        return -stop.signal
    with stop.waits_for_processes():
        running = Running(command, env, folder)
        attend(running.poll, running.read, running.tell, running.end, take, stop)
        return running.poll() or 0


def attend(
    poll: Callable[[], int | None],
    read: Callable[[float], bytes],
    tell: Callable[[int], None],
    end: Callable[[], None],
    take: Callable[[bytes], None],
    stop: Stop,
) -> None:
    """Hand on the output of what runs until it has ended, or must; tell it of a signal once."""
    told = False
    try:
        while poll() is None and time.monotonic() < stop.deadline:
            if data := read(0.2):
                take(data)
            if stop.signal and not told:
                told = True
                tell(stop.signal)
    finally:
        end()
        # What is left of the output; what still prints was given to another parent.
        limit = time.monotonic() + supervisor.DRAIN
        while time.monotonic() < limit and (data := read(0.1)):
            take(data)


def kill(mark: str, variable: str = MARK) -> int:
    """Kill what carries a mark in its environment, and what descends from it; give how many."""
    killed: set[int] = set()
    limit = time.monotonic() + KILLED_WITHIN
    while (found := marked(mark, variable)) and time.monotonic() < limit:
        family = {below for pid in found for below in supervisor.family(pid)}
        supervisor.send(signal.SIGKILL, family.union(found))
        killed |= family.union(found)
        time.sleep(0.02)
    return len(killed)


def marked(mark: str, variable: str = MARK) -> list[int]:
    """Find the processes that carry a mark in a variable; none where there is no /proc."""
    wanted, found = f"{variable}={mark}".encode(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found
