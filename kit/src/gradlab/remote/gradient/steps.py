"""The steps of a set-up: each looks first, makes what is missing, and looks again.

Promises: a step that was cut off at any moment is finished by doing it again, and one that is
finished changes nothing. Raises Failure, with what would do.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ...run.masking import Mask
from ...spec import credentials
from .service import Failure, Service, Thing, named

State = Literal["found", "made", "to make"]
MESSAGE = "Made by gradlab setup"  # by which a first version that was begun is known again
README = """\
This is the first version of a dataset. It holds nothing but this file, so that a workflow which
reads the dataset before anything has been written to it can begin.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a step; `id` is the service's, empty for what isn't made yet."""

    state: State
    id: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Steps:
    """The steps, at one service; a dry run only looks."""

    service: Service
    dry: bool

    def project(self, wanted: str) -> Outcome:
        """Find a project by its id or name, or make it."""

        def look() -> list[Thing]:
            projects = self.service.projects()
            return [p for p in projects if p["id"] == wanted] or named(projects, wanted)

        advice = "choose one by its id: --project ID"
        return self._ensure(look, lambda: self.service.create_project(wanted), advice)

    def dataset(self, name: str) -> Outcome:
        """Find a dataset and its newest version, or make them."""

        def make() -> None:
            self.service.create_dataset(name, self._storage_provider(name))

        found = self._ensure(lambda: named(self.service.datasets(), name), make)
        if not found.id:
            return found
        if versions := self.service.versions(found.id, committed=True):
            return Outcome(found.state, f"{found.id}:{versions[0]['version']}")
        if self.dry:
            return Outcome("to make", found.id, "its first version")
        return Outcome("made", self._first_version(found.id), "its first version")

    def reference(self, text: str) -> Outcome:
        """Find the version of a dataset that nobody but the user can make."""
        try:
            dataset = self.service.resolve(text)
        except Failure as error:
            if error.status != 404:
                raise
            raise Failure(
                f"there is no dataset, version or tag {text!r}: correct the reference, or make "
                "it: gradient datasets versions create, gradient datasets tags set"
            ) from None
        version = dataset["version"].get("version")
        if not version:
            raise Failure(f"{text!r} has no version: gradient datasets versions create --help")
        return Outcome("found", f"{dataset['id']}:{version}")

    def secret(self, name: str, project: str) -> Outcome:
        """Find a secret of the project or the team, or set it for the project."""
        of_project = self.service.secrets("project", project) if project else set()
        if name in of_project:
            return Outcome("found", remark="of the project")
        if name in self.service.secrets("team"):
            return Outcome("found", remark="of the team")
        if self.dry:
            return Outcome("to make", remark="of the project")
        value = _ask(name)
        try:
            self.service.set_secret(project, name, value)
        except Failure as error:
            raise Failure(Mask([value])(str(error)), error.status, error.fatal) from None
        if name not in self.service.secrets("project", project):
            raise _unseen()
        return Outcome("made", remark="of the project")

    def workflow(self, name: str, project: str) -> Outcome:
        """Find a workflow of the project, or make it."""
        return self._ensure(
            lambda: named(self.service.workflows(project), name) if project else [],
            lambda: self.service.create_workflow(project, name),
        )

    def notebook(self, name: str, options: Path, project: str) -> Outcome:
        """Find a notebook of the project, or make it of an options file; this starts it."""
        said = ""

        def make() -> None:
            nonlocal said
            wanted = ("--optionsFile", str(options), "--projectId", project)
            said = self.service.command("notebooks", "create", *wanted)
            if "Created new notebook with id:" not in said:
                raise Failure(f"gradient notebooks create says: {said.strip() or 'nothing'}")

        found = self._ensure(
            lambda: named(self.service.notebooks(project), name) if project else [], make
        )
        return replace(found, remark="it runs from now on") if said else found

    def _ensure(
        self,
        look: Callable[[], list[Thing]],
        make: Callable[[], None],
        advice: str = "rename or delete all but one in https://console.paperspace.com",
    ) -> Outcome:
        """Look for a thing, make it where it is missing, and look again."""
        if found := _one(look(), advice):
            return Outcome("found", found)
        if self.dry:
            return Outcome("to make")
        make()
        if found := _one(look(), advice):
            return Outcome("made", found)
        raise _unseen()

    def _storage_provider(self, dataset: str) -> str:
        """Choose where a new dataset is kept: the service's own storage, or the only one."""
        providers = self.service.storage_providers()
        own = named(providers, "Gradient Managed") or providers
        if len(own) == 1:
            return str(own[0]["id"])
        there = ", ".join(f"{each['name']} ({each['id']})" for each in own) or "none"
        raise Failure(
            f"the team has several storage providers, or none ({there}): choose, "
            f"gradient datasets create --name {dataset} --storageProviderId ID"
        )

    def _first_version(self, dataset: str) -> str:
        # Others may be those of jobs that are at work, which only they can finish.
        begun = self.service.versions(dataset, committed=False)
        mine = [version["version"] for version in begun if version.get("message") == MESSAGE]
        id = mine[0] if mine else self.service.create_version(dataset, MESSAGE)
        version = f"{dataset}:{id}"
        self.service.upload(version, "README.md", README)
        self.service.commit(version)
        if id not in (each["version"] for each in self.service.versions(dataset, committed=True)):
            raise _unseen()
        return version


def _one(found: list[Thing], advice: str) -> str:
    """Give the id of the thing that was found, "" for none; raises Failure for several."""
    if len(found) > 1:
        ids = ", ".join(str(thing["id"]) for thing in found)
        raise Failure(f"the service has {len(found)} of this name ({ids}): {advice}")
    return str(found[0]["id"]) if found else ""


def _unseen() -> Failure:
    return Failure("the service took it, but does not show it: run it again in a minute")


def _ask(name: str) -> str:
    """Take a secret from the environment, or ask for it without an echo."""
    value = credentials.value_of(name)
    if not value and sys.stdin.isatty():
        value = getpass.getpass(f"Value of the secret {name} (not shown): ")
    if not value:
        raise Failure(
            f"its value is not known: run it in a terminal, which asks, or set the environment "
            f"variable {credentials.variable(name)}"
        )
    return value
