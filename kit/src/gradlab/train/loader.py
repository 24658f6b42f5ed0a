"""Batches that worker processes load, from which no failure can hang the training.

Promises: the batches come in order, and are the same with any number of workers. An example that
can't be loaded, examples that don't fit together and a worker that dies end in one LoaderError
that names the example, or the memory that is missing; no worker outlives its parent, however that
ends; signals are the parent's.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pickle import PicklingError
from typing import Any

from ..base import signals
from ..base.errors import GradlabError
from .collate import stack
from .failures import Examples, Failure, mapped, memory, told
from .keyed import Dataset, Position
from .workers import End, Worker

DYING = 1.0  # seconds until a process that dies is known to be dead
UNSENT = (
    "The {} data can't be sent to the loader's workers: let what they hold be plain, and "
    "functions be at the top of a module, or take --workers 0"
)
LOOK = 0.2  # seconds from one look at a worker that brings nothing to the next


class LoaderError(GradlabError):
    """What kept a batch from being loaded; each process has its own."""

    own = True

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}\nThe same command carries on once that is mended.", 1)


class Loader(Iterator[Any]):
    """The batches of a dataset of (epoch, index), as a context that ends the workers.

    `name` says which data it is, `batches` what each is made of: the same each time they are
    asked for, since each worker asks. `collate` puts examples together. `pin` is done to a batch
    in a thread while the one before is used, `move` when it is wanted. Raises LoaderError in the
    place of a batch that can't be loaded, or that no worker brings within `patience` seconds,
    where that isn't 0.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        batches: Iterable[list[Position]],
        workers: int = 0,
        collate: Callable[[list[Any]], Any] = stack,
        pin: Callable[[Any], Any] | None = None,
        move: Callable[[Any], Any] | None = None,
        patience: float = 0.0,
    ) -> None:
        self._current = multiprocessing.RawArray(ctypes.c_longlong, [-1] * 2 * max(1, workers))
        self._examples = Examples(dataset, name, self._current, collate)
        self._places, self._count, self._patience = batches, workers, patience
        self._pin, self._move = pin, move
        self._workers: list[Worker] = []

    def __enter__(self) -> Loader:
        try:
            self._start()
        except OSError as error:
            self._kill()
            raise LoaderError(f"The loader's workers can't start: {told(error)}") from error
        except (PicklingError, AttributeError, TypeError) as error:
            self._kill()
            raise LoaderError(f"{UNSENT.format(self._examples.name)}: {error}") from error
        self._batches = self._loaded()
        if self._pin:
            pinned = map(self._pin, self._batches)
            self._batches = _ahead(pinned) if self._count else pinned
        return self

    def _start(self) -> None:
        made = [Worker(n, self._count, self._examples, self._places) for n in range(self._count)]
        with signals.held_back():
            for worker in made:
                worker.start()
                self._workers.append(worker)

    def __next__(self) -> Any:
        batch = next(self._batches)
        return self._move(batch) if self._move else batch

    def _loaded(self) -> Iterator[Any]:
        made = self._brought() if self._count else map(self._examples.batch, self._places)
        for batch in made:
            if isinstance(batch, Failure):
                raise LoaderError(batch.text)
            yield batch

    def _brought(self) -> Iterator[Any]:
        """Give what the workers bring, each in its turn."""
        while True:
            for worker in self._workers:
                batch = self._take(worker)
                if isinstance(batch, End):
                    return
                yield batch

    def _take(self, worker: Worker) -> Any:
        begun = time.monotonic()
        while not worker.here.poll(LOOK):
            # Its end of the pipe may be open still, in a process that it has started.
            if worker.exitcode is not None and not worker.here.poll():
                raise LoaderError(self._obituary(worker))
            if self._patience and time.monotonic() > begun + self._patience:
                raise LoaderError(f"The loader brings no batch within {self._patience:g} s.")
        try:
            return worker.take()
        except Exception as error:
            # What a worker that dies leaves half sent may be noticed before its death.
            worker.join(DYING)
            text = f"The loader failed: {told(error)}"
            dead = worker.exitcode is not None
            raise LoaderError(self._obituary(worker) if dead else text) from error

    def __exit__(self, *_: object) -> None:
        self._kill()
        del self._batches

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join()
            worker.here.close()

    def _obituary(self, worker: Worker) -> str:
        epoch, index = self._current[2 * worker.number : 2 * worker.number + 2]
        at = f". It was at: {self._examples.where((epoch, index))}" if epoch >= 0 else ""
        code = worker.exitcode or 0
        how = f"ended by itself with exit code {code}"
        if code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
        why = {-signal.SIGKILL: memory, -signal.SIGBUS: mapped}.get(code)
        return f"Loader worker {worker.number} {how}{at}." + (f"\n{why()}" if why else "")


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Give items, each made in a thread while the one before is used."""
    end = object()
    pool = ThreadPoolExecutor(1)
    try:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
    finally:
        pool.shutdown(wait=False)
