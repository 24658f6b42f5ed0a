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
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from ..base import signals
from ..base.errors import GradlabError
from ..services import machine
from .keyed import Place

if sys.platform == "linux":
    from multiprocessing.context import ForkContext as Context
    from multiprocessing.context import ForkProcess as Process
else:
    from multiprocessing.context import SpawnContext as Context
    from multiprocessing.context import SpawnProcess as Process

KIT = os.path.dirname(os.path.dirname(__file__))
PR_SET_PDEATHSIG = 1
SHARED = ("shared memory", "shm", "/torch_")
DYING = 1.0  # seconds until a process that dies is known to be dead
FRAMES = 8  # of an error's place, the innermost


class LoaderError(GradlabError):
    """What kept a batch from being loaded; each process has its own."""

    own = True

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}\nThe same command carries on once that is mended.", 1)


@dataclass(frozen=True)
class Failure:
    """What a worker hands over in the place of a batch."""

    text: str


class Examples(Dataset[Any]):
    """A dataset of (epoch, index) that gives a Failure for an example that can't be loaded.

    `current` holds the epoch and index that each worker is at, for when it dies of it.
    """

    def __init__(
        self, dataset: Dataset[Any], name: str, current: Any, join: Callable[[list[Any]], Any]
    ) -> None:
        self.dataset = dataset
        self.join = join
        self.name = name
        self.current = current
        self.places: list[Place] = []

    def __getitem__(self, place: Place) -> Any:
        worker = get_worker_info()
        if worker:
            self.current[2 * worker.id], self.current[2 * worker.id + 1] = place
        self.places.append(place)
        try:
            return self.dataset[place]
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and not worker:
                raise  # the user's own
            return Failure(f"{self.where(place)} can't be loaded: {_told(error)}")

    def where(self, place: Place) -> str:
        """Name an example as its dataset and the metrics count it."""
        return f"Example {place[1]} of the {self.name} data (epoch {place[0] + 1})"

    def collate(self, examples: list[Any]) -> Any:
        """Put examples together into a batch, or give the Failure that keeps it from being one."""
        places, self.places = self.places, []
        for example in examples:
            if isinstance(example, Failure):
                return example
        try:
            return self.join(examples)
        except Exception as error:
            return Failure(self._unlike(places, examples) + _told(error))

    def _unlike(self, places: list[Place], examples: list[Any]) -> str:
        forms = list(map(_form, examples))
        usual = Counter(forms).most_common(1)[0][0]
        odd = [(place, form) for place, form in zip(places, forms, strict=True) if form != usual]
        place, form = odd[0] if odd else (places[0], usual)
        others = f"; {len(odd) - 1} more differ" * (len(odd) > 1)
        differs = f" is {form}, most others are {usual}{others}" if odd else f" is {form}"
        return f"{self.where(place)}{differs}. Its batch can't be put together: "


def _form(example: Any) -> str:
    """Describe an example by what has to be alike within a batch."""
    if isinstance(example, dict):
        return "{" + ", ".join(f"{key}: {_form(value)}" for key, value in example.items()) + "}"
    if isinstance(example, (list, tuple)):
        return "(" + ", ".join(map(_form, example)) + ")"
    if hasattr(example, "shape"):
        return f"{type(example).__name__} {tuple(example.shape)}"
    return type(example).__name__


def _told(error: BaseException) -> str:
    """Say what went wrong and where, without the kit's own frames."""
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(KIT)
    ]
    lines = "".join(traceback.format_list(frames[-FRAMES:])).rstrip()
    text = f"{type(error).__name__}: {error}".rstrip(": ") + f"\n{lines}" * bool(lines)
    return text + _missing(str(error))


def _missing(text: str) -> str:
    """Say what an error's text tells of memory or files that are missing, and what would do."""
    if any(word in text for word in SHARED):
        return f"\n{_shared_memory()}"
    if "Too many open files" in text or "ancdata" in text:
        return "\nRaise the limit of open files (ulimit -n 65536), or take fewer --workers."
    if "Cannot allocate memory" in text or "can't allocate memory" in text:
        return f"\n{_memory()}"
    return ""


def _shared_memory() -> str:
    try:
        disk = os.statvfs("/dev/shm")
        size = f"{disk.f_blocks * disk.f_frsize / 2**20:.0f} MiB, "
        size += f"{disk.f_bavail * disk.f_frsize / 2**20:.0f} of them free"
    except OSError:
        size = "which is missing"
    return (
        f"The workers' shared memory is full (/dev/shm: {size}). Give the container more, as by "
        "docker run --shm-size 1g, or take fewer --workers (0 needs none) or a smaller batch."
    )


def _memory() -> str:
    total, free = (size / 2**30 for size in machine.memory())
    return (
        f"The system kills what needs more memory than there is ({free:.1f} of {total:.1f} GiB "
        "are free now): take fewer --workers or a smaller batch."
    )


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
            self.put((obj[0], Failure(f"A batch can't be sent by its worker: {_told(e)}")))


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
            raise LoaderError(f"The loader's workers can't start: {_told(error)}") from error
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
            raise LoaderError(f"The loader failed: {_told(error)}") from error
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
        why = {-signal.SIGKILL: _memory, -signal.SIGBUS: _shared_memory}.get(code)
        return f"Loader worker {number} {how}{at}." + (f"\n{why()}" if why else "")
