"""Processes, as /proc tells of them, and waiting for what they do."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def fresh_signals() -> Iterator[None]:
    """Let processes that are started in here take signals, also where the tests ignore them."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def send(number: int, *pids: int) -> None:
    """Send a signal to those of some processes that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def children_of(pid: int) -> list[int]:
    """List the processes that a process has started; none if it has ended."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def namespace(pid: int) -> int:
    """Give the number of a process's PID namespace, 0 if it has ended or may not be looked at."""
    try:
        return int(re.sub(r"\D", "", os.readlink(f"/proc/{pid}/ns/pid")))
    except OSError:
        return 0


def is_running(pid: int) -> bool:
    """Tell whether a process runs: one that has ended may wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(reached: Callable[[], object], seconds: float = 10.0, what: str = "it") -> None:
    """Wait until something is true; AssertionError if it doesn't become so in time."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Find some ports of the loopback on which nothing listens."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in found]
