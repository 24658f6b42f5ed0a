"""Batches that worker processes load, from which no failure can hang the training.

Promises: an example that can't be loaded, examples that don't fit together and a worker that
dies end in one LoaderError that names the example, or the memory that is missing; no worker
outlives its parent, however that ends; signals are the parent's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from ..base import signals
from ..base.errors import GradlabError
from .failures import Examples, Failure, memory, shared_memory, told
from .keyed import Place

if sys.platform == "linux":
    from multiprocessing.context import ForkContext as Context
    from multiprocessing.context import ForkProcess as Process
else:
    from multiprocessing.context import SpawnContext as Context
    from multiprocessing.context import SpawnProcess as Process

PR_SET_PDEATHSIG = 1
DYING = 1.0  # seconds until a process that dies is known to be dead


class LoaderError(GradlabError):
    """What kept a batch from being loaded; each process has its own."""

    own = True

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}\nThe same command carries on once that is mended.", 1)


class _Worker(Process):
    """A process that SIGKILL ends where others are asked by SIGTERM, which it ignores."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        popen: Any = Process._Popen(process_obj)
        popen.terminate = popen.kill  # also at the interpreter's exit, which asks without end
        return popen


class _Results(Queue):  # type: ignore[type-arg]
    """A queue in which what can't be sent becomes a Failure; else its reader would wait for it."""

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
        if isinstance(obj, tuple) and not isinstance(obj[1], Failure):
            self.put((obj[0], Failure(f"A batch can't be sent by its worker: {told(e)}")))


class _Flag:
    """An event without a lock, which a worker that is killed could hold for ever."""

    def __init__(self) -> None:
        self._value = multiprocessing.RawValue(ctypes.c_bool, False)

    def set(self) -> None:
        self._value.value = True

    def is_set(self) -> bool:
        return bool(self._value.value)


class _Workers(Context):
    """The workers of one loader."""

    def __init__(self) -> None:
        self.started: list[_Worker] = []

    def Process(self, *arguments: Any, **options: Any) -> _Worker:  # type: ignore[override]
        self.started.append(_Worker(*arguments, **options))
        return self.started[-1]

    def Queue(self, maxsize: int = 0) -> _Results:
        return _Results(maxsize, ctx=self.get_context())

    def Event(self) -> _Flag:  # type: ignore[override]
        return _Flag()


class _Begin:
    """What a worker does first: leave signals to its parent, and die with it."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, _: int) -> None:
        signals.ignore()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self.parent:
                os._exit(1)


class Loader(Iterator[Any]):
    """The batches of a dataset of (epoch, index), as a context that ends the workers.

    `name` says which data it is. Raises LoaderError in the place of a batch that can't be loaded,
    or that workers don't bring within `patience` seconds, where that isn't 0.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        name: str,
        batches: Iterable[list[Place]],
        workers: int = 0,
        pin_memory: bool = False,
        collate: Callable[[list[Any]], Any] | None = None,
        patience: float = 0.0,
    ) -> None:
        self._context = _Workers()
        self._current = self._context.RawArray(ctypes.c_longlong, [-1] * 2 * max(1, workers))
        self._examples = Examples(dataset, name, self._current, collate or default_collate)
        self._waiting = False
        self._loader = DataLoader(
            self._examples,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=self._examples.collate,
            multiprocessing_context=self._context if workers else None,
            worker_init_fn=_Begin(),
            pin_memory=pin_memory,
            timeout=patience if workers else 0,
        )

    def __enter__(self) -> Loader:
        try:
            with signals.held_back():
                self._batches = iter(self._loader)
        except OSError as error:
            self._kill()
            raise LoaderError(f"The loader's workers can't start: {told(error)}") from error
        # In the place of torch's, which raises in the middle of a step or a save.
        if self._context.started:
            self._before = signal.signal(signal.SIGCHLD, self._child_ended)
        return self

    def __next__(self) -> Any:
        self._waiting = True
        try:
            self._look_for_dead()
            batch = next(self._batches)
        except (StopIteration, GradlabError):
            raise
        except Exception as error:
            if not self._context.started:
                raise
            # What a worker that dies leaves half sent may be noticed before its death.
            end = time.monotonic() + DYING
            while time.monotonic() < end:
                self._look_for_dead(0)
                time.sleep(0.05)
            raise LoaderError(f"The loader failed: {told(error)}") from error
        finally:
            self._waiting = False
        if isinstance(batch, Failure):
            raise LoaderError(batch.text)
        return batch

    def __exit__(self, *_: object) -> None:
        self._kill()
        del self._batches
        if self._context.started:
            signal.signal(signal.SIGCHLD, self._before)

    def _kill(self) -> None:
        for worker in self._context.started:
            if worker.is_alive():
                worker.kill()
        for worker in self._context.started:
            if worker.pid is not None:
                worker.join()

    def _child_ended(self, _: int, __: FrameType | None) -> None:
        if self._waiting:
            self._look_for_dead()

    def _look_for_dead(self, *harmless: int) -> None:
        for number, worker in enumerate(self._context.started):
            code = worker.exitcode
            if code or (code is not None and code in harmless):
                raise LoaderError(self._obituary(number, code))

    def _obituary(self, number: int, code: int) -> str:
        epoch, index = self._current[2 * number], self._current[2 * number + 1]
        at = f". It was at: {self._examples.where((epoch, index))}" if epoch >= 0 else ""
        how = f"ended by itself with exit code {code}"
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        why = {-signal.SIGKILL: memory, -signal.SIGBUS: shared_memory}.get(code)
        return f"Loader worker {number} {how}{at}." + (f"\n{why()}" if why else "")
