"""Rules on what the service runs: on which machines, and after which push.

git is asked for nothing but the names of branches, and only in a repository that has them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ...base import git
from ...spec.document import Document
from ...spec.spec import FOLDER, Job, Spec
from ..registry import Found, rule
from ..shell import Keys, all_texts
from ..words import close, load

_CPU = re.compile(r"C\d+")
_EVENT = "context.event.github."


@rule("unknown-machine", "warning", "no such machine type is known")
def unknown_machine(spec: Spec, document: Document) -> Found:
    if document.get("defaults", "clusterId") is not None:
        return  # a cluster of one's own has machines of its own
    for keys, name in _machines(spec, document):
        if not (name.startswith("Free-") or _is_machine(name)):
            advice = close(name, _types()) or f"known are {', '.join(_types())}"
            yield document.mark(*keys), f"no machine `{name}` is known", advice


@rule("free-machine", "error", "free machines are for notebooks only")
def free_machine(spec: Spec, document: Document) -> Found:
    for keys, name in _machines(spec, document):
        if name.startswith("Free-"):
            message = f"machine `{name}` is free, and free machines are for notebooks only"
            yield document.mark(*keys), message, "choose another, such as `C5` or `A4000`"


def _machines(spec: Spec, document: Document) -> Iterator[tuple[Keys, str]]:
    """Give the machine types that the file names, with the keys that lead to them."""
    for part in (("defaults",), *(("jobs", name) for name in spec.jobs)):
        keys = (*part, "resources", "instance-type")
        if isinstance(name := document.get(*keys), str):
            yield keys, name


def _is_machine(name: str) -> bool:
    """Tell whether a machine type is known, alone or as so many of them: A4000x2."""
    base = re.sub(r"x[248]$", "", name)
    return name in _types() or (base in _types() and not _CPU.fullmatch(base))


@cache
def _types() -> tuple[str, ...]:
    """Give the machine types that are known for workflows, first those with figures."""
    data = load("machines")
    usable = [each["name"] for each in data["machines"] if not each["notebooks_only"]]
    return (*usable, *data["also"])


@rule("registries-place", "error", "container-registries stand outside `defaults.resources`")
def registries_place(spec: Spec, document: Document) -> Found:
    for name in spec.jobs:
        keys = ("jobs", name, "resources", "container-registries")
        if document.get(*keys) is not None:
            message = f"`container-registries` has no effect in job `{name}`"
            yield document.mark(*keys), message, "move it to `defaults: {resources: ...}`"


@rule("event-without-push", "warning", "context.event.github is used in a file that no push runs")
def event_without_push(spec: Spec, document: Document) -> Found:
    for job in [] if spec.pushed else _checkouts(spec):
        for name, value in job.parameters.items():
            known = document.get(*str(value).split(".")) is not None
            if isinstance(value, str) and value.startswith(_EVENT) and not known:
                message = f"`{name}` of job `{job.name}` is `{value}`, which only a push brings, "
                message += "and no push runs this file"
                advice = 'write it out, or add `"on": {github: {branches: {only: main}}}`'
                yield document.mark("jobs", job.name, "with", name), message, advice


@rule("checkout-without-ref", "warning", "the branch's tip is run, not the pushed commit")
def checkout_without_ref(spec: Spec, document: Document) -> Found:
    for job in _checkouts(spec) if spec.pushed else []:
        if "url" in job.parameters and "ref" not in job.parameters:
            message = f"job `{job.name}` takes the branch's tip, which need not be what was pushed"
            advice = "add `ref: context.event.github.ref`, or another repository's commit or tag"
            yield document.mark("jobs", job.name, "with", "url"), message, advice


def _checkouts(spec: Spec) -> list[Job]:
    return [job for job in spec.jobs.values() if job.uses == "git-checkout@v1"]


@rule("unknown-branch", "warning", "`on` names a branch that this repository does not have")
def unknown_branch(spec: Spec, document: Document) -> Found:
    keys = ("on", "github", "branches")
    folder = document.path.absolute().parent
    if folder.parts[-2:] != FOLDER.parts:
        return
    named = [
        (place, name)
        for part in ("only", "include")
        for place, name in all_texts(document.get(*keys, part), (*keys, part))
        if re.fullmatch(r"[\w./-]+", name)
    ]
    known = _branches(folder) if named else set()
    for place, name in named:
        if known and name not in known:
            message = f"`{name}` is no branch of this repository, so that no push runs this file"
            listed = ", ".join(f"`{each}`" for each in sorted(known)[:5])
            advice = f"its branches are {listed}" + ", ..." * (len(known) > 5)
            yield document.mark(*place), message, advice


def _branches(folder: Path) -> set[str]:
    """Give the branches of the repository around a folder, or none if some may be missing."""
    shallow = git.ask(folder, "rev-parse", "--is-shallow-repository")
    fetched = git.ask(folder, "config", "--get-all", "remote.origin.fetch")
    if shallow != "false" or (fetched and "refs/heads/*" not in fetched):
        return set()
    local = git.ask(folder, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
    remote = git.ask(folder, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes")
    current = git.ask(folder, "symbolic-ref", "--short", "HEAD")
    return {*local.split(), *remote.split(), *current.split()} - {"HEAD"}
