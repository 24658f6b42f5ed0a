"""A command with all the processes that it starts, from the first to the last.

Promises: output arrives as it is written; when the command has ended, been stopped, or been left
behind by a runner that was killed, no process of it goes on. The processes of a job are known by
the environment variable GRADLAB_JOB, which they inherit (on Linux; elsewhere by their group).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MARK = "GRADLAB_JOB"
GRACE = 10.0  # seconds between the signal and SIGKILL, as docker stop has it
LAUNCHERS = ("bwrap", "docker", "podman")  # would take the job with them before it could save


class Stop:
    """The signal that ends the run, once one has come; a second one ends it at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.deadline = float("inf")
        self.event = threading.Event()

    def __call__(self, number: int) -> None:
        """Take a signal."""
        self.deadline = time.monotonic() if self.signal else time.monotonic() + GRACE
        self.signal = self.signal or number
        self.event.set()


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    take: Callable[[bytes], None],
    stop: Stop,
    tell: Callable[[int], None] | None = None,
) -> int:
    """Run a command, hand its output to `take` and give its exit status, negative for a signal.

    `env` has to hold GRADLAB_JOB. `tell` passes a signal on where the processes aren't the
    command's own children.
    """
    process = subprocess.Popen(
        command,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    told, held = False, set[int]()
    try:
        while process.poll() is None:
            _read(process, take, 0.2)
            if stop.signal and not told:
                told = True
                held = send(stop.signal, env[MARK], process, tell)
            if held and held >= set(_targets(env[MARK])):
                _end(held)
                held = set()
            if time.monotonic() > stop.deadline:
                break
    finally:
        kill(env[MARK], process)
    while _read(process, take, 0.1):
        pass
    assert process.stdout
    process.stdout.close()
    return process.wait()


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


def send(
    number: int,
    mark: str,
    process: subprocess.Popen[bytes],
    tell: Callable[[int], None] | None = None,
) -> set[int]:
    """Send a signal to a job's processes, but not to the launcher around them.

    Gives those that are held instead, until the others have ended: a shell that would die of the
    signal, and take with it what it has started and what may still be saving.
    """
    found = [] if tell else _targets(mark)
    parents = {_parent(pid) for pid in found}
    held = {pid for pid in found if pid in parents and not _heeds(pid, number)}
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if pid in held else number)
    if not found:
        with contextlib.suppress(ProcessLookupError):
            tell(number) if tell else os.killpg(process.pid, number)
    return held


def _targets(mark: str) -> list[int]:
    return [pid for pid in marked(mark) if _name(pid) not in LAUNCHERS]


def _end(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _status(pid: int) -> dict[str, str]:
    """Read what Linux says about a process; nothing if it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _parent(pid: int) -> int:
    return int(_status(pid).get("PPid", "0"))


def _heeds(pid: int, number: int) -> bool:
    """Tell whether a process catches or ignores a signal, by the masks of proc(5)."""
    status = _status(pid)
    masks = [int(status.get(name, "0"), 16) for name in ("SigCgt", "SigIgn")]
    return any(mask >> (number - 1) & 1 for mask in masks)


def kill(mark: str, process: subprocess.Popen[bytes] | None = None) -> int:
    """Kill a job's processes, until none is left; give how many there were."""
    killed: set[int] = set()
    if process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    for _ in range(100):
        if not (found := marked(mark)):
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(found)
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


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
