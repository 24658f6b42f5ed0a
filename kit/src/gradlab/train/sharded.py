"""Checkpoints of a run that is sharded: of each process a shard, of the first the manifest, too.

Promises, for a kill of any process at any moment, or a full disk:
- each process writes its own shard; the manifest, which makes a checkpoint of them, is put in its
  place once all of them have read theirs back whole, so all agree on the newest whole one;
- where one can't write its shard there is no checkpoint: all know that, and training goes on;
- all processes see one folder, or the run is refused before its first step;
- another number of processes than the run began with is refused.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..base.errors import GradlabError, reason
from ..base.files import Pieces, read_bytes, remove, write_durably
from ..services import session
from ..store import shards
from ..store.copier import FULL
from ..store.copies import MANIFEST, SHARD, file_name
from .checkpoint import Checkpoints, restored
from .devices import World
from .runs import NEW, Keep, Run, State, TakenUp

SEEN = 10.0  # seconds in which a network file system shows what another machine has written


class Team(Protocol):
    """The processes that have a shard each."""

    @property
    def rank(self) -> int:
        """This process's place among them, from 0."""

    @property
    def size(self) -> int:
        """How many they are."""

    def exchange(self, value: Any) -> list[Any]:
        """Give all processes' values, in their order; not in the way of what a step exchanges."""


class Outcome(NamedTuple):
    """What became of a process's shard: it is written, or why not, and whether the disk is full."""

    shard: shards.Shard | None
    failure: str = ""
    full: bool = False


@dataclass
class Sharded(Checkpoints):
    """A process's part in the checkpoints of a team."""

    team: Team = field(kw_only=True)

    def _taken(self, state: Callable[[], State]) -> Callable[[], Pieces]:
        try:
            return super()._taken(lambda: {"process": self.team.rank, **state()})
        except GradlabError:
            raise
        # Too little memory: the others wait for this process, and are to know.
        except Exception as error:
            failure = error

        def give() -> Pieces:
            raise failure

        return give

    def _commit(self, step: int, give: Callable[[], Pieces]) -> None:
        outcomes = self._write_all(step, give)
        if any(outcome.full for outcome in outcomes):
            super()._make_room()
            self.team.exchange(None)  # until the first has made room
            outcomes = self._write_all(step, give)
        written = [outcome.shard for outcome in outcomes if outcome.shard]
        failure = "; ".join(filter(None, (outcome.failure for outcome in outcomes)))
        if self.team.rank == 0 and not failure:
            failure = _tried(self.team, lambda: self._write_manifest(step, written)).failure
        if failure := self.team.exchange(failure)[0]:
            if mine := outcomes[self.team.rank].shard:
                remove(self.folder / mine.name)  # else each failure would leave one more
            raise OSError(failure)

    def _write_all(self, step: int, give: Callable[[], Pieces]) -> list[Outcome]:
        """Write this process's shard; tell how all of them fared."""

        def write() -> shards.Shard:
            pieces = give()
            return shards.of(self._put(file_name(step, *pieces, suffix=SHARD), pieces))

        mine = _tried(self.team, write)
        while True:
            outcomes = self.team.exchange((step, mine))
            newest = max(each for each, _ in outcomes)
            if step < newest:  # a process could not even begin to save this one
                raise OSError(f"step {newest} is being saved")
            if all(each == step for each, _ in outcomes):
                return [outcome for _, outcome in outcomes]

    def _write_manifest(self, step: int, written: list[shards.Shard]) -> None:
        for shard in written:
            _await(self.folder / shard.name, shard.size)
        data = shards.manifest(step, written)
        self._mark_whole(self._put(file_name(step, data, suffix=MANIFEST), [data]))

    def _make_room(self) -> bool:
        return False  # alone it would remove the shards of those who have written theirs

    def _warn(self, step: int, error: Exception) -> None:
        if self.team.rank == 0:
            super()._warn(step, error)

    def load(self) -> State | None:
        """Load the newest checkpoint that is whole: the first process's part of it.

        Raises GradlabError for one of another number of processes, beside what others raise.
        """
        state = super().load()
        then, now = len(self.shards), self.team.size
        if state and then and then != now:
            raise GradlabError(
                f"The run '{self.folder.parent.name}' is sharded among {then} processes, and "
                f"{now} can't carry it on: with another number its bytes would be others.\n"
                f"Start it with {then} again (torchrun --nproc-per-node {then}, or as many on all "
                f"machines together), or {session.ways_to_start_over()}."
            )
        return state

    def load_own(self, written: list[shards.Shard], loaded: State | None) -> State:
        """Give this process's part of a checkpoint; GradlabError in all where one can't be loaded.

        The first process has `loaded` its own.
        """
        parts = [loaded] if loaded else []

        def load() -> None:
            name, expected, _ = written[self.team.rank]
            data = read_bytes(self.folder / name)
            if hashlib.sha256(data).hexdigest() != expected:
                raise OSError(f"{self.folder / name} reads otherwise than the first process saw it")
            parts.append(restored(data)["state"])

        outcome = Outcome(None) if parts else _tried(self.team, load)
        _raise_all(self.team, outcome, "The run can't be carried on by all processes")
        return parts[0]


def _tried(team: Team, work: Callable[[], shards.Shard | None]) -> Outcome:
    """Do what writes a shard, or none; give what became of it."""
    try:
        return Outcome(work())
    # A full disk or lost mount comes as OSError, RuntimeError and others, by the layer.
    except Exception as error:
        where = f"process {team.rank} on {socket.gethostname()}: {reason(error)}"
        return Outcome(None, where, getattr(error, "errno", None) in FULL)


def _await(path: Path, size: int) -> None:
    """Wait until a file of another process is seen here; OSError if that takes too long."""
    end = time.monotonic() + SEEN
    while not path.exists() or path.stat().st_size != size:
        if time.monotonic() > end:
            raise FileNotFoundError(f"{path} is not seen on {socket.gethostname()}")
        time.sleep(0.05)


def _raise_all(team: Team, outcome: Outcome, what: str) -> None:
    """Raise GradlabError in all processes where one of them has failed."""
    if failures := [each.failure for each in team.exchange(outcome) if each.failure]:
        lines = "".join(f"    {failure}\n" for failure in failures)
        raise GradlabError(
            f"{what}:\n{lines}With --shard all processes keep their parts in one folder: on "
            "several machines set GRADLAB_STORAGE, or GRADLAB_SCRATCH where that is a URL or a "
            "slow storage, to a folder that all of them see.",
            exit_code=1,
        )


class Part:
    """What a process other than the first one keeps of a run."""

    def __init__(self, checkpoints: Sharded) -> None:
        self.checkpoints, self.step = checkpoints, 0

    def save(self, step: int, state: State, last: bool) -> None:
        """Save this process's part as of a step, in the background."""

        def saved() -> None:
            self.step = step

        self.checkpoints.save(step, lambda: {"state": state}, lambda: None, saved)

    def wait(self) -> int:
        """Wait for a checkpoint under way, and give the step of the newest one that is whole."""
        self.checkpoints.wait()
        return self.step


Saver = Run | Part


def keep(team: Team | None) -> Keep:
    """Give what makes the checkpoints of a run, sharded where there is a team."""
    return partial(Sharded, team=team) if team else Checkpoints


def saver(run: Run | None, team: Team | None) -> Saver | None:
    """Give what this process saves: the run in the first one, in each other of a team its part.

    None where there is no team. Raises GradlabError in all where one does not see the folder.
    """
    if team is None:
        return run
    folder = _meet(team, run.checkpoints.folder if run else None)
    return run or Part(Sharded(folder, team=team))


def _meet(team: Team, own: Path | None) -> Path:
    """Give all the first one's folder, once each has read there what that one wrote."""
    word = secrets.token_hex(8)
    folder, word = team.exchange((own, word))[0]
    # Swept, if this process dies. Not by its id, which one on another machine may have, too.
    places = [folder / f".{word}.{rank}.tmp" for rank in range(team.size)]

    def see() -> None:
        if not own:
            _await(places[0], len(word))
        write_durably(places[team.rank], word.encode(), synced=False)

    outcome = _tried(team, see)
    try:
        _raise_all(team, outcome, f"Not all processes can write in {folder}")
    finally:
        if not outcome.failure:
            remove(places[team.rank])
    return Path(folder)


def taken_up(world: World, run: Run | None, saver: Saver | None) -> TakenUp:
    """Give all processes what a run goes on from: the state, of a sharded one each its own part."""
    step, state, settings, changed = run.taken_up() if run else NEW
    checkpoints = saver.checkpoints if saver else None
    split = isinstance(checkpoints, Sharded)
    written = run.checkpoints.shards if run else []
    given = (step, None if split else state, settings, changed), written
    (step, shared, settings, changed), written = world.share(given)
    if saver and isinstance(checkpoints, Sharded) and written:
        saver.step, shared = step, checkpoints.load_own(written, state)
    return step, shared, settings, changed
