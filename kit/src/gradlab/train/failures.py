"""What keeps a batch from being loaded, named by the example that does.

Promises: a failure is data that any process can send, and says where it happened, without the
kit's own frames, and what would do where memory or files are missing.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..services import machine
from .keyed import Dataset, Position

KIT = os.path.dirname(os.path.dirname(__file__))
SHARED = ("shared memory", "shm", "/torch_")
FRAMES = 8  # of an error's place, the innermost


@dataclass(frozen=True)
class Failure:
    """What a worker hands over in the place of a batch."""

    text: str


class Examples:
    """The examples of a dataset of (epoch, index), put together into batches by `collate`.

    `current` holds the epoch and index that each worker is at, for when it dies of it.
    """

    def __init__(
        self, dataset: Dataset, name: str, current: Any, collate: Callable[[list[Any]], Any]
    ) -> None:
        self.dataset = dataset
        self.name = name
        self.current = current
        self.collate = collate

    def batch(self, places: list[Position], worker: int | None = None) -> Any:
        """Load the batch of some places, or give the Failure that keeps it from being one."""
        examples = []
        for place in places:
            examples.append(self._load(place, worker))
            if isinstance(examples[-1], Failure):
                return examples[-1]
        try:
            return self.collate(examples)
        except Exception as error:
            return Failure(self._unlike(places, examples) + told(error))

    def _load(self, place: Position, worker: int | None) -> Any:
        if worker is not None:
            self.current[2 * worker], self.current[2 * worker + 1] = place
        try:
            return self.dataset[place]
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if isinstance(error, KeyboardInterrupt) and worker is None:
                raise  # the user's own
            return Failure(f"{self.where(place)} can't be loaded: {told(error)}")

    def where(self, place: Position) -> str:
        """Name an example as its dataset and the metrics count it."""
        return f"Example {place[1]} of the {self.name} data (epoch {place[0] + 1})"

    def _unlike(self, places: list[Position], examples: list[Any]) -> str:
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


def told(error: BaseException) -> str:
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
        return f"\n{shared_memory()}"
    if "Too many open files" in text or "ancdata" in text:
        return "\nRaise the limit of open files (ulimit -n 65536), or take fewer --workers."
    if "Cannot allocate memory" in text or "can't allocate memory" in text:
        return f"\n{memory()}"
    return ""


def shared_memory() -> str:
    """Say how much shared memory there is, and what would do where it is too little."""
    try:
        disk = os.statvfs("/dev/shm")
        size = f"{disk.f_blocks * disk.f_frsize / 2**20:.0f} MiB, "
        size += f"{disk.f_bavail * disk.f_frsize / 2**20:.0f} of them free"
    except OSError:
        size = "which is missing"
    return (
        f"If the dataset keeps anything in shared memory, that may be full (/dev/shm: {size}): "
        "give the container more, as by docker run --shm-size 1g, or take fewer --workers."
    )


def mapped() -> str:
    """Say what ends a process that reads or writes a file as its memory, and what would do."""
    return f"A file that it had mapped into memory was cut short or is lost.\n{shared_memory()}"


def memory() -> str:
    """Say how much memory there is, and what would do where it is too little."""
    total, free = (size / 2**30 for size in machine.memory())
    return (
        f"The system kills what needs more memory than there is ({free:.1f} of {total:.1f} GiB "
        "are free now): take fewer --workers or a smaller batch."
    )
