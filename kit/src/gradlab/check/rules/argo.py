"""Rules on a manifest of Argo Workflows: what its own schema lets pass, and its server refuses.

Promises: any manifest can be looked at, whatever shapes it holds. Sources: Argo Workflows v4.1,
workflow/validate/validate.go, docs/retries.md; Kubernetes, resource quantities.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ...spec.document import Document, Problem
from ..registry import Found, declare
from ..words import Path, close, join

KINDS = (
    *("container", "script", "dag", "steps", "resource", "suspend", "data", "http"),
    *("containerSet", "plugin"),
)
POLICIES = ("Always", "OnFailure", "OnError", "OnTransientError")
NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]{0,127}")
TASK = re.compile(r"[\w-]+")  # in `depends`, with what follows a dot left out
QUANTITY = re.compile(r"[+]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
PARAMETER = re.compile(r"\{\{=?\s*workflow\.parameters\.([\w-]+)\s*\}\}")

Find = Callable[[Document], Found]
RULES_OF_MANIFESTS: dict[str, Find] = {}


def rule(name: str, text: str) -> Callable[[Find], Find]:
    """Make a function a rule on manifests of Argo."""

    def add(find: Find) -> Find:
        declare(name, "error", text)
        RULES_OF_MANIFESTS[name] = find
        return find

    return add


def is_manifest(document: Document) -> bool:
    """Tell whether a file is a manifest of Argo's, and no workflow of Gradient's."""
    of_argo = str(document.get("apiVersion") or "").startswith("argoproj.io/")
    return of_argo and document.get("jobs") is None


def problems(document: Document) -> Iterator[Problem]:
    """Give what the rules find wrong in a manifest."""
    for name, find in RULES_OF_MANIFESTS.items():
        for mark, message, advice in find(document):
            yield Problem(mark, name, message, advice)


@rule("argo-name", "Argo: a template or task has a name that Argo refuses, or that another has")
def argo_name(document: Document) -> Found:
    for group in (_templates(document), *_graphs(document)):
        names = [str(each.get("name")) for _, each in group]
        count = Counter(names)
        for (path, each), name in zip(group, names, strict=True):
            if not NAME.fullmatch(name):
                message = f"`{name}` can't be a name in Argo"
                yield document.mark(*path, "name"), message, "use letters, digits and `-`"
            elif count[name] > 1:
                yield document.mark(*path, "name"), f"two are called `{name}`", "rename one"
            elif name[0].isdigit() and ("depends" in each or "dependencies" in each):
                message = f"the task `{name}` waits for others, and its name begins with a digit"
                yield document.mark(*path, "name"), message, f"write `job-{name}`"


@rule("argo-kind", "Argo: a template is of no kind, or of two")
def argo_kind(document: Document) -> Found:
    for path, each in _templates(document):
        kinds = [kind for kind in KINDS if each.get(kind) is not None]
        if len(kinds) != 1:
            what = join(kinds) if kinds else "none of the kinds of a template"
            message = f"the template `{each.get('name')}` has {what}"
            yield document.mark(*path), message, f"give it one of {join(KINDS, 'or')}"


@rule("argo-template", "Argo: a template is named that does not exist")
def argo_template(document: Document) -> Found:
    known = [str(each.get("name")) for _, each in _templates(document)]
    for path, name in _named(document):
        if isinstance(name, str) and name not in known and "{{" not in name:
            advice = close(name, known) or f"there are {join(known)}"
            yield document.mark(*path), f"there is no template `{name}`", advice


@rule("argo-depends", "Argo: a task waits for one that does not exist")
def argo_depends(document: Document) -> Found:
    for graph in _graphs(document):
        known = [str(task.get("name")) for _, task in graph]
        for path, task in graph:
            key = "depends" if "depends" in task else "dependencies"
            for need in _needs(task):
                if need not in known:
                    message = f"the task `{task.get('name')}` waits for `{need}`, which is no task"
                    advice = close(need, known) or f"there are {join(known)}"
                    yield document.mark(*path, key), message, advice


@rule("argo-cycle", "Argo: tasks wait for each other")
def argo_cycle(document: Document) -> Found:
    for graph in _graphs(document):
        places = {str(task.get("name")): path for path, task in graph}
        needs = {str(task.get("name")): _needs(task) & places.keys() for _, task in graph}
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            cycle = error.args[1][::-1]
            message = "these tasks wait for each other: " + join(dict.fromkeys(cycle))
            yield document.mark(*places[cycle[0]]), message, "let one of them wait for none"


@rule("argo-retry-policy", "Argo: a retryPolicy is none of those that there are")
def argo_retry_policy(document: Document) -> Found:
    for path, each in _retries(document):
        policy = each.get("retryPolicy")
        if policy is not None and policy not in POLICIES:
            advice = close(str(policy), POLICIES) or f"write {join(POLICIES, 'or')}"
            yield document.mark(*path, "retryPolicy"), f"`{policy}` is no retryPolicy", advice


@rule("argo-retry-limit", "Argo: retries have no limit, or one that is no number")
def argo_retry_limit(document: Document) -> Found:
    for path, each in _retries(document):
        limit = each.get("limit")
        if not re.fullmatch(r"\d+|\{\{.*\}\}", str(limit)):
            said = "no limit: a job that can't succeed is tried for ever"
            message = f"the retries have {said if limit is None else f'the limit `{limit}`'}"
            yield document.mark(*path, "limit"), message, 'write a number: "20"'


@rule("argo-retry-graph", "Argo: retries that are meant for pods are a graph's as well")
def argo_retry_graph(document: Document) -> Found:
    defaults = _get(document.data, "spec", "templateDefaults", "retryStrategy")
    for path, each in _templates(document):
        graph = next((kind for kind in ("dag", "steps") if kind in each), "")
        if graph and (strategy := each.get("retryStrategy", defaults)):
            message = f"`{each.get('name')}` is done again as a whole where one of its jobs fails"
            where = path if "retryStrategy" in each else ("spec", "templateDefaults")
            if _mapping(strategy):
                advice = "move `retryStrategy` to the templates of its jobs"
                yield document.mark(*where, "retryStrategy"), message, advice


@rule("argo-volume", "Argo: a volume is mounted that is not declared")
def argo_volume(document: Document) -> Found:
    shared = _names(_items(document.data, "spec", "volumes"))
    shared |= {
        str(_get(each, "metadata", "name"))
        for _, each in _items(document.data, "spec", "volumeClaimTemplates")
    }
    for path, template in _templates(document):
        known = shared | _names(_items(template, "volumes"))
        for place, container in _containers(template):
            for where, mount in _items(container, "volumeMounts"):
                if (name := str(mount.get("name"))) not in known:
                    advice = close(name, known) or f"add `{name}` to the workflow's `volumes`"
                    mark = document.mark(*path, *place, *where, "name")
                    yield mark, f"there is no volume `{name}`", advice


@rule("argo-quantity", "Argo: what a container asks for is no quantity of Kubernetes")
def argo_quantity(document: Document) -> Found:
    for path, template in _templates(document):
        for place, container in _containers(template):
            for group in ("requests", "limits"):
                for name, value in _mapping(_get(container, "resources", group)).items():
                    if not QUANTITY.fullmatch(str(value)):
                        where = (*path, *place, "resources", group, name)
                        message = f"`{value}` is no quantity of {name}"
                        yield document.mark(*where), message, "write a number, 500m or 16Gi"


@rule("argo-parameter", "Argo: a parameter of the workflow is used that is not declared")
def argo_parameter(document: Document) -> Found:
    known = _names(_items(document.data, "spec", "arguments", "parameters"))
    told = set(known)
    for path, text in _texts(document.data.get("spec"), ("spec",)):
        for name in PARAMETER.findall(text):
            if name not in told:
                told.add(name)  # the first of its uses is enough
                advice = close(name, known) or f"add `{name}` to `arguments.parameters`"
                yield document.mark(*path), f"the workflow has no parameter `{name}`", advice


Group = list[tuple[Path, dict[str, Any]]]


def _templates(document: Document) -> Group:
    return _items(document.data, "spec", "templates")


def _graphs(document: Document) -> Iterator[Group]:
    """Give the tasks of each template that is a graph."""
    for path, template in _templates(document):
        tasks = _items(template, "dag", "tasks")
        if tasks:
            yield [((*path, *place), task) for place, task in tasks]


def _named(document: Document) -> Iterator[tuple[Path, Any]]:
    """Give the places where a template is named."""
    for key in ("entrypoint", "onExit"):
        if (name := _get(document.data, "spec", key)) is not None:
            yield ("spec", key), name
    for path, template in _templates(document):
        for number, group in enumerate(_list(template.get("steps"))):
            for place, step in _items({"steps": group}, "steps"):
                yield (*path, "steps", number, place[-1], "template"), step.get("template")
        for place, task in _items(template, "dag", "tasks"):
            yield (*path, *place, "template"), task.get("template")


def _needs(task: dict[str, Any]) -> set[str]:
    """Name the tasks that one waits for."""
    depends = re.sub(r"\.\w+", "", str(task.get("depends") or ""))
    return {*TASK.findall(depends), *map(str, _list(task.get("dependencies")))}


def _retries(document: Document) -> Iterator[tuple[Path, dict[str, Any]]]:
    defaults = ("spec", "templateDefaults")
    for path, each in [(defaults, _get(document.data, *defaults)), *_templates(document)]:
        if strategy := _mapping(_get(each, "retryStrategy")):
            yield (*path, "retryStrategy"), strategy


def _containers(template: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for key in ("container", "script"):
        if found := _mapping(template.get(key)):
            yield (key,), found
    for key in ("initContainers", "sidecars"):
        yield from _items(template, key)
    yield from _items(template, "containerSet", "containers")


def _texts(data: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Give all texts in data; those that are read are at most a hundred levels deep."""
    if isinstance(data, str):
        yield path, data
    pairs = data.items() if isinstance(data, dict) else enumerate(_list(data))
    for key, value in pairs:
        yield from _texts(value, (*path, key))


def _items(data: Any, *keys: str) -> Group:
    """Give the mappings in the list at some keys, with their places."""
    found = enumerate(_list(_get(data, *keys)))
    return [((*keys, number), each) for number, each in found if isinstance(each, dict)]


def _names(group: Group) -> set[str]:
    return {str(each.get("name")) for _, each in group}


def _get(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _list(data: Any) -> list[Any]:
    return data if isinstance(data, list) else []
