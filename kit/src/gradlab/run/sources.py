"""What the jobs of a workflow take from outside of it, found and checked before anything runs.

Promises: an input without a value, a secret that isn't set and a working tree that git can't list
are errors here, each with the way out, and never after hours of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.errors import GradlabError
from ..engines.environment import passed_on
from ..services import urls
from ..services.table import here
from ..spec import credentials
from ..spec.spec import Job, Port, Spec
from . import reads
from .actions import checkout
from .masking import Mask
from .record import Content
from .repository import Repository


@dataclass(frozen=True)
class Sources:
    """What the jobs of a workflow take from outside of it."""

    spec: Spec
    given: Mapping[str, Content]  # the workflow's own inputs; of datasets the reference
    secrets: Mapping[str, str]
    event: Mapping[str, str]  # context.event.github
    repository: Repository

    def mask(self) -> Mask:
        """Give what hides the secrets of the jobs, and those in what they get of this machine."""
        # Those of the storage too, which a client's own message may hold.
        found = credentials.passed_on(passed_on() | urls.variables())
        found |= {*credentials.logins(*self.event.values())}
        return Mask([*self.secrets.values(), *found])

    def reference(self, port: Port) -> str:
        """Give the reference to a dataset from outside that an input takes, or nothing."""
        if port.source and port.source[0] == "workflow":
            given = self.given.get(port.source[1])
            return given.value if given and given.type == "dataset" else ""
        return (port.ref or "") if port.type == "dataset" and not port.source else ""


def find(
    spec: Spec, selected: Sequence[Job], arguments: Sequence[str], repository: Repository
) -> Sources:
    """Find what some jobs take; `arguments` are NAME=VALUE of the workflow's inputs."""
    for job in selected:
        reads.part(job, spec)
    event = {"url": repository.url, "ref": repository.commit("HEAD"), **_event(spec)}
    _refuse_unlisted(spec, selected, event, repository)
    given, secrets = _given(spec, selected, arguments), _secrets(spec, selected)
    return Sources(spec, given, secrets, event, repository)


def _refuse_unlisted(
    spec: Spec, selected: Sequence[Job], event: Mapping[str, str], repository: Repository
) -> None:
    """Raise GradlabError, before anything runs, where a working tree can't be listed."""
    for job in selected:
        try:
            if checkout.takes_working_tree(job, event, repository):
                repository.paths()
        except GradlabError as error:
            place = f"{spec.path}:{job.mark.line}: job {job.name!r}"
            raise GradlabError(f"{place}: {error}") from error


def _secrets(spec: Spec, selected: Sequence[Job]) -> dict[str, str]:
    places: dict[str, str] = {}
    for job in selected:
        for name in credentials.names_in(job.env, job.parameters):
            places.setdefault(name, f"{spec.path}:{job.mark.line}: job {job.name!r}")
    own = " or, in a notebook, put it into the service's secrets and allow it to be read"
    return credentials.values_of(places, own if here().has_secrets else "")


def _event(spec: Spec) -> dict[str, str]:
    """Give what the spec itself says about context.event.github."""
    event = spec.context.get("event")
    github = event.get("github") if isinstance(event, dict) else None
    said = github.items() if isinstance(github, dict) else ()
    return {str(key): str(value) for key, value in said}


def _given(spec: Spec, selected: Sequence[Job], arguments: Sequence[str]) -> dict[str, Content]:
    """Give the workflow's inputs that have a value; those that the jobs use must have one."""
    values = {}
    for argument in arguments:
        name, equals, values[name] = argument.partition("=")
        if not equals:
            raise GradlabError(f"--input {argument}: write NAME=VALUE")
        if name not in spec.inputs:
            known = ", ".join(spec.inputs) or "none"
            raise GradlabError(f"{spec.path} has no input {name!r}; its inputs: {known}")
    sources = [port.source for job in selected for port in job.inputs.values() if port.source]
    used, given = {name for job, name in sources if job == "workflow"}, {}
    for name, port in sorted(spec.inputs.items()):
        value = values.get(name, port.ref if port.type == "dataset" else port.value)
        if value is None and not port.optional and name in used:
            raise GradlabError(
                f"{spec.path}:{port.mark.line}: the input {name!r} has no value: "
                f"gradlab run {spec.path.stem} --input {name}=VALUE"
            )
        if value is not None or port.optional:
            given[name] = Content(port.type, value or "")
    return given
