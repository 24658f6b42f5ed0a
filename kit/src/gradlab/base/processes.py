"""A command with all the processes that it starts, from the first to the last.

Promises: output arrives as it is written; when the command has ended, been stopped, or been left
behind by a runner that was killed, no process of it goes on. A supervisor beside it sees to that;
what a supervisor that was killed has left is known by the environment variable GRADLAB_JOB.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
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


def heeded() -> list[signal.Signals]:
    """List the signals that end a run: not those that are ignored from the start (nohup)."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def supervised(command: Sequence[str]) -> tuple[str, ...]:
    """Give the command line that runs a command under a supervisor."""
    numbers = ",".join(str(int(number)) for number in heeded())
    return (sys.executable, "-I", "-S", str(SUPERVISOR), numbers, *command)


def shielded(command: Sequence[str]) -> tuple[str, ...]:
    """Give the command line that runs a command which ignores what ends a run.

    For a launcher around a supervisor, which would take the job with it before it could save.
    """
    # By its path: the environment is the job's, with a PATH of its own.
    program = shutil.which(command[0]) or command[0]
    ignore = "trap '' HUP INT TERM; exec \"$@\""
    return ("/bin/sh", "-c", ignore, "sh", program, *command[1:])


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    take: Callable[[bytes], None],
    stop: Stop,
    tell: Callable[[int], None] | None = None,
) -> int:
    """Run a command, hand its output to `take` and give its exit status, negative for a signal.

    `env` has to hold GRADLAB_JOB. `tell` passes a signal on where the command is not supervised.
    """
    if stop.signal:
        return -stop.signal
    with stop.waits_for_processes():
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
        try:
            _attend(process, take, stop, tell)
        finally:
            _end(process, env[MARK], at_once=tell is not None)
            _drain(process, take)
        return process.wait()


def _attend(
    process: subprocess.Popen[bytes],
    take: Callable[[bytes], None],
    stop: Stop,
    tell: Callable[[int], None] | None,
) -> None:
    """Hand on the output until the command has ended, or must."""
    assert process.stdin
    told = False
    while process.poll() is None and time.monotonic() < stop.deadline:
        _read(process, take, 0.2)
        if stop.signal and not told:
            told = True
            with contextlib.suppress(OSError):  # it has ended meanwhile
                tell(stop.signal) if tell else process.stdin.write(bytes([stop.signal]))


def _read(process: subprocess.Popen[bytes], take: Callable[[bytes], None], wait: float) -> bool:
    """Hand on what has been written, waiting for it; False where nothing came."""
    assert process.stdout
    if not select.select([process.stdout], [], [], wait)[0]:
        return False
    data = os.read(process.stdout.fileno(), 1 << 16)
    if data:
        take(data)
    elif process.poll() is None:
        time.sleep(0.02)  # closed its output and goes on
    return bool(data)


def _end(process: subprocess.Popen[bytes], mark: str, at_once: bool) -> None:
    """End a command and all that it has started."""
    assert process.stdin
    process.stdin.close()  # tells the supervisor
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0 if at_once else KILLED_WITHIN)
    if process.poll() is None:
        supervisor.end(process.pid)
        process.kill()
    kill(mark)


def _drain(process: subprocess.Popen[bytes], take: Callable[[bytes], None]) -> None:
    """Hand on what is left of the output; what still prints was given to another parent."""
    assert process.stdout
    limit = time.monotonic() + supervisor.DRAIN
    while time.monotonic() < limit and _read(process, take, 0.1):
        pass
    process.stdout.close()


def kill(mark: str) -> int:
    """Kill what carries a job's mark and what descends from it; give how many there were."""
    killed: set[int] = set()
    limit = time.monotonic() + KILLED_WITHIN
    while (found := marked(mark)) and time.monotonic() < limit:
        family = {below for pid in found for below in supervisor.family(pid)}
        supervisor.send(signal.SIGKILL, family.union(found))
        killed |= family.union(found)
        time.sleep(0.02)
    return len(killed)


def marked(mark: str) -> list[int]:
    """Find the processes that carry a job's mark; none where there is no /proc."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(name))
    return found
