"""Hugging Face Jobs: a hop is a job with the hop's name as a label, through the service's client.

Secrets go as those of a job. A job ends by itself, or at the limit that it was given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ..clients.environment import Client
from ..clients.talk import Advice, Talk, Thing
from .protocol import CPU, GPU, Held, NoRoom, Seen, Standing, Task, Word

CLIENT = Client("huggingface", "Hugging Face's client, `hf` 2,", "hf")
AGENT = Path(__file__).with_name("huggingface_agent.py")
TOKEN_HELP = (
    "make a token at https://huggingface.co/settings/tokens that may start jobs, and set the "
    "environment variable HF_TOKEN to it"
)
BILLING = "https://huggingface.co/settings/billing"
ADVICE = Advice(
    {
        401: ("Hugging Face does not take the token", TOKEN_HELP),
        402: ("the account has no credit", f"add some: {BILLING}"),
        403: ("the token may not do this", f"{TOKEN_HELP}; jobs need credit: {BILLING}"),
        404: ("Hugging Face does not know this", "look at https://huggingface.co/jobs"),
        409: ("this clashes with what is there", "look at https://huggingface.co/jobs"),
        429: ("Hugging Face is too busy", "run it again in some minutes"),
    },
    "https://status.huggingface.co",
)
MACHINES = {GPU: "t4-small", CPU: "cpu-basic"}
IMAGE = "python:3.12"  # with git
WORDS: dict[str, Word] = {
    "SCHEDULING": "waiting",
    "RUNNING": "running",
    "COMPLETED": "ended",
    "ERROR": "failed",
    "CANCELED": "cancelled",
    "DELETED": "cancelled",
}


@dataclass
class HuggingFace:
    """The door to Hugging Face Jobs."""

    talk: Talk
    id: str = "huggingface"
    name: str = "Hugging Face"

    def standing(self, machine: str) -> Standing:
        """Say what an hour costs, and whether the account can pay."""
        wanted = MACHINES.get(machine, machine)
        found = self._ask("standing", machine=wanted)
        if not found["known"]:
            raise GradlabError(f"Hugging Face has no machine {wanted!r}: hf jobs hardware")
        said = f"{wanted} costs {found['usd']:.2f} USD an hour"
        if not found["pays"]:
            return Standing(False, f"{said}, and the account has no way to pay: {BILLING}")
        return Standing(True, said)

    def find(self, task: Task) -> Seen:
        """Say how the job stands."""
        found = self._ask("look", name=task.name)
        if not found:
            return Seen("absent")
        if found["stage"] not in WORDS:
            raise ADVICE.failure({"failure": "answer", "words": f"stage {found['stage']!r}"})
        said = ": ".join(filter(None, (found["stage"], found["words"])))
        return Seen(WORDS[found["stage"]], said)

    def begin(self, task: Task, secrets: str) -> None:
        """Start the job; the limit is the service's to keep."""
        machine = MACHINES.get(task.machine, task.machine)
        arguments = {"machine": machine, "seconds": task.seconds, "image": IMAGE}
        try:
            self._ask("begin", name=task.name, text=task.script, bag=secrets, **arguments)
        except GradlabError as error:
            if getattr(error, "status", 0) == 402:
                raise NoRoom(str(error), 402) from None
            raise

    def logs(self, task: Task) -> str:
        """Give what the job has printed."""
        return str(self._ask("log", name=task.name))

    def stop(self, task: Task) -> None:
        """Cancel the job."""
        self._ask("cancel", name=task.name)

    def release(self, task: Task) -> None:
        """Cancel what lives: a job whose run is over has nothing to do."""
        self._ask("cancel", name=task.name)

    def held(self) -> list[Held]:
        """List the jobs that live."""
        return [
            Held(f"job {each['id']} on {each['machine']}", each["name"], "by the hour")
            for each in self._ask("held")
        ]

    def _ask(self, what: str, **arguments: Any) -> Any:
        return self.talk.ask({"do": what, **arguments})


def defect(greeting: Thing) -> str:
    """Say what is wrong with a client; raises GradlabError where there is no token."""
    version = greeting.get("version", "unknown")
    if "unusable" in greeting:
        return f"its Python can't load it ({greeting['unusable']})"
    if not version.startswith("2."):
        return f"version {version} is another one"
    if greeting["login"] == "missing":
        raise GradlabError(f"there is no token for Hugging Face: {TOKEN_HELP}")
    return ""


def refuse_machine(machine: str) -> None:
    """Raise GradlabError for what can't be a machine's name."""
    if not re.fullmatch(r"[a-z0-9-]+", machine):
        raise GradlabError(f"Hugging Face has no machine {machine!r}: say gpu, cpu or t4-small")
