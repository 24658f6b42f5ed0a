"""The processes that load batches: each of `count` workers makes every count-th, in order.

Promises: a worker takes no signals and dies with its parent, however that ends; it is at most
some batches ahead of what was taken; nothing that it does can make its parent wait for ever.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from ..base import signals
from . import frameworks, passing
from .failures import Examples, Failure, told
from .keyed import Position

PR_SET_PDEATHSIG = 1
AHEAD = 2  # batches that a worker makes before the first of them is taken
TAKEN = b"t"


class End:
    """What a worker hands over after its last batch."""


def context(dataset: object) -> Any:
    """Choose how workers are started: by a fork, which takes no time and takes any dataset along.

    A framework's threads hold locks that a forked process would wait for for ever. Its workers are
    forked from a server that has loaded the module of the dataset, and not the framework.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    if all(framework.forks for framework in frameworks.loaded()):
        return multiprocessing.get_context("fork")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__, type(dataset).__module__])
    # It lets in again the signals that are held back while the server starts, which would end it.
    resource_tracker.ensure_running()
    return server


class Worker(BaseProcess):
    """A process that loads every count-th batch from its own number on.

    SIGKILL ends it where others are asked by SIGTERM, which it ignores.
    """

    _start_method = None  # of the processes that it may start itself: the usual one

    def __init__(
        self, number: int, count: int, examples: Examples, batches: Iterable[list[Position]]
    ) -> None:
        super().__init__(daemon=True)
        self.number = number
        here = context(getattr(examples.dataset, "dataset", examples.dataset))
        self._kind = here.Process
        self.here, self._there = here.Pipe()
        self._work = (count, examples, batches, os.getpid())

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        popen: Any = process_obj._kind._Popen(process_obj)
        popen.terminate = popen.kill  # also at the interpreter's exit, which asks without end
        return popen

    def start(self) -> None:
        """Start the process; its end of the pipe is then its own."""
        super().start()
        self._there.close()

    def take(self) -> Any:
        """Receive the next batch, a Failure or End; EOFError or OSError where there is none."""
        batch = passing.receive(self.here)
        with suppress(OSError):  # it may have ended since
            self.here.send_bytes(TAKEN)
        return batch

    def run(self) -> None:
        """Load and send the batches, in the process itself."""
        count, examples, batches, parent = self._work
        self.here.close()
        _begin()
        sender = passing.Sender(self._there, parent, AHEAD)
        try:
            for made, places in enumerate(islice(batches, self.number, None, count)):
                if made >= AHEAD:
                    self._there.recv_bytes()  # one was taken
                _send(sender, examples.batch(places, self.number))
            _send(sender, End())
        except Exception as error:
            _send(sender, Failure(f"The loader failed: {told(error)}"))


def _send(sender: passing.Sender, batch: Any) -> None:
    try:
        sender.send(batch)
    except Exception as error:
        sender.send(Failure(f"A batch can't be sent by its worker: {told(error)}"))


def _begin() -> None:
    """Leave signals to the parent, die with it, and leave the processors to the other workers."""
    signals.ignore()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if not multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]
            os._exit(1)
    for framework in frameworks.loaded():
        framework.begin_worker()
