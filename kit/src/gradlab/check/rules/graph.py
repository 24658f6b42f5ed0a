"""Rules on the graph: which job waits for which, and what is handed on."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import islice

from ...spec.document import Document
from ...spec.spec import Job, Port, Spec
from ..habits import reference_advice
from ..registry import Found, rule
from ..words import CANDIDATES, close

_LONGEST_CYCLE = 10  # jobs that a message names


@rule("unknown-need", "error", "a job needs one that does not exist")
def unknown_need(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for place, need in enumerate(job.needs):
            if need not in spec.jobs:
                message = f"job `{job.name}` needs `{need}`, and there is no such job"
                advice = close(need, spec.jobs) or f"remove it, or add a job `{need}`"
                yield document.mark("jobs", job.name, "needs", place), message, advice


@rule("cycle", "error", "jobs wait for each other")
def cycle(spec: Spec, document: Document) -> Found:
    jobs = spec.jobs.values()
    graph = {job.name: [need for need in job.needs if need in spec.jobs] for job in jobs}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        shown = cycle if len(cycle) <= _LONGEST_CYCLE else [*cycle[:_LONGEST_CYCLE], "..."]
        message = "these jobs wait for each other: " + " needs ".join(f"`{job}`" for job in shown)
        yield document.mark("jobs", cycle[0], "needs"), message, "remove one of these needs"


@rule("input-not-needed", "error", "an input comes from a job that is not in `needs`")
def input_not_needed(spec: Spec, document: Document) -> Found:
    for job, port, comes, origin, _ in _handed(spec):
        if origin in spec.jobs and origin not in job.needs:
            message = f"{comes} job `{origin}`, which is not in its `needs`"
            yield port.mark, message, f"add `{origin}` to `needs` of `{job.name}`"


@rule("unknown-output", "error", "an input comes from an output that the other job lacks")
def unknown_output(spec: Spec, document: Document) -> Found:
    for job, port, comes, origin, name in _handed(spec):
        outputs = spec.jobs[origin].outputs if origin in spec.jobs else {}
        if origin in spec.jobs and name not in outputs:
            message = f"{comes} output `{name}` of job `{origin}`, which has no such output"
            advice = close(name, outputs) or f"add `{name}` to `outputs` of `{origin}`"
            yield port.mark, message, advice
        # A need that is unknown is a finding already.
        elif origin not in spec.jobs and origin != "workflow" and origin not in job.needs:
            jobs = {each.name: each.outputs for each in islice(spec.jobs.values(), CANDIDATES)}
            meant = reference_advice(f"{origin}.{name}", jobs, spec.inputs)
            advice = meant or close(origin, spec.jobs) or "name a job of this workflow"
            yield port.mark, f"{comes} job `{origin}`, and there is no such job", advice


@rule("unknown-workflow-input", "error", "an input comes from a workflow input that is missing")
def unknown_workflow_input(spec: Spec, document: Document) -> Found:
    for _, port, comes, origin, name in _handed(spec):
        if origin == "workflow" and origin not in spec.jobs and name not in spec.inputs:
            message = f"{comes} workflow.inputs.{name}, and the workflow has no such input"
            advice = close(name, spec.inputs) or f"add `{name}` to the workflow's `inputs`"
            yield port.mark, message, advice


def _handed(spec: Spec) -> Iterator[tuple[Job, Port, str, str, str]]:
    """Give the inputs that are handed on, each with how a message begins and where it is from."""
    for job in spec.jobs.values():
        for port in job.inputs.values():
            if port.source:
                yield job, port, f"input `{port.name}` of job `{job.name}` comes from", *port.source
