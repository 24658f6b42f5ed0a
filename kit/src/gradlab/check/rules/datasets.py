"""Rules on datasets and volumes, and on inputs that nothing fills."""

from __future__ import annotations

from collections.abc import Iterator

from ...spec.document import Document
from ...spec.spec import Job, Port, Spec, source
from ..registry import Found, rule


@rule(
    "dataset-of-same-run", "warning", "a dataset is read from outside after an earlier job made it"
)
def dataset_of_same_run(spec: Spec, document: Document) -> Found:
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
                yield port.mark, message, f"write `{port.name}: {maker}.outputs.{makers[maker]}`"


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


@rule("reference-as-ref", "warning", "a dataset's ref is the output of a job")
def reference_as_ref(spec: Spec, document: Document) -> Found:
    for keys, port in _ports(spec):
        if port.ref and source(port.ref) and port.type == "dataset":
            message = f"`{port.ref}` is the output of a job, not the name of a dataset"
            advice = f"write it without `type` and `with`: `{port.name}: {port.ref}`"
            yield document.mark(*keys, "with"), message, advice


@rule("old-id", "warning", "a dataset is named by the old key `id`")
def old_id(spec: Spec, document: Document) -> Found:
    for keys, port in _ports(spec):
        keys = (*keys, "with", "id")
        if document.get(*keys) is not None:
            message = f"dataset `{port.ref}` is named by `id`, the old name of `ref`"
            yield document.mark(*keys), message, f"write `ref: {port.ref}`"


def _ports(spec: Spec) -> Iterator[tuple[tuple[str, ...], Port]]:
    """Give every input and output with the keys that lead to it."""
    yield from ((("inputs", name), port) for name, port in spec.inputs.items())
    for job in spec.jobs.values():
        for folder, ports in (("inputs", job.inputs), ("outputs", job.outputs)):
            yield from ((("jobs", job.name, folder, name), port) for name, port in ports.items())


@rule("volume-twice", "warning", "a volume is an output for a second time")
def volume_twice(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for port in job.outputs.values():
            again = _is_volume(spec, job.inputs.get(port.name)) or source(port.ref or "")
            if port.type == "volume" and again:
                message = f"volume `{port.name}` is an output of job `{job.name}` too; "
                message += "a volume can be an output once, and this one is new and empty"
                advice = "copy what you need from /inputs, and give the output a name of its own"
                yield port.mark, message, advice


def _is_volume(spec: Spec, port: Port | None) -> bool:
    """Tell whether an input is the volume of another job."""
    origin, name = (port and port.source) or ("", "")
    outputs = spec.jobs[origin].outputs if origin in spec.jobs else {}
    return name in outputs and outputs[name].type == "volume"


@rule("input-without-value", "warning", "nothing gives an input its value")
def input_without_value(spec: Spec, document: Document) -> Found:
    for job in spec.jobs.values():
        for port in job.inputs.values():
            given = f"input `{port.name}` of job `{job.name}` is a"
            if port.optional:
                continue
            if port.type == "volume" and not port.source:
                yield port.mark, f"{given} volume of no job: it is empty", _from_job(spec, port)
            elif port.type == "string" and port.value is None:
                advice = "write `with: {value: TEXT}`, or take it: "
                advice += f"`{port.name}: JOB.outputs.NAME`"
                yield port.mark, f"{given} string without a value", advice
    for port in spec.inputs.values() if spec.pushed else ():
        empty = port.value is None if port.type == "string" else not port.ref
        if empty and port.type in ("string", "dataset") and not port.optional:
            message = f"input `{port.name}` of the workflow has no value, and a push brings none"
            what = "value: TEXT" if port.type == "string" else "ref: NAME"
            yield port.mark, message, f"write `with: {{{what}}}`"


def _from_job(spec: Spec, port: Port) -> str:
    makers = [job.name for job in spec.jobs.values() if port.name in job.outputs]
    maker = makers[0] if makers else "JOB"
    name = port.name if makers else "NAME"
    return f"write `{port.name}: {maker}.outputs.{name}`, and `{maker}` in `needs`"
