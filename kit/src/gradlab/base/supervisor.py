"""Runs one command of a job, and keeps all that it starts together, to the last process.

    python -I -S supervisor.py SIGNALS COMMAND [ARGUMENT ...]

`gradlab run` starts it beside each command, inside of bubblewrap's namespace where there is one.
Standard input is the wire to the runner: a byte is a signal to pass on; its end, also that of a
killed runner, ends everything at once. SIGNALS are those that the run heeds (`1,2,15`).

Promises: on Linux every process that the command starts is found by its descent, whatever it
does with its environment, session or title, for orphans come to this process. A signal is passed
on once, whoever it came to and however often. Whoever catches it may save before the rest is
killed. What reads from a pipe may pass on what is in it. Then nothing is left. The exit status
is the command's, by the same signal where it ended by one. Needs the standard library only.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Collection, Iterable, Iterator
else:  # each job waits for these imports: `signal` and `contextlib` take as long as Python's start
    import _signal as signal

GRACE = 10.0  # seconds between a signal and SIGKILL, as docker stop has it
DRAIN = 10.0  # for what still reads from a pipe when the command has ended
SETTLE = 0.5  # for a signal that reaches the command a moment before it comes here
PAUSE = 0.03  # between two looks at the processes
NOW = 0  # instead of a signal: end everything
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
STOPPED, GONE = "Tt", "ZXx"  # states of proc(5)


class suppress:
    """What contextlib.suppress is."""

    def __init__(self, *errors: type[BaseException]) -> None:
        self.errors = errors

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        """Tell whether to go on behind the block."""
        return kind is not None and issubclass(kind, self.errors)


class Process:
    """What Linux says about a process."""

    def __init__(self, pid: int, parent: int, group: int, state: str) -> None:
        self.pid, self.parent, self.group, self.state = pid, parent, group, state


class Supervisor:
    """One command with its processes; `wires` are where signals are read from."""

    def __init__(self, command: int, wires: Collection[int]) -> None:
        self.command, self.wires = command, set(wires)
        self.status: int | None = None
        self.told = 0
        self.held: set[int] = set()
        self.unmoved: set[int] = set()
        self.end = float("inf")

    def serve(self) -> int:
        """Wait until the command and what may go on after it have ended; give its status."""
        while not self._is_over():
            waits = self.status is None and not self.told
            for number in _signals(self.wires, None if waits else PAUSE):
                if number == NOW:
                    self.end = 0
                elif number != signal.SIGCHLD:
                    self._tell(number)
        self._send_to_group(signal.SIGKILL)
        if self._reap():
            end(os.getpid())
            self._reap()
        return -signal.SIGKILL if self.status is None else self.status

    def _is_over(self) -> bool:
        if not self._reap() or time.monotonic() > self.end:
            return True
        return self._has_saved() if self.told else self._is_drained()

    def _reap(self) -> bool:
        """Take note of what has ended; False where nothing is left."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.command:
                    self._ended(os.waitstatus_to_exitcode(ended[1]))
            return True
        return False

    def _ended(self, status: int) -> None:
        self.status = status
        number = -status if status < 0 else status - 128
        # It may have had a signal that was sent to every process, and others are saving.
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._tell(number)
        elif not self.told:
            self.end = time.monotonic() + DRAIN
            self.settled = time.monotonic() + SETTLE

    def _tell(self, number: int) -> None:
        """Pass a signal on, once.

        Held instead, until the others have ended, is a shell that would die of the signal: the
        script's next command must not begin. Spared is what would die of it and reads what
        another one still writes, such as `tee`.
        """
        if self.told:
            return
        self.told, self.end = number, time.monotonic() + GRACE
        found = family(os.getpid())
        mortal = {pid for pid in found if not _minds(pid, number)}
        # Not one that ignores SIGTERM as well: it may have had the signal, and be saving.
        self.unmoved = {
            pid
            for pid in found.keys() - mortal
            if _has(pid, "SigIgn", number) and not _minds(pid, signal.SIGTERM)
        }
        spared = _readers(mortal, found.keys() - mortal - self.unmoved)
        self.held = (mortal & {process.parent for process in found.values()}) - spared
        send(signal.SIGSTOP, self.held)
        send(number, found.keys() - self.held - spared)
        stopped = {pid for pid, process in found.items() if process.state in STOPPED}
        send(signal.SIGCONT, stopped - self.held)
        if not found:
            self._send_to_group(number)

    def _send_to_group(self, number: int) -> None:
        # All that is known of the processes where there is no /proc.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.command, number)

    def _has_saved(self) -> bool:
        alive = family(os.getpid()).keys()
        working = alive - self.held - self.unmoved
        if self.held and not working - _readers(working, self.held):
            send(signal.SIGKILL, self.held)
            self.held = set()
        return self.status is not None and not working

    def _is_drained(self) -> bool:
        if self.status is None or time.monotonic() < self.settled:
            return False
        alive = family(os.getpid())
        draining = {pid for pid in alive if _pipe(pid, 0)}
        send(signal.SIGKILL, alive.keys() - draining)
        return not draining


def _signals(wires: set[int], wait: float | None) -> Iterator[int]:
    """Read the signals that came; NOW at the end of a wire, which is then left out."""
    for wire in select.select(wires, [], [], wait)[0]:
        if data := os.read(wire, 100):
            yield from data
        else:
            wires.discard(wire)
            yield NOW


def end(top: int) -> None:
    """Kill all processes below one, until none is left; gives up after some seconds."""
    limit = time.monotonic() + 5
    while (found := family(top)) and time.monotonic() < limit:
        send(signal.SIGKILL, found)
        # By their groups too: some fork faster than they can be listed.
        for group in {process.group for process in found.values()} - {os.getpgrp(), 0}:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        time.sleep(0.005)


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to those processes that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def family(top: int) -> dict[int, Process]:
    """Find the processes that descend from one and have not ended; none where there is no /proc."""
    below: dict[int, list[Process]] = {}
    for process in _processes():
        below.setdefault(process.parent, []).append(process)
    found, ancestors = dict[int, Process](), [top]
    for ancestor in ancestors:
        for process in below.get(ancestor, ()):
            ancestors.append(process.pid)
            if process.state not in GONE:
                found[process.pid] = process
    return found


def _processes() -> Iterator[Process]:
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # After the command's name, which may hold anything.
                state, parent, group = file.read().rpartition(b")")[2].split()[:3]
                yield Process(int(name), int(parent), int(group), state.decode())


def _minds(pid: int, number: int) -> bool:
    """Tell whether a process catches, ignores or blocks a signal, so that it does not die of it."""
    return any(_has(pid, mask, number) for mask in ("SigCgt", "SigIgn", "SigBlk"))


def _has(pid: int, mask: str, number: int) -> bool:
    """Tell whether a mask of signals in proc(5) holds one: SigCgt, those that are caught."""
    with suppress(OSError), open(f"/proc/{pid}/status", encoding="latin-1") as file:
        found = next((line.split()[1] for line in file if line.startswith(mask)), "0")
        return bool(int(found, 16) >> (number - 1) & 1)
    return False


def _readers(pids: Collection[int], sources: Collection[int]) -> set[int]:
    """Give those whose standard input is a pipe from one of the sources, or from such a one."""
    inputs = {pid: pipe for pid in pids if (pipe := _pipe(pid, 0))}
    found = set[int]()
    while sources:
        pipes = {pipe for pid in sources for pipe in _pipes(pid)}
        sources = {pid for pid, pipe in inputs.items() if pipe in pipes} - found
        found |= sources
    return found


def _pipes(pid: int) -> set[tuple[int, int]]:
    with suppress(OSError):
        return {pipe for n in os.listdir(f"/proc/{pid}/fd") if (pipe := _pipe(pid, int(n)))}
    return set()


def _pipe(pid: int, number: int) -> tuple[int, int] | None:
    """Identify the pipe that a process has open under a number; None for anything else."""
    with suppress(OSError):
        found = os.stat(f"/proc/{pid}/fd/{number}")
        return (found.st_dev, found.st_ino) if stat.S_ISFIFO(found.st_mode) else None
    return None


def start(command: list[str], heeded: Collection[int]) -> int:
    """Start the command in a session of its own, as if this process were not there."""
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        for number in (*heeded, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def listen(heeded: Collection[int]) -> int:
    """Give the wire on which the numbers of the signals to this process arrive."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*heeded, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def control(option: int, value: int) -> None:
    """Call prctl(2), where there is one."""
    import ctypes  # takes a moment, and isn't always needed

    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def main(arguments: list[str]) -> None:
    """Run the command, and end as it did."""
    heeded = [int(number) for number in arguments[0].split(",") if number]
    if os.getpid() != 1:  # which orphans come to in any case
        control(PR_SET_CHILD_SUBREAPER, 1)
    wires = (0, listen(heeded))
    status = Supervisor(start(arguments[1:], heeded), wires).serve()
    if status < 0:
        control(PR_SET_DUMPABLE, 0)  # no second core file
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        os.kill(os.getpid(), -status)
        os._exit(128 - status)  # process 1 of a namespace can't kill itself
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
