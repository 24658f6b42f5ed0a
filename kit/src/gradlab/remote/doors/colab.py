"""Colab: a hop is a process beside the kernel of a machine, through Google's own command line.

Secrets go as a file by the machine's own interface, which the hop reads and removes. A machine is
given back by the hop's end, and by whoever sees that it is over.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ..clients.environment import Client
from ..clients.talk import Advice, Talk, Thing
from .protocol import CPU, GPU, Held, NoRoom, Seen, Standing, Task

CLIENT = Client("colab", "Google's command line for Colab, `colab` 0.7,", "colab", (3, 12))
AGENT = Path(__file__).with_name("colab_agent.py")
FOLDERS = ("/content",)
LOGIN = (
    "log in once, in a browser: {program} usage; or with Google's application default "
    "credentials, and GRADLAB_COLAB_AUTH=adc"
)
ADVICE = Advice(
    {
        401: ("Colab does not take the login", LOGIN.format(program="colab")),
        403: ("the account may not do this", "look at https://colab.research.google.com"),
        404: ("Colab does not know this", "look at https://colab.research.google.com"),
        409: ("this clashes with what is there", "look at https://colab.research.google.com"),
        429: ("Colab is too busy", "run it again in some minutes"),
    },
    "https://colab.research.google.com",
)
NAMES = ("T4", "L4", "G4", "A100", "H100", "V5E1", "V6E1")
MACHINES = {GPU: "T4", CPU: ""}


@dataclass
class Colab:
    """The door to Colab."""

    talk: Talk
    id: str = "colab"
    name: str = "Colab"

    def standing(self, machine: str) -> Standing:
        """Say the balance of units and what is used of them in an hour."""
        found = self._ask("usage")
        said = f"{found['balance']:.1f} units are left, {found['rate']:.2f} are used in an hour"
        return Standing(True, f"{said} by {found['machines']} machines")

    def find(self, task: Task) -> Seen:
        """Say how the hop stands on its machine."""
        found = self._ask("look", name=task.name, machine=_machine(task))
        match found.get("state"):
            case "running":
                return Seen("running", "on its machine")
            case "ended":
                word = "ended" if found["code"] == "0" else "failed"
                return Seen(word, f"it has ended with exit code {found['code']}")  # type: ignore[arg-type]
            case _:
                return Seen("absent", "it has no machine")

    def begin(self, task: Task, secrets: str) -> None:
        """Take a machine and begin there; Colab gives another one than was asked for at times."""
        arguments = {"machine": _machine(task), "text": task.script, "bag": secrets}
        if full := self._ask("begin", name=task.name, **arguments).get("full"):
            raise NoRoom(f"Colab has no machine for it now: {full}")

    def logs(self, task: Task) -> str:
        """Give what the hop has printed, as long as it has its machine."""
        return str(self._ask("log", name=task.name, machine=_machine(task)))

    def stop(self, task: Task) -> None:
        """Give the machine back, and so end what runs there."""
        self.release(task)

    def release(self, task: Task) -> None:
        """Give the machine back."""
        self._ask("unassign", name=task.name, machine=_machine(task))

    def held(self) -> list[Held]:
        """List the account's machines."""
        found, usage = self._ask("held"), self._ask("usage")
        cost = f"{usage['rate']:.2f} units an hour in all"
        return [Held(f"machine {each['machine']}, {each['endpoint']}", "", cost) for each in found]

    def _ask(self, what: str, **arguments: Any) -> Any:
        return self.talk.ask({"do": what, **arguments})


def bag(name: str) -> str:
    """Give the place on the other side where a hop's secrets lie."""
    return f"/content/{name}.bag"


def defect(greeting: Thing) -> str:
    """Say what is wrong with a client; raises GradlabError where nobody has logged in."""
    version = greeting.get("version", "unknown")
    if "unusable" in greeting:
        return f"its Python can't load it ({greeting['unusable']})"
    if not version.startswith("0.7."):
        return f"version {version} is another one"
    if greeting["login"] == "missing":
        program = os.environ.get(CLIENT.variable) or str(CLIENT.home / "bin" / CLIENT.program)
        raise GradlabError(f"there is no login for Colab: {LOGIN.format(program=program)}")
    return ""


def refuse_machine(machine: str) -> None:
    """Raise GradlabError for what is no machine of Colab's, which would give another one."""
    if machine not in MACHINES and machine not in NAMES:
        raise GradlabError(
            f"Colab has no machine {machine!r}: say gpu, cpu, or one of {', '.join(NAMES)}"
        )


def _machine(task: Task) -> str:
    return MACHINES.get(task.machine, task.machine)
