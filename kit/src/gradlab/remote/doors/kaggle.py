"""Kaggle: a hop is a private notebook that runs a script, through Kaggle's own client.

Secrets go as a private dataset that only the notebook has, removed when the hop is over: the
client can't attach the account's own secrets (Kaggle/kaggle-cli#582). The client ends with exit
code 0 whether the session count is full or the notebook has failed, so neither is believed.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ..clients.environment import Client
from ..clients.talk import Advice, Failure, Talk, Thing
from .protocol import CPU, GPU, Held, NoRoom, Seen, Standing, Task, Word

CLIENT = Client("kaggle", "Kaggle's client, `kaggle` 2.2,", "kaggle")
AGENT = Path(__file__).with_name("kaggle_agent.py")
HIDDEN = ("KAGGLE_KERNEL", "KAGGLE_DATA")
TOKEN_HELP = (
    "make a token at https://www.kaggle.com/settings (API), and set the environment variable "
    "KAGGLE_API_TOKEN to it"
)
ADVICE = Advice(
    {
        401: ("Kaggle does not take the token", TOKEN_HELP),
        403: ("the token may not do this", TOKEN_HELP),
        404: ("Kaggle does not know this", "look at your notebooks at https://www.kaggle.com"),
        409: (
            "this clashes with what is there",
            "look at your notebooks at https://www.kaggle.com",
        ),
        429: ("Kaggle is too busy", "run it again in some minutes"),
    },
    "https://www.kaggle.com",
)
MACHINES = {GPU: "NvidiaTeslaT4", CPU: ""}  # two T4
FOLDERS = ("/kaggle/tmp", "/tmp")
WORDS: dict[str, Word] = {
    "QUEUED": "waiting",
    "RUNNING": "running",
    "CANCEL_REQUESTED": "running",
    "COMPLETE": "ended",
    "ERROR": "failed",
    "CANCEL_ACKNOWLEDGED": "cancelled",
    "NEW_SCRIPT": "absent",  # it was saved, and never run
}
FULL = re.compile(r"session count|maximum .*sessions?\b|quota", re.I)
READY, BROKEN = "READY", "FAILED"
PATIENCE = 300.0  # seconds for a dataset to be ready
PAUSE = 2.0
OWN = "gradlab-"


@dataclass
class Kaggle:
    """The door to Kaggle."""

    talk: Talk
    pause: float = PAUSE
    id: str = "kaggle"
    name: str = "Kaggle"

    def standing(self, machine: str) -> Standing:
        """Say how many hours of GPU the week has left."""
        quota = self._ask("quota")
        if machine == CPU or not quota:
            return Standing(True, "open; no quota of GPU was told" if not quota else "open")
        left = max(0.0, quota["allowed"] - quota["used"])
        said = f"{left:.1f} of {quota['allowed']:g} hours of GPU are left this week"
        said += f", renewed at {quota['renewed']}" if quota["renewed"] else ""
        return Standing(left > 0, said)

    def find(self, task: Task) -> Seen:
        """Say how the notebook's session stands."""
        found = self._ask("status", name=task.name)
        if not found:
            return Seen("absent")
        if found["status"] not in WORDS:
            raise ADVICE.failure({"failure": "answer", "words": f"status {found['status']!r}"})
        said = ": ".join(filter(None, (found["status"], found["words"])))
        return Seen(WORDS[found["status"]], said)

    def begin(self, task: Task, secrets: str) -> None:
        """Push the notebook, once its secrets are in place."""
        machine = MACHINES.get(task.machine, task.machine)
        self._bring(_dataset(task), secrets)
        said = self._ask(
            "push",
            name=task.name,
            text=task.script,
            machine=machine,
            seconds=task.seconds,
            dataset=_dataset(task),
        )
        if said["error"]:
            self.release(task)
            kind = NoRoom if FULL.search(said["error"]) else Failure
            raise kind(f"Kaggle did not start it: {said['error']}")
        if said["without"]:
            self.stop(task)
            raise Failure("Kaggle started it without its secrets, so it was ended: run it again")

    def logs(self, task: Task) -> str:
        """Give what the notebook has printed."""
        return str(self._ask("logs", name=task.name))

    def stop(self, task: Task) -> None:
        """Remove the notebook: the client has nothing else that ends a session."""
        self._ask("delete", name=task.name)
        self.release(task)

    def release(self, task: Task) -> None:
        """Remove the secrets; the notebook stays, with its log."""
        self._ask("dataset_delete", name=_dataset(task))

    def held(self) -> list[Held]:
        """List the notebooks of this kit that run now, and secrets that were left behind."""
        found = []
        for name in self._ask("mine", text=OWN):
            if name.startswith(OWN):
                state = self._ask("status", name=name)
                if state and WORDS.get(state["status"]) in ("waiting", "running"):
                    found.append(Held(f"notebook, {state['status']}", name, "hours of the week"))
        for name in self._ask("my_datasets", text=OWN):
            if name.startswith(OWN):
                found.append(Held("dataset with secrets", name.removesuffix("-in"), "nothing"))
        return found

    def _bring(self, name: str, text: str) -> None:
        """Make the dataset unless it is there, and wait until it can be read."""
        end = time.monotonic() + PATIENCE
        status = self._ask("dataset_status", name=name)
        if not status and (error := self._ask("dataset_create", name=name, text=text)):
            raise Failure(f"Kaggle did not take the secrets: {error}")
        while (status := self._ask("dataset_status", name=name)) != READY:
            if status == BROKEN or time.monotonic() > end:
                self._ask("dataset_delete", name=name)
                raise Failure("Kaggle could not make a dataset of the secrets: run it again")
            time.sleep(self.pause)

    def _ask(self, what: str, **arguments: Any) -> Any:
        return self.talk.ask({"do": what, **arguments})


def bag(name: str) -> str:
    """Give the place on the other side where a hop's secrets lie."""
    return f"/kaggle/input/**/{name}-in/**/bag.json"


def defect(greeting: Thing) -> str:
    """Say what is wrong with a client."""
    version = greeting.get("version", "unknown")
    if "unusable" in greeting:
        return f"its Python can't load it ({greeting['unusable']})"
    if not version.startswith("2.2."):
        return f"version {version} is another one"
    return ""


def refuse_machine(machine: str) -> None:
    """Raise GradlabError for what is no machine of Kaggle's."""
    if machine not in MACHINES and not re.fullmatch(r"(Nvidia|Tpu)\w+", machine):
        raise GradlabError(f"Kaggle has no machine {machine!r}: say gpu, cpu, or NvidiaTeslaT4")


def _dataset(task: Task) -> str:
    return f"{task.name}-in"
