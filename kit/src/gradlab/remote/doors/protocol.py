"""What a door is: a service that runs a hop, which is one session's part of a run.

A hop has a name of its own, made of the run's and its number and noted before anything is asked
for. So whatever was cut off is found again by that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ..clients.talk import Failure

Word = Literal["absent", "waiting", "running", "ended", "failed", "cancelled"]
GPU, CPU = "gpu", "cpu"  # machines that each door has a name of its own for


class NoRoom(Failure):
    """The service has no machine for this now; nothing was started."""


@dataclass(frozen=True)
class Task:
    """A hop as a door gets it; `script` is Python for the other side, without a secret in it."""

    name: str
    script: str
    machine: str
    seconds: float  # that it may take


@dataclass(frozen=True)
class Seen:
    """How a hop stands, in the service's own words."""

    word: Word
    said: str = ""

    @property
    def lives(self) -> bool:
        """Whether the service goes on with it by itself."""
        return self.word in ("waiting", "running")


@dataclass(frozen=True)
class Standing:
    """Whether a door is open to this account, and what it has left."""

    room: bool
    said: str


@dataclass(frozen=True)
class Held:
    """A machine or session that the account holds, and what it costs."""

    what: str
    name: str = ""  # the hop's, if it is one's
    cost: str = ""


class Door(Protocol):
    """A service, through its vendor's own client.

    Promises: what it tells is the service's own state, never that something was asked for. All
    but `begin` can be repeated, and `begin` can where `find` says `absent`. A secret goes by the
    service's own means: never an argument, a log, or a file that remains. Raises Failure.
    """

    id: str
    name: str

    def standing(self, machine: str) -> Standing:
        """Say whether it is open, and what of its quota or balance is left; starts nothing."""

    def find(self, task: Task) -> Seen:
        """Say how a hop stands."""

    def begin(self, task: Task, secrets: str) -> None:
        """Start a hop, or finish starting one that was cut off; NoRoom where there is no machine.

        What was taken is given back where this fails.
        """

    def logs(self, task: Task) -> str:
        """Give what it has printed, as far as the service has it."""

    def stop(self, task: Task) -> None:
        """End a hop at once, if it lives."""

    def release(self, task: Task) -> None:
        """Give back the machine, and remove what a hop has left that nobody needs."""

    def held(self) -> list[Held]:
        """List what the account holds there now."""
