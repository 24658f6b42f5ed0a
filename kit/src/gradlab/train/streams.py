"""Training data without an index: iterables that tell where they are, and can be put back there.

Promises: a run over one that was killed draws the examples that it would have drawn. The state in a
checkpoint is that of its step, for the training process itself draws the examples, one after the
other; what loads ahead is the iterable's, whose state says what was taken of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ..base.errors import GradlabError
from ..base.files import digest
from ..services import session
from . import keyed, passing, values
from .devices import World
from .failures import told
from .keyed import Batches, KeyedDataset, Position
from .loader import Loader

METHODS = ("__iter__", "state_dict", "load_state_dict")
# After so many examples it is tried whether the next come again, for SECONDS at most.
MARKS = (0, 8, 32, 128, 512, 2048)
AGAIN = 8
SECONDS = 3.0


class Stream:
    """The examples of an iterable with state_dict and load_state_dict, pass after pass.

    Takes (epoch, index) for an index, as KeyedDataset does, but gives the next example wherever
    that is. `set_epoch`, where there is one, is given the number of the pass before each.
    """

    indexed = False

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.name = type(dataset).__name__
        self._passes = 0
        self._examples: Iterator[Any] | None = None

    def __getitem__(self, place: Position) -> Any:
        keyed.seed_example(self.seed, place)
        for _ in range(2):
            if self._examples is None:
                if hasattr(self.dataset, "set_epoch"):
                    self.dataset.set_epoch(self._passes)
                self._examples = iter(self.dataset)
            with suppress(StopIteration):
                return next(self._examples)
            self._examples = None
            self._passes += 1
        raise ValueError(f"a pass over {self.name} has no examples")

    def workers(self, _: int) -> int:
        """Give the number of worker processes: none, for the state would be in them."""
        return 0

    def plan(self, batch: int, per_epoch: int | None, world: World) -> Batches:
        """Plan the batches of a run; an epoch has `per_epoch` steps, or those of a pass.

        Raises GradlabError where neither is known, or several processes are to share them.
        """
        if world.size > 1:
            raise GradlabError(
                f"{self.name} has no index, so {world.size} processes can't share its examples: "
                "train in one process, or give it __len__ and __getitem__(index)."
            )
        size = per_epoch * batch if per_epoch else self._length()
        return Batches(size, batch, self.seed, 0, 0, world.rank, world.size, shuffled=False)

    def _length(self) -> int:
        try:
            return len(self.dataset)
        except TypeError:
            raise GradlabError(
                f"{self.name} has no length: say by --steps-per-epoch how many steps count as an "
                "epoch, or give it __len__."
            ) from None

    def state(self) -> dict[str, Any]:
        """Give what `start` needs to go on after the last example that was drawn."""
        return {"passes": self._passes, "state": self.dataset.state_dict()}

    def start(self, state: dict[str, Any] | None) -> None:
        """Go on from a state, or begin; GradlabError where that can't be, or would not be exact."""
        if state is None:
            self._prove()
        elif not state:
            raise GradlabError(
                f"The checkpoint has no state of {self.name}: the run was begun with other "
                f"training data.\nPut them back, or {session.ways_to_start_over()}."
            )
        else:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._passes, self._examples = state["passes"], None
        try:
            self.dataset.load_state_dict(state["state"])
        except Exception as error:
            raise GradlabError(
                f"{self.name} can't go on from what its state_dict gave: {told(error)}\n"
                "If that was in an earlier session, put its code and data back as they were, or "
                f"{session.ways_to_start_over()}."
            ) from error

    def _prove(self) -> None:
        """Raise GradlabError where the same examples don't come again from a state."""
        seen, at = [], 0
        begun = time.monotonic()
        for mark in MARKS:
            self._drawn(at, mark, _counted)
            at = mark + AGAIN
            seen.append((self._kept(), mark, self._drawn(mark, at, _printed)))
            if time.monotonic() > begun + SECONDS:
                break
        # The first state comes last, for there the training begins.
        for state, mark, examples in reversed(seen):
            self._restore(state)
            if self._drawn(mark, mark + AGAIN, _printed) != examples:
                raise self._refusal(mark)
        self._restore(seen[0][0])

    def _refusal(self, mark: int) -> GradlabError:
        return GradlabError(
            f"{self.name} gives other examples after load_state_dict than it gave after the "
            f"state_dict of its example {mark}, so a run over it could not be resumed where it "
            "stopped.\nIts state has to hold all that decides what comes next, such as the content "
            "of a buffer in which it shuffles. Noise may come from the global generators, in the "
            "process that trains: not in worker processes or threads of its own."
        )

    def _kept(self) -> dict[str, Any]:
        """Give the state as a checkpoint would give it back; GradlabError if none can hold it."""
        packed = values.pack(self.state(), f"The state_dict of {self.name}")
        return dict(values.unpack(packed))

    def _drawn(self, start: int, stop: int, collate: Callable[[list[Any]], Any]) -> list[Any]:
        places = [[(0, index)] for index in range(start, stop)]
        with Loader(self, "training", places, collate=collate) as loaded:
            return list(loaded)


def _counted(examples: list[Any]) -> int:
    return len(examples)


def _printed(examples: list[Any]) -> str:
    """Give what is the same for the same examples, in one process."""
    with suppress(GradlabError):
        return repr(values.pack(examples, "A batch"))
    plain, arrays = passing.pickled(examples)
    return digest(plain, *arrays)


def source(dataset: Any, seed: int) -> KeyedDataset | Stream:
    """Give a dataset as training draws from it; GradlabError where it couldn't be resumed."""
    if isinstance(dataset, KeyedDataset | Stream):
        return dataset
    resumable = all(callable(getattr(dataset, name, None)) for name in METHODS)
    stream = keyed.is_stream(dataset) and resumable
    return Stream(dataset, seed) if stream else KeyedDataset(dataset, seed)
