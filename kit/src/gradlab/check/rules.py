"""What is wrong with a workflow's meaning: its graph, inputs, datasets, machines and trigger.

Promises: what has the wrong structure is passed over here, for the schema has reported it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.resources import files
from itertools import islice
from pathlib import PurePosixPath

from ..spec.document import Document, Problem
from ..spec.spec import Job, Port, Spec, source
from .habits import reference_advice
from .structure import close

_FILLERS = ("git-checkout@v1", "s3-download@v1")  # actions that write into one output
_CPU = re.compile(r"C\d+")
_EVENT = "context.event.github."
_CANDIDATES = 100  # jobs that are looked at for an output's name
_LONGEST_CYCLE = 10  # jobs that a message names


def meaning(spec: Spec, document: Document) -> Iterator[Problem]:
    """Give what these rules find wrong."""
    for rule in _RULES:
        yield from rule(spec, document)


def needs(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find needed jobs that don't exist, and jobs that wait for each other."""
    graph = {}
    for job in spec.jobs.values():
        graph[job.name] = [need for need in job.needs if need in spec.jobs]
        for place, need in enumerate(job.needs):
            if need not in spec.jobs:
                message = f"job `{job.name}` needs `{need}`, and there is no such job"
                advice = close(need, spec.jobs) or f"remove it, or add a job `{need}`"
                mark = document.mark("jobs", job.name, "needs", place)
                yield Problem(mark, "unknown-need", message, advice)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        shown = cycle if len(cycle) <= _LONGEST_CYCLE else [*cycle[:_LONGEST_CYCLE], "..."]
        message = "these jobs wait for each other: " + " needs ".join(f"`{job}`" for job in shown)
        mark = document.mark("jobs", cycle[0], "needs")
        yield Problem(mark, "cycle", message, "remove one of these needs")


def inputs(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find inputs that come from what does not exist, or from a job that is not needed."""
    for job in spec.jobs.values():
        for port in job.inputs.values():
            if port.source:
                for rule, message, advice in _source(spec, job, *port.source):
                    message = f"input `{port.name}` of job `{job.name}` comes from {message}"
                    yield Problem(port.mark, rule, message, advice)


def _source(spec: Spec, job: Job, origin: str, name: str) -> Iterator[tuple[str, str, str]]:
    if origin == "workflow" and origin not in spec.jobs:
        if name not in spec.inputs:
            message = f"workflow.inputs.{name}, and the workflow has no such input"
            advice = close(name, spec.inputs) or f"add `{name}` to the workflow's `inputs`"
            yield "unknown-workflow-input", message, advice
        return
    if origin not in spec.jobs:
        if origin not in job.needs:  # which is a finding already
            jobs = {each.name: each.outputs for each in islice(spec.jobs.values(), _CANDIDATES)}
            meant = reference_advice(f"{origin}.{name}", jobs, spec.inputs)
            advice = meant or close(origin, spec.jobs) or "name a job of this workflow"
            yield "unknown-output", f"job `{origin}`, and there is no such job", advice
        return
    if origin not in job.needs:
        message = f"job `{origin}`, which is not in its `needs`"
        yield "input-not-needed", message, f"add `{origin}` to `needs` of `{job.name}`"
    outputs = spec.jobs[origin].outputs
    if name not in outputs:
        message = f"output `{name}` of job `{origin}`, which has no such output"
        advice = close(name, outputs) or f"add `{name}` to `outputs` of `{origin}`"
        yield "unknown-output", message, advice


def datasets(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find datasets that are named in a way that is old, or that names a job's output."""
    for keys, port in _ports(spec):
        if document.get(*keys, "with", "id") is not None:
            mark = document.mark(*keys, "with", "id")
            message = f"dataset `{port.ref}` is named by `id`, the old name of `ref`"
            yield Problem(mark, "old-id", message, f"write `ref: {port.ref}`")
        if port.ref and source(port.ref) and port.type == "dataset":
            mark = document.mark(*keys, "with")
            message = f"`{port.ref}` is the output of a job, not the name of a dataset"
            advice = f"write it without `type` and `with`: `{port.name}: {port.ref}`"
            yield Problem(mark, "reference-as-ref", message, advice)


def _ports(spec: Spec) -> Iterator[tuple[tuple[str, ...], Port]]:
    """Give every input and output with the keys that lead to it."""
    yield from ((("inputs", name), port) for name, port in spec.inputs.items())
    for job in spec.jobs.values():
        yield from ((("jobs", job.name, "inputs", name), port) for name, port in job.inputs.items())
        yield from (
            (("jobs", job.name, "outputs", name), port) for name, port in job.outputs.items()
        )


def same_run(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find datasets that are read from outside although an earlier job of the run makes them."""
    made: dict[str, dict[str, str]] = {}  # dataset, job, output
    for job in spec.jobs.values():
        for port in job.outputs.values():
            if port.type == "dataset" and port.ref:
                made.setdefault(port.ref.partition(":")[0], {})[job.name] = port.name
    for job in spec.jobs.values():
        for port in job.inputs.values():
            ref = _newest(spec, port)
            makers = made.get(ref or "", {})
            if maker := _earlier(spec, job, makers.keys() - {job.name}):
                message = f"dataset `{ref}` is read from outside, but job `{maker}` makes it in "
                message += "this run: before its first version that fails, later it may be older"
                advice = f"write `{port.name}: {maker}.outputs.{makers[maker]}`"
                yield Problem(port.mark, "dataset-of-same-run", message, advice)


def _newest(spec: Spec, port: Port) -> str | None:
    """Give the dataset whose newest version an input reads from outside the run, if it does."""
    if port.source and port.source[0] == "workflow":
        port = spec.inputs.get(port.source[1], port)
    if port.type != "dataset" or not port.ref:
        return None
    ref, _, version = port.ref.partition(":")
    return ref if version in ("", "latest") else None


def _earlier(spec: Spec, job: Job, wanted: set[str]) -> str | None:
    """Give one of the wanted jobs that `job` needs, directly or not."""
    if not wanted:
        return None
    seen, ahead = {job.name}, [job.name]
    while ahead:
        for need in spec.jobs[ahead.pop()].needs:
            if need in wanted:
                return need
            if need in spec.jobs and need not in seen:
                seen.add(need)
                ahead.append(need)
    return None


def volumes(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find volumes that are an output for a second time."""
    for job in spec.jobs.values():
        for port in job.outputs.values():
            again = _is_volume(spec, job.inputs.get(port.name)) or source(port.ref or "")
            if port.type == "volume" and again:
                message = f"volume `{port.name}` is an output of job `{job.name}` too; "
                message += "a volume can be an output once, and this one is new and empty"
                advice = "copy what you need from /inputs, and give the output a name of its own"
                yield Problem(port.mark, "volume-twice", message, advice)


def _is_volume(spec: Spec, port: Port | None) -> bool:
    """Tell whether an input is the volume of another job."""
    origin, name = (port and port.source) or ("", "")
    outputs = spec.jobs[origin].outputs if origin in spec.jobs else {}
    return name in outputs and outputs[name].type == "volume"


def fillers(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find actions that fill a folder, and do not say which, or one that is none."""
    for job in spec.jobs.values():
        if job.uses not in _FILLERS:
            continue
        folders = [port.name for port in job.outputs.values() if port.type != "string"]
        path, keys = job.parameters.get("path"), ("jobs", job.name, "outputs")
        if path is None and len(folders) > 1:
            message = f"{job.uses} of job `{job.name}` has {len(folders)} outputs and no `path`"
            advice = f"say which one it fills: `path: /outputs/{folders[0]}`"
            yield Problem(document.mark(*keys), "output-path", message, advice)
        elif job.outputs and not folders:
            message = f"{job.uses} of job `{job.name}` has no output that is a folder"
            advice = "make its output a volume or a dataset"
            yield Problem(document.mark(*keys), "output-path", message, advice)
        elif isinstance(path, str) and folders and not _fills(path, job):
            message = f"`path` of job `{job.name}` is `{path}`, which is in no output"
            advice = f"write `/outputs/{folders[0]}`, or a folder in it"
            mark = document.mark("jobs", job.name, "with", "path")
            yield Problem(mark, "output-path", message, advice)


def _fills(path: str, job: Job) -> bool:
    """Tell whether a path is in an output, or in one that is missing, which is told elsewhere."""
    parts = PurePosixPath(path).parts
    missing = parts[2:3] and parts[2] not in job.outputs
    inside = parts[:2] == ("/", "outputs") and ".." not in parts and len(parts) > 2
    return inside and (bool(missing) or job.outputs[parts[2]].type != "string")


def downloads(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find downloads whose url is no bucket's."""
    for job in spec.jobs.values():
        url = job.parameters.get("url")
        if job.uses != "s3-download@v1" or not isinstance(url, str):
            continue
        if not re.match(r"s3://[^/]+", url) and not url.startswith(("secret:", "workflow.inputs.")):
            message = f"`url` of job `{job.name}` is `{url}`, which is no bucket's"
            advice = "write `s3://BUCKET/PATH`, and the server, where it is not Amazon's, "
            advice += "as `endpoint`"
            mark = document.mark("jobs", job.name, "with", "url")
            yield Problem(mark, "s3-url", message, advice)


@cache
def machine_types() -> tuple[str, ...]:
    """Give the machine types that are known for workflows, first those with figures."""
    data = json.loads(files(__package__).joinpath("machines.json").read_text())
    usable = [each["name"] for each in data["machines"] if not each["notebooks_only"]]
    return (*usable, *data["also"])


def _is_machine(name: str) -> bool:
    """Tell whether a machine type is known, alone or as so many of them: A4000x2."""
    base = re.sub(r"x[248]$", "", name)
    return name in machine_types() or (base in machine_types() and not _CPU.fullmatch(base))


def machines(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find machine types that are unknown or not for workflows."""
    for keys in (("defaults",), *(("jobs", name) for name in spec.jobs)):
        name = document.get(*keys, "resources", "instance-type")
        mark = document.mark(*keys, "resources", "instance-type")
        if not isinstance(name, str):
            continue
        if name.startswith("Free-"):
            message = f"machine `{name}` is free, and free machines are for notebooks only"
            advice = "choose another, such as `C5` or `A4000`"
            yield Problem(mark, "free-machine", message, advice)
        # A cluster of one's own has machines of its own.
        elif not _is_machine(name) and document.get("defaults", "clusterId") is None:
            advice = close(name, machine_types()) or f"known are {', '.join(machine_types())}"
            yield Problem(mark, "unknown-machine", f"no machine `{name}` is known", advice)


def registries(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find container registries where the service does not look for them."""
    for name in spec.jobs:
        keys = ("jobs", name, "resources", "container-registries")
        if document.get(*keys) is not None:
            message = f"`container-registries` has no effect in job `{name}`"
            advice = "move it to `defaults: {resources: ...}`"
            yield Problem(document.mark(*keys), "registries-place", message, advice)


def triggers(spec: Spec, document: Document) -> Iterator[Problem]:
    """Find checkouts that need a push in a workflow that has none, or that ignore its commit."""
    pushed = bool(spec.on and spec.on.get("github"))
    for job in spec.jobs.values():
        if job.uses != "git-checkout@v1":
            continue
        for name, value in job.parameters.items():
            known = pushed or document.get(*str(value).split(".")) is not None
            if isinstance(value, str) and value.startswith(_EVENT) and not known:
                message = f"`{name}` of job `{job.name}` is `{value}`, which only a push brings, "
                message += "and no push runs this file"
                advice = "write it out, or add "
                advice += '`"on": {github: {branches: {only: main}}}`'
                mark = document.mark("jobs", job.name, "with", name)
                yield Problem(mark, "event-without-push", message, advice)
        if pushed and "url" in job.parameters and "ref" not in job.parameters:
            message = f"job `{job.name}` takes the branch's tip, which need not be what was pushed"
            advice = "add `ref: context.event.github.ref`, or another repository's commit or tag"
            mark = document.mark("jobs", job.name, "with", "url")
            yield Problem(mark, "checkout-without-ref", message, advice)


_RULES = (
    needs,
    inputs,
    datasets,
    same_run,
    volumes,
    fillers,
    downloads,
    machines,
    registries,
    triggers,
)
