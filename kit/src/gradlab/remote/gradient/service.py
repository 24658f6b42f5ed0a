"""The service as this project sees it: what is there by which name, and how to make more.

Promises: nothing is believed for having been asked for: what was made is looked up. Every
failure is a `Failure` in plain words, with what would do. An API key or secret goes through
pipes and the environment only: never an argument, a log or a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ..clients.environment import Client
from ..clients.talk import Advice, Failure, Talk, Thing
from ..clients.talk import connect as talk_to

__all__ = ["Failure", "Service", "Thing", "connect", "named"]

CLIENT = Client("gradient", "Paperspace's command line, `gradient` 2.99,", "gradient")
AGENT = Path(__file__).with_name("agent.py")
VERSION = "2.99."
PAGE = 20  # what the command line asks for
KEY_HELP = (
    "make one at https://console.paperspace.com (your team's settings, API keys), and set the "
    "environment variable PAPERSPACE_API_KEY to it"
)
ADVICE = Advice(
    {
        401: ("the service does not take the API key", KEY_HELP),
        403: (
            "the API key may not do this",
            "take a key of the right team, or ask the team's owner",
        ),
        404: ("the service does not know this", "look at it in https://console.paperspace.com"),
        409: ("this clashes with what is there", "look at it in https://console.paperspace.com"),
        429: ("the service is too busy, or has none free", "run it again in some minutes"),
    },
    "https://status.paperspace.com",
)


@dataclass(frozen=True)
class Service:
    """Calls the service, through the command line's own environment."""

    talk: Talk

    @property
    def program(self) -> Path:
        """Give the command line."""
        return self.talk.program

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request to the agent and give its result; raises Failure."""
        return self.talk.ask(request)

    def call(self, client: str, name: str, /, **arguments: Any) -> Any:
        """Call a method of a client of the SDK; objects come as mappings."""
        return self.ask({"client": client, "method": name, "arguments": arguments})

    def command(self, *arguments: str) -> str:
        """Run the command line and give what it says, which may be that it failed."""
        return str(self.ask({"command": arguments}))

    def projects(self) -> list[Thing]:
        """List projects: id, name."""
        return things(self.call("ProjectsClient", "list"))

    def create_project(self, name: str) -> None:
        self.call("ProjectsClient", "create", name=name)

    def storage_providers(self) -> list[Thing]:
        """List where datasets can be kept: id, name, type."""
        return self._pages("StorageProvidersClient")

    def datasets(self) -> list[Thing]:
        """List datasets: id, name."""
        return self._pages("DatasetsClient")

    def create_dataset(self, name: str, storage_provider: str) -> None:
        arguments = {"name": name, "storage_provider_id": storage_provider}
        self.call("DatasetsClient", "create", **arguments)

    def versions(self, dataset: str, committed: bool) -> list[Thing]:
        """List a dataset's versions, the newest first: version, message."""
        return self._pages("DatasetVersionsClient", dataset_id=dataset, is_committed=committed)

    def resolve(self, reference: str) -> Thing:
        """Give the dataset that a reference means, with its `version`."""
        (found,) = things([self.call("DatasetsClient", "get_ref", dataset_ref=reference)])
        return found

    def create_version(self, dataset: str, message: str) -> str:
        """Begin a version and give its id; it is no version until it is committed."""
        arguments = {"dataset_id": dataset, "message": message}
        return str(self.call("DatasetVersionsClient", "create", **arguments))

    def upload(self, version: str, name: str, text: str) -> None:
        """Put a text file into the version DATASET:ID, which is not committed yet."""
        kind = "text/plain"
        signed = self.call(
            "DatasetVersionsClient",
            "generate_pre_signed_s3_url",
            dataset_version_id=version,
            method="putObject",
            params={"Key": f"/{name}", "ContentType": kind},
        )
        self.ask({"upload": signed["url"], "text": text, "type": kind})

    def commit(self, version: str) -> None:
        arguments = {"dataset_version_id": version, "is_committed": True}
        self.call("DatasetVersionsClient", "update", **arguments)

    def secrets(self, entity: str, id: str | None = None) -> set[str]:
        """Name the secrets of the team or of a project."""
        found = things(self.call("SecretsClient", "list", entity=entity, entity_id=id))
        return {str(secret["name"]) for secret in found}

    def set_secret(self, project: str, name: str, value: str) -> None:
        arguments = {"entity_id": project, "name": name, "value": value}
        self.call("SecretsClient", "set", entity="project", **arguments)

    def workflows(self, project: str) -> list[Thing]:
        """List a project's workflows: id, name."""
        found = things(self.call("WorkflowsClient", "list", project_id=project))
        return [workflow for workflow in found if not workflow.get("dt_deleted")]

    def create_workflow(self, project: str, name: str) -> None:
        self.call("WorkflowsClient", "create", project_id=project, name=name)

    def runs(self, workflow: str) -> list[Thing]:
        """List a workflow's runs: id, status {phase, logId}."""
        return things(self.call("WorkflowsClient", "list_runs", workflow_id=workflow))

    def notebooks(self, project: str) -> list[Thing]:
        """List a project's notebooks: id, name, state."""
        found = self._pages("NotebooksClient", tags=[])
        return [notebook for notebook in found if notebook.get("project_handle") == project]

    def _pages(self, client: str, **arguments: Any) -> list[Thing]:
        found: list[Thing] = []
        while page := things(self.call(client, "list", limit=PAGE, offset=len(found), **arguments)):
            if page[-1] in found:
                raise failure({"failure": "answer", "words": "it gives one page again and again"})
            found += page
            if len(page) < PAGE:
                break
        return found


def failure(answer: Thing) -> Failure:
    """Say in plain words what the service, or the way to it, refused."""
    return ADVICE.failure(answer)


def things(answer: Any) -> list[Thing]:
    """Give the list of mappings that an answer has to be; raises Failure for another one."""
    if not isinstance(answer, list) or not all(isinstance(each, dict) for each in answer):
        raise failure({"failure": "answer", "words": "it is not the list that was asked for"})
    return answer


def named(found: list[Thing], name: str) -> list[Thing]:
    """Give the things of a name."""
    return [thing for thing in found if thing.get("name") == name]


@contextmanager
def connect(root: Path) -> Iterator[Service]:
    """Find the command line, start the agent in its environment, and give the service.

    Raises GradlabError where there is no command line that works, or no API key.
    """
    hidden = ["PAPERSPACE_CLI_DEBUG"]  # which would print the key
    if not os.environ.get("PAPERSPACE_API_KEY"):
        hidden.append("PAPERSPACE_API_KEY")  # empty, it would hide a key that the login stored
    with talk_to(CLIENT, AGENT, ADVICE, _defect, root, hidden) as talk:
        yield Service(talk)


def _defect(greeting: Thing) -> str:
    """Say what is wrong with a command line; raises GradlabError where it is the API key."""
    version = greeting.get("version", "unknown")
    if not version.startswith((VERSION, "unknown")):
        return f"version {version} is another product"
    if "config" in greeting:
        folder = os.environ.get("PAPERSPACE_CONFIG_PATH", "~/.paperspace")
        words = greeting["config"]
        raise GradlabError(f"{folder}/config.json can't be read ({words}): mend or delete it")
    if "unusable" in greeting:
        return f"its Python can't load it ({greeting['unusable']})"
    if greeting["defect"]:
        return f"version {version} dies here: {greeting['defect']}"
    if greeting["key"] == "missing":
        raise GradlabError(f"there is no Paperspace API key: {KEY_HELP}")
    if greeting["key"] == "malformed":
        raise GradlabError(
            "the Paperspace API key holds a space, a line break or another character that no key "
            f"has: {KEY_HELP}"
        )
    return ""
