"""The wish that this process ends: by a signal, or because torchrun has gone.

Promises: while something is unsaved, the first signal only asks, and the training saves and stops
after the step that it is in; more of them within two seconds are the same wish, for supervisors
send it to every process and runners pass it on; a later one ends the process at once. While
nothing is unsaved the first one does. The exit code is 128 + the signal's number; where a
supervisor asks for it, 75 while nothing is unsaved. Processes that this one starts take signals as
if it did not.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from . import unfinished
from .errors import note

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MOMENT = 2.0  # seconds in which several signals count as one
ORPHANED = 60.0  # seconds that a process has to save once torchrun has gone
LOOK = 0.5  # seconds from one look at the parent to the next


class Interrupted(Exception):
    """Something that is done again later was left for a signal."""


class Stop:
    """What this process was asked, as far as it knows."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self.unsaved = False
        self._at = 0.0
        self._parent = _torchrun() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._orphaned: float | None = None

    def check(self) -> None:
        """Raise Interrupted once a signal has come."""
        if self.asked is not None:
            raise Interrupted

    def install(self) -> None:
        """Take the signals; those that are ignored, as nohup has it, stay so."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in ENDINGS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._in_main)
        os.register_at_fork(after_in_child=self._forget)
        # A thread, for the main one may be deep in a library: loading, compiling, waiting for GPUs.
        threading.Thread(target=self._watch, args=(reader,), daemon=True, name="signals").start()

    def _in_main(self, number: int, _: FrameType | None) -> None:
        """Do nothing: that there is a handler is what brings the signal to the thread."""

    def _forget(self) -> None:
        """Give a forked child the usual handlers: terminate() of a pool has to end its workers."""
        signal.set_wakeup_fd(-1)
        for number in ENDINGS:
            if signal.getsignal(number) == self._in_main:
                usual = number == signal.SIGINT
                signal.signal(number, signal.default_int_handler if usual else signal.SIG_DFL)

    def _watch(self, reader: int) -> None:
        while True:
            if select.select([reader], [], [], LOOK)[0]:
                for number in os.read(reader, 512):
                    if number in ENDINGS:
                        self._heed(number)
            self._look()

    def _ask(self, number: int) -> None:
        if self.asked is None:
            self._at, self.asked = time.monotonic(), number

    def _heed(self, number: int) -> None:
        self._ask(number)
        if not self.unsaved or time.monotonic() - self._at > MOMENT:
            self._end()

    def _look(self) -> None:
        now = time.monotonic()
        gone = self._parent is not None and os.getppid() != self._parent
        if gone and self._orphaned is None:
            # Nobody would end the processes that wait for one that has died.
            self._orphaned = now
            self._ask(signal.SIGTERM)
            with suppress(OSError):  # who read it may have gone, too
                note("! torchrun has gone: saving and stopping.")
        if self._orphaned is not None and not (self.unsaved and now - self._orphaned < ORPHANED):
            self._end()

    def _end(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        usual = 128 + (self.asked or 0)
        # torchrun takes any code but 0 for a crash, and says so by the usual one.
        lone = not self.unsaved and self._parent is None
        os._exit(unfinished.code(usual) if lone else usual)


def _torchrun() -> int:
    """Give the process that started this one, 0 where it has gone already: then another took over.

    torchrun is a Python; what takes over from it is the system, a cluster's or a job's supervisor.
    """
    parent = os.getppid()
    with suppress(OSError), open(f"/proc/{parent}/cmdline", "rb") as file:
        words = file.read()
        is_python = os.path.basename(words.partition(b"\0")[0]).startswith(b"python")
        if not is_python or b"import supervisor as s" in words:
            return 0
    return parent


_stop: Stop | None = None


def take() -> Stop:
    """Take the signals that ask this process to end, from its main thread; once is enough."""
    global _stop
    if _stop is None:
        _stop = Stop()
        if threading.current_thread() is threading.main_thread():
            _stop.install()
    return _stop


@contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back from processes that are started in it, until they let them in."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore() -> None:
    """Ignore the signals in this process, and those that were held back from it."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
