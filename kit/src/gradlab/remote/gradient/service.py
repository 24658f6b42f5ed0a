"""The service as this project sees it: what is there by which name, and how to make more.

Promises: nothing is believed for having been asked for: what was made is looked up. Every
failure is a `Failure` in plain words, with what would do. An API key or secret goes through
pipes and the environment only: never an argument, a log or a file.

    GRADLAB_GRADIENT_TIMEOUT  seconds that the service may keep silent (60)
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...base.errors import GradlabError
from ...base.terminal import printable
from . import cli

AGENT = Path(__file__).with_name("agent.py")
VERSION = "2.99."
PAGE = 20  # what the command line asks for
KEY_HELP = (
    "make one at https://console.paperspace.com (your team's settings, API keys), and set the "
    "environment variable PAPERSPACE_API_KEY to it"
)
STATUS_PAGE = "https://status.paperspace.com"
LONGEST_WORDS = 300
LONGEST = 1800.0  # seconds for all that one request to the agent asks of the service
ADVICE = {
    401: ("the service does not take the API key", KEY_HELP),
    403: ("the API key may not do this", "take a key of the right team, or ask the team's owner"),
    404: ("the service does not know this", "look at it in https://console.paperspace.com"),
    409: ("this clashes with what is there", "look at it in https://console.paperspace.com"),
    429: ("the service is too busy, or has none free", "run it again in some minutes"),
}
Thing = dict[str, Any]


class Failure(GradlabError):
    """What the service, or the way to it, refused; `status` is HTTP's, 0 for none."""

    def __init__(self, message: str, status: int = 0, fatal: bool = False) -> None:
        super().__init__(message, exit_code=1)
        self.status = status
        self.fatal = fatal  # nothing else can succeed


@dataclass(frozen=True)
class Service:
    """Calls the service, through the command line's own environment."""

    program: Path
    agent: subprocess.Popen[str]

    def call(self, client: str, name: str, /, **arguments: Any) -> Any:
        """Call a method of a client of the SDK; objects come as mappings."""
        return self.ask({"client": client, "method": name, "arguments": arguments})

    def ask(self, request: Mapping[str, Any]) -> Any:
        """Send a request to the agent and give its result; raises Failure."""
        assert self.agent.stdin
        try:
            self.agent.stdin.write(json.dumps(request) + "\n")
            self.agent.stdin.flush()
        except BrokenPipeError:
            pass  # which the missing answer tells
        answer = _read(self.agent)
        if "result" in answer:
            return answer["result"]
        raise failure(answer)

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
    words = " ".join(str(answer.get("words", "")).split())
    words = "" if words.startswith("<") else printable(words[:LONGEST_WORDS])
    status = int(answer.get("status", 0))
    said = ": ".join(part for part in (f"HTTP {status}" if status else "", words) if part)
    match answer.get("failure"):
        case "status" if status in ADVICE:
            what, advice = ADVICE[status]
        case "status" if status >= 500:
            what, advice = "the service failed", f"run it again in some minutes; {STATUS_PAGE}"
        case "status":
            what, advice = "the service refused it", "mend what it names, and run it again"
        case "timeout" | "connection":
            what = "the service can't be reached"
            advice = f"look at your connection and {STATUS_PAGE}, and run it again"
        case "answer":
            what, advice = "the service's answer makes no sense", f"run it again; {STATUS_PAGE}"
        case _:
            what, advice = "the command line's Python ended unexpectedly", "run it again"
    if wait := answer.get("wait"):
        advice += f" (it asks to wait {wait} seconds)"
    fatal = answer.get("failure") not in ("status", "answer") or status == 401
    return Failure(f"{what} ({said}): {advice}" if said else f"{what}: {advice}", status, fatal)


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
    tried: list[str] = []
    for program in cli.candidates():
        with _agent(program, tried) as agent:
            if agent is not None:
                yield Service(program, agent)
                return
    raise cli.missing(root, tried)


@contextmanager
def _agent(program: Path, tried: list[str]) -> Iterator[subprocess.Popen[str] | None]:
    """Run the agent with the Python of a program; gives None, and adds why, where it can't."""
    python = cli.python_of(program)
    if python is None:
        tried.append(f"{program}: which Python runs it can't be told")
        yield None
        return
    command = [str(python), "-I", "-X", "utf8", "-W", "ignore", str(AGENT)]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        agent = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nothing, text=True, env=_environment()
        )
    except OSError as error:
        tried.append(f"{program}: {python} does not start ({error.strerror})")
        yield None
        return
    try:
        defect = _defect(_read(agent))
        tried += [f"{program}: {defect}"] if defect else []
        yield None if defect else agent
    finally:
        agent.kill()
        agent.communicate()


def _environment() -> dict[str, str]:
    hidden = ("PYTHON", "PAPERSPACE_CLI_DEBUG")  # the latter would print the key
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    seconds = env.get("GRADLAB_GRADIENT_TIMEOUT", "60")
    if not re.fullmatch(r"\d+(\.\d+)?", seconds):
        raise GradlabError(f"GRADLAB_GRADIENT_TIMEOUT is {seconds!r}: not a number of seconds")
    if not env.get("PAPERSPACE_API_KEY"):
        env.pop("PAPERSPACE_API_KEY", None)  # empty, it would hide a key that the login stored
    return env


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


def _read(agent: subprocess.Popen[str]) -> Thing:
    assert agent.stdout
    # It has limits of its own, but not for looking up a host's name.
    if not select.select([agent.stdout], [], [], LONGEST)[0]:
        agent.kill()
    line = agent.stdout.readline()
    return dict(json.loads(line)) if line else {"unusable": "it ended without a word"}
